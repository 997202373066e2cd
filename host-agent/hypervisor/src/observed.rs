//! What the host has. Read by [`crate::Hypervisor::observe`], judged by [`crate::plan`].

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::accelerator::Accelerator;
use crate::adoption::{DhcpHost, DhcpRange};
use crate::xml::owner::Owner;

/// One look at the host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedHost {
    /// All of libvirt's networks.
    pub networks: Vec<ObservedNetwork>,
    /// Our pool, or what has its name.
    pub pool: Option<ObservedPool>,
    /// Volumes and files in our pool.
    pub volumes: Vec<ObservedVolume>,
    /// All domains.
    pub domains: Vec<ObservedDomain>,
    /// IPv4 networks on the host's interfaces.
    pub interfaces: Vec<HostInterface>,
    /// Names of all the host's links, whether they have an address or not.
    pub links: Vec<String>,
    /// KVM or emulation.
    pub accelerator: Accelerator,
    /// How fast the time stamp counter counts that an emulated VM sees, in kHz; `None` where none is emulated.
    pub counter_khz: Option<u64>,
    /// Version of libvirt, `9.0.0`; empty where it was not told.
    pub libvirt_version: String,
    /// Bytes free where the pool's directory is or will be.
    pub pool_free_bytes: u64,
    /// Processors of the host.
    pub host_cpus: u32,
    /// Memory of the host in bytes.
    pub host_memory_bytes: u64,
}

impl ObservedHost {
    /// The domain of this name.
    pub fn domain(&self, name: &str) -> Option<&ObservedDomain> {
        self.domains.iter().find(|domain| domain.name == name)
    }

    /// The network of this name.
    pub fn network(&self, name: &str) -> Option<&ObservedNetwork> {
        self.networks.iter().find(|network| network.name == name)
    }

    /// The volume of this name in our pool.
    pub fn volume(&self, name: &str) -> Option<&ObservedVolume> {
        self.volumes.iter().find(|volume| volume.name == name)
    }
}

/// A libvirt network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObservedNetwork {
    /// libvirt's name.
    pub name: String,
    /// libvirt's UUID.
    pub uuid: String,
    /// Ours, and whose.
    pub ours: Option<Owner>,
    /// `None` where libvirt gives it no IPv4 address.
    pub cidr: Option<Ipv4Net>,
    /// The host's address on it.
    pub gateway: Option<Ipv4Addr>,
    /// `nat`, `route`, …; empty for an isolated one.
    pub forward: String,
    /// Its bridge, if it has one.
    pub bridge: Option<String>,
    /// Whether it runs.
    pub active: bool,
    /// Whether it starts with libvirt.
    pub autostart: bool,
    /// Whether it is defined; one that only runs is gone when it stops.
    pub persistent: bool,
    /// DHCP ranges of the persistent configuration, in its order.
    pub ranges: Vec<DhcpRange>,
    /// DHCP host entries of the persistent configuration.
    pub hosts: Vec<DhcpHost>,
    /// DHCP ranges now in force, where it runs.
    pub live_ranges: Option<Vec<DhcpRange>>,
    /// DHCP host entries now in force, where it runs.
    pub live_hosts: Option<Vec<DhcpHost>>,
}

/// The pool of our name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedPool {
    /// Its directory; `None` where it is of another type.
    pub path: Option<PathBuf>,
    /// Whether it runs.
    pub active: bool,
    /// Whether it starts with libvirt.
    pub autostart: bool,
}

/// A volume or a plain file in the pool's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedVolume {
    /// File name.
    pub name: String,
    /// Capacity in bytes; size for plain files.
    pub capacity: u64,
    /// Its backing file.
    pub backing: Option<PathBuf>,
}

/// Whether a domain runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Running, or in a passing state of a running one.
    Running,
    /// Paused by a person.
    Paused,
    /// Paused by QEMU after an I/O error, such as a full disk.
    IoError,
    /// Shut off.
    #[default]
    Off,
    /// Its QEMU died.
    Crashed,
}

/// A libvirt domain. Sizes are those of the persistent configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ObservedDomain {
    /// libvirt's name.
    pub name: String,
    /// libvirt's UUID.
    pub uuid: String,
    /// Ours, and whose.
    pub ours: Option<Owner>,
    /// Whether it runs.
    pub state: DomainState,
    /// libvirt's number of this run while it runs or is paused; another one after each start.
    pub run: Option<u32>,
    /// When it was last rebooted, by its guest or with `virsh reset`, as far as this process was told: that is no new
    /// run. A moment of this process, and of no other.
    #[serde(skip)]
    pub rebooted: Option<Instant>,
    /// When this run began, where the host keeps that.
    #[serde(skip)]
    pub started: Option<SystemTime>,
    /// Whether it starts with libvirt.
    pub autostart: bool,
    /// KVM or emulation, from its next start on; `None` for VMs of other kinds.
    pub accelerator: Option<Accelerator>,
    /// Whether its next start goes on from a saved state, with the sizes of then.
    pub has_managed_save: bool,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs of the running VM.
    pub live_vcpus: Option<u32>,
    /// Memory of the running VM in bytes.
    pub live_memory_bytes: Option<u64>,
    /// MAC of the first interface.
    pub mac: String,
    /// libvirt networks of all interfaces.
    pub networks: Vec<String>,
    /// Files of all disks.
    pub disks: Vec<PathBuf>,
    /// Kernel of a direct boot.
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk of a direct boot.
    pub initrd: Option<PathBuf>,
    /// Kernel command line of a direct boot.
    pub cmdline: String,
    /// The host's ends of the running VM's interfaces; of VMs that are not ours nobody looks at them.
    pub taps: Vec<ObservedTap>,
}

/// The host's end of a running VM's interface on a libvirt network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedTap {
    /// Its link on the host, `vnet0`.
    pub device: String,
    /// libvirt's name of the network.
    pub network: String,
    /// The bridge that the link is a port of, if it is one.
    pub master: Option<String>,
}

/// An IPv4 network on one of the host's interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInterface {
    /// Interface name.
    pub name: String,
    /// Address and prefix length.
    pub address: Ipv4Net,
}
