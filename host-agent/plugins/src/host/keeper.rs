//! Keeps the plugins of one cluster as they were applied: goes on with what was interrupted, undoes other people's changes
//! as each object's handling says, and judges whether everything is ready still. Runs as long as the cluster's API client
//! lives, and stands back where an operation works.

use std::time::{Duration, Instant, SystemTime};

use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, Drift, ObjectKey, hash};
use plugin_process::Health;

use super::wish::ClusterAccess;
use super::{PluginHost, Whose, stored_badly};
use crate::engine::{Blocking, Corrected, Engine, Limits, Look, Progress, Seen};
use crate::inventory::store_failure;
use crate::records::{Install, Place};
use crate::status::PluginState;

/// The next look after one at which something was not ready, or was put right.
const SOON: Duration = Duration::from_secs(5);
/// Between two questions to one plugin.
const JUDGE_AGAIN: Duration = Duration::from_secs(60);
/// Looks in a row at which something was not ready, until that counts: pods are restarted now and then.
const BAD_LOOKS: u32 = 2;
/// Longest that a look waits for a namespace to end, a webhook to answer or a kind to be served.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one look at a plugin found.
#[derive(Clone, Debug, Default)]
struct Found {
    /// The object that is not ready, and why.
    bad: Option<(String, String)>,
    /// Looks in a row that found one, this one included.
    bad_looks: u32,
    /// What the plugin itself is not content with.
    complaint: Option<String>,
    /// What is given up to somebody else.
    fight: Option<Failure>,
}

impl PluginHost {
    /// Runs until dropped: goes on with what was interrupted, corrects drift, judges. One per cluster.
    pub async fn keep(&self, access: ClusterAccess) {
        let kick = self.inner.memory.kick(&access.cluster_id);
        loop {
            let soon = self.look_after_all(&access).await;
            let jitter = rand::random_range(0.9..=1.1);
            let interval = self.inner.drift_interval;
            let pause = if soon { SOON.min(interval) } else { interval.mul_f64(jitter) };
            // Both are cancel-safe: a kick that comes meanwhile is kept for the next turn.
            tokio::select! {
                () = kick.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One look at each; `true`: the next one shall not wait.
    async fn look_after_all(&self, access: &ClusterAccess) -> bool {
        let installs = match self.installs(&access.cluster_id).await {
            Ok(installs) => installs,
            Err(failure) => {
                tracing::warn!(cluster.id = access.cluster_id, error = %failure, "plugins cannot be looked after");
                return false;
            }
        };
        let mut soon = false;
        for install in &installs {
            if install.operation.is_some() {
                self.resume(access, install);
            } else if install.is_settled() {
                match self.look_after(access, &install.plugin).await {
                    Ok(again) => soon |= again,
                    // The API may be away for a moment; that is told elsewhere, and says nothing of the plugin.
                    Err(failure) => tracing::debug!(
                        cluster.id = access.cluster_id,
                        plugin.name = install.plugin,
                        error = %failure,
                        "a plugin cannot be looked after"
                    ),
                }
            }
        }
        soon
    }

    async fn look_after(&self, access: &ClusterAccess, plugin: &str) -> Result<bool, Failure> {
        let whose = Whose::new(access, plugin);
        let place = &whose.place;
        let turn = self.inner.memory.turn(place);
        let Ok(_turn) = turn.try_lock() else { return Ok(false) };
        // It may be another since the list was made.
        let Some(install) = self.install(place).await?.filter(Install::is_settled) else { return Ok(false) };
        let plan = self.plan_of(place, install.revision).await?;
        let engine = self.engine(access, plugin, brief(self.inner.limits), Progress::new());
        let look = engine.look(&plan).await?;
        let corrected = engine.correct(&plan, &look).await.unwrap_or_else(|failure| {
            // What the others look like is worth knowing all the same; it is tried again.
            tracing::warn!(plugin.name = plugin, error = %failure, "a change of a plugin's object cannot be undone");
            Corrected::default()
        });
        let before = self.inner.memory.seen(place);
        let bad = worst(&look);
        let complaint = match &bad {
            None => self.complaint(access, &install, &engine, &plan).await?,
            // What is not ready says enough.
            Some(_) => None,
        };
        self.tell_of_drift(&whose, &corrected, &before.fights);
        let found = Found {
            bad_looks: if bad.is_some() { before.bad_looks.saturating_add(1) } else { 0 },
            bad,
            complaint,
            fight: fight(plugin, &corrected),
        };
        self.note_look(place, &found, &corrected, drifted(&plan, &look, &corrected), before.blocking);
        let soon = (found.bad.is_some() && found.bad_looks < BAD_LOOKS) || !corrected.done.is_empty();
        if let Some((state, message)) = decide_state(&install, &found) {
            self.inner.records.set_state(place, state, &message).await.map_err(stored_badly(place))?;
            if state != install.state {
                let is_bad = state == PluginState::Degraded;
                let kind = if is_bad { EventType::PluginDegraded } else { EventType::PluginRecovered };
                self.tell(&whose, kind, message, is_bad);
            }
            self.changed();
        }
        Ok(soon)
    }

    /// What the plugin is not content with. It is asked where an object is another than when it was asked last.
    async fn complaint(
        &self,
        access: &ClusterAccess,
        install: &Install,
        engine: &Engine,
        plan: &CheckedPlan,
    ) -> Result<Option<String>, Failure> {
        let place = Place::new(&access.cluster_id, &install.plugin);
        let entries = self.inventory(&place).entries().await;
        let entries = entries.map_err(|error| store_failure(&install.plugin, &error))?;
        let versions: Vec<_> = entries
            .iter()
            .map(|entry| format!("{} {}", entry.uid.as_deref().unwrap_or_default(), entry.seen_version))
            .collect();
        let versions = hash::sha256_hex(versions.join("\n").as_bytes());
        let judged = self.inner.memory.seen(&place).judged;
        let before = judged.as_ref().and_then(|(_, _, complaint)| complaint.clone());
        if judged.is_some_and(|(of, at, _)| of == versions || at.elapsed() < JUDGE_AGAIN) {
            return Ok(before);
        }
        let Ok(package) = self.package_of(install).await else { return Ok(before) };
        let complaint = match self.judged(access, install, &package, engine, plan).await {
            Ok(None) => None,
            Ok(Some(said)) => match said.health {
                Health::Ready => None,
                _ if said.message.is_empty() => Some("it is not content, and does not say why".to_owned()),
                _ => Some(format!("it says: {}", said.message)),
            },
            // How it ended is kept and counted; its workloads are what they were.
            Err(failure) => {
                tracing::warn!(plugin.name = install.plugin, error = %failure, "a plugin cannot judge its objects");
                before
            }
        };
        self.inner
            .memory
            .note(&place, |seen| seen.judged = Some((versions, Instant::now(), complaint.clone())));
        Ok(complaint)
    }

    fn tell_of_drift(
        &self,
        whose: &Whose,
        corrected: &Corrected,
        known: &std::collections::BTreeSet<String>,
    ) {
        if !corrected.done.is_empty() {
            self.tell(whose, EventType::PluginDriftCorrected, corrected.done.join("; "), true);
        }
        for (key, manager) in &corrected.fights {
            let object = key.to_string();
            if !known.contains(&object) {
                let message = format!("{}; it is left to them", again_and_again(&object, manager));
                self.tell(whose, EventType::PluginFight, message, true);
            }
        }
    }

    /// Keeps what was seen. `drifted`: others' changes that stay; `before`: what blocked at the last look.
    fn note_look(
        &self,
        place: &Place,
        found: &Found,
        corrected: &Corrected,
        drifted: Vec<String>,
        before: Option<Blocking>,
    ) {
        let blocking = found.bad.as_ref().map(|(object, reason)| match before {
            // Since when it blocks stays.
            Some(before) if before.object == *object => Blocking { reason: reason.clone(), ..before },
            _ => Blocking {
                object: object.clone(),
                reason: reason.clone(),
                pod: None,
                since: SystemTime::now(),
            },
        });
        let fights = corrected.fights.iter().map(|(key, _)| key.to_string()).collect();
        let mut is_new = false;
        self.inner.memory.note(place, |seen| {
            is_new = seen.blocking != blocking || seen.drifted != drifted;
            seen.bad_looks = found.bad_looks;
            seen.blocking = blocking;
            seen.drifted = drifted;
            seen.fights = fights;
        });
        if is_new {
            self.changed();
        }
    }
}

/// Nobody waits for a look, and operations wait until it has ended: what takes longer is looked at again.
fn brief(limits: Limits) -> Limits {
    Limits {
        ready: limits.ready.min(PATIENCE),
        webhook: limits.webhook.min(PATIENCE),
        kind: limits.kind.min(PATIENCE),
        ..limits
    }
}

/// The object that is least ready, and why. What was changed and is there is no matter of readiness.
fn worst(look: &Look) -> Option<(String, String)> {
    let rank = |seen: &Seen| match seen {
        Seen::Failed(_) => 3,
        Seen::Missing => 2,
        Seen::Waiting(_) => 1,
        Seen::Fine | Seen::Drifted { .. } => 0,
    };
    let mut worst: Option<&(ObjectKey, Seen)> = None;
    for object in look.objects.iter().filter(|(_, seen)| rank(seen) > 0) {
        if worst.is_none_or(|(_, seen)| rank(&object.1) > rank(seen)) {
            worst = Some(object);
        }
    }
    worst.map(|(key, seen)| {
        let why = match seen {
            Seen::Failed(why) | Seen::Waiting(why) => why.clone(),
            _ => "it is gone".to_owned(),
        };
        (key.to_string(), why)
    })
}

/// What others changed and is not undone, a line for each object.
fn drifted(plan: &CheckedPlan, look: &Look, corrected: &Corrected) -> Vec<String> {
    let is_left = |key: &ObjectKey| {
        let corrects =
            plan.object(key).is_some_and(|planned| matches!(planned.handling.drift, Drift::Correct));
        !corrects || corrected.fights.iter().any(|(fought, _)| fought == key)
    };
    Look { objects: look.objects.iter().filter(|(key, _)| is_left(key)).cloned().collect() }.drifted()
}

/// Deletions have no manager; the engine gives them a name in brackets.
fn again_and_again(object: &str, manager: &str) -> String {
    if manager.starts_with('(') {
        format!("somebody deletes {object} again and again")
    } else {
        format!("{manager} changes {object} again and again")
    }
}

/// What is given up, as a failure to read.
fn fight(plugin: &str, corrected: &Corrected) -> Option<Failure> {
    let (key, manager) = corrected.fights.first()?;
    let others = match corrected.fights.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let object = format!("{key}{others}");
    let reason = format!("{}; it is left as they want it", again_and_again(&object, manager));
    let next = "let them leave it alone, or configure the plugin so that it wants the same";
    Some(Failure::new("PLUGIN-FIGHT", format!("plugin {plugin}"), reason, next))
}

/// Where an installed plugin stands after a look; `None`: where it stood before.
fn decide_state(install: &Install, found: &Found) -> Option<(PluginState, String)> {
    let degraded = if let Some((object, why)) = &found.bad {
        if found.bad_looks < BAD_LOOKS {
            return None;
        }
        Some(format!("{object} is not ready: {why}"))
    } else if let Some(complaint) = &found.complaint {
        Some(complaint.clone())
    } else {
        found.fight.as_ref().map(ToString::to_string)
    };
    match degraded {
        Some(message) if install.state == PluginState::Degraded && install.message == message => None,
        Some(message) => Some((PluginState::Degraded, message)),
        None if install.state == PluginState::Ready => None,
        None => Some((PluginState::Ready, "ready again".to_owned())),
    }
}

#[cfg(test)]
mod tests;
