//! What an operation does once it is known: manifests, secrets, what the cluster would say to all of it, the one
//! transaction, nodes that make way, the cluster, and at the end what the plugin itself says of it. What is refused is
//! refused before the transaction, so that an installed plugin is what it was, and is looked after. Between any two of these
//! the host agent may be killed: from the transaction on, the same goes on from what is stored, and needs no process to plan
//! it again.

use std::time::{Duration, SystemTime};

use k8sctl_rpc::task;
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;
use plugin_package::Package;
use plugin_plan::CheckedPlan;
use plugin_process::{AssessAsk, Assessment, Health};
use serde_json::Value;
use tokio::time::Instant;

use super::ask::made_up;
use super::begin::{PlanSource, Prepared, approves};
use super::outcome::Lift;
use super::running::{Asked, Claim, Claimed};
use super::wish::{ClusterAccess, Ended};
use super::{PluginHost, Whose, stored_badly};
use crate::engine::{Accepted, Consent, Engine, Limits, Progress};
use crate::records::{Install, NewOperation, OperationKind, Place, deadline_ms, time_of};
use crate::status::PluginState;
use crate::vault;

/// Between two questions to a plugin that is not content yet.
const JUDGE_AGAIN: Duration = Duration::from_secs(2);

/// How an operation that ended well left the plugin.
pub(super) struct Done {
    kind: OperationKind,
    version: String,
    /// Something on the cluster or in the revisions is another.
    is_new: bool,
}

/// A plan of which nothing is missing.
struct Complete {
    plan: CheckedPlan,
    config: Value,
    plan_sha256: String,
    ask_sha256: String,
}

/// What an operation works with.
struct Work<'a> {
    access: &'a ClusterAccess,
    engine: &'a Engine,
    plan: &'a CheckedPlan,
    /// `None`: it is not at hand.
    package: Option<&'a Package>,
    progress: &'a Progress,
    /// How long all of it may take, and when that is over.
    time: Duration,
    until: Instant,
}

impl PluginHost {
    /// Carries out what was prepared, to its end.
    pub(super) async fn operate(&self, access: &ClusterAccess, prepared: Prepared, claim: Claim) {
        let attempt = prepared.attempt.clone();
        let work = Box::pin(self.begin_and_apply(access, prepared, &claim));
        let result = self.watched(&claim.progress, work).await;
        self.conclude(access, claim, &attempt, result).await;
    }

    /// Goes on with what was begun before, by whomever. Nothing where it runs already.
    pub(super) fn resume(&self, access: &ClusterAccess, install: &Install) {
        let Some(kind) = install.operation else { return };
        let place = Place::new(&access.cluster_id, &install.plugin);
        let Ok(Claimed::New(claim)) = self.inner.running.claim(&place, Asked::Resumed(kind)) else { return };
        let (host, access) = (self.clone(), access.clone());
        let name = format!("plugin {}", install.plugin);
        let task = task::spawn(name, async move {
            let now = host.install(&claim.place).await;
            if !matches!(now, Ok(Some(install)) if install.operation == Some(kind)) {
                // It ended in the meantime, or cannot be read now.
                return;
            }
            tracing::info!(
                cluster.id = claim.place.cluster_id,
                plugin.name = claim.place.plugin,
                operation = kind.as_str(),
                "an operation on a plugin goes on"
            );
            if kind == OperationKind::Remove {
                host.remove(&access, claim).await;
            } else {
                let work = Box::pin(host.carry_on(&access, &claim));
                let result = host.watched(&claim.progress, work).await;
                host.conclude(&access, claim, "", result).await;
            }
        });
        self.inner.running.started(&place, task);
    }

    async fn carry_on(&self, access: &ClusterAccess, claim: &Claim) -> Result<Done, Failure> {
        let place = &claim.place;
        let turn = self.inner.memory.turn(place);
        let _turn = turn.lock().await;
        let install = self.installed(place).await?;
        let plan = self.plan_of(place, install.target).await?;
        // Whatever time there was has passed while nobody worked on it.
        let left = install.deadline_ms.map(time_until).unwrap_or_default().max(self.inner.limits.ready);
        let until = Instant::now() + left;
        let package = self.stored(&install.package_sha256).await.ok();
        let kind = install.operation.unwrap_or(OperationKind::Configure);
        let consent = Consent {
            adopt: install.adopt,
            prune_many: install.prune_many,
            keep_definitions: self.keeps_definitions(place, kind, install.revision, &plan).await,
        };
        self.secrets_are_there(place, &plan).await?;
        let limits = Limits { ready: left, ..self.inner.limits };
        let engine = self.engine(access, &place.plugin, limits, claim.progress.clone());
        let entries = self.inventory(place).entries().await.map_err(stored_badly(place))?;
        let accepted = engine.prepare(&plan, &entries, consent).await?;
        let (package, progress) = (package.as_ref(), &claim.progress);
        let work = Work { access, engine: &engine, plan: &plan, package, progress, time: left, until };
        self.work_towards(work, accepted, &install).await
    }

    async fn begin_and_apply(
        &self,
        access: &ClusterAccess,
        prepared: Prepared,
        claim: &Claim,
    ) -> Result<Done, Failure> {
        let place = &claim.place;
        let Prepared { kind, origin, attempt, deadline, adopt, prune_many, approved, package, source } =
            prepared;
        let _hold = self.inner.memory.hold(&package.sha256);
        let library = self.inner.library.clone();
        let package = task::blocking(move || library.take_in(&package)).await?;
        self.point("after-take-in");
        let complete = self.completed(&package, source, &claim.progress).await?;
        let Complete { plan, config, plan_sha256, ask_sha256 } = complete;
        let packed = self.packed(place, &plan).await?;
        let known = self.inner.records.approved(place).await.map_err(stored_badly(place))?;
        let approves = approves(origin, &approved, &known);

        let turn = self.inner.memory.turn(place);
        let _turn = turn.lock().await;
        let revision = self.install(place).await?.map_or(0, |install| install.revision);
        let keep_definitions = self.keeps_definitions(place, kind, revision, &plan).await;
        let consent = Consent { adopt, prune_many, keep_definitions };
        let until = Instant::now() + deadline;
        self.secrets_are_there(place, &plan).await?;
        let limits = Limits { ready: deadline, ..self.inner.limits };
        let engine = self.engine(access, &place.plugin, limits, claim.progress.clone());
        let entries = self.inventory(place).entries().await.map_err(stored_badly(place))?;
        let accepted = engine.prepare(&plan, &entries, consent).await?;
        let new = NewOperation {
            kind,
            origin,
            attempt,
            deadline_ms: deadline_ms(deadline),
            adopt,
            prune_many,
            approved: Some(approved),
            version: package.manifest.version.to_string(),
            package_sha256: package.sha256.clone(),
            binary_sha256: package.program().map(|(binary, _)| binary.sha256.clone()).unwrap_or_default(),
            config_version: package.manifest.config_version,
            config_json: config.to_string(),
            plan_sha256,
            ask_sha256,
            plan: packed,
            node_json: serde_json::to_string(&plan.node).unwrap_or_else(|_| "[]".to_owned()),
            keys: plan.objects.iter().map(|one| (one.key.clone(), one.handling.keep)).collect(),
        };
        let target = self.inner.records.begin(place, new).await.map_err(stored_badly(place))?;
        if let Some(message) = approves {
            self.tell(&Whose::new(access, &place.plugin), EventType::PluginApproved, message, false);
        }
        self.inner.memory.note(place, |seen| {
            seen.pending = None;
            seen.failed = None;
        });
        self.expect_handover(place, &plan);
        self.changed();
        self.point("after-begin");
        let install = self.installed(place).await?;
        let (package, progress) = (Some(&package), &claim.progress);
        let work = Work { access, engine: &engine, plan: &plan, package, progress, time: deadline, until };
        let done = self.work_towards(work, accepted, &install).await?;
        Ok(Done { is_new: done.is_new || !target.is_current, ..done })
    }

    /// The whole plan, with the bodies of its manifests.
    async fn completed(
        &self,
        package: &Package,
        source: PlanSource,
        progress: &Progress,
    ) -> Result<Complete, Failure> {
        match source {
            PlanSource::Stored { plan, config, plan_sha256, ask_sha256 } => {
                Ok(Complete { plan: *plan, config, plan_sha256, ask_sha256 })
            }
            PlanSource::Said { question, answer } => {
                let remotes = &answer.plan.remotes;
                let bodies = self.bodies(&package.manifest, remotes, progress).await?;
                // They are kept from now on, and asked about the next time.
                let ask_sha256 = question.sha256(&made_up(&answer.plan));
                let plan_sha256 = answer.plan_sha256.clone();
                let answer = *answer;
                let plan = self.check(&question, answer.plan, &answer.secrets, bodies, false).await?;
                Ok(Complete { plan, config: question.config, plan_sha256, ask_sha256 })
            }
        }
    }

    /// Everything behind the transaction.
    async fn work_towards(
        &self,
        work: Work<'_>,
        accepted: Accepted<'_>,
        install: &Install,
    ) -> Result<Done, Failure> {
        let place = Place::new(&work.access.cluster_id, &install.plugin);
        let kind = install.operation.unwrap_or(OperationKind::Configure);
        if self.takes_network_over(&place, install.revision, work.plan).await {
            self.nodes_have_made_way(&place, work.progress, work.until, work.time).await?;
        }
        let applied = work.engine.carry_out(accepted).await?;
        tracing::info!(
            cluster.id = place.cluster_id,
            plugin.name = place.plugin,
            objects.written = applied.written,
            objects.unchanged = applied.unchanged,
            objects.pruned = applied.pruned,
            "a plugin is applied"
        );
        self.point("after-apply");
        let (state, said) = Box::pin(self.settle(&work, install)).await?;
        self.point("after-outputs");
        let is_new = applied.written + applied.pruned > 0;
        let message = match (said.is_empty(), is_new) {
            (false, _) => said,
            (true, true) => "ready".to_owned(),
            (true, false) => "no changes".to_owned(),
        };
        let unused = self.inner.records.applied(&place, state, &message).await;
        let unused = unused.map_err(stored_badly(&place))?;
        let host = self.clone();
        task::blocking(move || host.forget_packages(&unused)).await;
        Ok(Done { kind, version: work.plan.version.clone(), is_new })
    }

    /// Whether definitions that are there stay as they are.
    async fn keeps_definitions(
        &self,
        place: &Place,
        kind: OperationKind,
        revision: u64,
        plan: &CheckedPlan,
    ) -> bool {
        match kind {
            OperationKind::RollBack => true,
            // A rollback may have left later ones, which the revision that it led to does not have.
            OperationKind::Configure => self.has_same_definitions(place, revision, plan).await,
            _ => false,
        }
    }

    /// Whether the plan has its definitions as the applied revision has them.
    async fn has_same_definitions(&self, place: &Place, revision: u64, plan: &CheckedPlan) -> bool {
        if revision == 0 || !plan.objects.iter().any(|planned| planned.key.is_definition()) {
            return false;
        }
        let Ok(applied) = self.plan_of(place, revision).await else { return false };
        let mut definitions = plan.objects.iter().filter(|planned| planned.key.is_definition());
        definitions
            .all(|planned| applied.object(&planned.key).is_some_and(|one| one.sha256 == planned.sha256))
    }

    /// Makes up secrets that are to be made up; nothing is written to the cluster while one has no value.
    async fn secrets_are_there(&self, place: &Place, plan: &CheckedPlan) -> Result<(), Failure> {
        let (kept, place) = (self.inner.vault.clone(), place.clone());
        let (made_up, wanted) = (plan.secrets.clone(), plan.secret_refs());
        task::blocking(move || {
            let Place { cluster_id, plugin } = &place;
            kept.generate_missing(cluster_id, plugin, &made_up)?;
            for secret in &wanted {
                if kept.get(cluster_id, plugin, secret)?.is_none() {
                    return Err(vault::missing(plugin, secret));
                }
            }
            Ok(())
        })
        .await
    }

    /// Until the plugin is content with what it made, and what its dependents are told is kept.
    async fn settle(&self, work: &Work<'_>, install: &Install) -> Result<(PluginState, String), Failure> {
        let &Work { access, engine, plan, package, until, .. } = work;
        let Some(package) = package else { return Ok((PluginState::Ready, String::new())) };
        loop {
            let Some(said) = self.judged(access, install, package, engine, plan).await? else {
                return Ok((PluginState::Ready, String::new()));
            };
            let Assessment { health, message, .. } = said;
            match health {
                Health::Ready => return Ok((PluginState::Ready, message)),
                Health::Degraded => return Ok((PluginState::Degraded, message)),
                Health::Progressing if Instant::now() < until => {
                    tokio::time::sleep(JUDGE_AGAIN).await;
                }
                Health::Progressing | Health::Failed => {
                    let reason = format!("its objects are ready, and the plugin says: {message}");
                    let next = "see to that; the same command goes on from here";
                    let object = format!("plugin {}", install.plugin);
                    return Err(Failure::new("PLUGIN-NOT-READY", object, reason, next));
                }
            }
        }
    }

    /// What the plugin says of its live objects; its outputs are kept. `None`: it is in quarantine, and not asked.
    pub(super) async fn judged(
        &self,
        access: &ClusterAccess,
        install: &Install,
        package: &Package,
        engine: &Engine,
        plan: &CheckedPlan,
    ) -> Result<Option<Assessment>, Failure> {
        if self.may_start(package, Lift::No).await.is_err() {
            return Ok(None);
        }
        let whose = Whose::new(access, &install.plugin);
        let installs = self.installs(&access.cluster_id).await?;
        let (objects_json, left_out) = engine.for_assess(plan).await?;
        let ask = AssessAsk {
            config_json: install.config_json.clone(),
            facts: access.facts.clone(),
            dependencies: self.dependencies(&package.manifest.requires, &installs).await,
            objects_json,
            left_out,
        };
        let run = self.inner.runner.assess(package, &ask).await;
        let said = self.ran(&whose, package, "assess", run).await?;
        if said.outputs != install.outputs {
            let kept = self.inner.records.set_outputs(&whose.place, &said.outputs).await;
            kept.map_err(stored_badly(&whose.place))?;
        }
        Ok(Some(said))
    }

    /// Writes down how it ended, tells of it, and lets go.
    async fn conclude(
        &self,
        access: &ClusterAccess,
        claim: Claim,
        attempt: &str,
        result: Result<Done, Failure>,
    ) {
        let whose = Whose::new(access, &claim.place.plugin);
        let place = &whose.place;
        let ended = match result {
            Ok(done) => {
                self.inner.memory.forget(place);
                if done.is_new {
                    let (kind, message) = happened(&done);
                    self.tell(&whose, kind, message, false);
                }
                match self.status(place).await {
                    Ok(status) => Ended::Status(status),
                    Err(failure) => Ended::Failed(failure),
                }
            }
            Err(failure) => {
                self.failed(&whose, attempt, &failure).await;
                Ended::Failed(failure)
            }
        };
        claim.end(ended);
        self.changed();
        self.inner.memory.kick(&place.cluster_id).notify_one();
    }

    /// An operation failed: in its row where it has begun, else in memory.
    pub(super) async fn failed(&self, whose: &Whose, attempt: &str, failure: &Failure) {
        let place = &whose.place;
        tracing::error!(
            cluster.id = place.cluster_id,
            plugin.name = place.plugin,
            error = %failure,
            "a change of a plugin failed"
        );
        self.tell(whose, EventType::PluginFailed, failure.to_string(), true);
        let begun = match self.install(place).await {
            Ok(install) => install.is_some_and(|install| install.operation.is_some()),
            Err(_) => false,
        };
        if begun && let Err(error) = self.inner.records.fail(place, failure).await {
            // It counts as unfinished then, and goes on when the database is back.
            tracing::error!(plugin.name = place.plugin, error = %error, "its end cannot be written down");
        }
        self.inner.memory.note(place, |seen| {
            seen.pending = None;
            seen.failed = (!begun).then(|| (attempt.to_owned(), failure.clone()));
        });
    }

    /// The same as `work`, with every change of what blocks it told to whoever watches.
    pub(super) async fn watched<T>(&self, progress: &Progress, work: impl Future<Output = T>) -> T {
        let (_, mut blocking) = progress.follow();
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                // Cancel-safe; ends never, for `progress` lives.
                Ok(()) = blocking.changed() => self.changed(),
            }
        }
    }
}

/// The event of an operation that ended well.
fn happened(done: &Done) -> (EventType, String) {
    let version = &done.version;
    match done.kind {
        OperationKind::Upgrade => (EventType::PluginUpgraded, format!("it has version {version} now")),
        OperationKind::Configure => {
            (EventType::PluginConfigured, format!("version {version} has another config"))
        }
        OperationKind::RollBack => (EventType::PluginRolledBack, format!("it has version {version} again")),
        OperationKind::Install | OperationKind::Remove => {
            (EventType::PluginInstalled, format!("version {version} is installed"))
        }
    }
}

/// How long until this time; nothing where it has passed.
pub(super) fn time_until(deadline_ms: i64) -> Duration {
    time_of(deadline_ms).duration_since(SystemTime::now()).unwrap_or_default()
}
