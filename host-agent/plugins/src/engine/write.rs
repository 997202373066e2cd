//! Writes one object: applies it, or deletes it and makes it anew where its fields cannot be changed and the plan
//! allows that. Notes it in the inventory at once. Called by [`super::apply`] and [`super::correct`].

use k8sctl_types::failure::Failure;
use kube::api::{DeleteParams, Preconditions};
use plugin_plan::{ObjectKey, Planned, compare};
use serde_json::Value;

use super::Engine;
use super::failures::is_about_change;
use super::loss::losses;
use super::meta::Ownership;
use super::observe::Observed;
use super::preflight::{Judged, Verdict};
use super::request::{Place, Trouble};
use super::secrets::told;
use super::wait::Gone;

/// How often an object may be another one by the time that it is written.
const LOOKS: usize = 3;

/// What a write left.
pub(super) struct Written {
    /// Digest of the fields that are ours now.
    pub(super) fields: Option<String>,
    /// The `resourceVersion`.
    pub(super) version: String,
    /// `false`: it was as it should be, and nothing was written.
    pub(super) changed: bool,
}

impl Engine {
    /// Does what the preflight found.
    pub(super) async fn write(&self, one: &Judged<'_>) -> Result<Written, Failure> {
        let planned = one.planned();
        let place = self.place_soon(&planned.key).await?;
        if let (Verdict::Replace(fields), Some(live)) = (&one.verdict, &one.seen.live) {
            return self.replace(planned, &place, &live.uid, fields).await;
        }
        let mut adopted = one.seen.whose == Ownership::Foreign;
        // What was judged is sent as it is; what could not be asked about is asked about now.
        let mut ready = match (&one.verdict, &one.wanted) {
            (Verdict::Write, Some(wanted)) => Some((one.seen.whose, wanted.clone())),
            _ => None,
        };
        for _ in 0..LOOKS {
            let (whose, wanted) = match ready.take() {
                Some(ready) => ready,
                None => {
                    let seen = self.observe_one(planned, one.seen.entry, false).await?;
                    if seen.whose == Ownership::Foreign && !adopted {
                        return Err(self.foreign_since(&planned.key));
                    }
                    match self.ask_again(&seen, &place).await? {
                        Asked::Unchanged(written) => return Ok(written),
                        Asked::Wanted(wanted) => (seen.whose, wanted),
                    }
                }
            };
            let params = self.params(planned, whose);
            let key = &planned.key;
            match self.tried(key, || place.apply(&key.name, &params, &wanted)).await {
                Ok(written) => {
                    let verb = if whose == Ownership::Absent { "created" } else { "changed" };
                    return self.note(planned, &written, verb).await;
                }
                // It went, or another one came, since we looked.
                Err(trouble) if trouble.is_other_object() => adopted = false,
                Err(trouble) => return Err(self.write_failure(planned, &trouble)),
            }
        }
        let reason = format!("{} becomes another object each time that it is looked at", planned.key);
        let next =
            "something deletes and makes it again and again: stop that, then run the same command again";
        Err(self.failure("PLUGIN-CONFLICT", reason, next))
    }

    /// What to send for an object that could not be asked about before its kind was there, or that is another one now.
    async fn ask_again(&self, seen: &Observed<'_>, place: &Place) -> Result<Asked, Failure> {
        let (planned, key) = (seen.planned, &seen.planned.key);
        let live = match seen.whose {
            Ownership::Absent => None,
            Ownership::Ours | Ownership::Foreign => self.get(place, key).await?,
        };
        let wanted = self.wanted(planned, live.as_ref())?;
        let params = self.params(planned, seen.whose).dry_run();
        match self.tried(key, || place.apply(&key.name, &params, &wanted)).await {
            Ok(would_be) => {
                let dropped = losses(key, &wanted, &would_be);
                if !dropped.is_empty() {
                    let lines = self.dropped_lines(key, &dropped);
                    let next = "the definition of its kind does not know these fields; report this to the plugin's author";
                    let failure = self.failure("PLUGIN-OBJECT-INVALID", lines[0].clone(), next);
                    return Err(failure.with_evidence(lines.join("\n")));
                }
                if let Some(live) =
                    live.filter(|live| seen.whose == Ownership::Ours && compare::same(live, &would_be))
                {
                    let meta = self.meta_of(&live);
                    self.bind(planned, &meta.uid, &meta.version, meta.generation).await?;
                    return Ok(Asked::Unchanged(Written {
                        fields: meta.fields,
                        version: meta.version,
                        changed: false,
                    }));
                }
                Ok(Asked::Wanted(wanted))
            }
            // No answer: the write itself has one.
            Err(trouble) if trouble.message().contains("does not support dry run") => {
                Ok(Asked::Wanted(wanted))
            }
            Err(trouble) if trouble.is_other_object() => Ok(Asked::Wanted(wanted)),
            Err(trouble) => Err(self.write_failure(planned, &trouble)),
        }
    }

    /// Deletes the object of this UID and makes it anew.
    async fn replace(
        &self,
        planned: &Planned,
        place: &Place,
        uid: &str,
        fields: &[String],
    ) -> Result<Written, Failure> {
        let key = &planned.key;
        self.say(format!("making {key} anew: its {} cannot be changed", fields.join(", ")));
        // The pods of a StatefulSet, and what they hold, go on.
        let params = if key.group == "apps" && key.kind == "StatefulSet" {
            DeleteParams::orphan()
        } else {
            DeleteParams::background()
        };
        self.delete_one(place, key, uid, params).await?;
        self.wait_gone(place, key, uid, Gone::Replaced).await?;
        (self.points)("after-replaced");
        let wanted = self.wanted(planned, None)?;
        let params = self.params(planned, Ownership::Absent);
        match self.tried(key, || place.apply(&key.name, &params, &wanted)).await {
            Ok(written) => self.note(planned, &written, "made anew").await,
            Err(trouble) => Err(self.write_failure(planned, &trouble)),
        }
    }

    /// Begins to delete the object of this UID; `false`: there is none of it any more.
    pub(super) async fn delete_one(
        &self,
        place: &Place,
        key: &ObjectKey,
        uid: &str,
        params: DeleteParams,
    ) -> Result<bool, Failure> {
        let only_this = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = params.preconditions(only_this);
        match self.tried(key, || place.delete(&key.name, &params)).await {
            Ok(()) => Ok(true),
            Err(trouble) if trouble.code() == 404 || trouble.is_other_object() => Ok(false),
            Err(trouble) => Err(self.request_failure(key, "delete", &trouble)),
        }
    }

    async fn note(&self, planned: &Planned, written: &Value, verb: &str) -> Result<Written, Failure> {
        let meta = self.meta_of(written);
        (self.points)("before-bind");
        self.bind(planned, &meta.uid, &meta.version, meta.generation).await?;
        (self.points)("after-write");
        self.say(format!("{verb} {}", planned.key));
        Ok(Written { fields: meta.fields, version: meta.version, changed: true })
    }

    /// Somebody made an object of this name after we looked.
    pub(super) fn foreign_since(&self, key: &ObjectKey) -> Failure {
        let reason = format!("somebody else made {key} while this was applied");
        let next = "rename or delete it, then run the same command again";
        self.failure("PLUGIN-OBJECT-FOREIGN", reason, next)
    }

    fn write_failure(&self, planned: &Planned, trouble: &Trouble) -> Failure {
        let (key, said) = (&planned.key, told(&planned.object, trouble));
        if trouble.status().is_some_and(is_about_change) {
            let next =
                "keep the field as it is, or delete the object yourself and run the same command again";
            return self.failure("PLUGIN-IMMUTABLE", format!("{key} cannot be changed: {said}"), next);
        }
        self.request_failure_saying(key, "apply", trouble, &said)
    }
}

/// What to do with an object that was asked about late.
enum Asked {
    /// It is as it should be.
    Unchanged(Written),
    /// This is to be sent.
    Wanted(Value),
}
