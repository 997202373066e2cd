//! How a plugin is taken away: by what the inventory has, without starting it. A broken plugin can be removed, and so can
//! one whose package is gone.

use std::time::Duration;

use k8sctl_rpc::task;
use k8sctl_types::event::EventType;
use k8sctl_types::failure::Failure;

use super::operation::time_until;
use super::resolve::in_spec;
use super::running::{Asked, Claim, Claimed};
use super::wish::{ClusterAccess, Ended, Follow, Removal};
use super::{PluginHost, Whose, not_installed, stored_badly};
use crate::dag;
use crate::engine::Limits;
use crate::records::{Install, NewRemoval, Origin, Place, deadline_ms};

impl PluginHost {
    /// Begins to take a plugin away, or attaches to whoever does. Resolves when it is begun: it goes on by itself then.
    pub async fn begin_removal(
        &self,
        access: &ClusterAccess,
        plugin: &str,
        removal: &Removal,
    ) -> Result<Follow, Failure> {
        let place = Place::new(&access.cluster_id, plugin);
        let Some(install) = self.install(&place).await? else {
            // What is told of a try that began nothing goes all the same.
            if !self.inner.running.is_running(&place) {
                self.inner.memory.forget(&place);
                self.changed();
            }
            return Err(not_installed(plugin));
        };
        let claim = match self.inner.running.claim(&place, Asked::Removal { purge: removal.purge })? {
            Claimed::Same(follow) => return Ok(follow),
            Claimed::New(claim) => claim,
        };
        if let Err(failure) = self.prepare_removal(access, &install, removal).await {
            claim.end(Ended::Failed(failure.clone()));
            return Err(failure);
        }
        self.changed();
        let follow = claim.follow();
        let (host, access) = (self.clone(), access.clone());
        let task = task::spawn(format!("plugin {plugin}"), async move { host.remove(&access, claim).await });
        self.inner.running.started(&place, task);
        Ok(follow)
    }

    async fn prepare_removal(
        &self,
        access: &ClusterAccess,
        install: &Install,
        removal: &Removal,
    ) -> Result<(), Failure> {
        let plugin = install.plugin.as_str();
        if install.origin == Origin::Spec && removal.attempt.is_none() {
            return Err(in_spec(plugin));
        }
        let installs = self.installs(&access.cluster_id).await?;
        let needed_by = dag::dependents(&self.parts(&installs).await, plugin);
        if !needed_by.is_empty() {
            let reason = format!("it is needed by {}", needed_by.join(", "));
            let next = format!("remove first, in this order: {}", needed_by.join(", "));
            return Err(Failure::new("PLUGIN-NEEDED", format!("plugin {plugin}"), reason, next));
        }
        let new = NewRemoval {
            purge: removal.purge,
            attempt: removal.attempt.clone().unwrap_or_else(|| format!("command {}", uuid::Uuid::new_v4())),
            deadline_ms: deadline_ms(removal.deadline.unwrap_or(self.inner.limits.gone)),
        };
        let place = Place::new(&access.cluster_id, plugin);
        self.inner.records.begin_removal(&place, new).await.map_err(stored_badly(&place))
    }

    /// Takes away what the inventory has, to the end.
    pub(super) async fn remove(&self, access: &ClusterAccess, claim: Claim) {
        let whose = Whose::new(access, &claim.place.plugin);
        let result = self.watched(&claim.progress, self.take_away(access, &claim)).await;
        let ended = match result {
            Ok(kept) => {
                self.inner.memory.forget(&whose.place);
                let message = match kept.len() {
                    0 => "nothing of it is left".to_owned(),
                    count => format!("{count} of its objects stay: {}", kept.join(", ")),
                };
                self.tell(&whose, EventType::PluginRemoved, message, false);
                Ended::Gone { kept }
            }
            Err(failure) => {
                self.failed(&whose, "", &failure).await;
                Ended::Failed(failure)
            }
        };
        claim.end(ended);
        self.changed();
        self.inner.memory.kick(&whose.place.cluster_id).notify_one();
    }

    async fn take_away(&self, access: &ClusterAccess, claim: &Claim) -> Result<Vec<String>, Failure> {
        let place = &claim.place;
        let turn = self.inner.memory.turn(place);
        let _turn = turn.lock().await;
        let install = self.installed(place).await?;
        // One that was resumed gets the time that it would have had.
        let left = install.deadline_ms.map(time_until).filter(|left| *left > Duration::ZERO);
        let limits = Limits { gone: left.unwrap_or(self.inner.limits.gone), ..self.inner.limits };
        let engine = self.engine(access, &place.plugin, limits, claim.progress.clone());
        let kept = engine.remove(install.purge).await?.kept;
        self.point("after-remove");
        let unused = self.inner.records.end(place).await.map_err(stored_badly(place))?;
        // What stays may need them: a volume holds a database that knows its password.
        let forget = install.purge || kept.is_empty();
        let (host, place) = (self.clone(), place.clone());
        task::blocking(move || {
            if forget {
                host.inner.vault.forget(&place.cluster_id, Some(&place.plugin));
            }
            host.forget_packages(&unused);
        })
        .await;
        Ok(kept)
    }
}
