//! How an installation is now: what others changed of it since, what is missing, what is not ready. Writes nothing; the
//! keeper and `status` call it again and again, so that it lists by kind what it can and asks about the rest.

use std::collections::{HashMap, HashSet};

use k8sctl_types::failure::Failure;
use kube::api::ListParams;
use plugin_plan::readiness::Readiness;
use plugin_plan::{CheckedPlan, Drift, ObjectKey, Planned, compare};
use serde_json::Value;

use super::failures::fields_of;
use super::meta::{Meta, Ownership, decide_ownership, other_manager};
use super::observe::{Observed, entry_of, has_run};
use super::preflight::is_as_seen;
use super::request::{Place, Trouble};
use super::secrets::told;
use super::wait::is_ready_when_there;
use super::{Engine, PLUGIN_LABEL, READS, all_of};
use crate::inventory::Entry;

/// Fields of one object that are named.
const NAMED: usize = 10;

/// Who changed what has no other manager than ours.
pub(super) const NOBODY: &str = "nobody who says so";
/// What is said of an object that is being deleted.
pub(super) const LEAVING: &str = "it is being deleted";

/// All planned objects, in the order of the plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Look {
    /// Each, and how it was.
    pub objects: Vec<(ObjectKey, Seen)>,
}

/// How one object was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// As planned, and ready.
    Fine,
    /// As planned and not ready yet, and why.
    Waiting(String),
    /// It will not become ready by itself, and why.
    Failed(String),
    /// There is none.
    Missing,
    /// Somebody changed it.
    Drifted {
        /// JSON pointers of the fields that are not as planned.
        fields: Vec<String>,
        /// Who has them.
        manager: String,
    },
}

impl Seen {
    /// The higher, the worse.
    fn badness(&self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Waiting(_) => 1,
            Self::Drifted { .. } => 2,
            Self::Missing => 3,
            Self::Failed(_) => 4,
        }
    }
}

impl Look {
    /// The first of the worst; `None`: all is fine.
    pub fn worst(&self) -> Option<(&ObjectKey, &Seen)> {
        let most = self.objects.iter().map(|(_, seen)| seen.badness()).max().filter(|most| *most > 0)?;
        let worst = self.objects.iter().find(|(_, seen)| seen.badness() == most)?;
        Some((&worst.0, &worst.1))
    }

    /// What others changed, a line for each object.
    pub fn drifted(&self) -> Vec<String> {
        let line = |(key, seen): &(ObjectKey, Seen)| match seen {
            Seen::Drifted { fields, manager } => Some(format!("{key}: {} ({manager})", fields.join(", "))),
            Seen::Missing => Some(format!("{key}: it was deleted")),
            _ => None,
        };
        self.objects.iter().filter_map(line).collect()
    }
}

/// What one object's look found; the version is noted where nothing of ours was changed.
struct Looked {
    seen: Seen,
    version: Option<String>,
}

impl Looked {
    fn at(seen: Seen) -> Self {
        Self { seen, version: None }
    }
}

impl Engine {
    /// Every object of the plan as it is now.
    pub async fn look(&self, plan: &CheckedPlan) -> Result<Look, Failure> {
        let entries = self.entries().await?;
        self.learn_kinds(plan.objects.iter().map(|planned| &planned.key)).await;
        let listed = self.list_ours(plan).await?;
        let mut asked = Vec::with_capacity(plan.objects.len());
        for planned in &plan.objects {
            let entry = entry_of(&entries, &planned.key);
            asked.push(self.look_at(plan, planned, entry, listed.get(&planned.key)));
        }
        let (mut look, mut seen) = (Look::default(), Vec::new());
        for (planned, looked) in plan.objects.iter().zip(all_of(READS, asked).await?) {
            seen.extend(looked.version.map(|version| (planned.key.clone(), version)));
            look.objects.push((planned.key.clone(), looked.seen));
        }
        self.inventory.saw(seen).await.map_err(|error| self.store_failure(&error))?;
        Ok(look)
    }

    /// What has our label, by kind: one request for each.
    async fn list_ours(&self, plan: &CheckedPlan) -> Result<HashMap<ObjectKey, Meta>, Failure> {
        let mut kinds: Vec<&ObjectKey> = Vec::new();
        let mut known = HashSet::new();
        for planned in &plan.objects {
            if known.insert((planned.key.api_version(), planned.key.kind.as_str())) {
                kinds.push(&planned.key);
            }
        }
        let mut asked = Vec::with_capacity(kinds.len());
        for kind in kinds {
            asked.push(self.list_kind(kind));
        }
        let mut listed = HashMap::new();
        for of_kind in all_of(READS, asked).await? {
            listed.extend(of_kind);
        }
        Ok(listed)
    }

    async fn list_kind(&self, kind: &ObjectKey) -> Result<Vec<(ObjectKey, Meta)>, Failure> {
        let Some(place) = self.everywhere(kind).await? else { return Ok(Vec::new()) };
        let params = ListParams::default().labels(&format!("{PLUGIN_LABEL}={}", self.plugin));
        let listed = self.tried(kind, || place.list_metadata(&params)).await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(trouble) if trouble.code() == 404 => Vec::new(),
            Err(trouble) => return Err(self.request_failure(kind, "list objects like", &trouble)),
        };
        let keyed = |object: &Value| {
            let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
            let key = ObjectKey { namespace: text("namespace"), name: text("name"), ..kind.clone() };
            (key, self.meta_of(object))
        };
        Ok(listed.iter().map(keyed).collect())
    }

    async fn look_at(
        &self,
        plan: &CheckedPlan,
        planned: &Planned,
        entry: Option<&Entry>,
        listed: Option<&Meta>,
    ) -> Result<Looked, Failure> {
        let key = &planned.key;
        let Some(place) = self.served(key).await? else { return Ok(Looked::at(Seen::Missing)) };
        // Without our label it is in no list.
        let live = match listed {
            Some(live) => Some(live.clone()),
            None => self.meta(&place, key).await?,
        };
        let Some(live) = live else {
            let seen = if has_run(planned, entry) { Seen::Fine } else { Seen::Missing };
            return Ok(Looked::at(seen));
        };
        if live.dying {
            return Ok(Looked::at(Seen::Waiting(LEAVING.to_owned())));
        }
        let whose = decide_ownership(entry, Some(&live));
        if whose == Ownership::Foreign {
            let why = "somebody else made an object of this name";
            return Ok(Looked::at(Seen::Failed(why.to_owned())));
        }
        let seen = Observed { planned, entry, place: Some(place.clone()), live: Some(live.clone()), whose };
        let (mut whole, mut version) = (None, None);
        let is_theirs = matches!(planned.handling.drift, Drift::Ignore) || is_kept(planned, entry);
        if !is_theirs && !is_as_seen(&seen, &live) {
            let Some(object) = self.get(&place, key).await? else { return Ok(Looked::at(Seen::Missing)) };
            if let Some(drifted) = self.drift(planned, &place, &object).await? {
                return Ok(Looked::at(drifted));
            }
            version = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            whole = Some(object);
        }
        if is_ready_when_there(plan, planned) {
            return Ok(Looked { seen: Seen::Fine, version });
        }
        let readiness = match whole {
            Some(object) => {
                let generation = entry.and_then(|entry| entry.generation);
                self.readiness_of(plan, planned, &object, generation).await
            }
            None => self.readiness(plan, planned, entry).await?.1,
        };
        let seen = match readiness {
            Readiness::Ready => Seen::Fine,
            Readiness::Waiting(why) => Seen::Waiting(why),
            Readiness::Failed(why) => Seen::Failed(why),
        };
        Ok(Looked { seen, version })
    }

    /// How an object of ours is not as planned; `None`: it is, or the server does not say now.
    async fn drift(&self, planned: &Planned, place: &Place, live: &Value) -> Result<Option<Seen>, Failure> {
        let key = &planned.key;
        let wanted = self.wanted(planned, Some(live))?;
        let params = self.params(planned, Ownership::Ours).dry_run();
        match self.once(place.apply(&key.name, &params, &wanted)).await {
            Ok(would_be) if compare::same(live, &would_be) => Ok(None),
            Ok(would_be) => {
                let fields = compare::differing(live, &would_be, NAMED);
                let manager = other_manager(live, &fields, &self.manager);
                let manager = manager.unwrap_or_else(|| NOBODY.to_owned());
                Ok(Some(Seen::Drifted { fields, manager }))
            }
            Err(trouble) if trouble.is_field_conflict() => Ok(Some(conflict(&trouble))),
            Err(trouble) if trouble.is_invalid() => Ok(Some(Seen::Failed(told(&planned.object, &trouble)))),
            Err(Trouble::Refused(_)) => Ok(None),
            Err(trouble) => Err(self.request_failure(key, "look at", &trouble)),
        }
    }
}

/// A definition of a later revision, which a rollback left as it is: what the plan has less is no change of others.
fn is_kept(planned: &Planned, entry: Option<&Entry>) -> bool {
    let is_later = |entry: &Entry| !entry.applied_sha256.is_empty() && entry.applied_sha256 != planned.sha256;
    planned.key.is_definition() && entry.is_some_and(is_later)
}

/// A conflict as the server tells of it.
fn conflict(trouble: &Trouble) -> Seen {
    let status = trouble.status();
    let fields = status.map(fields_of).unwrap_or_default().into_iter().map(str::to_owned).collect();
    let causes = status.and_then(|status| status.details.as_ref()).map(|details| &details.causes);
    // conflict with "kubectl-scale" using apps/v1
    let manager = causes.into_iter().flatten().find_map(|cause| cause.message.split('"').nth(1));
    Seen::Drifted { fields, manager: manager.unwrap_or("somebody").to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            namespace: "n".to_owned(),
            name: name.to_owned(),
        }
    }

    #[test]
    fn the_worst_is_told_and_all_drift() {
        let drifted =
            Seen::Drifted { fields: vec!["/data/a".to_owned()], manager: "kubectl-edit".to_owned() };
        let look = Look {
            objects: vec![
                (key("fine"), Seen::Fine),
                (key("waits"), Seen::Waiting("not yet".to_owned())),
                (key("changed"), drifted.clone()),
                (key("gone"), Seen::Missing),
            ],
        };
        assert_eq!(look.worst(), Some((&key("gone"), &Seen::Missing)));
        assert_eq!(
            look.drifted(),
            ["v1 ConfigMap n/changed: /data/a (kubectl-edit)", "v1 ConfigMap n/gone: it was deleted"]
        );
        assert_eq!(Look { objects: vec![(key("fine"), Seen::Fine)] }.worst(), None);
    }
}
