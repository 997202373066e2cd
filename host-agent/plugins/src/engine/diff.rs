//! What an application of a plan would change, for a person: object by object. Writes nothing.

use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, ObjectKey, compare};

use super::apply::Consent;
use super::meta::Ownership;
use super::preflight::{Judged, Verdict, View};
use super::prune::decide_prune;
use super::{Engine, READS, all_of};

/// What would become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffAction {
    /// It would be made.
    Create,
    /// It would be changed, or made anew.
    Change,
    /// It would be deleted.
    Delete,
    /// It would stay as it is.
    Keep,
}

/// What an application would do to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectDiff {
    /// What would become of it.
    pub action: DiffAction,
    /// Which one.
    pub key: ObjectKey,
    /// Its fields as a unified diff, with values of secrets masked; empty where there is nothing to compare.
    pub text: String,
}

impl Engine {
    /// What [`Engine::apply`] would do to each object; a plan that it would refuse is the same failure. Writes nothing.
    pub async fn diff(&self, plan: &CheckedPlan) -> Result<Vec<ObjectDiff>, Failure> {
        let entries = self.entries().await?;
        let seen = self.observe(plan, &entries, false).await?;
        let foreign = seen.iter().filter(|seen| seen.whose == Ownership::Foreign);
        let foreign: Vec<String> = foreign.map(|seen| seen.planned.key.to_string()).collect();
        if !foreign.is_empty() {
            return Err(self.foreign_failure(&foreign));
        }
        let view = View::of(plan, &seen, Consent::default());
        let work = self.preflight(seen, &view).await?;
        let mut asked = Vec::with_capacity(work.len());
        for one in &work {
            asked.push(self.diff_one(one));
        }
        let mut diffs = all_of(READS, asked).await?;
        let doomed = decide_prune(plan, &entries);
        let gone = doomed.gone.into_iter().map(|entry| (DiffAction::Delete, entry.key, String::new()));
        let why = "only `k8sctl plugin remove` deletes it";
        let kept = doomed.kept.into_iter().map(|entry| (DiffAction::Keep, entry.key, why.to_owned()));
        diffs.extend(gone.chain(kept).map(|(action, key, text)| ObjectDiff { action, key, text }));
        Ok(diffs)
    }

    async fn diff_one(&self, one: &Judged<'_>) -> Result<ObjectDiff, Failure> {
        let (planned, whose) = (one.planned(), one.seen.whose);
        let of = |action, text| Ok(ObjectDiff { action, key: planned.key.clone(), text });
        match &one.verdict {
            Verdict::Unchanged => of(DiffAction::Keep, String::new()),
            _ if whose == Ownership::Absent => of(DiffAction::Create, String::new()),
            Verdict::Write | Verdict::Replace(_) => {
                let next = one.would_be.as_ref().or(one.wanted.as_ref());
                let text = one.live.as_ref().zip(next).map(|(live, next)| compare::diff_text(live, next));
                of(DiffAction::Change, text.unwrap_or_default())
            }
            Verdict::AskAtWrite => self.diff_late(one).await,
        }
    }

    /// Of an object of a kind that the plan brings, and that is served already.
    async fn diff_late(&self, one: &Judged<'_>) -> Result<ObjectDiff, Failure> {
        let (planned, key) = (one.planned(), &one.planned().key);
        let of = |action, text| Ok(ObjectDiff { action, key: key.clone(), text });
        let Some(place) = &one.seen.place else { return of(DiffAction::Create, String::new()) };
        let Some(live) = self.get(place, key).await? else { return of(DiffAction::Create, String::new()) };
        let wanted = self.wanted(planned, Some(&live))?;
        let params = self.params(planned, one.seen.whose).dry_run();
        match self.tried(key, || place.apply(&key.name, &params, &wanted)).await {
            Ok(would_be) if compare::same(&live, &would_be) => of(DiffAction::Keep, String::new()),
            Ok(would_be) => of(DiffAction::Change, compare::diff_text(&live, &would_be)),
            // By the definition that is there now, which the plan may change.
            Err(trouble) if trouble.is_invalid() || trouble.is_field_conflict() => {
                of(DiffAction::Change, compare::diff_text(&live, &wanted))
            }
            Err(trouble) => Err(self.request_failure(key, "look at", &trouble)),
        }
    }
}
