//! VMs of ours that somebody gave another name: their nodes look gone, and they look left over.
//!
//! libvirt's UUID and our mark stay with a VM that is renamed.

use k8sctl_types::failure::Failure;

use crate::desired::DesiredNode;
use crate::observed::{DomainState, ObservedDomain, ObservedHost};

/// A node's VM under another name. Where the node has its VM, one more with its id is a copy.
fn renamed<'a>(node: &DesiredNode, its: &[&'a ObservedDomain]) -> Option<&'a ObservedDomain> {
    if its.iter().any(|it| it.name == node.spec.name) {
        return None;
    }
    its.iter().copied().max_by_key(|it| it.uuid == node.machine_uuid)
}

/// Refuses to give up a node's VM because of its name. `its` are those with the node's id.
pub(super) fn refuse_renamed(
    node: &DesiredNode,
    observed: &ObservedHost,
    its: &[&ObservedDomain],
) -> Result<(), Failure> {
    let Some(domain) = renamed(node, its) else { return Ok(()) };
    let (now, name) = (&domain.name, &node.spec.name);
    // A VM that runs, or is saved, cannot be renamed.
    let before = match domain.state {
        DomainState::Off if domain.has_managed_save => {
            format!("remove its saved state (`virsh managedsave-remove {now}`), then ")
        }
        DomainState::Off => String::new(),
        DomainState::Running => format!("shut it down (`virsh shutdown {now}`), then "),
        DomainState::Paused | DomainState::IoError | DomainState::Crashed => {
            format!("power it off (`virsh destroy {now}`), then ")
        }
    };
    let other = match observed.domain(name) {
        Some(_) => format!("give VM {name}, which has its name by now, another one, then "),
        None => String::new(),
    };
    Err(Failure::new(
        "LIBVIRT-DOMAIN-RENAMED",
        format!("domain {now}"),
        format!("it is the VM of node {name}, renamed by hand, and would be removed with its disk"),
        format!("{before}{other}rename it back: `virsh domrename {now} {name}`; then run the command again"),
    ))
}
