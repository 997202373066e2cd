//! The host's ends of running VMs' interfaces, put back onto the network's bridge.
//!
//! libvirt puts an end there when it starts the VM. Where a network is stopped and started again, or made
//! anew, the VMs that ran on it stay cut off: their links are there, and on no bridge.

use super::change;
use super::nodes::{belongs, reference};
use crate::change::{Action, HostChange, HostOp, Kind};
use crate::desired::DesiredHost;
use crate::observed::{DomainState, ObservedDomain, ObservedHost};

/// Executed after `network`, which may start the network; VMs that are in `deletes` go anyway.
pub(super) fn plan_taps(
    desired: &DesiredHost,
    observed: &ObservedHost,
    network: &[HostChange],
    deletes: &[HostChange],
) -> Vec<HostChange> {
    let name = &desired.network.name;
    let made = network.iter().find_map(|it| match &it.op {
        HostOp::DefineNetwork { network } => Some(&network.bridge),
        _ => None,
    });
    let there = || observed.network(name)?.bridge.as_ref();
    let Some(bridge) = made.or_else(there) else { return Vec::new() };
    let goes = |domain: &str| deletes.iter().any(|it| it.kind == Kind::Domain && it.name == domain);
    let runs_on = |it: &&ObservedDomain| {
        belongs(it, &desired.cluster_id) && it.state != DomainState::Off && !goes(&it.name)
    };
    let mut changes = Vec::new();
    for domain in observed.domains.iter().filter(runs_on) {
        for tap in domain.taps.iter().filter(|it| it.network == *name && it.master.as_ref() != Some(bridge)) {
            let device = tap.device.clone();
            let op = HostOp::AttachTap { domain: reference(domain), device, bridge: bridge.clone() };
            let reason = format!("its interface is not on bridge {bridge}");
            changes.push(change(Action::Update, Kind::Domain, &domain.name, reason, op));
        }
    }
    changes
}
