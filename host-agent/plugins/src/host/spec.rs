//! What the plugins of a cluster file would change, found out when the file is planned: packages against the lock, plugins
//! against each other, configs against the plugins themselves. Starts each plugin at most once, and one of which nothing is
//! another not at all; writes nothing.

use std::path::Path;

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::PluginSpec;
use plugin_package::{LockFile, LockedPlugin, Package, Trust};
use plugin_plan::{Diagnostic, NodeRequirement};

use super::ask::{ask_sha256, lacking_secrets, part_of, wrong_kubernetes};
use super::offer::objects;
use super::outcome::Lift;
use super::resolve::{immutable_changes, parse};
use super::wish::{NodeNeed, PinnedPlugin, ProposedAction, ProposedChange, SpecAsk, SpecProposal, WishError};
use super::{PluginHost, Whose, stored_badly};
use crate::dag;
use crate::records::{Install, OperationKind, Origin, Place};
use crate::requirements;

/// Kinds that an upgrade leaves, whatever it plans: the engine deletes them only with the plugin.
const STAY: [&str; 5] =
    ["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim", "StorageClass"];

/// Asked for beside its permissions by a package that nobody vouches for: an administrator agrees to each of them.
const UNSIGNED: &str = "UNSIGNED: to be taken although nobody that this host trusts vouches for this package";

/// What a plugin would become.
struct Would {
    node: Vec<NodeRequirement>,
    /// `None`: nothing is another.
    change: Option<(ProposedAction, String, bool)>,
}

impl PluginHost {
    /// See the module.
    pub async fn propose_spec(&self, ask: &SpecAsk<'_>) -> Result<SpecProposal, Failure> {
        let installs = match ask.cluster_id {
            Some(cluster_id) => self.installs(cluster_id).await?,
            None => Vec::new(),
        };
        let mut proposal = SpecProposal::default();
        let mut packages = Vec::new();
        for wanted in ask.wanted {
            match self.package_for(wanted, ask, &mut proposal).await {
                Ok(package) => packages.push((wanted, package)),
                Err(failure) => proposal.failures.push((wanted.name.clone(), failure)),
            }
        }
        // With one of them missing the others would lack it, which is no mistake of theirs.
        if packages.len() == ask.wanted.len() {
            self.check_together(ask, &packages, &installs, &mut proposal).await;
        }
        let mut needs = self.needs_of_commands(ask, &installs).await?;
        for (wanted, package) in &packages {
            if has_mistakes(&proposal, &wanted.name) {
                continue;
            }
            let install = installs.iter().find(|install| install.plugin == wanted.name);
            let would = match self.would(ask, wanted, package, install, &installs, &mut proposal).await {
                Ok(would) => would,
                Err(WishError::Config(mistakes)) => {
                    let mistakes = mistakes.into_iter().map(|mistake| (wanted.name.clone(), mistake));
                    proposal.diagnostics.extend(mistakes);
                    continue;
                }
                Err(WishError::Failure(failure)) => {
                    proposal.failures.push((wanted.name.clone(), failure));
                    continue;
                }
            };
            needs.extend(would.node.iter().map(|requirement| NodeNeed {
                plugin: wanted.name.clone(),
                requirement: requirement.clone(),
                was_ready: false,
            }));
            self.add(ask, package, install, would, &mut proposal).await?;
        }
        if let Some(failure) = requirements::conflict(&needs) {
            let plugin = failure.object.trim_start_matches("plugin ").to_owned();
            proposal.failures.push((plugin, failure));
        }
        leave_or_delete(ask.wanted, &installs, &mut proposal);
        proposal.lock.plugins.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(proposal)
    }

    /// Takes the packages that a proposal pinned into the store; called before the spec is committed.
    pub async fn pin(&self, wanted: &[PluginSpec], pinned: &[PinnedPlugin]) -> Result<(), Failure> {
        for pin in pinned {
            self.inner.memory.pin(&pin.package_sha256);
            let (library, sha256) = (self.inner.library.clone(), pin.package_sha256.clone());
            let is_sound = move || library.stored(&sha256).is_ok_and(|stored| stored.verify().is_ok());
            if task::blocking(is_sound).await {
                continue;
            }
            let source = wanted.iter().find(|wanted| wanted.name == pin.name).and_then(source_of);
            let package = self.find(source.as_deref().unwrap_or(&pin.name), source.is_some()).await?;
            if package.sha256 != pin.package_sha256 {
                let reason = format!(
                    "its package changed since it was planned: its digest was {}, and is {}",
                    pin.package_sha256, package.sha256
                );
                let object = format!("plugin {}", pin.name);
                let next = "nothing was changed; run the same command again";
                return Err(Failure::new("PLUGIN-DIGEST", object, reason, next));
            }
            let library = self.inner.library.clone();
            task::blocking(move || library.take_in(&package)).await?;
        }
        Ok(())
    }

    /// The package of one plugin, as the lock has it.
    async fn package_for(
        &self,
        wanted: &PluginSpec,
        ask: &SpecAsk<'_>,
        proposal: &mut SpecProposal,
    ) -> Result<Package, Failure> {
        let source = source_of(wanted);
        // Who writes down a path means what lies there, whoever signed it.
        let package = self.find(source.as_deref().unwrap_or(&wanted.name), source.is_some()).await?;
        let name = &package.manifest.name;
        if *name != wanted.name {
            let reason = format!("the package in {} is {name}", package.folder.display());
            let next = format!("call it so in the file: [plugins.{name}]");
            return Err(Failure::new("PLUGIN-UNKNOWN", format!("plugin {}", wanted.name), reason, next));
        }
        if matches!(package.trust, Trust::Dev) {
            proposal.notices.push(format!("{name} is not signed: it is taken as a package in development"));
        }
        let mut mistakes = Vec::new();
        if let Some(failure) = lock_mismatch(ask.lock, &package) {
            mistakes.push(failure);
        } else if ask.locked && ask.lock.of(name).is_none() {
            let reason = "k8sctl.lock has no entry of it, and --locked refuses that";
            let next = "run the same command once without --locked";
            mistakes.push(Failure::new("PLUGIN-LOCK", format!("plugin {name}"), reason, next));
        }
        mistakes.extend(wrong_kubernetes(&package.manifest, &ask.facts.kubernetes_version));
        proposal.diagnostics.extend(mistakes.into_iter().map(|failure| {
            let Failure { id, reason, next_step, .. } = failure;
            let path = String::new();
            (name.clone(), Diagnostic { code: id, path, message: reason, hint: next_step, warning: false })
        }));
        proposal.lock.plugins.push(LockedPlugin::of_package(&package, source.as_deref().unwrap_or("path")));
        Ok(package)
    }

    /// The plugins of the file, and what commands added beside them.
    async fn check_together(
        &self,
        ask: &SpecAsk<'_>,
        packages: &[(&PluginSpec, Package)],
        installs: &[Install],
        proposal: &mut SpecProposal,
    ) {
        let mut parts: Vec<_> = packages.iter().map(|(_, package)| part_of(&package.manifest)).collect();
        let added: Vec<_> = installs.iter().filter(|it| is_added(ask.wanted, it)).cloned().collect();
        parts.extend(self.parts(&added).await);
        for mistake in dag::mistakes(&parts) {
            if ask.wanted.iter().any(|wanted| wanted.name == mistake.plugin) {
                let diagnostic = Diagnostic {
                    code: mistake.id.to_owned(),
                    path: String::new(),
                    message: mistake.message,
                    hint: mistake.hint,
                    warning: false,
                };
                proposal.diagnostics.push((mistake.plugin, diagnostic));
            } else {
                // One that a command added: the file has no line of it.
                let object = format!("plugin {}", mistake.plugin);
                let failure = Failure::new(mistake.id, object, mistake.message, mistake.hint);
                proposal.failures.push((mistake.plugin, failure));
            }
        }
    }

    /// What the plugins that commands added need of nodes.
    async fn needs_of_commands(
        &self,
        ask: &SpecAsk<'_>,
        installs: &[Install],
    ) -> Result<Vec<NodeNeed>, Failure> {
        let Some(cluster_id) = ask.cluster_id else { return Ok(Vec::new()) };
        let mut needs = self.node_needs(cluster_id).await?;
        needs.retain(|need| {
            installs.iter().any(|install| install.plugin == need.plugin && is_added(ask.wanted, install))
        });
        Ok(needs)
    }

    /// What would become of one plugin.
    async fn would(
        &self,
        ask: &SpecAsk<'_>,
        wanted: &PluginSpec,
        package: &Package,
        install: Option<&Install>,
        installs: &[Install],
        proposal: &mut SpecProposal,
    ) -> Result<Would, WishError> {
        let cluster_id = ask.cluster_id.unwrap_or_default();
        let place = Place::new(cluster_id, &wanted.name);
        let settled = install.filter(|it| it.is_settled() && it.package_sha256 == package.sha256);
        let dependencies = self.dependencies(&package.manifest.requires, installs).await;
        let secrets = self.kept_secrets(cluster_id, &wanted.name).await;
        let ask_digest = ask_sha256(&wanted.config, ask.facts, &dependencies, &secrets);
        if let Some(install) = settled.filter(|install| install.ask_sha256 == ask_digest) {
            let node = self.node_of(&place).await?;
            return Ok(Would { node, change: owned(install) });
        }
        self.may_start(package, Lift::No).await?;
        if let Some(install) = install.filter(|install| install.revision != 0)
            && install.config_version == package.manifest.config_version
        {
            let schema = self.schema(package).await?;
            let changes = immutable_changes(&schema, &parse(&install.config_json)?, &wanted.config);
            if !changes.is_empty() {
                return Err(WishError::Config(changes));
            }
        }
        let question = super::ask::Question {
            whose: Whose { place: place.clone(), cluster_name: ask.facts.cluster_name.clone() },
            package: package.clone(),
            config: wanted.config.clone(),
            ask: plugin_process::PlanAsk {
                config_json: wanted.config.to_string(),
                facts: ask.facts.clone(),
                dependencies,
                secrets,
            },
            accounts: self.inventory(&place).accounts().await.map_err(stored_badly(&place))?,
        };
        let answer = self.answer(&question, false).await?;
        let warnings = answer.warnings.iter().map(|warning| (wanted.name.clone(), warning.clone()));
        proposal.diagnostics.extend(warnings);
        // They may be given until the plugin's turn comes, of a new cluster not before.
        let lacking = lacking_secrets(&question, &answer);
        let told = lacking.into_iter().map(|it| format!("{}: {}; {}", wanted.name, it.message, it.hint));
        proposal.notices.extend(told);
        let (bodies, missing) = self.bodies_at_hand(&answer.plan.remotes).await;
        let remotes = answer.plan.remotes.len();
        let plan = self.check(&question, answer.plan, &answer.secrets, bodies, true).await?;
        if let Some(install) = settled.filter(|install| install.plan_sha256 == answer.plan_sha256) {
            // Facts changed of which nothing follows.
            return Ok(Would { node: plan.node, change: owned(install) });
        }
        let (action, what) = describe(package, install);
        let mut reason = format!("{what}, {}", objects(plan.objects.len()));
        if remotes > 0 {
            let noun = if remotes == 1 { "manifest" } else { "manifests" };
            reason = format!("{reason} and {remotes} {noun}");
        }
        let mut destructive = false;
        if install.is_some() && missing.is_empty() {
            let entries = self.inventory(&place).entries().await.map_err(stored_badly(&place))?;
            let planned = plan.keys();
            let is_left =
                |entry: &crate::inventory::Entry| planned.iter().any(|key| key.same_object(&entry.key));
            let stays =
                |entry: &crate::inventory::Entry| entry.keep || STAY.contains(&entry.key.kind.as_str());
            let gone: Vec<_> = entries.iter().filter(|it| !stays(it) && !is_left(it)).collect();
            if !gone.is_empty() {
                let names: Vec<_> = gone.iter().take(3).map(|entry| entry.key.to_string()).collect();
                let more = if gone.len() > 3 { ", …" } else { "" };
                reason = format!("{reason}; deletes {}: {}{more}", objects(gone.len()), names.join(", "));
                destructive = true;
            }
        }
        Ok(Would { node: plan.node, change: Some((action, reason, destructive)) })
    }

    /// What the plan that is applied needs of nodes.
    async fn node_of(&self, place: &Place) -> Result<Vec<NodeRequirement>, Failure> {
        let needs = self.node_needs(&place.cluster_id).await?;
        let own = needs.into_iter().filter(|need| need.plugin == place.plugin);
        Ok(own.map(|need| need.requirement).collect())
    }

    async fn add(
        &self,
        ask: &SpecAsk<'_>,
        package: &Package,
        install: Option<&Install>,
        would: Would,
        proposal: &mut SpecProposal,
    ) -> Result<(), Failure> {
        let manifest = &package.manifest;
        let place = Place::new(ask.cluster_id.unwrap_or_default(), &manifest.name);
        let approval = manifest.approval();
        let agreed = ask.agreed.iter().find(|pinned| pinned.name == manifest.name);
        let mut known = self.inner.records.approved(&place).await.map_err(stored_badly(&place))?;
        known.extend(agreed.into_iter().flat_map(|pinned| pinned.approved.iter().cloned()));
        let mut permissions = approval.beyond(&known);
        let is_installed = install.is_some_and(|install| install.package_sha256 == package.sha256);
        let is_agreed = agreed.is_some_and(|pinned| pinned.package_sha256 == package.sha256);
        if matches!(package.trust, Trust::Dev) && !is_installed && !is_agreed {
            // What it may do may have been approved for another program.
            permissions.push(UNSIGNED.to_owned());
        }
        if let Some((action, reason, destructive)) = would.change {
            proposal.changes.push(ProposedChange {
                action,
                plugin: manifest.name.clone(),
                reason,
                destructive,
                permissions,
                permissions_digest: approval.digest,
            });
        }
        proposal.pinned.push(PinnedPlugin {
            name: manifest.name.clone(),
            version: manifest.version.to_string(),
            package_sha256: package.sha256.clone(),
            approved: approval.lines,
            provides: manifest.provides.clone(),
            requires: manifest.requires.clone(),
            node: would.node,
        });
        Ok(())
    }
}

/// Whether a command added it and the file does not name it.
fn is_added(wanted: &[PluginSpec], install: &Install) -> bool {
    install.origin == Origin::Command
        && install.operation != Some(OperationKind::Remove)
        && !wanted.iter().any(|wanted| wanted.name == install.plugin)
}

fn has_mistakes(proposal: &SpecProposal, plugin: &str) -> bool {
    proposal.diagnostics.iter().any(|(of, diagnostic)| of == plugin && !diagnostic.warning)
}

/// Installed plugins that the file does not name.
fn leave_or_delete(wanted: &[PluginSpec], installs: &[Install], proposal: &mut SpecProposal) {
    for install in installs {
        let name = &install.plugin;
        if is_added(wanted, install) {
            proposal.notices.push(format!("{name} was added by a command and is not in the file; it stays"));
        } else if install.origin == Origin::Spec && !wanted.iter().any(|wanted| wanted.name == *name) {
            let count = usize::try_from(install.objects).unwrap_or(usize::MAX);
            proposal.changes.push(ProposedChange {
                action: ProposedAction::Delete,
                plugin: name.clone(),
                reason: format!("the file has it no more: {}, {}", install.version, objects(count)),
                destructive: true,
                permissions: Vec::new(),
                permissions_digest: String::new(),
            });
        }
    }
}

/// What is as it shall be, and was added by a command, comes to be the file's.
fn owned(install: &Install) -> Option<(ProposedAction, String, bool)> {
    let reason = format!("{}: the file has it from now on; nothing of it changes", install.version);
    (install.origin == Origin::Command).then_some((ProposedAction::Update, reason, false))
}

/// What is done, and to what.
fn describe(package: &Package, install: Option<&Install>) -> (ProposedAction, String) {
    let trust = match &package.trust {
        Trust::BuiltIn => "in tree".to_owned(),
        Trust::Signed { key } => format!("signed by {key}"),
        Trust::Dev => "in development, not signed".to_owned(),
    };
    let version = &package.manifest.version;
    let Some(install) = install.filter(|install| install.revision != 0 || install.operation.is_some()) else {
        return (ProposedAction::Create, format!("{version} ({trust})"));
    };
    let what = if install.package_sha256 != package.sha256 {
        format!("{} → {version} ({trust})", install.version)
    } else if let Some(failure) = &install.failure {
        format!("{version} ({trust}), once more: the last try failed with {}", failure.id)
    } else {
        format!("{version} ({trust}), with another config or other facts")
    };
    (ProposedAction::Update, what)
}

/// The path that the file gives; `None`: it is in the plugin path.
fn source_of(wanted: &PluginSpec) -> Option<String> {
    wanted.source.as_deref().map(Path::display).map(|path| path.to_string())
}

/// The lock has another package of that name.
pub(super) fn lock_mismatch(lock: &LockFile, package: &Package) -> Option<Failure> {
    let name = &package.manifest.name;
    let locked = lock.of(name).filter(|locked| locked.sha256 != package.sha256)?;
    let reason = format!(
        "k8sctl.lock has {name} {} with the digest {}, and there is {} with {}",
        locked.version, locked.sha256, package.manifest.version, package.sha256
    );
    let next =
        format!("put the locked package back, or take the new one: k8sctl plugin upgrade -f FILE {name}");
    Some(Failure::new("PLUGIN-LOCK", format!("plugin {name}"), reason, next))
}

#[cfg(test)]
mod tests;
