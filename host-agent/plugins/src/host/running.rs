//! The operations that are running: one for each plugin of a cluster, each in a task of its own. Whoever asks for the same
//! attaches to it; whoever asks for something else has to wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use k8sctl_types::failure::Failure;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::wish::{Ended, Follow, Wish, WishKind};
use crate::engine::Progress;
use crate::records::{OperationKind, Place};

/// What an operation was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Asked {
    /// A person's wish.
    Wish(Wish),
    /// To take it away.
    Removal {
        /// With all that it left.
        purge: bool,
    },
    /// The cluster file has it so.
    Spec {
        /// Digest of its package.
        package_sha256: String,
    },
    /// Begun before the host agent was started anew; who asked for what is known only so far.
    Resumed(OperationKind),
}

impl Asked {
    /// Whether who asks for this gets what the running one does.
    fn is_met_by(&self, running: &Self) -> bool {
        match (self, running) {
            (Self::Removal { .. }, Self::Resumed(OperationKind::Remove)) => true,
            (Self::Wish(wish), Self::Resumed(kind)) => {
                matches!(
                    (wish.change, kind),
                    // What is there already is configured or upgraded by its being added, and configured by an upgrade
                    // to the same package.
                    (
                        WishKind::Add,
                        OperationKind::Install | OperationKind::Configure | OperationKind::Upgrade
                    ) | (WishKind::Configure, OperationKind::Configure)
                        | (WishKind::Upgrade, OperationKind::Upgrade | OperationKind::Configure)
                        | (WishKind::RollBack, OperationKind::RollBack)
                )
            }
            (asked, running) => asked == running,
        }
    }

    /// What is done to the plugin, for others.
    fn doing(&self) -> String {
        match self {
            Self::Wish(wish) => match wish.change {
                WishKind::Add => "is being added".to_owned(),
                WishKind::Configure => OperationKind::Configure.to_string(),
                WishKind::Upgrade => OperationKind::Upgrade.to_string(),
                WishKind::RollBack => OperationKind::RollBack.to_string(),
            },
            Self::Removal { .. } => OperationKind::Remove.to_string(),
            Self::Spec { .. } => "is being brought to what the cluster file says".to_owned(),
            Self::Resumed(kind) => kind.to_string(),
        }
    }
}

struct Entry {
    asked: Asked,
    follow: Follow,
    task: Option<AbortHandle>,
}

/// See the module. Clones share the list.
#[derive(Clone, Default)]
pub(super) struct Running {
    entries: Arc<Mutex<HashMap<Place, Entry>>>,
}

/// The right to work on a plugin of a cluster, or who has it and does the same.
pub(super) enum Claimed {
    /// Nobody else does.
    New(Claim),
    /// It is being done.
    Same(Follow),
}

/// The right to work on a plugin of a cluster, until it is dropped.
pub(super) struct Claim {
    pub(super) place: Place,
    pub(super) progress: Progress,
    follow: Follow,
    running: Running,
    end: Option<oneshot::Sender<Ended>>,
}

impl Running {
    pub(super) fn claim(&self, place: &Place, asked: Asked) -> Result<Claimed, Failure> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(place) {
            if asked.is_met_by(&entry.asked) {
                return Ok(Claimed::Same(entry.follow.clone()));
            }
            let reason = format!("it {} already", entry.asked.doing());
            let next = "wait until that has ended: `k8sctl plugin status` shows it";
            return Err(Failure::new("PLUGIN-BUSY", format!("plugin {}", place.plugin), reason, next));
        }
        let (end, ended) = oneshot::channel();
        let plugin = place.plugin.clone();
        let ended = async move { ended.await.unwrap_or_else(|_| Ended::Failed(interrupted(&plugin))) };
        let follow = Follow { progress: Progress::new(), ended: ended.boxed().shared() };
        entries.insert(place.clone(), Entry { asked, follow: follow.clone(), task: None });
        Ok(Claimed::New(Claim {
            place: place.clone(),
            progress: follow.progress.clone(),
            follow,
            running: self.clone(),
            end: Some(end),
        }))
    }

    /// Keeps by what the operation can be ended, unless it has ended already.
    pub(super) fn started(&self, place: &Place, task: AbortHandle) {
        if let Some(entry) = self.entries().get_mut(place) {
            entry.task = Some(task);
        }
    }

    /// What is done to the plugin now, and what it says.
    pub(super) fn doing(&self, place: &Place) -> Option<(String, Progress)> {
        self.entries().get(place).map(|entry| (entry.asked.doing(), entry.follow.progress.clone()))
    }

    /// The same of all plugins of a cluster, by name. Whoever reads their rows afterwards finds none that seems to have been
    /// left: an operation ends in its row first.
    pub(super) fn all_doing(&self, cluster_id: &str) -> HashMap<String, (String, Progress)> {
        let entries = self.entries();
        let of = entries.iter().filter(|(place, _)| place.cluster_id == cluster_id);
        let doing = |entry: &Entry| (entry.asked.doing(), entry.follow.progress.clone());
        of.map(|(place, entry)| (place.plugin.clone(), doing(entry))).collect()
    }

    pub(super) fn is_running(&self, place: &Place) -> bool {
        self.entries().contains_key(place)
    }

    /// Ends all operations of a cluster that is gone.
    pub(super) fn abort_cluster(&self, cluster_id: &str) {
        let mut tasks = Vec::new();
        for (place, entry) in self.entries().iter_mut() {
            if place.cluster_id == cluster_id {
                tasks.extend(entry.task.take());
            }
        }
        // Their claims are dropped with them, which takes this lock.
        tasks.iter().for_each(AbortHandle::abort);
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Place, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// For whoever wants to know how it goes.
    pub(super) fn follow(&self) -> Follow {
        self.follow.clone()
    }

    /// It has ended so. Who hears of that finds nothing running any more.
    pub(super) fn end(mut self, ended: Ended) {
        let end = self.end.take();
        drop(self);
        if let Some(end) = end {
            // Perhaps nobody follows it.
            let _ = end.send(ended);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.running.entries().remove(&self.place);
    }
}

/// The task of an operation ended without saying how.
pub(super) fn interrupted(plugin: &str) -> Failure {
    Failure::new(
        "PLUGIN-INTERRUPTED",
        format!("plugin {plugin}"),
        "its operation broke off; what was begun goes on by itself",
        "see `k8sctl plugin status`, and the host agent's log for why",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(change: WishKind, config: &str) -> Asked {
        Asked::Wish(Wish {
            change,
            plugin: "hello".to_owned(),
            config_json: Some(config.to_owned()),
            dev: false,
            lift_quarantine: false,
            adopt: false,
            to: None,
        })
    }

    fn claim(running: &Running, asked: Asked) -> Claim {
        match running.claim(&Place::new("c", "hello"), asked) {
            Ok(Claimed::New(claim)) => claim,
            Ok(Claimed::Same(_)) => panic!("somebody else does it"),
            Err(failure) => panic!("{failure}"),
        }
    }

    #[tokio::test]
    async fn the_same_wish_attaches_and_another_one_has_to_wait() {
        let running = Running::default();
        let place = Place::new("c", "hello");
        let first = claim(&running, wish(WishKind::Add, "{}"));
        let Ok(Claimed::Same(follow)) = running.claim(&place, wish(WishKind::Add, "{}")) else {
            panic!("it is the same")
        };
        let Err(busy) = running.claim(&place, wish(WishKind::Add, "{\"a\": 1}")) else {
            panic!("it is another")
        };
        assert_eq!((busy.id.as_str(), busy.reason.as_str()), ("PLUGIN-BUSY", "it is being added already"));
        // On another cluster nothing runs.
        assert!(!running.is_running(&Place::new("d", "hello")));
        let gone = Ended::Gone { kept: Vec::new() };
        first.end(gone.clone());
        assert_eq!(follow.ended.await, gone);
        assert!(!running.is_running(&place));
    }

    #[tokio::test]
    async fn one_that_breaks_off_says_so_and_lets_go() {
        let running = Running::default();
        let claim = claim(&running, wish(WishKind::Add, "{}"));
        let follow = claim.follow();
        drop(claim);
        let Ended::Failed(failure) = follow.ended.await else { panic!("it did not end well") };
        assert_eq!(failure.id, "PLUGIN-INTERRUPTED");
        assert!(!running.is_running(&Place::new("c", "hello")));
    }

    #[test]
    fn what_was_resumed_is_met_by_its_kind() {
        let resumed = Asked::Resumed;
        assert!(wish(WishKind::Upgrade, "").is_met_by(&resumed(OperationKind::Upgrade)));
        assert!(!wish(WishKind::Upgrade, "").is_met_by(&resumed(OperationKind::Remove)));
        assert!(wish(WishKind::Add, "").is_met_by(&resumed(OperationKind::Configure)));
        assert!(!wish(WishKind::Configure, "").is_met_by(&resumed(OperationKind::Upgrade)));
        assert!(Asked::Removal { purge: true }.is_met_by(&resumed(OperationKind::Remove)));
        assert!(!Asked::Removal { purge: true }.is_met_by(&Asked::Removal { purge: false }));
    }
}
