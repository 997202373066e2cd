//! The domain document: a node's VM as it is written; `read`: anybody's as it is read.
//!
//! Why it is as it is: machine `pc`, because under emulation its firmware and its few PCI devices
//! are through about a second before those of `q35`; direct kernel boot; disk cache `writeback`,
//! because the base image is then read once for all VMs and the guest's flushes still reach the
//! disk; no USB, graphics or balloon, because each costs boot time or memory; the console is a pty
//! for people, and libvirt's log daemon keeps a file of it for us.

mod read;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::owner::{Metadata, Owner};
use super::{Empty, FileSource, Typed, XmlError, write};
use crate::accelerator::Accelerator;

pub use self::read::{read_console_log, read_domain, read_join_channel};

/// Name of the virtio-serial port of the join channel, in the VM and in the domain.
pub const JOIN_CHANNEL: &str = "org.k8sctl.join.0";

/// A node's VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DomainPlan {
    /// libvirt's name.
    pub name: String,
    /// UUID of domain and machine.
    pub uuid: String,
    /// For people: `node of cluster home`.
    pub description: String,
    /// Whose it is.
    pub owner: Owner,
    /// KVM or emulation.
    pub accelerator: Accelerator,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Memory in bytes, whole MiB.
    pub memory_bytes: u64,
    /// The overlay.
    pub disk: PathBuf,
    /// Kernel for direct boot.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// libvirt's name of the network.
    pub network: String,
    /// MAC address.
    pub mac: String,
    /// Whether it starts with libvirt. No part of the document.
    pub autostart: bool,
}

#[derive(Serialize)]
struct DomainElement {
    #[serde(rename = "@type")]
    kind: &'static str,
    name: String,
    uuid: String,
    metadata: Metadata,
    description: String,
    memory: Size,
    vcpu: u32,
    os: Os,
    features: Features,
    cpu: Cpu,
    clock: Clock,
    on_poweroff: &'static str,
    on_reboot: &'static str,
    on_crash: &'static str,
    devices: Devices,
}

#[derive(Serialize)]
struct Size {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    value: u64,
}

#[derive(Serialize)]
struct Os {
    #[serde(rename = "type")]
    kind: OsType,
    kernel: String,
    initrd: String,
    cmdline: String,
}

#[derive(Serialize)]
struct OsType {
    #[serde(rename = "@arch")]
    arch: &'static str,
    #[serde(rename = "@machine")]
    machine: &'static str,
    #[serde(rename = "$text")]
    value: &'static str,
}

#[derive(Serialize)]
struct Features {
    acpi: Empty,
    apic: Empty,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcg: Option<Translator>,
}

/// QEMU's translator.
#[derive(Serialize)]
struct Translator {
    #[serde(rename = "tb-cache")]
    cache: Size,
}

#[derive(Serialize)]
struct Cpu {
    #[serde(rename = "@mode")]
    mode: &'static str,
    #[serde(rename = "feature")]
    features: Vec<CpuFeature>,
}

#[derive(Serialize)]
struct CpuFeature {
    #[serde(rename = "@policy")]
    policy: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

impl Cpu {
    fn of(accelerator: Accelerator) -> Self {
        let off = accelerator.cpu_features_off();
        let features = off.iter().map(|name| CpuFeature { policy: "disable", name }).collect();
        Self { mode: accelerator.cpu_mode(), features }
    }
}

#[derive(Serialize)]
struct Clock {
    #[serde(rename = "@offset")]
    offset: &'static str,
}

#[derive(Serialize)]
struct Devices {
    disk: Disk,
    controller: Controller,
    interface: Interface,
    serial: Serial,
    console: Console,
    channel: Channel,
    rng: Rng,
    memballoon: Model,
}

#[derive(Serialize)]
struct Disk {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@device")]
    device: &'static str,
    driver: DiskDriver,
    source: FileSource,
    target: DiskTarget,
}

#[derive(Serialize)]
struct DiskDriver {
    #[serde(rename = "@name")]
    name: &'static str,
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@cache")]
    cache: &'static str,
    #[serde(rename = "@discard")]
    discard: &'static str,
}

#[derive(Serialize)]
struct DiskTarget {
    #[serde(rename = "@dev")]
    dev: &'static str,
    #[serde(rename = "@bus")]
    bus: &'static str,
}

#[derive(Serialize)]
struct Controller {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@model")]
    model: &'static str,
}

#[derive(Serialize)]
struct Interface {
    #[serde(rename = "@type")]
    kind: &'static str,
    mac: Address,
    source: NetworkSource,
    model: Typed,
}

#[derive(Serialize)]
struct Address {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Serialize)]
struct NetworkSource {
    #[serde(rename = "@network")]
    network: String,
}

#[derive(Serialize)]
struct Serial {
    #[serde(rename = "@type")]
    kind: &'static str,
    log: Log,
    target: Port,
}

#[derive(Serialize)]
struct Console {
    #[serde(rename = "@type")]
    kind: &'static str,
    log: Log,
    target: ConsoleTarget,
}

#[derive(Clone, Serialize)]
struct Log {
    #[serde(rename = "@file")]
    file: String,
    #[serde(rename = "@append")]
    append: &'static str,
}

#[derive(Serialize)]
struct Port {
    #[serde(rename = "@port")]
    port: u32,
}

#[derive(Serialize)]
struct ConsoleTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@port")]
    port: u32,
}

#[derive(Serialize)]
struct Channel {
    #[serde(rename = "@type")]
    kind: &'static str,
    target: ChannelTarget,
}

#[derive(Serialize)]
struct ChannelTarget {
    #[serde(rename = "@type")]
    kind: &'static str,
    #[serde(rename = "@name")]
    name: &'static str,
}

#[derive(Serialize)]
struct Rng {
    #[serde(rename = "@model")]
    model: &'static str,
    backend: RngBackend,
}

#[derive(Serialize)]
struct RngBackend {
    #[serde(rename = "@model")]
    model: &'static str,
    #[serde(rename = "$text")]
    value: &'static str,
}

#[derive(Serialize)]
struct Model {
    #[serde(rename = "@model")]
    model: &'static str,
}

impl DomainPlan {
    /// The document for libvirt; `console_log` is where the console goes.
    pub fn to_xml(&self, console_log: &std::path::Path) -> Result<String, XmlError> {
        let log = Log { file: console_log.to_string_lossy().into_owned(), append: "on" };
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        let element = DomainElement {
            kind: self.accelerator.domain_type(),
            name: self.name.clone(),
            uuid: self.uuid.clone(),
            metadata: Metadata::new(&self.owner, &self.uuid),
            description: self.description.clone(),
            memory: Size { unit: "KiB", value: self.memory_bytes / 1024 },
            vcpu: self.vcpus,
            os: Os {
                kind: OsType { arch: "x86_64", machine: "pc", value: "hvm" },
                kernel: path(&self.kernel),
                initrd: path(&self.initrd),
                cmdline: self.cmdline.clone(),
            },
            features: Features {
                acpi: Empty {},
                apic: Empty {},
                tcg: self
                    .accelerator
                    .translations_mib()
                    .map(|value| Translator { cache: Size { unit: "MiB", value } }),
            },
            cpu: Cpu::of(self.accelerator),
            clock: Clock { offset: "utc" },
            on_poweroff: "destroy",
            on_reboot: "restart",
            on_crash: "restart",
            devices: Devices {
                disk: Disk {
                    kind: "file",
                    device: "disk",
                    driver: DiskDriver { name: "qemu", kind: "qcow2", cache: "writeback", discard: "unmap" },
                    source: FileSource { file: path(&self.disk) },
                    target: DiskTarget { dev: "vda", bus: "virtio" },
                },
                controller: Controller { kind: "usb", model: "none" },
                interface: Interface {
                    kind: "network",
                    mac: Address { address: self.mac.clone() },
                    source: NetworkSource { network: self.network.clone() },
                    model: Typed { kind: "virtio" },
                },
                serial: Serial { kind: "pty", log: log.clone(), target: Port { port: 0 } },
                console: Console { kind: "pty", log, target: ConsoleTarget { kind: "serial", port: 0 } },
                channel: Channel {
                    kind: "unix",
                    target: ChannelTarget { kind: "virtio", name: JOIN_CHANNEL },
                },
                rng: Rng { model: "virtio", backend: RngBackend { model: "random", value: "/dev/urandom" } },
                memballoon: Model { model: "none" },
            },
        };
        write("a domain", "domain", &element)
    }
}
