//! What we read of anybody's domain document.

use std::path::PathBuf;

use serde::Deserialize;

use super::JOIN_CHANNEL;
use crate::accelerator::Accelerator;
use crate::observed::{DomainState, ObservedDomain, ObservedTap};
use crate::xml::owner::owner_of;
use crate::xml::{XmlError, read};

#[derive(Deserialize)]
struct ReadDomain {
    #[serde(rename = "@id", default)]
    run: Option<u32>,
    #[serde(rename = "@type", default)]
    kind: String,
    name: String,
    uuid: String,
    memory: ReadMemory,
    #[serde(rename = "currentMemory", default)]
    current_memory: Option<ReadMemory>,
    vcpu: ReadVcpu,
    #[serde(default)]
    os: ReadOs,
    #[serde(default)]
    devices: ReadDevices,
}

#[derive(Deserialize)]
struct ReadMemory {
    #[serde(rename = "@unit", default)]
    unit: Option<String>,
    #[serde(rename = "$text")]
    value: u64,
}

#[derive(Deserialize)]
struct ReadVcpu {
    #[serde(rename = "@current", default)]
    current: Option<u32>,
    #[serde(rename = "$text")]
    value: u32,
}

#[derive(Default, Deserialize)]
struct ReadOs {
    #[serde(default)]
    kernel: Option<PathBuf>,
    #[serde(default)]
    initrd: Option<PathBuf>,
    #[serde(default)]
    cmdline: Option<String>,
}

#[derive(Default, Deserialize)]
struct ReadDevices {
    #[serde(default)]
    disk: Vec<ReadDisk>,
    #[serde(default)]
    interface: Vec<ReadInterface>,
    #[serde(default)]
    serial: Vec<ReadCharacter>,
    #[serde(default)]
    channel: Vec<ReadCharacter>,
}

#[derive(Deserialize)]
struct ReadDisk {
    #[serde(default)]
    source: Option<ReadSource>,
}

#[derive(Deserialize)]
struct ReadInterface {
    #[serde(default)]
    mac: Option<ReadAddress>,
    #[serde(default)]
    source: Option<ReadSource>,
    #[serde(default)]
    target: Option<ReadDevice>,
}

#[derive(Deserialize)]
struct ReadDevice {
    #[serde(rename = "@dev", default)]
    dev: Option<String>,
}

impl ReadInterface {
    fn network(&self) -> Option<String> {
        self.source.as_ref()?.network.clone()
    }

    /// Whose bridge it is on now, libvirt does not know.
    fn tap(&self) -> Option<ObservedTap> {
        let device = self.target.as_ref()?.dev.clone()?;
        Some(ObservedTap { device, network: self.network()?, master: None })
    }
}

#[derive(Deserialize)]
struct ReadAddress {
    #[serde(rename = "@address")]
    address: String,
}

#[derive(Default, Deserialize)]
struct ReadSource {
    #[serde(rename = "@file", default)]
    file: Option<PathBuf>,
    #[serde(rename = "@network", default)]
    network: Option<String>,
    #[serde(rename = "@path", default)]
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ReadCharacter {
    /// Of UDP there are two, for either direction.
    #[serde(default)]
    source: Vec<ReadSource>,
    #[serde(default)]
    target: Option<ReadTarget>,
    #[serde(default)]
    log: Option<ReadLog>,
}

#[derive(Deserialize)]
struct ReadTarget {
    #[serde(rename = "@name", default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct ReadLog {
    #[serde(rename = "@file")]
    file: PathBuf,
}

impl ReadMemory {
    fn bytes(&self) -> u64 {
        match self.unit.as_deref() {
            Some("b" | "bytes") => self.value,
            Some("MiB") => self.value << 20,
            Some("GiB") => self.value << 30,
            _ => self.value << 10,
        }
    }
}

impl ReadDomain {
    fn memory_bytes(&self) -> u64 {
        self.current_memory.as_ref().unwrap_or(&self.memory).bytes()
    }

    fn vcpus(&self) -> u32 {
        self.vcpu.current.unwrap_or(self.vcpu.value)
    }
}

/// A domain out of its persistent XML, and its live XML where it runs. Of a saved state neither tells.
pub fn read_domain(
    inactive: &str,
    live: Option<&str>,
    state: DomainState,
    autostart: bool,
) -> Result<ObservedDomain, XmlError> {
    let domain: ReadDomain = read("domain", inactive)?;
    let live: Option<ReadDomain> = live.map(|xml| read("domain", xml)).transpose()?;
    let source = |disk: &ReadDisk| disk.source.as_ref().and_then(|source| source.file.clone());
    Ok(ObservedDomain {
        ours: owner_of(inactive, &domain.uuid)?,
        state,
        run: live.as_ref().and_then(|live| live.run),
        rebooted: None,
        started: None,
        autostart,
        accelerator: Accelerator::of_domain_type(&domain.kind),
        has_managed_save: false,
        vcpus: domain.vcpus(),
        memory_bytes: domain.memory_bytes(),
        live_vcpus: live.as_ref().map(ReadDomain::vcpus),
        live_memory_bytes: live.as_ref().map(ReadDomain::memory_bytes),
        mac: domain
            .devices
            .interface
            .iter()
            .find_map(|it| it.mac.as_ref())
            .map(|mac| mac.address.clone())
            .unwrap_or_default(),
        networks: domain.devices.interface.iter().filter_map(ReadInterface::network).collect(),
        disks: domain.devices.disk.iter().filter_map(source).collect(),
        kernel: domain.os.kernel,
        initrd: domain.os.initrd,
        cmdline: domain.os.cmdline.unwrap_or_default(),
        taps: live.iter().flat_map(|it| &it.devices.interface).filter_map(ReadInterface::tap).collect(),
        name: domain.name,
        uuid: domain.uuid,
    })
}

/// The socket of the join channel out of a running domain's live XML.
pub fn read_join_channel(live: &str) -> Result<Option<PathBuf>, XmlError> {
    let domain: ReadDomain = read("domain", live)?;
    let ours = |it: &&ReadCharacter| {
        it.target.as_ref().and_then(|target| target.name.as_deref()) == Some(JOIN_CHANNEL)
    };
    let channel = domain.devices.channel.iter().find(ours);
    Ok(channel.and_then(|it| it.source.iter().find_map(|source| source.path.clone())))
}

/// The file of the console's log out of a domain's XML.
pub fn read_console_log(xml: &str) -> Result<Option<PathBuf>, XmlError> {
    let domain: ReadDomain = read("domain", xml)?;
    Ok(domain.devices.serial.into_iter().find_map(|it| Some(it.log?.file)))
}
