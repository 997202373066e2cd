//! What is wrong with a cluster, by its conditions and those of its nodes.

use serde::Serialize;

use super::{ClusterView, ConditionView};

/// How a cluster is, of `health`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HealthView {
    /// Name of the cluster.
    pub cluster_name: String,
    /// There is no problem.
    pub healthy: bool,
    /// It was waited for, and in vain.
    pub timed_out: bool,
    /// How many nodes it has.
    pub nodes: usize,
    /// How many of them are Ready.
    pub ready: usize,
    /// What is wrong: of nodes first, then of the whole cluster.
    pub problems: Vec<ProblemView>,
    /// What is not as one may want it, and stays so: it makes no cluster unhealthy.
    pub notices: Vec<ProblemView>,
}

/// A condition that is not `True`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProblemView {
    /// Name of the node; `null` for the whole cluster.
    pub node: Option<String>,
    /// `KubeletReady`
    pub condition: String,
    /// `False` or `Unknown`
    pub status: &'static str,
    /// CamelCase word.
    pub reason: Option<String>,
    /// One line.
    pub message: Option<String>,
    /// When the status last changed.
    pub since: Option<String>,
}

impl HealthView {
    /// Of a cluster of which nothing can be told.
    pub fn unknown(cluster: &str, condition: &str, reason: &str, message: &str) -> Self {
        let problem = ProblemView {
            node: None,
            condition: condition.to_owned(),
            status: "Unknown",
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            since: None,
        };
        Self {
            cluster_name: cluster.to_owned(),
            healthy: false,
            timed_out: false,
            nodes: 0,
            ready: 0,
            problems: vec![problem],
            notices: Vec::new(),
        }
    }
}

impl From<&ClusterView> for HealthView {
    fn from(cluster: &ClusterView) -> Self {
        if !cluster.conditions.iter().any(|condition| condition.r#type == "Ready") {
            let message = "the host agent has not looked at it yet, or removes it";
            return Self::unknown(&cluster.name, "Ready", "NotSeen", message);
        }
        let mut problems: Vec<ProblemView> = Vec::new();
        for node in &cluster.nodes {
            let told = untrue(&node.conditions).filter(|one| !one.is_silence());
            problems.extend(told.map(|one| problem(Some(&node.name), one)));
        }
        let has_bad_nodes = !problems.is_empty();
        let whole = untrue(&cluster.conditions).filter(|one| !(has_bad_nodes && only_sums_up(one)));
        let (notices, whole): (Vec<_>, Vec<_>) = whole.map(|one| problem(None, one)).partition(is_for_good);
        problems.extend(whole);
        Self {
            cluster_name: cluster.name.clone(),
            healthy: problems.is_empty(),
            timed_out: false,
            nodes: cluster.nodes.len(),
            ready: cluster.nodes.iter().filter(|node| node.phase == "Ready").count(),
            problems,
            notices,
        }
    }
}

fn untrue(conditions: &[ConditionView]) -> impl Iterator<Item = &ConditionView> {
    conditions.iter().filter(|condition| condition.status != "True")
}

fn problem(node: Option<&str>, condition: &ConditionView) -> ProblemView {
    ProblemView {
        node: node.map(str::to_owned),
        condition: condition.r#type.clone(),
        status: condition.status,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.since.clone(),
    }
}

/// Says nothing but what the nodes' own conditions say.
fn only_sums_up(condition: &ConditionView) -> bool {
    matches!(condition.r#type.as_str(), "VMsRunning" | "AgentsReady" | "NodesHealthy")
}

/// The bundle is so: nobody waits for it.
fn is_for_good(problem: &ProblemView) -> bool {
    problem.condition == "ClusterDNS" && problem.reason.as_deref() == Some("NotInBundle")
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::control::v1::{ClusterStatus, NodeStatus};
    use k8sctl_proto::node::v1::{Condition, ConditionStatus};

    use super::*;

    fn condition(kind: &str, status: ConditionStatus, reason: &str) -> Condition {
        let (r#type, reason) = (kind.to_owned(), reason.to_owned());
        Condition { r#type, status: status.into(), reason, ..Condition::default() }
    }

    fn health(conditions: Vec<Condition>, nodes: &[(&str, Vec<Condition>)]) -> HealthView {
        let node = |(name, conditions): &(&str, Vec<Condition>)| NodeStatus {
            name: (*name).to_owned(),
            phase: if conditions.is_empty() { "Ready" } else { "Booting" }.to_owned(),
            conditions: conditions.clone(),
            ..NodeStatus::default()
        };
        let nodes = nodes.iter().map(node).collect();
        let status = ClusterStatus { name: "home".to_owned(), conditions, nodes, ..ClusterStatus::default() };
        (&ClusterView::from(status)).into()
    }

    fn problems(health: &HealthView) -> Vec<String> {
        let line = |one: &ProblemView| {
            format!("{} {}={}", one.node.as_deref().unwrap_or("-"), one.condition, one.status)
        };
        health.problems.iter().map(line).collect()
    }

    use ConditionStatus::{False, True, Unknown};

    #[test]
    fn a_cluster_is_well_when_all_conditions_are_true() {
        let dns = condition("ClusterDNS", False, "NotInBundle");
        let well = health(vec![condition("Ready", True, "AllNodesReady"), dns], &[("a", vec![])]);
        assert!(well.healthy && well.problems.is_empty(), "{well:?}");
        assert_eq!((well.nodes, well.ready, well.notices.len()), (1, 1, 1));
        let dns = condition("ClusterDNS", False, "PodNotReady");
        let ill = health(vec![condition("Ready", True, "AllNodesReady"), dns], &[]);
        assert_eq!((ill.healthy, problems(&ill)), (false, vec!["- ClusterDNS=False".to_owned()]));
    }

    #[test]
    fn what_nobody_has_looked_at_is_not_well() {
        let ill = health(vec![], &[("a", vec![])]);
        assert_eq!((ill.healthy, problems(&ill)), (false, vec!["- Ready=Unknown".to_owned()]));
        let ill =
            health(vec![condition("Ready", True, "")], &[("a", vec![condition("DiskOK", Unknown, "")])]);
        assert_eq!((ill.healthy, problems(&ill)), (false, vec!["a DiskOK=Unknown".to_owned()]));
    }

    #[test]
    fn nodes_speak_for_themselves() {
        let sums =
            || vec![condition("Ready", False, "NotAsDesired"), condition("AgentsReady", False, "NoSession")];
        let silent = ["DiskOK", "KubeletReady"].map(|kind| condition(kind, Unknown, "NoSession"));
        let other =
            [condition("AgentReady", False, "NoSession"), condition("NodeOK", Unknown, "NodeNotReady")];
        let node = ("a", [other.to_vec(), silent.to_vec()].concat());
        assert_eq!(problems(&health(sums(), &[node])), ["a AgentReady=False", "- Ready=False"]);
        // Where no node says it, the sum does.
        assert_eq!(problems(&health(sums(), &[])), ["- Ready=False", "- AgentsReady=False"]);
    }
}
