//! Changes to the host as data: printed by `plan`, executed one by one.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::adoption::{Adoption, DhcpHost, DhcpRange};
use crate::xml::domain::DomainPlan;
use crate::xml::network::NetworkPlan;

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostPlan {
    /// The changes. Empty means: the host is as it shall be.
    pub changes: Vec<HostChange>,
    /// The record after the plan. On the way up it is stored *before* the first change is executed;
    /// on the way down *after* the last one.
    pub adoption: Adoption,
}

/// One change with its reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostChange {
    /// What happens to the object.
    pub action: Action,
    /// What kind of object it is.
    pub kind: Kind,
    /// The object's name.
    pub name: String,
    /// Why, for a person.
    pub reason: String,
    /// Data or a running VM is lost or interrupted: needs consent.
    pub destructive: bool,
    /// The side effect.
    pub op: HostOp,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is made.
    Create,
    /// It is changed in place.
    Update,
    /// It goes and is made anew.
    Replace,
    /// It goes.
    Delete,
    /// Somebody else's is used, with recorded changes.
    Adopt,
    /// Recorded changes are undone.
    Release,
}

/// What kind of object a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// libvirt network.
    Network,
    /// libvirt storage pool.
    Pool,
    /// Image file in the pool.
    Image,
    /// A node's disk.
    Volume,
    /// A node's VM.
    Domain,
    /// Addresses on the network.
    Address,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Adopt => "adopt",
            Self::Release => "release",
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Network => "network",
            Self::Pool => "pool",
            Self::Image => "image",
            Self::Volume => "volume",
            Self::Domain => "domain",
            Self::Address => "address",
        })
    }
}

/// Which domain an op is about. Executing checks all three again before it touches anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRef {
    /// libvirt's name.
    pub name: String,
    /// libvirt's UUID.
    pub uuid: String,
    /// The cluster that its metadata must name.
    pub cluster_id: String,
}

/// One side effect, idempotent: executing it again, or after a crash in its middle, ends the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum HostOp {
    /// The persistent definition of a network of ours, with autostart. One that is there keeps what it has.
    DefineNetwork {
        /// All of it.
        network: NetworkPlan,
    },
    /// The network runs.
    StartNetwork {
        /// libvirt's name.
        name: String,
    },
    /// The network's DHCP ranges are these, live and persistent.
    SetDhcpRanges {
        /// libvirt's name of the network.
        network: String,
        /// In this order.
        ranges: Vec<DhcpRange>,
    },
    /// The network has this host entry, live and persistent.
    AddDhcpHost {
        /// libvirt's name of the network.
        network: String,
        /// The entry.
        host: DhcpHost,
    },
    /// The network does not have this host entry.
    RemoveDhcpHost {
        /// libvirt's name of the network.
        network: String,
        /// The entry.
        host: DhcpHost,
    },
    /// The network does not run; it stays defined.
    StopNetwork {
        /// libvirt's name.
        name: String,
    },
    /// A network of this cluster is gone.
    DeleteNetwork {
        /// libvirt's name.
        name: String,
        /// The cluster that its metadata must name.
        cluster_id: String,
    },
    /// The directory pool is defined.
    DefinePool {
        /// libvirt's name.
        name: String,
        /// Its directory.
        path: PathBuf,
    },
    /// The pool is built, runs and starts with libvirt.
    StartPool {
        /// libvirt's name.
        name: String,
    },
    /// The pool is undefined; its directory stays.
    DeletePool {
        /// libvirt's name.
        name: String,
    },
    /// The pool's directory holds this file, whole.
    InstallFile {
        /// libvirt's name of the pool.
        pool: String,
        /// Where it comes from.
        source: PathBuf,
        /// Where it goes, in the pool's directory.
        target: PathBuf,
    },
    /// An image file in the pool's directory is gone.
    RemoveFile {
        /// libvirt's name of the pool.
        pool: String,
        /// The file.
        target: PathBuf,
    },
    /// A qcow2 overlay exists.
    CreateVolume {
        /// libvirt's name of the pool.
        pool: String,
        /// File name.
        name: String,
        /// Capacity in bytes.
        capacity: u64,
        /// The base image.
        backing: PathBuf,
    },
    /// An overlay has at least this capacity, in a running VM too.
    GrowVolume {
        /// libvirt's name of the pool.
        pool: String,
        /// File name.
        name: String,
        /// Capacity in bytes.
        capacity: u64,
        /// The domain that uses it.
        domain: DomainRef,
    },
    /// An overlay is gone.
    DeleteVolume {
        /// libvirt's name of the pool.
        pool: String,
        /// File name; begins with the cluster's id.
        name: String,
    },
    /// Nobody but the given machines answers for these addresses, or has a lease of one.
    CheckAddresses {
        /// libvirt's name of the network.
        network: String,
        /// Address and the MAC that may answer for it.
        addresses: Vec<(Ipv4Addr, String)>,
    },
    /// The persistent definition of a domain, and whether it starts with libvirt.
    DefineDomain {
        /// All of it.
        domain: DomainPlan,
    },
    /// The domain runs.
    StartDomain {
        /// Which one.
        domain: DomainRef,
    },
    /// The host's end of a running VM's interface is a port of this bridge, and up.
    AttachTap {
        /// Which one.
        domain: DomainRef,
        /// The link on the host.
        device: String,
        /// The bridge of its network.
        bridge: String,
    },
    /// This run of the domain gets more of the host's processors than others while all want them. Without an effect
    /// where it does not run, where the host has no means for that, or where a person has set the domain's share.
    PreferDomain {
        /// Which one.
        domain: DomainRef,
    },
    /// The VM runs with the sizes of its definition: shut down and started again where not, without a saved state.
    RestartDomain {
        /// Which one.
        domain: DomainRef,
    },
    /// The domain is off: asked first where it can hear that, then forced.
    ShutDownDomain {
        /// Which one.
        domain: DomainRef,
    },
    /// The domain is off, at once.
    PowerOffDomain {
        /// Which one.
        domain: DomainRef,
    },
    /// The domain is off, at once, and its definition is gone.
    DeleteDomain {
        /// Which one.
        domain: DomainRef,
    },
}

impl HostOp {
    /// Stable name of the variant, for journals and fault injection.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DefineNetwork { .. } => "define-network",
            Self::StartNetwork { .. } => "start-network",
            Self::SetDhcpRanges { .. } => "set-dhcp-ranges",
            Self::AddDhcpHost { .. } => "add-dhcp-host",
            Self::RemoveDhcpHost { .. } => "remove-dhcp-host",
            Self::StopNetwork { .. } => "stop-network",
            Self::DeleteNetwork { .. } => "delete-network",
            Self::DefinePool { .. } => "define-pool",
            Self::StartPool { .. } => "start-pool",
            Self::DeletePool { .. } => "delete-pool",
            Self::InstallFile { .. } => "install-file",
            Self::RemoveFile { .. } => "remove-file",
            Self::CreateVolume { .. } => "create-volume",
            Self::GrowVolume { .. } => "grow-volume",
            Self::DeleteVolume { .. } => "delete-volume",
            Self::CheckAddresses { .. } => "check-addresses",
            Self::DefineDomain { .. } => "define-domain",
            Self::StartDomain { .. } => "start-domain",
            Self::AttachTap { .. } => "attach-tap",
            Self::PreferDomain { .. } => "prefer-domain",
            Self::RestartDomain { .. } => "restart-domain",
            Self::ShutDownDomain { .. } => "shut-down-domain",
            Self::PowerOffDomain { .. } => "power-off-domain",
            Self::DeleteDomain { .. } => "delete-domain",
        }
    }
}

/// What executing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The effect was made.
    Done,
    /// It was there already.
    AlreadySo,
}
