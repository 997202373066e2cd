//! Plans: what `up` with a spec and `down` of a cluster would do on this host, for a person to agree to. Files that are read
//! and judged, and plans of many nodes, take a processor for a while: that is done off the runtime's threads.

use std::sync::Arc;

use host_artifacts::image::Image;
use host_hypervisor::adoption::Adoption;
use host_hypervisor::change::HostPlan;
use host_hypervisor::desired::volume_prefix;
use host_hypervisor::observed::ObservedHost;
use host_hypervisor::plan::{plan_host, plan_teardown};
use host_plugins::PinnedPlugin;
use k8sctl_proto::control::v1 as control;
use k8sctl_rpc::task::blocking;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, ClusterSpec, Diagnostic, HostRoom, KeyLines, Parsed};
use sha2::{Digest, Sha256};

use super::consent::destroyed;
use super::desired::{cluster_facts, desired_host, desired_image, host_pool, node_pod_cidr};
use super::fixed::refuse_changes;
use super::manager::RequestError;
use super::notices::{crowded, notices};
use super::plugins::{Asked, Proposed, propose};
use super::release::choose_image;
use super::shared::Shared;
use crate::records::{Agreed, ClusterRecord, ClusterState, NodeState, Records};

/// A plan with the warnings of its spec.
#[derive(Debug)]
pub struct PlannedUp {
    /// What would be done.
    pub plan: control::Plan,
    /// Warnings about the spec.
    pub warnings: Vec<Diagnostic>,
    /// The spec, as parsed.
    pub spec: ClusterSpec,
    /// The image of new nodes.
    pub image: Image,
    /// The cluster that it was made for; `None` where there is none yet.
    pub record: Option<ClusterRecord>,
    /// What of the host a person loses by agreeing to it.
    pub destroyed: Vec<Agreed>,
    /// The plugins that it was made for.
    pub plugins: Vec<PinnedPlugin>,
    /// The plugin whose pod network new nodes begin with; empty: the built-in one.
    pub pod_network: String,
}

/// What `up` with this spec would do.
pub async fn plan_up(shared: &Arc<Shared>, file: &control::SpecFile) -> Result<PlannedUp, RequestError> {
    let observed = shared.hypervisor.observe(&host_pool(&shared.config)).await;
    // Mistakes are told without libvirt too; with it, also what does not fit onto this host.
    let (of_host, text) = (observed.as_ref().ok().map(room), file.text.clone());
    let parse = move || match of_host {
        Some(room) => spec::parse_on(&text, &room),
        None => spec::parse(&text),
    };
    let parsed = blocking(parse).await;
    let Parsed { spec, lines, warnings } = parsed.map_err(RequestError::Diagnostics)?;
    let record = shared.records.cluster(&spec.name).await?;
    if record.as_ref().is_some_and(|record| record.state == ClusterState::Removing) {
        return Err(is_being_removed(&spec.name).into());
    }
    if let Some(record) = &record {
        // First of all: whoever has got a bundle and built an image has done it for something.
        refuse_changes(record, &spec, |key| place(file, &lines, key))?;
    }
    let image = {
        let (shared, spec, record) = (Arc::clone(shared), spec.clone(), record.clone());
        let pinned = place(file, &lines, "kubernetes");
        blocking(move || choose_image(&shared, &spec, record.as_ref(), &pinned)).await?
    };
    let observed = observed?;

    let would_be = ClusterRecord::planned(&spec, record.as_ref(), &image.id, &image.kubernetes.to_string());
    refuse_too_many(&would_be)?;
    let adoption = stored_adoption(&shared.records).await?;
    // As it is at the end, when those who leave are gone.
    let mut at_the_end = would_be.clone();
    at_the_end.nodes.retain(|node| node.state == NodeState::Present);
    let names = shared.records.cluster_names().await?;
    let facts = cluster_facts(&at_the_end, Some(&image.images));
    let asked = Asked { file, spec: &spec, lines: &lines, record: record.as_ref(), facts: &facts };
    let proposed = propose(shared, &asked, &warnings).await?;
    let (config, boots) = (&shared.config, desired_image(&image));
    let mut desired = desired_host(config, &at_the_end, boots, observed.accelerator, names, |_| true);
    let is_known = |id: &str| record.iter().flat_map(|it| &it.nodes).any(|node| node.id == id);
    desired.nodes.iter_mut().for_each(|node| node.is_new = !is_known(&node.node_id));
    let plan = move || (plan_host(&desired, &observed, &adoption), observed);
    let (host, observed) = blocking(plan).await;
    let host = host?;
    let Proposed { changes: of_plugins, warnings: said, notices: noted, pinned, lock_text, pod_network } =
        proposed;
    let warnings = [warnings, said].concat();
    let mut notices = notices(&observed, &image, &spec);
    notices.extend(noted);
    notices.extend(crowded(observed.host_memory_bytes, &spec, &shared.records.clusters().await?));
    let mut changes = node_changes(&would_be, record.as_ref());
    changes.extend(host.changes.iter().map(|change| wire_change(change, &would_be.id)));
    changes.extend(of_plugins);
    let plan = control::Plan {
        cluster_name: spec.name.clone(),
        digest: plan_digest(&changes, &pinned),
        changes,
        notices,
        kubernetes_version: image.kubernetes.to_string(),
        image_id: image.id.clone(),
        operation_id: match record.as_ref().filter(|record| is_same(record, &spec, &image, &pinned)) {
            Some(record) => running(shared, record).await?,
            None => String::new(),
        },
        lock_text,
    };
    let (destroyed, plugins) = (destroyed(&host), pinned);
    Ok(PlannedUp { plan, warnings, spec, image, record, destroyed, plugins, pod_network })
}

/// Whether the cluster shall be that already.
pub(super) fn is_same(
    record: &ClusterRecord,
    spec: &ClusterSpec,
    image: &Image,
    plugins: &[PinnedPlugin],
) -> bool {
    record.spec == *spec && record.image_id == image.id && record.plugins == plugins
}

/// `cluster.toml:7: `; empty for a key that the file does not have.
fn place(file: &control::SpecFile, lines: &KeyLines, key: &str) -> String {
    match (file.name.as_str(), lines.of(key)) {
        (_, None) => String::new(),
        ("", Some(line)) => format!("line {line}: "),
        (name, Some(line)) => format!("{name}:{line}: "),
    }
}

/// What `down` would remove.
pub async fn plan_down(shared: &Shared, record: &ClusterRecord) -> Result<control::Plan, RequestError> {
    let observed = shared.hypervisor.observe(&host_pool(&shared.config)).await?;
    let host = teardown(shared, record, &observed).await?;
    let changes: Vec<_> = host.changes.iter().map(|change| wire_change(change, &record.id)).collect();
    Ok(control::Plan {
        cluster_name: record.name.clone(),
        digest: plan_digest(&changes, &[]),
        changes,
        kubernetes_version: record.kubernetes.clone(),
        image_id: record.image_id.clone(),
        operation_id: match record.state {
            ClusterState::Removing => running(shared, record).await?,
            ClusterState::Present => String::new(),
        },
        ..control::Plan::default()
    })
}

/// The id of a cluster's running operation; empty without one. One that has ended, which could not be recorded, is none.
async fn running(shared: &Shared, record: &ClusterRecord) -> Result<String, RequestError> {
    let running = shared.records.running_operation(&record.id).await?;
    let running = running.filter(|operation| !shared.has_ended(&operation.id));
    Ok(running.map(|operation| operation.id).unwrap_or_default())
}

/// The changes that take a cluster off the host.
pub(super) async fn teardown(
    shared: &Shared,
    record: &ClusterRecord,
    observed: &ObservedHost,
) -> Result<HostPlan, RequestError> {
    let adoption = stored_adoption(&shared.records).await?;
    Ok(plan_teardown(&record.id, &host_pool(&shared.config), observed, &adoption)?)
}

/// What is changed in adopted networks.
pub(super) async fn stored_adoption(records: &Records) -> Result<Adoption, RequestError> {
    let stored = records.adoption().await?;
    if stored.is_null() {
        return Ok(Adoption::default());
    }
    serde_json::from_value(stored).map_err(|error| {
        let reason = format!("it cannot be read: {error}");
        let next = "restore the host agent's database from a backup";
        Failure::new("HOST-RECORD-DAMAGED", "record of adopted networks", reason, next).into()
    })
}

/// Why nothing else can be done with a cluster.
pub(super) fn is_being_removed(cluster: &str) -> Failure {
    Failure::new(
        "OPERATION-RUNNING",
        format!("cluster {cluster}"),
        "it is being removed",
        format!("wait for it with `k8sctl down {cluster}`, then try again"),
    )
}

/// Why what was agreed to is not done.
pub(super) fn plan_changed(cluster: &str) -> Failure {
    Failure::new(
        "PLAN-CHANGED",
        format!("cluster {cluster}"),
        "the host changed since the plan was shown",
        "run the command again and look at the new plan",
    )
}

/// Changes to nodes as members of the cluster; what happens to their VMs is the host's plan.
fn node_changes(would_be: &ClusterRecord, before: Option<&ClusterRecord>) -> Vec<control::Change> {
    would_be
        .nodes
        .iter()
        .filter_map(|node| {
            let known = before.is_some_and(|record| {
                record.nodes.iter().any(|old| old.name == node.name && old.state == NodeState::Present)
            });
            let (action, reason, destructive) = match (node.state, known) {
                (NodeState::Present, true) => return None,
                (NodeState::Present, false) => (control::Action::Create, "joins the cluster", false),
                (NodeState::Draining | NodeState::Removing, _) => {
                    (control::Action::Delete, "is no longer in the file: drained and deleted", true)
                }
            };
            Some(control::Change {
                action: action.into(),
                kind: "kubernetes-node".to_owned(),
                name: node.name.clone(),
                reason: reason.to_owned(),
                destructive,
                ..control::Change::default()
            })
        })
        .collect()
}

/// An object's name as the user sees it. Volumes carry the cluster's id in their names, which says nothing to a person
/// and is not decided yet when a new cluster is planned.
pub(super) fn shown_name<'a>(name: &'a str, cluster_id: &str) -> &'a str {
    name.strip_prefix(&volume_prefix(cluster_id)).unwrap_or(name)
}

/// A change as the user sees it.
fn wire_change(change: &host_hypervisor::change::HostChange, cluster_id: &str) -> control::Change {
    use host_hypervisor::change::Action;
    let action = match change.action {
        Action::Create => control::Action::Create,
        Action::Update => control::Action::Update,
        Action::Replace => control::Action::Replace,
        Action::Delete => control::Action::Delete,
        Action::Adopt => control::Action::Adopt,
        Action::Release => control::Action::Release,
    };
    control::Change {
        action: action.into(),
        kind: change.kind.to_string(),
        name: shown_name(&change.name, cluster_id).to_owned(),
        reason: change.reason.clone(),
        destructive: change.destructive,
        ..control::Change::default()
    }
}

/// Nodes on their way out keep their part of the pod network until they are gone.
fn refuse_too_many(would_be: &ClusterRecord) -> Result<(), Failure> {
    let pods = would_be.spec.network.pods;
    let Some(node) = would_be.nodes.iter().find(|node| !pods.contains(&node_pod_cidr(pods, node.pod_index)))
    else {
        return Ok(());
    };
    Err(Failure::new(
        "NODE-POD-NETWORK",
        format!("node {}", node.name),
        format!("network.pods {pods} has no /24 left for it while nodes that leave still have theirs"),
        "take the new nodes out of the file, run `k8sctl up` so that the others leave, then add the new ones",
    ))
}

/// Of what a person sees: changes with what plugins ask for, and which packages those are.
fn plan_digest(changes: &[control::Change], plugins: &[PinnedPlugin]) -> String {
    let mut hash = Sha256::new();
    for change in changes {
        let control::Change { action, kind, name, reason, permissions_digest, .. } = change;
        hash.update(format!("{action} {kind} {name} {reason} {permissions_digest}\n"));
    }
    for plugin in plugins {
        hash.update(format!("{} {}\n", plugin.name, plugin.package_sha256));
    }
    hex::encode(hash.finalize())
}

fn room(host: &ObservedHost) -> HostRoom {
    HostRoom {
        memory_bytes: host.host_memory_bytes,
        cpus: host.host_cpus,
        free_disk_bytes: host.pool_free_bytes,
    }
}

#[cfg(test)]
mod tests {
    use host_hypervisor::desired::volume_name;
    use host_hypervisor::observed::{ObservedPool, ObservedVolume};

    use super::*;
    use crate::cluster::fake::{FakeHostAgent, SPEC, other_spec, spec_file};
    use crate::cluster::node_requirements::tests::pinned;

    async fn refused(agent: &FakeHostAgent, text: &str) -> Failure {
        let file = spec_file(text, "cluster.toml");
        match plan_up(&agent.shared, &file).await {
            Err(RequestError::Refused(failure)) => failure,
            other => panic!("it is not refused: {other:?}"),
        }
    }

    /// With the same network, or only with a VM of the same name.
    #[tokio::test]
    async fn another_cluster_in_the_way_has_its_name_while_a_record_has_it() {
        let agent = FakeHostAgent::new().await;
        let operation = agent.begin(agent.generation(SPEC).await).await;
        let _manager = agent.start().await;
        agent.wait_host("both VMs are there", |host| host.observed.domains.len() == 2).await;
        let network = other_spec().replace("k8s-other", "k8s-home").replace("192.168.123.", "192.168.122.");
        let domain = other_spec().replace("\"other-worker\"", "\"worker\"");
        let cases = [("LIBVIRT-NETWORK-TAKEN", network), ("LIBVIRT-FOREIGN-DOMAIN", domain)];
        for (id, spec) in &cases {
            let failure = refused(&agent, spec).await;
            assert_eq!(failure.id, *id, "{failure}");
            assert!(failure.next_step.contains("`k8sctl down home`"), "{failure}");
        }
        // Damaged, it is known nevertheless; gone, `down` takes neither name nor id.
        for (sql, said) in [
            ("UPDATE cluster SET spec = '{' || spec", "`k8sctl down home`"),
            ("DELETE FROM cluster", "restore the host agent's database from a backup"),
        ] {
            let write = move |c: &mut rusqlite::Connection| c.execute(sql, []);
            assert_eq!(agent.store.call_blocking(write).expect("writes"), 1);
            for (id, spec) in &cases {
                let failure = refused(&agent, spec).await;
                assert_eq!(failure.id, *id, "{failure}");
                assert!(failure.next_step.contains(said), "{failure}");
            }
        }
        assert!(refused(&agent, SPEC).await.reason.contains(&operation.cluster_id));
    }

    #[test]
    fn a_digest_is_of_what_plugins_ask_for_too() {
        let change = |digest: &str| control::Change {
            kind: "plugin".to_owned(),
            permissions_digest: digest.to_owned(),
            ..control::Change::default()
        };
        let hello = pinned("hello", Vec::new());
        let other = PinnedPlugin { package_sha256: "11".repeat(32), ..hello.clone() };
        let digests = [
            plan_digest(&[change("")], &[]),
            plan_digest(&[change("one")], &[]),
            plan_digest(&[change("two")], &[]),
            plan_digest(&[change("")], std::slice::from_ref(&hello)),
            plan_digest(&[change("")], &[other]),
        ];
        for (at, digest) in digests.iter().enumerate() {
            assert!(!digests[at + 1..].contains(digest), "{at}");
        }
        assert_eq!(digests[3], plan_digest(&[change("")], &[hello]));
    }

    #[tokio::test]
    async fn a_disk_of_a_new_nodes_name_is_not_its_own() {
        let agent = FakeHostAgent::new().await;
        let (smaller, _) = SPEC.rsplit_once("[[node]]").expect("it has a worker");
        agent.begin(agent.generation(smaller).await).await;
        let cluster = agent.cluster("home").await;
        let name = volume_name(&cluster.id, "worker");
        {
            let mut host = agent.hypervisor.host();
            let path = Some(agent.shared.config.pool_dir.clone());
            host.observed.pool = Some(ObservedPool { path, active: true, autostart: true });
            host.observed.volumes.push(ObservedVolume { name: name.clone(), capacity: 1, backing: None });
        }
        let failure = refused(&agent, SPEC).await;
        assert_eq!(failure.id, "LIBVIRT-DISK-LEFT", "{failure}");
        assert!(failure.object.contains(&name), "{failure}");
        // It is the node's own once the records have the node: its VM was undefined by hand.
        agent.begin(agent.generation(SPEC).await).await;
        let file = spec_file(SPEC, "");
        assert!(plan_up(&agent.shared, &file).await.is_ok());
    }
}
