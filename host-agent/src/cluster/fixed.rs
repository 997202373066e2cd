//! What of a cluster cannot change while it lives. Pure.

use std::collections::BTreeSet;

use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{ClusterSpec, NodeSpec, Role};

use crate::records::ClusterRecord;

/// Refuses a spec that wants what no operation can bring about, instead of an `up` that ends well without it. `place`
/// is where a key stands, as [`k8sctl_types::spec::KeyLines`] names it, with all that comes between it and what is said.
pub fn refuse_changes(
    record: &ClusterRecord,
    wanted: &ClusterSpec,
    place: impl Fn(&str) -> String,
) -> Result<(), Failure> {
    let before = &record.spec;
    let mut changed = Vec::new();
    let mut compare = |key: &str, what: &str, old: String, new: String| {
        if old != new {
            changed.push(format!("{}{what} is {old} and would become {new}", place(key)));
        }
    };
    // A file that names no release leaves it as it is.
    let kubernetes =
        wanted.kubernetes.as_ref().map_or_else(|| record.kubernetes.clone(), ToString::to_string);
    compare("kubernetes", "kubernetes", record.kubernetes.clone(), kubernetes);
    // Disks are made of an image once; only new nodes would get the other suite.
    let key = "image.suite";
    compare(key, key, before.image.suite.clone(), wanted.image.suite.clone());
    let (old, new) = (&before.network, &wanted.network);
    for (key, old, new) in [
        ("network.cidr", old.cidr, new.cidr),
        ("network.pods", old.pods, new.pods),
        ("network.services", old.services, new.services),
    ] {
        compare(key, key, old.to_string(), new.to_string());
    }
    let (old, new) = (control_plane(before), control_plane(wanted));
    let key = format!("node {}.name", new.map(|node| node.name.as_str()).unwrap_or_default());
    compare(
        &key,
        "the control plane",
        old.map(named).unwrap_or_default(),
        new.map(named).unwrap_or_default(),
    );
    // Also those who left the file and are not gone yet: who comes back is the Node that Kubernetes has.
    for old in record.nodes.iter().map(|node| &node.spec) {
        let Some(new) = wanted.nodes.iter().find(|node| node.name == old.name) else { continue };
        // They are given to a node when it registers.
        for (mark, old_marks, new_marks) in
            [("labels", labels(old), labels(new)), ("taints", taints(old), taints(new))]
        {
            let (key, what) = (format!("node {}.{mark}", old.name), format!("{mark} of node {}", old.name));
            compare(&key, &what, old_marks, new_marks);
        }
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

fn control_plane(spec: &ClusterSpec) -> Option<&NodeSpec> {
    spec.nodes.iter().find(|node| node.role == Role::ControlPlane)
}

fn named(node: &NodeSpec) -> String {
    format!("{} at {}", node.name, node.ip)
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
    use k8sctl_types::spec::Parsed;

    use super::*;

    const SPEC: &str = r#"
name = "home"
kubernetes = "v1.29.0"
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
[image]
suite = "bookworm"
"#;

    fn parsed(text: &str) -> Parsed {
        k8sctl_types::spec::parse(text).expect("a sound spec")
    }

    fn refused(change: (&str, &str)) -> Option<Failure> {
        assert!(SPEC.contains(change.0), "{}", change.0);
        let record = ClusterRecord::planned(&parsed(SPEC).spec, None, "image", "v1.29.0");
        let Parsed { spec, lines, .. } = parsed(&SPEC.replace(change.0, change.1));
        let place = |key: &str| lines.of(key).map_or_else(String::new, |line| format!("{line}: "));
        refuse_changes(&record, &spec, place).err()
    }

    #[test]
    fn what_an_up_can_bring_about_passes() {
        assert_eq!(refused(("\"ssd\", rack = \"1\"", "\"ssd\", rack = \"1\"")), None);
        assert_eq!(refused(("disk = \"ssd\", rack = \"1\"", "rack = \"1\", disk = \"ssd\"")), None);
        assert_eq!(refused(("192.168.122.11", "192.168.122.31")), None);
        assert_eq!(refused(("name = \"worker\"", "name = \"other\"")), None);
        assert_eq!(refused(("kubernetes = \"v1.29.0\"", "")), None);
        assert_eq!(refused(("suite = \"bookworm\"", "")), None, "it is what there is without it");
    }

    #[test]
    fn the_rest_is_named_all_at_once() {
        let change = ("v1.29.0\"\n[network]\npods = \"10.244", "v1.30.0\"\n[network]\npods = \"10.245");
        let failure = refused(change).expect("it is refused");
        assert_eq!(failure.id, "SPEC-FIXED");
        let wanted = ": 3: kubernetes is v1.29.0 and would become v1.30.0; \
                      5: network.pods is 10.244.0.0/16 and would become 10.245.0.0/16";
        assert!(failure.reason.ends_with(wanted), "{}", failure.reason);
        for (change, word) in [
            (
                ("192.168.122.10", "192.168.122.30"),
                ": 7: the control plane is control at 192.168.122.10 and would",
            ),
            (("name = \"control\"", "name = \"second\""), "second at 192.168.122.10"),
            (
                ("rack = \"1\"", "rack = \"2\""),
                ": 14: labels of node worker is disk=ssd,rack=1 and would become",
            ),
            // What left the file is where its node is.
            (
                ("labels = { disk = \"ssd\", rack = \"1\" }", ""),
                ": 10: labels of node worker is disk=ssd,rack=1",
            ),
            (
                ("suite = \"bookworm\"", "suite = \"trixie\""),
                ": 16: image.suite is bookworm and would become trixie",
            ),
        ] {
            let failure = refused(change).expect("it is refused");
            assert!(failure.reason.contains(word), "{}", failure.reason);
        }
    }

    #[test]
    fn a_worker_that_comes_back_before_it_is_gone_is_the_node_that_kubernetes_has() {
        let both = parsed(SPEC).spec;
        let mut alone = both.clone();
        alone.nodes.retain(|node| node.name == "control");
        let record = ClusterRecord::planned(&both, None, "image", "v1.29.0");
        let mut leaving = ClusterRecord::planned(&alone, Some(&record), "image", "v1.29.0");
        let other = parsed(&SPEC.replace("\"ssd\"", "\"hdd\"")).spec;
        for state in [crate::records::NodeState::Draining, crate::records::NodeState::Removing] {
            leaving.nodes.iter_mut().filter(|node| node.name == "worker").for_each(|node| node.state = state);
            assert_eq!(refuse_changes(&leaving, &both, |_| String::new()), Ok(()));
            let failure = refuse_changes(&leaving, &other, |_| String::new()).expect_err("it is refused");
            assert!(
                failure.reason.contains("labels of node worker is disk=ssd,rack=1"),
                "{}",
                failure.reason
            );
        }
        leaving.nodes.retain(|node| node.name == "control");
        assert_eq!(refuse_changes(&leaving, &other, |_| String::new()), Ok(()));
    }
}
