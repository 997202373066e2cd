//! What of a cluster cannot change while it lives. Pure.

use std::collections::BTreeSet;

use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{ClusterSpec, NodeSpec, Role};

use crate::records::ClusterRecord;

/// Refuses a spec that wants what no operation can bring about, instead of an `up` that ends well without it.
pub fn refuse_changes(record: &ClusterRecord, wanted: &ClusterSpec, kubernetes: &str) -> Result<(), Failure> {
    let before = &record.spec;
    let mut changed = Vec::new();
    let mut compare = |what: &str, old: String, new: String| {
        if old != new {
            changed.push(format!("{what} is {old} and would become {new}"));
        }
    };
    compare("kubernetes", record.kubernetes.clone(), kubernetes.to_owned());
    let (old, new) = (&before.network, &wanted.network);
    compare("network.cidr", old.cidr.to_string(), new.cidr.to_string());
    compare("network.pods", old.pods.to_string(), new.pods.to_string());
    compare("network.services", old.services.to_string(), new.services.to_string());
    compare("the control plane", control_plane(before), control_plane(wanted));
    for old in &before.nodes {
        let Some(new) = wanted.nodes.iter().find(|node| node.name == old.name) else { continue };
        // They are given to a node when it registers.
        compare(&format!("labels of node {}", old.name), labels(old), labels(new));
        compare(&format!("taints of node {}", old.name), taints(old), taints(new));
    }
    if changed.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        "SPEC-FIXED",
        format!("cluster {}", record.name),
        format!("this cannot change while the cluster lives: {}", changed.join("; ")),
        "put it back; labels and taints can be changed with `kubectl label` and `kubectl taint`, everything else with \
         `k8sctl down` and `k8sctl up`",
    ))
}

fn control_plane(spec: &ClusterSpec) -> String {
    let text = |node: &NodeSpec| format!("{} at {}", node.name, node.ip);
    spec.nodes.iter().find(|node| node.role == Role::ControlPlane).map(text).unwrap_or_default()
}

fn labels(node: &NodeSpec) -> String {
    let all: BTreeSet<String> = node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    list(all)
}

fn taints(node: &NodeSpec) -> String {
    list(node.taints.iter().cloned().collect())
}

fn list(all: BTreeSet<String>) -> String {
    if all.is_empty() { "none".to_owned() } else { all.into_iter().collect::<Vec<_>>().join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"
name = "home"
[network]
pods = "10.244.0.0/16"
[[node]]
name = "control"
role = "control-plane"
ip = "192.168.122.10"
[[node]]
name = "worker"
role = "worker"
ip = "192.168.122.11"
labels = { disk = "ssd", rack = "1" }
"#;

    fn spec(text: &str) -> ClusterSpec {
        k8sctl_types::spec::parse(text).expect("a sound spec").spec
    }

    fn refused(change: (&str, &str), kubernetes: &str) -> Option<Failure> {
        assert!(SPEC.contains(change.0), "{}", change.0);
        let record = ClusterRecord::planned(&spec(SPEC), None, "image", "v1.29.0");
        refuse_changes(&record, &spec(&SPEC.replace(change.0, change.1)), kubernetes).err()
    }

    #[test]
    fn what_an_up_can_bring_about_passes() {
        assert_eq!(refused(("\"ssd\", rack = \"1\"", "\"ssd\", rack = \"1\""), "v1.29.0"), None);
        assert_eq!(
            refused(("disk = \"ssd\", rack = \"1\"", "rack = \"1\", disk = \"ssd\""), "v1.29.0"),
            None
        );
        assert_eq!(refused(("192.168.122.11", "192.168.122.31"), "v1.29.0"), None);
        assert_eq!(refused(("name = \"worker\"", "name = \"other\""), "v1.29.0"), None);
    }

    #[test]
    fn the_rest_is_named_all_at_once() {
        let failure = refused(("10.244.0.0/16", "10.245.0.0/16"), "v1.30.0").expect("it is refused");
        assert_eq!(failure.id, "SPEC-FIXED");
        let wanted = "kubernetes is v1.29.0 and would become v1.30.0; \
                      network.pods is 10.244.0.0/16 and would become 10.245.0.0/16";
        assert!(failure.reason.ends_with(wanted), "{}", failure.reason);
        for (change, word) in [
            (("192.168.122.10", "192.168.122.30"), "control at 192.168.122.30"),
            (("name = \"control\"", "name = \"second\""), "second at 192.168.122.10"),
            (("rack = \"1\"", "rack = \"2\""), "disk=ssd,rack=2"),
        ] {
            let failure = refused(change, "v1.29.0").expect("it is refused");
            assert!(failure.reason.contains(word), "{}", failure.reason);
        }
    }
}
