//! Asks the server what it would say to each object, before anything is written. A field that it would drop is a refusal
//! like one that it does not take; an object that would stay as it is is left alone from here on. Writes nothing.
//!
//! Objects of namespaces that the plan makes are asked about under a made-up name in `default`: for the server nothing
//! can be made in a namespace that is not there. Objects of kinds that the plan brings cannot be asked about at all.

use std::collections::HashSet;

use k8sctl_types::failure::Failure;
use kube::api::PatchParams;
use plugin_plan::{CheckedPlan, Drift, ObjectKey, Planned, compare, hash, immutable};
use serde_json::{Value, json};

use super::apply::Consent;
use super::failures::{fields_of, is_about_change};
use super::loss::losses;
use super::meta::{Meta, Ownership};
use super::observe::{Observed, has_run};
use super::request::{Place, Trouble};
use super::secrets::{holds_secrets, told};
use super::{Engine, MANAGED_BY_LABEL, OWNER_ANNOTATION, PLUGIN_LABEL, all_of};

/// Fields of one object that are named; the others are counted.
const NAMED: usize = 5;

/// What is to be done with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: it is as it should be, or others' from now on.
    Unchanged,
    /// Apply it.
    Write,
    /// Ask again when its kind is there.
    AskAtWrite,
    /// Delete it and make it anew: these fields cannot be changed.
    Replace(Vec<String>),
}

/// A planned object, what is there, and what is to be done.
pub(super) struct Judged<'p> {
    pub(super) seen: Observed<'p>,
    pub(super) verdict: Verdict,
    /// What is sent; `None`: not made yet.
    pub(super) wanted: Option<Value>,
    /// What is there and what the server would make of it; only where it was asked, and there is such.
    pub(super) live: Option<Value>,
    pub(super) would_be: Option<Value>,
}

impl<'p> Judged<'p> {
    pub(super) fn new(seen: Observed<'p>, verdict: Verdict) -> Self {
        Self { seen, verdict, wanted: None, live: None, would_be: None }
    }

    pub(super) fn planned(&self) -> &'p Planned {
        self.seen.planned
    }

    pub(super) fn is_to_do(&self) -> bool {
        self.verdict != Verdict::Unchanged
    }
}

/// Why nothing at all is written.
enum Refusal {
    /// The kind is not served, and the plan does not bring it.
    Unknown(ObjectKey),
    /// The server does not take it as it is; line by line.
    Invalid(Vec<String>),
    /// Another manager has fields that we do not take by force.
    Conflict(String),
    /// It would have to be made anew, and may not.
    Immutable(String),
    /// Something else went wrong.
    Failed(Failure),
}

/// What there is to know of a plan as a whole.
pub(super) struct View {
    /// Kinds that it brings: (group, kind).
    defined: HashSet<(String, String)>,
    /// Namespaces that it makes and that are not there yet.
    absent: HashSet<String>,
    consent: Consent,
}

impl View {
    pub(super) fn of(plan: &CheckedPlan, seen: &[Observed<'_>], consent: Consent) -> Self {
        let definitions = plan.objects.iter().filter(|planned| planned.key.is_definition());
        let kind = |planned: &Planned| {
            let text = |pointer: &str| Some(planned.object.pointer(pointer)?.as_str()?.to_owned());
            Some((text("/spec/group")?, text("/spec/names/kind")?))
        };
        let absent = seen.iter().filter(|seen| seen.planned.key.is_namespace() && seen.live.is_none());
        Self {
            defined: definitions.filter_map(kind).collect(),
            absent: absent.map(|seen| seen.planned.key.name.clone()).collect(),
            consent,
        }
    }

    fn defines(&self, key: &ObjectKey) -> bool {
        self.defined.contains(&(key.group.clone(), key.kind.clone()))
    }
}

impl Engine {
    /// Judges all; every refusal is in the one failure.
    pub(super) async fn preflight<'p>(
        &self,
        seen: Vec<Observed<'p>>,
        view: &View,
    ) -> Result<Vec<Judged<'p>>, Failure> {
        let mut asked = Vec::with_capacity(seen.len());
        for seen in seen {
            asked.push(self.judge_or_fail(seen, view));
        }
        let (mut judged, mut refusals) = (Vec::new(), Vec::new());
        for answer in all_of(self.limits.parallel, asked).await? {
            match answer {
                Ok(one) => judged.push(one),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if refusals.is_empty() { Ok(judged) } else { Err(self.refused(refusals)) }
    }

    fn refused(&self, refusals: Vec<Refusal>) -> Failure {
        let (mut lines, mut worst) = (Vec::new(), "PLUGIN-CONFLICT");
        let mut unknown = true;
        for refusal in refusals {
            unknown &= matches!(refusal, Refusal::Unknown(_));
            match refusal {
                Refusal::Unknown(key) => {
                    worst = "PLUGIN-OBJECT-INVALID";
                    let kind = format!("{} {}", key.api_version(), key.kind);
                    lines.push(format!("{key}: {} serves no {kind}", self.kubernetes));
                }
                Refusal::Invalid(more) => {
                    worst = "PLUGIN-OBJECT-INVALID";
                    lines.extend(more);
                }
                Refusal::Immutable(line) => {
                    if worst == "PLUGIN-CONFLICT" {
                        worst = "PLUGIN-IMMUTABLE";
                    }
                    lines.push(line);
                }
                Refusal::Conflict(line) => lines.push(line),
                Refusal::Failed(failure) => lines.push(failure.to_string()),
            }
        }
        let id = if unknown { "PLUGIN-KIND-UNKNOWN" } else { worst };
        let next = match id {
            "PLUGIN-KIND-UNKNOWN" => {
                "nothing was changed; install the plugin that brings this kind, or a newer Kubernetes"
            }
            "PLUGIN-CONFLICT" => {
                "nothing was changed; undo the other program's change, or delete the object, and run the same command again"
            }
            "PLUGIN-IMMUTABLE" => {
                "nothing was changed; keep the field as it is, or delete the object yourself and run the same command again"
            }
            _ => {
                "nothing was changed; this Kubernetes does not take it: use another version of the plugin or of Kubernetes"
            }
        };
        let first = lines.first().cloned().unwrap_or_default();
        let more = lines.len().saturating_sub(1);
        let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
        self.failure(id, format!("{first}{more}"), next).with_evidence(lines.join("\n"))
    }

    /// A refusal is an answer like any other; what went wrong otherwise is none.
    async fn judge_or_fail<'p>(
        &self,
        seen: Observed<'p>,
        view: &View,
    ) -> Result<Result<Judged<'p>, Refusal>, Failure> {
        match self.judge(seen, view).await {
            Err(Refusal::Failed(failure)) => Err(failure),
            answer => Ok(answer),
        }
    }

    async fn judge<'p>(&self, seen: Observed<'p>, view: &View) -> Result<Judged<'p>, Refusal> {
        let planned = seen.planned;
        let key = &planned.key;
        if self.is_left_alone(&seen, view) {
            return Ok(Judged::new(seen, Verdict::Unchanged));
        }
        if view.defines(key) {
            return Ok(Judged::new(seen, Verdict::AskAtWrite));
        }
        let Some(place) = seen.place.clone() else { return Err(Refusal::Unknown(key.clone())) };
        if seen.whose == Ownership::Absent && view.absent.contains(&key.namespace) {
            return self.judge_elsewhere(seen).await;
        }

        let live = self.live(&seen, &place).await.map_err(Refusal::Failed)?;
        let wanted = self.wanted(planned, live.as_ref()).map_err(Refusal::Failed)?;
        let params = self.params(planned, seen.whose).dry_run();
        let verdict = match self.tried(key, || place.apply(&key.name, &params, &wanted)).await {
            Ok(would_be) => {
                self.refuse_dropped(planned, &wanted, &would_be)?;
                let is_same = live.as_ref().is_some_and(|live| compare::same(live, &would_be));
                let is_unchanged = seen.whose == Ownership::Ours && is_same;
                let verdict = if is_unchanged { Verdict::Unchanged } else { Verdict::Write };
                let judged = Judged {
                    wanted: Some(wanted),
                    live,
                    would_be: Some(would_be),
                    ..Judged::new(seen, verdict)
                };
                return Ok(judged);
            }
            Err(trouble) => self.decide_trouble(planned, &trouble)?,
        };
        if matches!(verdict, Verdict::Replace(_)) {
            self.judge_replacement(planned).await?;
        }
        Ok(Judged { wanted: Some(wanted), live, ..Judged::new(seen, verdict) })
    }

    /// Nothing to ask about: it is as we saw it last, it has come and gone, or the plan wants it left to others once it
    /// is there.
    fn is_left_alone(&self, seen: &Observed<'_>, view: &View) -> bool {
        if seen.whose == Ownership::Absent {
            return has_run(seen.planned, seen.entry);
        }
        let (Ownership::Ours, Some(live)) = (seen.whose, &seen.live) else { return false };
        let planned = seen.planned;
        let stays = view.consent.keep_definitions && planned.key.is_definition();
        stays || matches!(planned.handling.drift, Drift::Ignore) || is_as_seen(seen, live)
    }

    /// What the server says to a dry run, where it says no.
    fn decide_trouble(&self, planned: &Planned, trouble: &Trouble) -> Result<Verdict, Refusal> {
        let key = &planned.key;
        if trouble.message().contains("does not support dry run") {
            return Ok(Verdict::Write);
        }
        if trouble.is_field_conflict() {
            return Err(Refusal::Conflict(format!("{key}: {}", told(&planned.object, trouble))));
        }
        // It went while we looked, and writing looks again; or it needs what the plan makes before it.
        if trouble.is_other_object() || trouble.code() == 403 && trouble.message().contains("not found") {
            return Ok(Verdict::Write);
        }
        if let Some(status) = trouble.status().filter(|status| is_about_change(status)) {
            let fields: Vec<String> = fields_of(status).into_iter().map(str::to_owned).collect();
            let may = !fields.is_empty() && fields.iter().all(|field| immutable::may_replace(key, field));
            if may && planned.handling.replace {
                return Ok(Verdict::Replace(fields));
            }
            let why = if may { "the plugin does not ask for that" } else { "that would lose what it holds" };
            let said = told(&planned.object, trouble);
            let line = format!("{key} cannot be changed, and is not made anew, for {why}: {said}");
            return Err(Refusal::Immutable(line));
        }
        if trouble.is_invalid() {
            let said = told(&planned.object, trouble);
            return Err(Refusal::Invalid(invalid_lines(&self.kubernetes, key, &said)));
        }
        if trouble.code() == 404 && trouble.message().contains("namespaces") {
            let namespace = &key.namespace;
            let line = format!("{key}: there is no namespace {namespace}, and the plan does not make it");
            return Err(Refusal::Invalid(vec![line]));
        }
        let said = told(&planned.object, trouble);
        Err(Refusal::Failed(self.request_failure_saying(key, "try to apply", trouble, &said)))
    }

    /// An object of a namespace that is not there yet.
    async fn judge_elsewhere<'p>(&self, seen: Observed<'p>) -> Result<Judged<'p>, Refusal> {
        self.judge_copy(seen.planned, "default").await?;
        let wanted = self.wanted(seen.planned, None).map_err(Refusal::Failed)?;
        Ok(Judged { wanted: Some(wanted), ..Judged::new(seen, Verdict::Write) })
    }

    /// Whether an object that must be made anew could be made at all. A Service's copy would want the addresses of the
    /// one that is there; what has no namespace is known by its name.
    async fn judge_replacement(&self, planned: &Planned) -> Result<(), Refusal> {
        let key = &planned.key;
        if key.namespace.is_empty() || key.kind == "Service" {
            return Ok(());
        }
        self.judge_copy(planned, &key.namespace).await
    }

    /// Asks about a copy of another name: that it may not be made there, or exists, is no answer.
    async fn judge_copy(&self, planned: &Planned, namespace: &str) -> Result<(), Refusal> {
        let key = &planned.key;
        let digest = hash::sha256_hex(key.to_string().as_bytes());
        let name = format!("k8sctl-preflight-{}", &digest[..8]);
        let elsewhere = ObjectKey { namespace: namespace.to_owned(), name, ..key.clone() };
        let place = self.place(&elsewhere).await.map_err(Refusal::Failed)?;
        let mut copy = self.wanted(planned, None).map_err(Refusal::Failed)?;
        copy["metadata"]["namespace"] = json!(elsewhere.namespace);
        copy["metadata"]["name"] = json!(elsewhere.name);
        let params = self.params(planned, Ownership::Absent).dry_run();
        match self.tried(&elsewhere, || place.apply(&elsewhere.name, &params, &copy)).await {
            Ok(would_be) => self.refuse_dropped(planned, &copy, &would_be),
            Err(trouble) if trouble.is_invalid() => self.decide_trouble(planned, &trouble).map(drop),
            Err(trouble) if matches!(trouble.code(), 403 | 404 | 409) => Ok(()),
            Err(trouble) => {
                let said = told(&planned.object, &trouble);
                Err(Refusal::Failed(self.request_failure_saying(key, "try to apply", &trouble, &said)))
            }
        }
    }

    fn refuse_dropped(&self, planned: &Planned, wanted: &Value, would_be: &Value) -> Result<(), Refusal> {
        let dropped = losses(&planned.key, wanted, would_be);
        if dropped.is_empty() {
            Ok(())
        } else {
            Err(Refusal::Invalid(self.dropped_lines(&planned.key, &dropped)))
        }
    }

    pub(super) fn dropped_lines(&self, key: &ObjectKey, dropped: &[String]) -> Vec<String> {
        let line = |pointer: &String| format!("{} would drop {pointer} of {key}", self.kubernetes);
        let mut lines: Vec<String> = dropped.iter().take(NAMED).map(line).collect();
        if dropped.len() > NAMED {
            lines.push(format!("and {} more fields of {key}", dropped.len() - NAMED));
        }
        lines
    }

    /// The whole live object, where there is one that is to be changed.
    async fn live(&self, seen: &Observed<'_>, place: &Place) -> Result<Option<Value>, Failure> {
        match seen.whose {
            Ownership::Absent => Ok(None),
            Ownership::Ours | Ownership::Foreign => self.get(place, &seen.planned.key).await,
        }
    }

    /// What is sent for a planned object: values of secrets, fields that others may set as they are, and our marks. The
    /// UID makes the server refuse where the object was replaced since we looked.
    pub(super) fn wanted(&self, planned: &Planned, live: Option<&Value>) -> Result<Value, Failure> {
        let mut wanted = self.with_secrets(&planned.object)?;
        if let Some(live) = live {
            compare::copy_through(&mut wanted, live, &planned.handling.leave);
        }
        let mut mark = |map: &str, name: &str, value: &str| {
            let map = &mut wanted["metadata"][map];
            if !map.is_object() {
                *map = json!({});
            }
            map[name] = json!(value);
        };
        mark("labels", MANAGED_BY_LABEL, "k8sctl");
        mark("labels", PLUGIN_LABEL, &self.plugin);
        mark("annotations", OWNER_ANNOTATION, &self.owner);
        if let Some(live) = live {
            wanted["metadata"]["uid"] = live["metadata"]["uid"].clone();
        }
        Ok(wanted)
    }

    /// Fields that others took are taken back where the object is ours, or is taken over; elsewhere they are a conflict.
    pub(super) fn params(&self, planned: &Planned, whose: Ownership) -> PatchParams {
        let params = PatchParams::apply(&self.manager).validation_strict();
        match whose {
            Ownership::Ours if matches!(planned.handling.drift, Drift::Correct) => params.force(),
            Ownership::Foreign => params.force(),
            Ownership::Ours | Ownership::Absent => params,
        }
    }
}

/// The plan wants what it wanted, and nobody has written to the object since we saw it so. A secret's value may be
/// another one.
pub(super) fn is_as_seen(seen: &Observed<'_>, live: &Meta) -> bool {
    let Some(entry) = seen.entry else { return false };
    entry.uid.as_deref() == Some(live.uid.as_str())
        && !entry.applied_sha256.is_empty()
        && entry.applied_sha256 == seen.planned.sha256
        && entry.seen_version == live.version
        && !holds_secrets(&seen.planned.object)
}

/// What a server says of an object that it does not take: one line where it names one field, and a line for each of several,
/// which it tells in lines of their own.
fn invalid_lines(kubernetes: &str, key: &ObjectKey, said: &str) -> Vec<String> {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = |said: &str| format!("{kubernetes} does not take {key}: {}", words(said));
    // failed to create typed patch object: errors:
    let Some((_, fields)) = said.split_once('\n').filter(|(head, _)| head.trim_end().ends_with("errors:"))
    else {
        return vec![line(said)];
    };
    let fields: Vec<&str> = fields.lines().filter(|field| !field.trim().is_empty()).collect();
    let mut lines: Vec<String> = fields.iter().take(NAMED).copied().map(line).collect();
    if fields.len() > NAMED {
        lines.push(format!("and {} more fields of {key}", fields.len() - NAMED));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_that_a_server_does_not_take_has_a_line_with_object_and_version() {
        let key = ObjectKey {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            kind: "Deployment".to_owned(),
            namespace: "n".to_owned(),
            name: "d".to_owned(),
        };
        let lines = |said: &str| invalid_lines("v1.20.2", &key, said);
        let one = "failed to create typed patch object: .spec.a: field not declared in schema";
        assert_eq!(lines(one), [format!("v1.20.2 does not take apps/v1 Deployment n/d: {one}")]);
        let several = "failed to create typed patch object: errors:\n  .spec.a: field not declared in schema\n  .spec.b: \
                       field not declared in schema";
        let field = |name: &str| {
            format!(
                "v1.20.2 does not take apps/v1 Deployment n/d: .spec.{name}: field not declared in schema"
            )
        };
        assert_eq!(lines(several), [field("a"), field("b")]);
        let many: String = (0..9).map(|number| format!("\n  .spec.f{number}: no")).collect();
        let many = lines(&format!("errors:{many}"));
        assert_eq!((many.len(), many[5].as_str()), (6, "and 4 more fields of apps/v1 Deployment n/d"));
        assert_eq!(lines("it is\n  wrong"), ["v1.20.2 does not take apps/v1 Deployment n/d: it is wrong"]);
    }
}
