//! A plugin that brings the pod network writes nothing to the cluster before every node has made way for it. A node that
//! still keeps the routes of the network of before would put them over those of the new one, and take them away again when
//! it hears of it: some networks never look after theirs a second time.
//!
//! Who tells nodes what plugins need of them ([`PluginHost::nodes_make_way`]) says after each look how far they are; an
//! operation waits for that here, until its deadline. Nothing of the wait is stored: an operation that was interrupted in it
//! begins it anew.

use std::time::{Duration, SystemTime};

use k8sctl_types::failure::Failure;
use plugin_plan::{CheckedPlan, NodeWant};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::PluginHost;
use super::running::interrupted;
use super::wish::Handover;
use crate::engine::{Blocking, Progress};
use crate::records::Place;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Waits {
    /// `node k8s-worker-1`
    object: String,
    reason: String,
}

impl PluginHost {
    /// How far the nodes of a cluster are with making way for the pod network that they were told of last. Said after each
    /// look at what plugins need of nodes, by whoever tells them.
    pub fn nodes_make_way(&self, cluster_id: &str, now: Handover) {
        self.inner.memory.handover(cluster_id).send_if_modified(|before| {
            let is_new = before.as_ref() != Some(&now);
            *before = Some(now);
            is_new
        });
    }

    /// What was said last; `None`: nothing, since an operation began.
    pub fn handover(&self, cluster_id: &str) -> Option<Handover> {
        self.inner.memory.handover(cluster_id).borrow().clone()
    }

    /// What was said before the transaction in which the operation began counts for nothing: whoever tells nodes what plugins
    /// need of them may not have known of it.
    pub(super) fn expect_handover(&self, place: &Place, plan: &CheckedPlan) {
        if network_of(plan).is_some() {
            self.inner.memory.handover(&place.cluster_id).send_replace(None);
        }
    }

    /// Whether the plan brings a pod network that the applied revision (0: there is none) has not.
    pub(super) async fn takes_network_over(&self, place: &Place, revision: u64, plan: &CheckedPlan) -> bool {
        let Some(brought) = network_of(plan) else { return false };
        if revision == 0 {
            return true;
        }
        match self.plan_of(place, revision).await {
            Ok(applied) => network_of(&applied) != Some(brought),
            Err(_) => true,
        }
    }

    /// Until every node has made way. `time` is what it had from the beginning.
    pub(super) async fn nodes_have_made_way(
        &self,
        place: &Place,
        progress: &Progress,
        until: Instant,
        time: Duration,
    ) -> Result<(), Failure> {
        let seen = self.inner.memory.handover(&place.cluster_id).subscribe();
        wait(seen, &place.plugin, progress, until, time).await
    }
}

/// The file of the pod network that a plan brings.
fn network_of(plan: &CheckedPlan) -> Option<&str> {
    plan.node.iter().find_map(|requirement| match &requirement.what {
        NodeWant::Cni { config_file } => Some(config_file.as_str()),
        _ => None,
    })
}

async fn wait(
    mut seen: watch::Receiver<Option<Handover>>,
    plugin: &str,
    progress: &Progress,
    until: Instant,
    time: Duration,
) -> Result<(), Failure> {
    let mut said = None;
    loop {
        let waits = in_the_way(seen.borrow_and_update().as_ref(), plugin);
        let Some(waits) = waits else {
            progress.blocked(None);
            return Ok(());
        };
        let Waits { object, reason } = &waits;
        if said.as_ref() != Some(&waits) {
            progress.say(format!("waiting for {object} to make way for its pod network: {reason}"));
        }
        let (object, reason) = (object.clone(), reason.clone());
        progress.blocked(Some(Blocking { object, reason, pod: None, since: SystemTime::now() }));
        match timeout_at(until, seen.changed()).await {
            Ok(Ok(())) => said = Some(waits),
            // The cluster is gone.
            Ok(Err(_)) => return Err(interrupted(plugin)),
            Err(_) => return Err(too_late(plugin, &waits, time)),
        }
    }
}

/// The first node that has not made way for the plugin; `None`: all have.
fn in_the_way(seen: Option<&Handover>, plugin: &str) -> Option<Waits> {
    let Some(seen) = seen.filter(|seen| seen.plugin == plugin) else {
        let reason = "they are about to be told of its pod network".to_owned();
        return Some(Waits { object: "the nodes".to_owned(), reason });
    };
    let ((first, why), others) = seen.waiting.split_first()?;
    let others: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
    let more = if others.is_empty() { String::new() } else { format!(" (then for {})", others.join(", ")) };
    Some(Waits { object: format!("node {first}"), reason: format!("{why}{more}") })
}

fn too_late(plugin: &str, waits: &Waits, time: Duration) -> Failure {
    let Waits { object, reason } = waits;
    let reason = format!(
        "{object} did not make way for its pod network in {} s: {reason}; nothing was written to the cluster",
        time.as_secs()
    );
    let next = "see to the node's agent (`k8sctl node describe NAME` says more), or take a node that does not come back \
                out of the cluster file and run `k8sctl up`; the same command goes on from here";
    Failure::new("PLUGIN-HANDOVER", format!("plugin {plugin}"), reason, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handover(plugin: &str, waiting: &[(&str, &str)]) -> Option<Handover> {
        let waiting = waiting.iter().map(|&(name, why)| (name.to_owned(), why.to_owned())).collect();
        Some(Handover { plugin: plugin.to_owned(), waiting })
    }

    #[test]
    fn nodes_have_made_way_when_that_was_said_of_this_plugin() {
        let shown = |seen: Option<Handover>| {
            in_the_way(seen.as_ref(), "flannel").map(|waits| format!("{}: {}", waits.object, waits.reason))
        };
        let untold = Some("the nodes: they are about to be told of its pod network".to_owned());
        assert_eq!(shown(None), untold);
        assert_eq!(shown(handover("", &[])), untold, "the built-in one is wanted still");
        let both = [("a", "its agent has no session"), ("b", "cni: writes files")];
        let waits = Some("node a: its agent has no session (then for b)".to_owned());
        assert_eq!(shown(handover("flannel", &both)), waits);
        assert_eq!(shown(handover("flannel", &both[1..])), Some("node b: cni: writes files".to_owned()));
        assert_eq!(shown(handover("flannel", &[])), None);
    }

    #[tokio::test]
    async fn what_is_waited_for_is_said_until_the_last_node_has() {
        let sender = watch::Sender::new(None);
        let progress = Progress::new();
        let (mut lines, mut blocking) = progress.follow();
        let long = Duration::from_secs(600);
        let waiting = wait(sender.subscribe(), "flannel", &progress, Instant::now() + long, long);
        let told = async {
            let named = |name: &'static str| {
                move |now: &Option<Blocking>| now.as_ref().is_some_and(|it| it.object == name)
            };
            blocking.wait_for(named("the nodes")).await.expect("it lives");
            sender.send_replace(handover("flannel", &[("a", "its agent has no session")]));
            blocking.wait_for(named("node a")).await.expect("it lives");
            sender.send_replace(handover("flannel", &[]));
            blocking.wait_for(Option::is_none).await.expect("it lives");
        };
        let (waited, ()) = tokio::join!(waiting, told);
        waited.expect("all have made way");
        let lines: Vec<String> = std::iter::from_fn(|| lines.try_recv().ok()).collect();
        assert_eq!(
            lines,
            [
                "waiting for the nodes to make way for its pod network: they are about to be told of its pod network",
                "waiting for node a to make way for its pod network: its agent has no session",
            ]
        );
    }

    #[tokio::test]
    async fn its_deadline_names_the_node_and_a_cluster_that_is_gone_ends_it() {
        let sender = watch::Sender::new(handover("flannel", &[("a", "its agent has no session")]));
        let progress = Progress::new();
        let (now, time) = (Instant::now(), Duration::from_secs(90));
        let late =
            wait(sender.subscribe(), "flannel", &progress, now, time).await.expect_err("it is too late");
        assert_eq!((late.id.as_str(), late.object.as_str()), ("PLUGIN-HANDOVER", "plugin flannel"));
        let says = "node a did not make way for its pod network in 90 s: its agent has no session; nothing was written";
        assert!(late.reason.starts_with(says), "{late}");
        assert!(late.next_step.contains("k8sctl node describe"), "{late}");
        let seen = sender.subscribe();
        drop(sender);
        let gone =
            wait(seen, "flannel", &progress, now + time, time).await.expect_err("nobody tells it any more");
        assert_eq!(gone.id, "PLUGIN-INTERRUPTED");
    }
}
