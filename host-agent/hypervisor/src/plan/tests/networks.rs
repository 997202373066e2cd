//! What people and crashes do to the definition of a network, and how the next plan takes it.

use super::*;
use crate::change::HostOp;

/// `virsh net-autostart --disable`, or a kill behind its definition; `virsh net-undefine` while it runs.
#[test]
fn a_network_of_ours_that_would_not_start_with_the_host_is_mended() {
    for persistent in [true, false] {
        let (mut host, mut adoption) = (empty_host(), Adoption::default());
        converge(&mut host, &three(), &mut adoption);
        let before = host.observed.clone();
        let network = &mut host.observed.networks[0];
        (network.autostart, network.persistent) = (false, persistent);
        let bridge = network.bridge.clone();

        let plan = converge(&mut host, &three(), &mut adoption);
        let line = "  update network default [define-network]: it shall start with the host\n";
        assert_eq!(lines(&plan), line, "persistent: {persistent}");
        let HostOp::DefineNetwork { network } = &plan.changes[0].op else { panic!("{}", lines(&plan)) };
        assert_eq!(Some(&network.bridge), bridge.as_ref(), "persistent: {persistent}");
        assert_eq!(host.observed, before, "persistent: {persistent}");
        assert_eq!(lines(&converge(&mut host, &three(), &mut adoption)), "", "persistent: {persistent}");
    }
}

/// Killed behind its definition it does not run either.
#[test]
fn a_network_in_the_making_is_made_to_its_end() {
    let (mut host, mut adoption) = (empty_host(), Adoption::default());
    let planned = plan_host(&three(), &host.observed, &adoption).expect("nothing stands in the way");
    let defines = |op: &HostOp| matches!(op, HostOp::DefineNetwork { .. });
    let define = planned.changes.iter().find(|it| defines(&it.op)).expect("it is made");
    host.execute(&define.op).expect("it is free");
    host.observed.networks[0].autostart = false;

    let made = ops(&converge(&mut host, &three(), &mut adoption));
    let network: Vec<_> = made.iter().filter(|(op, _)| op.ends_with("-network")).copied().collect();
    assert_eq!(network, [("define-network", false), ("start-network", false)]);
    let network = &host.observed.networks[0];
    assert!(network.active && network.autostart, "{network:?}");
    assert_eq!(lines(&converge(&mut host, &three(), &mut adoption)), "");
}

#[test]
fn whether_an_adopted_network_starts_with_the_host_is_its_owners_affair() {
    let (mut host, mut adoption) = (host_with_foreign_things(), Adoption::default());
    (host.observed.networks[0].autostart, host.observed.networks[0].persistent) = (false, false);
    converge(&mut host, &three(), &mut adoption);
    assert_eq!(lines(&converge(&mut host, &three(), &mut adoption)), "");
    let network = &host.observed.networks[0];
    assert!(!network.autostart && !network.persistent, "{network:?}");
}
