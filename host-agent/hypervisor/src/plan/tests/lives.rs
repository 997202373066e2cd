//! Random lives of a cluster, and of what is beside it.

use proptest::prelude::*;

use super::*;
use crate::desired::volume_name;
use crate::fake::Fault;

/// What a step of a random life does.
#[derive(Clone, Debug)]
enum Step {
    /// By the last part of their addresses; `true` gives all of them other names.
    Nodes(Vec<u8>, bool),
    Sizes(u32, u64),
    Powered(bool),
    Moved(u8),
    PowerLoss,
    Pause,
    /// The VM of the first node is undefined by hand.
    Undefined,
    /// The records are of an earlier time, in which the first node was another one, whose VM was renamed by hand.
    Restored,
    /// The first node's VM is defined once more under another name, with a mark that does not say on what it was put.
    Copied,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (proptest::sample::subsequence(vec![10_u8, 11, 12, 13], 0..=4), any::<bool>())
            .prop_map(|(lasts, renamed)| Step::Nodes(lasts, renamed)),
        (1_u32..8, 1_u64..8).prop_map(|(vcpus, gib)| Step::Sizes(vcpus, gib)),
        any::<bool>().prop_map(Step::Powered),
        (30_u8..34).prop_map(Step::Moved),
        Just(Step::PowerLoss),
        Just(Step::Pause),
        Just(Step::Undefined),
        Just(Step::Restored),
        Just(Step::Copied),
    ]
}

fn live(desired: &mut DesiredHost, host: &mut FakeHost, step: &Step) {
    desired.generation += 1;
    match step {
        Step::Nodes(lasts, renamed) => {
            let letter = if *renamed { 'm' } else { 'n' };
            desired.nodes = lasts.iter().map(|last| node(&format!("{letter}{last}"), *last)).collect()
        }
        Step::Sizes(vcpus, gib) => {
            for node in &mut desired.nodes {
                node.spec.vcpus = *vcpus;
                node.spec.memory_bytes = gib << 30;
                node.spec.disk_bytes += gib << 30;
            }
        }
        Step::Powered(powered) => desired.nodes.iter_mut().for_each(|node| node.powered = *powered),
        Step::Moved(last) => {
            if let Some(node) = desired.nodes.first_mut() {
                node.spec.ip = at(*last);
            }
        }
        Step::PowerLoss => {
            host.observed.domains.iter_mut().filter(|it| it.ours.is_some()).for_each(switch_off);
        }
        Step::Pause => {
            let ours = host.observed.domains.iter_mut().filter(|it| it.ours.is_some());
            let running = ours.filter(|it| it.state == DomainState::Running);
            running.for_each(|it| it.state = DomainState::IoError);
            desired.nodes.iter_mut().for_each(|it| it.spec.vcpus = 9 - it.spec.vcpus);
        }
        Step::Undefined | Step::Restored | Step::Copied => {
            let Some(node) = desired.nodes.first_mut() else { return };
            let domains = &mut host.observed.domains;
            let Some(at) = domains.iter().position(|it| it.name == node.spec.name) else { return };
            let mut other = domains[at].clone();
            other.name.insert_str(0, "other-");
            if !matches!(step, Step::Copied) {
                domains.remove(at);
            }
            match step {
                Step::Undefined => return,
                Step::Restored => node.node_id.push('+'),
                _ => (other.uuid, other.mac) = ("c0".into(), "52:54:00:00:01:00".into()),
            }
            switch_off(&mut other);
            domains.push(other);
        }
    }
}

proptest! {
    /// Whatever a cluster goes through, and wherever the agent dies, planning again ends with the
    /// desired host and an empty plan; taking it down gives the host back as it was.
    #[test]
    fn converges_from_any_interruption(
        steps in prop::collection::vec((step(), 0_u32..40, any::<bool>()), 1..6),
        own_network in any::<bool>(),
        down_fault in 0_u32..30,
    ) {
        let mut host = if own_network { empty_host() } else { host_with_foreign_things() };
        let before = host.observed.clone();
        let mut desired = desired(&[]);
        let mut adoption = Adoption::default();
        for (step, at, after) in &steps {
            live(&mut desired, &mut host, step);
            // A larger disk of a node that is made anew later must not be smaller than what is there.
            for node in &mut desired.nodes {
                let name = volume_name(CLUSTER, &node.spec.name);
                let there = host.observed.volume(&name).map_or(0, |it| it.capacity);
                node.spec.disk_bytes = node.spec.disk_bytes.max(there);
            }
            host.fault = Some((*at, if *after { Fault::After } else { Fault::Before }));
            let plan = plan_host(&desired, &host.observed, &adoption).expect("nothing stands in the way");
            adoption = plan.adoption.clone();
            let agreed = |name: &str| plan.changes.iter().any(|it| it.destructive && it.name == name);
            let died = plan.changes.iter().find_map(|it| host.execute(&it.op).err());
            host.fault = None;
            let rest = converge(&mut host, &desired, &mut adoption);
            prop_assert!(died.is_some() || rest.changes.is_empty(), "{}", lines(&rest));
            let unseen = rest.changes.iter().find(|it| it.destructive && !agreed(&it.name));
            prop_assert_eq!(unseen, None);
            let again = plan_host(&desired, &host.observed, &adoption).expect("nothing stands in the way");
            prop_assert_eq!(lines(&again), "");
            prop_assert_eq!(&again.adoption, &adoption_pruned(&adoption, &again.adoption));
            for node in &desired.nodes {
                let domain = host.observed.domain(&node.spec.name).expect("it was made");
                prop_assert_eq!(domain.state == DomainState::Running, node.powered);
                prop_assert_eq!(domain.vcpus, node.spec.vcpus);
                prop_assert!(host.observed.volume(&volume_name(CLUSTER, &node.spec.name)).is_some());
            }
            let ours = host.observed.domains.iter().filter(|it| it.ours.is_some()).count();
            prop_assert_eq!(ours, desired.nodes.len());
        }
        host.fault = Some((down_fault, Fault::After));
        let plan = plan_teardown(CLUSTER, &pool(), &host.observed, &adoption).expect("nothing stands in the way");
        let _died = plan.changes.iter().find_map(|it| host.execute(&it.op).err());
        host.fault = None;
        tear_down(&mut host, CLUSTER, &mut adoption);
        prop_assert_eq!(host.observed, before);
        prop_assert_eq!(adoption, Adoption::default());
    }

    /// Nothing destructive ever happens to what is not ours.
    #[test]
    fn only_ours_is_touched(names in prop::collection::vec("[a-z]{1,6}", 0..5)) {
        let mut host = host_with_foreign_things();
        for (number, name) in names.iter().enumerate() {
            let name = format!("foreign-{number}-{name}");
            host.observed.volumes.push(ObservedVolume { name: format!("{name}.qcow2"), capacity: 1, backing: None });
            host.observed.domains.push(ObservedDomain { name, ..ObservedDomain::default() });
        }
        let before = host.observed.clone();
        let mut adoption = Adoption::default();
        let plan = converge(&mut host, &three(), &mut adoption);
        prop_assert!(plan.changes.iter().all(|it| it.action != Action::Delete));
        tear_down(&mut host, CLUSTER, &mut adoption);
        let after = ObservedHost { pool: before.pool.clone(), ..host.observed };
        prop_assert_eq!(after, before, "and the pool stays while a stranger's volume is in it");
    }
}

/// The record only ever loses entries of ours that are gone.
fn adoption_pruned(before: &Adoption, after: &Adoption) -> Adoption {
    let mut pruned = before.clone();
    for (name, network) in &mut pruned.networks {
        for (cluster, user) in &mut network.users {
            let now = after.networks.get(name).and_then(|it| it.users.get(cluster));
            user.hosts.retain(|host| now.is_some_and(|now| now.hosts.contains(host)));
        }
    }
    pruned
}
