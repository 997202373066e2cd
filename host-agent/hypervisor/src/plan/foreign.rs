//! VMs of somebody else's that stand in a node's way: which, and the ways out that there are for such a one.

use std::path::PathBuf;

use k8sctl_types::failure::Failure;

use super::others::{Other, other};
use crate::desired::{DesiredHost, DesiredNode, volume_name};
use crate::observed::{DomainState, ObservedDomain, ObservedHost};

/// What of a node's another VM has.
enum Clash {
    Name,
    Uuid,
    Mac,
    /// By its path.
    Disk(String),
}

impl Clash {
    fn of(node: &DesiredNode, disk: &PathBuf, domain: &ObservedDomain, stays: bool) -> Option<Self> {
        if domain.name == node.spec.name {
            Some(Self::Name)
        } else if domain.uuid == node.machine_uuid {
            Some(Self::Uuid)
        } else if domain.mac.eq_ignore_ascii_case(&node.spec.mac) {
            Some(Self::Mac)
        } else if domain.disks.contains(disk) && (!stays || domain.state != DomainState::Off) {
            // One that is off keeps no VM that there is from being started. One that is made, or made anew, would get
            // the system that is on the disk.
            Some(Self::Disk(disk.display().to_string()))
        } else {
            None
        }
    }

    fn what(&self, domain: &ObservedDomain) -> String {
        match self {
            Self::Name => "name".to_owned(),
            Self::Uuid => format!("UUID {}", domain.uuid),
            Self::Mac => format!("MAC address {}", domain.mac),
            Self::Disk(path) => format!("disk {path}"),
        }
    }

    /// What the cluster file can do about it.
    fn in_file(&self, node: &DesiredNode) -> Option<&'static str> {
        match self {
            Self::Name if node.is_fixed() => None,
            Self::Name => Some("rename the node in the cluster file"),
            Self::Mac => Some("give the node another mac in the cluster file"),
            Self::Uuid | Self::Disk(_) => None,
        }
    }

    /// What a stranger can do with their VM.
    fn at_vm(&self, name: &str) -> String {
        match self {
            Self::Name => format!("rename or remove the VM (`virsh domrename {name} NEW-NAME`)"),
            Self::Uuid => format!(
                "remove the VM's definition (`virsh undefine {name}`), and define it anew without a UUID"
            ),
            Self::Mac => format!("give the VM another MAC address (`virsh edit {name}`)"),
            Self::Disk(_) => format!("give the VM a disk of its own (`virsh edit {name}`)"),
        }
    }
}

/// Refuses a VM that is not of this cluster, one of `strangers`, and has what only the node can have. `stays` says that the node has a VM
/// already, and keeps it.
pub(super) fn refuse_foreign(
    desired: &DesiredHost,
    node: &DesiredNode,
    observed: &ObservedHost,
    strangers: &[&ObservedDomain],
    stays: bool,
) -> Result<(), Failure> {
    let disk = desired.pool.path.join(volume_name(&desired.cluster_id, &node.spec.name));
    let mut clashes = strangers.iter().filter_map(|it| Some((*it, Clash::of(node, &disk, it, stays)?)));
    let Some((domain, clash)) = clashes.next() else { return Ok(()) };
    let (whose, at_vm) = match &domain.ours {
        Some(owner) => {
            let Other { whose, way } = other(owner, desired, observed);
            (format!("belongs to {whose}"), way)
        }
        None => ("is not ours".to_owned(), clash.at_vm(&domain.name)),
    };
    let ways =
        [clash.in_file(node), Some(at_vm.as_str())].into_iter().flatten().collect::<Vec<_>>().join(", or ");
    Err(Failure::new(
        "LIBVIRT-FOREIGN-DOMAIN",
        format!("domain {}", domain.name),
        format!("it {whose} and has the {} that node {} shall have", clash.what(domain), node.spec.name),
        format!("{ways}; then run the command again"),
    ))
}
