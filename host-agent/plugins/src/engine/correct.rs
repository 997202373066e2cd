//! Undoes what a look found, as each object's handling says. Who changes an object again and again is left to it: after
//! so many corrections in a while the object is theirs until they stop.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, Drift, ObjectKey, Planned};

use super::Engine;
use super::look::{LEAVING, Look, NOBODY, Seen};
use super::meta::Ownership;
use super::observe::entry_of;
use super::preflight::{Judged, Verdict};
use super::secrets::holds_secrets;
use crate::inventory::Entry;

/// Corrections of one manager's changes to one object, and within how long.
const FIGHT: (u32, i64) = (3, 600_000);

/// Who deletes objects, for counting: a deletion has no manager.
const DELETED: &str = "(deleted)";

/// What was done about a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Corrected {
    /// `undid a change of /spec/replicas by kubectl-scale in apps/v1 Deployment hello/hello`
    pub done: Vec<String>,
    /// Given up, and to whom.
    pub fights: Vec<(ObjectKey, String)>,
    /// What is told and left alone, because the plugin wants that.
    pub reported: Vec<String>,
}

impl Engine {
    /// Undoes what a look found, as each object's handling says. One object that fails holds up no other; the first
    /// failure is given when all were tried.
    pub async fn correct(&self, plan: &CheckedPlan, look: &Look) -> Result<Corrected, Failure> {
        let entries = self.entries().await?;
        let (mut corrected, mut failed) = (Corrected::default(), None);
        let mut ending = ending(look);
        for (key, seen) in &look.objects {
            let Some(planned) = plan.object(key) else { continue };
            if ending.contains(key.namespace.as_str()) {
                // Nothing can be made there. When it is gone it is missing itself.
                continue;
            }
            let (what, manager) = match seen {
                // Nobody else has these fields: a secret was given another value.
                Seen::Drifted { fields, manager } if manager == NOBODY && holds_secrets(&planned.object) => {
                    (format!("the former value of {}", fields.join(", ")), NOBODY)
                }
                Seen::Drifted { fields, manager } => {
                    (format!("a change of {} by {manager}", fields.join(", ")), manager.as_str())
                }
                Seen::Missing => ("the deletion".to_owned(), DELETED),
                _ => continue,
            };
            if !matches!(planned.handling.drift, Drift::Correct) {
                corrected.reported.push(format!("left {what} in {key}"));
                continue;
            }
            match self.undo(planned, entry_of(&entries, key), manager).await {
                Ok(true) => {
                    let line = format!("undid {what} in {key}");
                    self.say(&line);
                    corrected.done.push(line);
                }
                Ok(false) => corrected.fights.push((key.clone(), manager.to_owned())),
                Err(failure) => {
                    if failure.id == "PLUGIN-NAMESPACE-ENDING" {
                        ending.insert(&key.namespace);
                    }
                    failed = failed.or(Some(failure));
                }
            }
        }
        failed.map_or(Ok(corrected), Err)
    }

    /// `false`: it was undone too often.
    async fn undo(&self, planned: &Planned, entry: Option<&Entry>, manager: &str) -> Result<bool, Failure> {
        let (most, window) = FIGHT;
        let now = now_ms();
        let counted = self.inventory.corrections(&planned.key, manager, now - window).await;
        if counted.map_err(|error| self.store_failure(&error))? >= most {
            return Ok(false);
        }
        // Noted first: what is interrupted counts as well.
        let noted = self.inventory.corrected(&planned.key, manager, now).await;
        noted.map_err(|error| self.store_failure(&error))?;
        let seen = self.observe_one(planned, entry, false).await?;
        if seen.whose == Ownership::Foreign {
            return Err(self.foreign_since(&planned.key));
        }
        self.write(&Judged::new(seen, Verdict::AskAtWrite)).await?;
        Ok(true)
    }
}

/// Namespaces of the plan that are being deleted.
fn ending(look: &Look) -> BTreeSet<&str> {
    let is_leaving = |seen: &Seen| matches!(seen, Seen::Waiting(why) if why == LEAVING);
    let spaces = look.objects.iter().filter(|(key, seen)| key.is_namespace() && is_leaving(seen));
    spaces.map(|(key, _)| key.name.as_str()).collect()
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
