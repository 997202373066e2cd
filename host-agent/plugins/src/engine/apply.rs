//! Applies a checked plan: whose are the objects, what would the server say, then stage by stage, waiting where later
//! objects need earlier ones, then readiness, then what an earlier plan had and this one does not. Nothing is written
//! while anything could still be refused.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};

use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, ObjectKey, Planned, Stage};
use tokio::time::Instant;

use super::meta::Ownership;
use super::preflight::{Judged, Verdict, View};
use super::prune::Doomed;
use super::write::Written;
use super::{Engine, READS, all_of, together};
use crate::inventory::{Bound, Entry};

/// In the order in which they are applied.
const STAGES: [Stage; 7] = [
    Stage::Definitions,
    Stage::Accounts,
    Stage::Settings,
    Stage::Network,
    Stage::Workloads,
    Stage::Admission,
    Stage::Guarded,
];

/// What a person agreed to beyond the plan itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consent {
    /// Objects of these names that others made are taken over.
    pub adopt: bool,
    /// Many objects are deleted at once.
    pub prune_many: bool,
    /// Definitions that are there stay as they are: a rollback, and what comes after it, does not take fields from objects
    /// of others.
    pub keep_definitions: bool,
}

/// What an application did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Objects that were made, changed or made anew.
    pub written: usize,
    /// Objects that were as they should be.
    pub unchanged: usize,
    /// Objects that were deleted.
    pub pruned: usize,
}

/// A plan that is not refused, and what is to be done with each object. Nothing of it is written yet.
pub struct Accepted<'p> {
    plan: &'p CheckedPlan,
    work: Vec<Judged<'p>>,
    doomed: Doomed,
    /// When all of it has to be ready.
    deadline: Instant,
}

/// An object as it was after its write, or as it was found: whether it changed since is told by `fields`.
struct Settled {
    key: ObjectKey,
    fields: Option<String>,
    version: String,
}

impl Settled {
    fn of(planned: &Planned, fields: Option<String>, version: String) -> Self {
        Self { key: planned.key.clone(), fields, version }
    }
}

impl Engine {
    /// Brings the plan onto the cluster and waits until all of it is ready. The inventory holds every key already.
    pub async fn apply(&self, plan: &CheckedPlan, consent: Consent) -> Result<Applied, Failure> {
        let entries = self.entries().await?;
        let accepted = self.prepare(plan, &entries, consent).await?;
        self.carry_out(accepted).await
    }

    /// Everything for which the plan as a whole can be refused: too many deletions, objects of others, what the server says
    /// to each object. Writes nothing; the inventory need not hold its keys yet. `entries`: what that has.
    pub async fn prepare<'p>(
        &self,
        plan: &'p CheckedPlan,
        entries: &'p [Entry],
        consent: Consent,
    ) -> Result<Accepted<'p>, Failure> {
        let deadline = Instant::now() + self.limits.ready;
        let doomed = self.plan_prune(plan, entries, consent)?;
        let seen = self.observe(plan, entries, true).await?;
        let foreign = seen.iter().filter(|seen| seen.whose == Ownership::Foreign);
        let foreign: Vec<String> = foreign.map(|seen| seen.planned.key.to_string()).collect();
        if !foreign.is_empty() && !consent.adopt {
            return Err(self.foreign_failure(&foreign));
        }
        let view = View::of(plan, &seen, consent);
        let work = self.preflight(seen, &view).await?;
        Ok(Accepted { plan, work, doomed, deadline })
    }

    /// Writes what was accepted and waits until all of it is ready. The inventory holds every key by now.
    pub async fn carry_out(&self, accepted: Accepted<'_>) -> Result<Applied, Failure> {
        let Accepted { plan, work, doomed, deadline } = accepted;
        (self.points)("before-first-write");
        let to_do = work.iter().filter(|one| one.is_to_do()).count();
        if to_do > 0 {
            self.say(format!("{to_do} of {} objects are to be written", work.len()));
        }
        let mut settled = self.settle_unchanged(&work).await?;
        settled.extend(self.write_stages(plan, &work, deadline).await?);
        let written = settled.iter().filter(|(_, written)| *written).count();
        self.wait_ready(plan, &all(plan), deadline, written > 0).await?;
        (self.points)("before-prune");
        let pruned = self.prune(&doomed).await?;
        (self.points)("before-saw");
        self.see_again(settled.into_iter().map(|(settled, _)| settled).collect()).await?;
        self.progress.blocked(None);
        Ok(Applied { written, unchanged: work.len() - written, pruned })
    }

    /// Notes what is as it should be, where that is not noted yet; those that were asked about.
    async fn settle_unchanged(&self, work: &[Judged<'_>]) -> Result<Vec<(Settled, bool)>, Failure> {
        let mut settled = Vec::new();
        for one in work.iter().filter(|one| one.verdict == Verdict::Unchanged) {
            // As it was seen last, or left to others: not asked about.
            let Some(live) = &one.live else { continue };
            let (planned, live) = (one.planned(), self.meta_of(live));
            let generation = one.seen.entry.and_then(|entry| entry.generation).or(live.generation);
            self.bind(planned, &live.uid, &live.version, generation).await?;
            settled.push((Settled::of(planned, live.fields, live.version), false));
        }
        Ok(settled)
    }

    pub(super) async fn bind(
        &self,
        planned: &Planned,
        uid: &str,
        version: &str,
        generation: Option<i64>,
    ) -> Result<(), Failure> {
        let bound = Bound {
            uid: uid.to_owned(),
            applied_sha256: planned.sha256.clone(),
            seen_version: version.to_owned(),
            generation,
        };
        self.inventory.bind(&planned.key, &bound).await.map_err(|error| self.store_failure(&error))
    }

    /// Writes what is to be written; each object, and whether it was.
    async fn write_stages(
        &self,
        plan: &CheckedPlan,
        work: &[Judged<'_>],
        deadline: Instant,
    ) -> Result<Vec<(Settled, bool)>, Failure> {
        let mut settled = Vec::new();
        for stage in STAGES {
            let is_due = |one: &&Judged<'_>| one.is_to_do() && one.planned().stage == stage;
            let due: Vec<&Judged<'_>> = work.iter().filter(is_due).collect();
            if stage == Stage::Guarded && !due.is_empty() {
                let before: Vec<&Planned> =
                    plan.objects.iter().filter(|planned| planned.stage < Stage::Guarded).collect();
                self.wait_ready(plan, &before, deadline, false).await?;
                let guarded: Vec<&Planned> = due.iter().map(|one| one.planned()).collect();
                self.open_gate(plan, &guarded).await?;
            }
            settled.extend(self.write_all(&due).await?);
            let more = work.iter().any(|one| one.is_to_do() && one.planned().stage > stage);
            if stage == Stage::Definitions && more {
                self.wait_definitions(plan).await?;
            }
            if !due.is_empty() {
                (self.points)("after-stage");
            }
        }
        Ok(settled)
    }

    /// Writes some at a time. When one has failed no other is begun; what runs is let finish.
    async fn write_all(&self, due: &[&Judged<'_>]) -> Result<Vec<(Settled, bool)>, Failure> {
        let failed = AtomicBool::new(false);
        let mut asked = Vec::with_capacity(due.len());
        for one in due {
            asked.push(self.write_unless(one, &failed));
        }
        let mut settled = Vec::with_capacity(due.len());
        for (one, answer) in due.iter().zip(together(self.limits.parallel, asked).await) {
            // `None` stands behind the failure that is given.
            if let Some(Written { fields, version, changed }) = answer? {
                settled.push((Settled::of(one.planned(), fields, version), changed));
            }
        }
        Ok(settled)
    }

    async fn write_unless(&self, one: &Judged<'_>, failed: &AtomicBool) -> Result<Option<Written>, Failure> {
        if failed.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let written = self.write(one).await;
        failed.fetch_or(written.is_err(), Ordering::Relaxed);
        let written = written?;
        let key = &one.planned().key;
        if key.is_namespace() && written.changed {
            self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key.name.clone());
        }
        Ok(Some(written))
    }

    /// Notes the versions that the objects have by now, so that the next application need not ask. Statuses make new
    /// versions all the time; an object of which somebody took a field from us is not noted, and is asked about again.
    async fn see_again(&self, settled: Vec<Settled>) -> Result<(), Failure> {
        let mut asked = Vec::with_capacity(settled.len());
        for one in &settled {
            asked.push(self.version_now(one));
        }
        let mut seen = Vec::new();
        for (one, answer) in settled.iter().zip(all_of(READS, asked).await?) {
            if let Some(version) = answer {
                seen.push((one.key.clone(), version));
            }
        }
        self.inventory.saw(seen).await.map_err(|error| self.store_failure(&error))
    }

    async fn version_now(&self, one: &Settled) -> Result<Option<String>, Failure> {
        let Some(place) = self.served(&one.key).await? else { return Ok(None) };
        let live = self.meta(&place, &one.key).await?;
        let still_ours = live.filter(|live| live.fields.is_some() && live.fields == one.fields);
        Ok(still_ours.map(|live| live.version).filter(|version| *version != one.version))
    }
}

fn all(plan: &CheckedPlan) -> Vec<&Planned> {
    plan.objects.iter().collect()
}
