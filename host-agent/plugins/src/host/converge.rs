//! Brings the plugins of a cluster to what was agreed to with its file: looks where all of them stand, decides, and begins
//! what may begin. Called again and again while an `up` runs; what it began goes on by itself.

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::Package;

use super::ask::{ask_sha256, part_of};
use super::begin::{PlanSource, Prepared, not_approved};
use super::order::{Member, Standing, Step, plan_steps};
use super::outcome::Lift;
use super::resolve::{immutable_changes, kind_of, parse};
use super::running::{Asked, Claim, Claimed};
use super::wish::{ClusterAccess, Converged, Ended, Gate, PinnedPlugin, Removal, WantedPlugin, WishError};
use super::{PluginHost, Whose, stored_badly};
use crate::dag::Part;
use crate::records::{Approved, Install, Origin, Place};

/// Who agreed to what a spec brings: the operation has the name of whoever applied it.
const BY_SPEC: u32 = 0;

impl PluginHost {
    /// Begins what may begin, and tells what is missing. `attempt`: what asks for it; a plugin that failed in it is not
    /// tried again.
    pub async fn converge(
        &self,
        access: &ClusterAccess,
        wanted: &[WantedPlugin],
        gate: Gate,
        attempt: &str,
    ) -> Result<Converged, Failure> {
        // Before the rows: what is running while they are read is waited for.
        let running = self.inner.running.all_doing(&access.cluster_id);
        let installs = self.installs(&access.cluster_id).await?;
        let mut members = self.members(access, wanted, &installs, attempt).await;
        for member in &mut members {
            member.doing = running.get(&member.part.name).map(|(doing, _)| doing.clone());
        }
        let steps = plan_steps(&members, gate);
        let mut converged = Converged::default();
        for (member, step) in members.iter().zip(steps) {
            let name = member.part.name.as_str();
            let waiting = self.take_step(access, wanted, &installs, name, &step, attempt).await?;
            let place = Place::new(&access.cluster_id, name);
            let shown = member.doing.is_none().then(|| waiting.clone()).flatten();
            if self.inner.memory.seen(&place).pending != shown {
                self.inner.memory.note(&place, |seen| seen.pending = shown);
                self.changed();
            }
            if !member.is_of_spec() {
                // A command's own business, which is only helped on.
                continue;
            }
            converged.waiting.extend(waiting.map(|why| (name.to_owned(), why)));
            if let Step::Failed(failure) = step
                && converged.failed.is_none()
            {
                converged.failed = Some((name.to_owned(), failure));
            }
        }
        self.forget_others(access, &members);
        Ok(converged)
    }

    /// Nothing is awaited any more of plugins that the file has no more and that were never installed.
    fn forget_others(&self, access: &ClusterAccess, members: &[Member]) {
        for name in self.inner.memory.seen_of(&access.cluster_id).into_keys() {
            let place = Place::new(&access.cluster_id, &name);
            let is_member = members.iter().any(|member| member.part.name == name);
            if !is_member && !self.inner.running.is_running(&place) {
                self.inner.memory.forget(&place);
                self.changed();
            }
        }
    }

    /// Does it; gives for what the plugin waits now.
    async fn take_step(
        &self,
        access: &ClusterAccess,
        wanted: &[WantedPlugin],
        installs: &[Install],
        name: &str,
        step: &Step,
        attempt: &str,
    ) -> Result<Option<String>, Failure> {
        let install = || installs.iter().find(|install| install.plugin == name);
        match step {
            Step::Done | Step::Failed(_) => Ok(None),
            Step::Wait(why) => Ok(Some(why.clone())),
            Step::Resume => {
                if let Some(install) = install() {
                    self.resume(access, install);
                }
                Ok(Some("its operation goes on".to_owned()))
            }
            Step::Begin => {
                if let Some(wanted) = wanted.iter().find(|wanted| wanted.pinned.name == name) {
                    self.begin_spec(access, wanted, attempt);
                }
                Ok(Some("it is about to be changed".to_owned()))
            }
            Step::Own => {
                let place = Place::new(&access.cluster_id, name);
                let owned = self.inner.records.set_origin(&place, Origin::Spec).await;
                owned.map_err(stored_badly(&place))?;
                self.changed();
                Ok(None)
            }
            Step::Remove => {
                let removal = Removal { purge: false, deadline: None, attempt: Some(attempt.to_owned()) };
                if let Err(failure) = self.begin_removal(access, name, &removal).await {
                    // Told by the next look, once.
                    self.failed(&Whose::new(access, name), attempt, &failure).await;
                }
                Ok(Some("it is about to be removed".to_owned()))
            }
        }
    }

    async fn members(
        &self,
        access: &ClusterAccess,
        wanted: &[WantedPlugin],
        installs: &[Install],
        attempt: &str,
    ) -> Vec<Member> {
        let mut members = Vec::new();
        for wanted in wanted {
            let install = installs.iter().find(|install| install.plugin == wanted.pinned.name);
            let is_current = match install {
                Some(install) => self.is_current(access, wanted, install, installs).await,
                None => false,
            };
            let member = self.member(access, pinned_part(&wanted.pinned), true, install, is_current, attempt);
            members.push(member);
        }
        for install in installs {
            if members.iter().any(|member| member.part.name == install.plugin) {
                continue;
            }
            let part = match self.manifest_of(install).await {
                Some(manifest) => part_of(&manifest),
                None => bare_part(&install.plugin),
            };
            members.push(self.member(access, part, false, Some(install), false, attempt));
        }
        members
    }

    fn member(
        &self,
        access: &ClusterAccess,
        part: Part,
        is_wanted: bool,
        install: Option<&Install>,
        is_current: bool,
        attempt: &str,
    ) -> Member {
        let place = Place::new(&access.cluster_id, &part.name);
        let seen = self.inner.memory.seen(&place);
        let before_begin = seen.failed.filter(|(of, _)| of == attempt).map(|(_, failure)| failure);
        let failed = install.filter(|install| install.attempt == attempt);
        Member {
            is_wanted,
            doing: None,
            failed: before_begin.or_else(|| failed.and_then(|install| install.failure.clone())),
            standing: install.map(|install| Standing {
                origin: install.origin,
                state: install.state,
                message: install.message.clone(),
                is_unfinished: install.operation.is_some(),
                is_current,
            }),
            part,
        }
    }

    /// Whether the plugin is what was agreed to, by what it was asked the last time: no process is started.
    pub(super) async fn is_current(
        &self,
        access: &ClusterAccess,
        wanted: &WantedPlugin,
        install: &Install,
        installs: &[Install],
    ) -> bool {
        if !install.is_settled() || install.package_sha256 != wanted.pinned.package_sha256 {
            return false;
        }
        let dependencies = self.dependencies(&wanted.pinned.requires, installs).await;
        let secrets = self.kept_secrets(&access.cluster_id, &wanted.pinned.name).await;
        ask_sha256(&wanted.config, &access.facts, &dependencies, &secrets) == install.ask_sha256
    }

    /// Begins what the file wants of one plugin, in a task of its own; a failure is told by the next look.
    fn begin_spec(&self, access: &ClusterAccess, wanted: &WantedPlugin, attempt: &str) {
        let place = Place::new(&access.cluster_id, &wanted.pinned.name);
        let asked = Asked::Spec { package_sha256: wanted.pinned.package_sha256.clone() };
        let Ok(Claimed::New(claim)) = self.inner.running.claim(&place, asked) else { return };
        let (host, access, wanted, attempt) =
            (self.clone(), access.clone(), wanted.clone(), attempt.to_owned());
        let name = format!("plugin {}", wanted.pinned.name);
        let task =
            task::spawn(name, async move { host.carry_out_spec(&access, &wanted, &attempt, claim).await });
        self.inner.running.started(&place, task);
        self.changed();
    }

    async fn carry_out_spec(
        &self,
        access: &ClusterAccess,
        wanted: &WantedPlugin,
        attempt: &str,
        claim: Claim,
    ) {
        match self.prepare_spec(access, wanted, attempt).await {
            Ok(prepared) => self.operate(access, prepared, claim).await,
            Err(error) => {
                let plugin = claim.place.plugin.clone();
                let failure = error.into_failure(&plugin);
                self.failed(&Whose::new(access, &plugin), attempt, &failure).await;
                claim.end(Ended::Failed(failure));
                self.changed();
            }
        }
    }

    async fn prepare_spec(
        &self,
        access: &ClusterAccess,
        wanted: &WantedPlugin,
        attempt: &str,
    ) -> Result<Prepared, WishError> {
        let pinned = &wanted.pinned;
        let name = pinned.name.as_str();
        let package = self.pinned_package(pinned).await?;
        let approval = package.manifest.approval();
        let new = approval.beyond(&pinned.approved);
        if !new.is_empty() {
            return Err(not_approved(name, &approval, "", &new).into());
        }
        self.may_start(&package, Lift::No).await?;
        let installs = self.installs(&access.cluster_id).await?;
        self.fits_with_spec(access, &package)?;
        let install = installs.iter().find(|install| install.plugin == name);
        if let Some(install) = install.filter(|install| install.revision != 0)
            && install.config_version == package.manifest.config_version
        {
            let schema = self.schema(&package).await?;
            let changes = immutable_changes(&schema, &parse(&install.config_json)?, &wanted.config);
            if !changes.is_empty() {
                return Err(WishError::Config(changes));
            }
        }
        let question = self.question(access, package.clone(), wanted.config.clone(), &installs).await?;
        let answer = self.agreed_answer(&question, "").await?;
        let source = PlanSource::Said { question: Box::new(question), answer: Box::new(answer) };
        Ok(Prepared {
            kind: kind_of(install, &package),
            origin: Origin::Spec,
            attempt: attempt.to_owned(),
            deadline: self.inner.limits.ready,
            adopt: false,
            // What the plan of the spec showed was agreed to, deletions included.
            prune_many: true,
            approved: Approved { lines: approval.lines, by_uid: BY_SPEC },
            package,
            source,
        })
    }

    /// The package that was agreed to: from the store, or, where it was lost there, from the plugin path.
    async fn pinned_package(&self, pinned: &PinnedPlugin) -> Result<Package, Failure> {
        let lost = match self.stored(&pinned.package_sha256).await {
            Ok(package) => return Ok(package),
            Err(failure) => failure,
        };
        match self.find(&pinned.name, true).await {
            Ok(package) if package.sha256 == pinned.package_sha256 => Ok(package),
            _ => Err(lost),
        }
    }

    /// Which plugins go together was decided with the whole file; the cluster's version is its own matter.
    fn fits_with_spec(&self, access: &ClusterAccess, package: &Package) -> Result<(), Failure> {
        super::ask::wrong_kubernetes(&package.manifest, &access.facts.kubernetes_version).map_or(Ok(()), Err)
    }
}

fn pinned_part(pinned: &PinnedPlugin) -> Part {
    Part {
        version: pinned.version.parse().unwrap_or(semver::Version::new(0, 0, 0)),
        provides: pinned.provides.clone(),
        requires: pinned.requires.clone(),
        ..bare_part(&pinned.name)
    }
}

fn bare_part(name: &str) -> Part {
    Part {
        name: name.to_owned(),
        version: semver::Version::new(0, 0, 0),
        provides: Vec::new(),
        requires: Vec::new(),
        conflicts: Vec::new(),
    }
}
