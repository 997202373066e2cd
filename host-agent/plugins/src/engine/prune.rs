//! What an earlier plan had and this one does not: decided by the inventory, never by labels, and before anything is
//! written. Never what holds other things or data.

use k8sctl_types::failure::Failure;
use plugin_plan::CheckedPlan;

use super::Engine;
use super::apply::Consent;
use crate::inventory::Entry;

/// Kinds that only `remove` deletes.
const KEPT: [&str; 5] =
    ["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim", "StorageClass"];

/// So many may always go at once.
const FEW: usize = 5;

/// Entries that a plan has no more: those that go, and those that stay.
pub(super) struct Doomed {
    pub(super) gone: Vec<Entry>,
    pub(super) kept: Vec<Entry>,
}

/// Pure: what goes with this plan.
pub(super) fn decide_prune(plan: &CheckedPlan, entries: &[Entry]) -> Doomed {
    let planned = |entry: &&Entry| plan.objects.iter().any(|planned| planned.key.same_object(&entry.key));
    let extra = entries.iter().filter(|entry| !planned(entry)).cloned();
    let stays = |entry: &Entry| entry.keep || KEPT.contains(&entry.key.kind.as_str());
    let (kept, gone) = extra.partition(stays);
    Doomed { gone, kept }
}

impl Engine {
    /// What goes with this plan; many at once need consent.
    pub(super) fn plan_prune(
        &self,
        plan: &CheckedPlan,
        entries: &[Entry],
        consent: Consent,
    ) -> Result<Doomed, Failure> {
        if plan.objects.is_empty() && (plan.node.is_empty() || !entries.is_empty()) {
            let next = "nothing was changed; `k8sctl plugin remove` takes a plugin away";
            return Err(self.failure("PLUGIN-REFUSED", "its plan is empty", next));
        }
        let doomed = decide_prune(plan, entries);
        let most = FEW.max(entries.len() / 5);
        if doomed.gone.len() <= most || consent.prune_many {
            return Ok(doomed);
        }
        let lines: Vec<String> = doomed.gone.iter().map(|entry| entry.key.to_string()).collect();
        let (count, all) = (lines.len(), entries.len());
        let reason = format!("its plan would delete {count} of its {all} objects, {} among them", lines[0]);
        let next = "nothing was changed; if that is meant, say so with --prune-many, which `k8sctl plugin upgrade`, `config` \
                    and `rollback` take";
        Err(self.failure("PLUGIN-REFUSED", reason, next).with_evidence(lines.join("\n")))
    }

    /// Deletes them, and waits until they are gone.
    pub(super) async fn prune(&self, doomed: &Doomed) -> Result<usize, Failure> {
        for entry in &doomed.kept {
            self.say(format!("kept {}: only `k8sctl plugin remove` deletes one", entry.key));
        }
        self.take_away(&doomed.gone).await
    }
}

#[cfg(test)]
mod tests {
    use plugin_plan::{ObjectKey, Planned, Stage};
    use serde_json::Value;

    use super::*;

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey {
            group: String::new(),
            version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: String::new(),
            name: name.to_owned(),
        }
    }

    fn entry(kind: &str, name: &str, keep: bool) -> Entry {
        Entry {
            key: key(kind, name),
            uid: None,
            applied_sha256: String::new(),
            seen_version: String::new(),
            generation: None,
            keep,
        }
    }

    fn plan(keys: &[ObjectKey]) -> CheckedPlan {
        let planned = |key: &ObjectKey| Planned {
            key: key.clone(),
            object: Value::Null,
            stage: Stage::Settings,
            handling: Default::default(),
            sha256: String::new(),
        };
        CheckedPlan {
            plugin: "hello".to_owned(),
            version: "1.0.0".to_owned(),
            objects: keys.iter().map(planned).collect(),
            readiness: Vec::new(),
            node: Vec::new(),
            secrets: Vec::new(),
            sha256: String::new(),
        }
    }

    #[test]
    fn what_holds_things_or_is_to_be_kept_stays_and_the_rest_goes() {
        let entries = [
            entry("ConfigMap", "stays", false),
            entry("ConfigMap", "goes", false),
            entry("Secret", "kept", true),
            entry("Namespace", "n", false),
            entry("PersistentVolumeClaim", "data", false),
        ];
        let doomed = decide_prune(&plan(&[key("ConfigMap", "stays")]), &entries);
        let names =
            |entries: &[Entry]| -> Vec<String> { entries.iter().map(|one| one.key.name.clone()).collect() };
        assert_eq!(names(&doomed.gone), ["goes"]);
        assert_eq!(names(&doomed.kept), ["kept", "n", "data"]);
    }

    #[test]
    fn another_version_of_the_api_is_the_same_object() {
        let entries = [entry("ConfigMap", "a", false)];
        let later = ObjectKey { version: "v2".to_owned(), ..key("ConfigMap", "a") };
        assert!(decide_prune(&plan(&[later]), &entries).gone.is_empty());
    }
}
