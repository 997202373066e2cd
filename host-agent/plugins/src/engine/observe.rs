//! What is there before anything is written: each planned object's metadata, and whose it is. One request per object,
//! so that an installation that is as it should be costs no more than that. Called by [`super::apply`] and others.

use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, ObjectKey, Planned};
use serde_json::Value;

use super::meta::{Meta, Ownership, decide_ownership};
use super::request::{Place, Trouble};
use super::wait::Gone;
use super::{Engine, READS, all_of};
use crate::inventory::Entry;

/// A planned object and what is there of it.
pub(super) struct Observed<'p> {
    pub(super) planned: &'p Planned,
    pub(super) entry: Option<&'p Entry>,
    /// `None`: its kind is not served.
    pub(super) place: Option<Place>,
    pub(super) live: Option<Meta>,
    pub(super) whose: Ownership,
}

impl Engine {
    /// All of a plan. With `patient`, what is on its way out is waited for; without, it counts as gone.
    pub(super) async fn observe<'p>(
        &self,
        plan: &'p CheckedPlan,
        entries: &'p [Entry],
        patient: bool,
    ) -> Result<Vec<Observed<'p>>, Failure> {
        self.learn_kinds(plan.objects.iter().map(|planned| &planned.key)).await;
        let mut asked = Vec::with_capacity(plan.objects.len());
        for planned in &plan.objects {
            asked.push(self.observe_one(planned, entry_of(entries, &planned.key), patient));
        }
        all_of(READS, asked).await
    }

    pub(super) async fn observe_one<'p>(
        &self,
        planned: &'p Planned,
        entry: Option<&'p Entry>,
        patient: bool,
    ) -> Result<Observed<'p>, Failure> {
        let key = &planned.key;
        // A kind that the plan itself brings is not served yet, so it has no objects.
        let Some(place) = self.served(key).await? else {
            return Ok(Observed { planned, entry, place: None, live: None, whose: Ownership::Absent });
        };
        let mut live = self.meta(&place, key).await?;
        if let Some(dying) = live.as_ref().filter(|live| live.dying) {
            if patient {
                self.say(format!("waiting for the old {key} to be gone"));
                let how = if key.is_namespace() { Gone::NamespaceFirst } else { Gone::Leaving };
                self.wait_gone(&place, key, &dying.uid, how).await?;
                live = self.meta(&place, key).await?;
            } else {
                live = None;
            }
        }
        let whose = decide_ownership(entry, live.as_ref());
        Ok(Observed { planned, entry, place: Some(place), live, whose })
    }

    /// The metadata of a live object.
    pub(super) async fn meta(&self, place: &Place, key: &ObjectKey) -> Result<Option<Meta>, Failure> {
        let answer = self.tried(key, || place.metadata(&key.name)).await;
        Ok(self.present(key, answer)?.map(|object| self.meta_of(&object)))
    }

    /// A live object.
    pub(super) async fn get(&self, place: &Place, key: &ObjectKey) -> Result<Option<Value>, Failure> {
        let answer = self.tried(key, || place.get(&key.name)).await;
        self.present(key, answer)
    }

    pub(super) fn meta_of(&self, object: &Value) -> Meta {
        Meta::of(object, &self.owner, &self.manager)
    }

    fn present(&self, key: &ObjectKey, answer: Result<Value, Trouble>) -> Result<Option<Value>, Failure> {
        match answer {
            Ok(object) => Ok(Some(object)),
            // Without its kind there is no object.
            Err(trouble) if trouble.code() == 404 => Ok(None),
            Err(trouble) => Err(self.request_failure(key, "read", &trouble)),
        }
    }
}

pub(super) fn entry_of<'a>(entries: &'a [Entry], key: &ObjectKey) -> Option<&'a Entry> {
    entries.iter().find(|entry| entry.key.same_object(key))
}

/// Whether an object that is not there was, did what it was for, and went by itself: a Job that Kubernetes deletes when
/// it has finished.
pub(super) fn has_run(planned: &Planned, entry: Option<&Entry>) -> bool {
    let goes = planned.object.pointer("/spec/ttlSecondsAfterFinished").is_some_and(Value::is_number);
    let is_job = planned.key.group == "batch" && planned.key.kind == "Job";
    let was_made = entry.is_some_and(|entry| entry.uid.is_some() && entry.applied_sha256 == planned.sha256);
    goes && is_job && was_made
}

#[cfg(test)]
mod tests {
    use plugin_plan::Stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_kubernetes_deletes_is_not_run_again_unless_it_is_another_one() {
        let key = ObjectKey {
            group: "batch".to_owned(),
            version: "v1".to_owned(),
            kind: "Job".to_owned(),
            namespace: "n".to_owned(),
            name: "certificates".to_owned(),
        };
        let planned = |ttl: Value| Planned {
            key: key.clone(),
            object: json!({"spec": {"ttlSecondsAfterFinished": ttl}}),
            stage: Stage::Workloads,
            handling: Default::default(),
            sha256: "d".to_owned(),
        };
        let entry = |uid: Option<&str>, digest: &str| Entry {
            key: key.clone(),
            uid: uid.map(str::to_owned),
            applied_sha256: digest.to_owned(),
            seen_version: String::new(),
            generation: None,
            keep: false,
        };
        let made = entry(Some("u"), "d");
        assert!(has_run(&planned(json!(0)), Some(&made)));
        assert!(!has_run(&planned(Value::Null), Some(&made)), "nobody deletes it");
        assert!(!has_run(&planned(json!(0)), Some(&entry(Some("u"), "other"))));
        assert!(!has_run(&planned(json!(0)), Some(&entry(None, ""))) && !has_run(&planned(json!(0)), None));
    }
}
