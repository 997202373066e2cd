//! The pool and volume documents.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Typed, XmlError, read, write};

#[derive(Serialize)]
struct PoolElement<'a> {
    #[serde(rename = "@type")]
    kind: &'static str,
    name: &'a str,
    target: PoolTarget,
}

#[derive(Serialize)]
struct PoolTarget {
    path: String,
    permissions: Permissions,
}

#[derive(Serialize)]
struct Permissions {
    mode: String,
}

/// Mode of a pool's directory: others may pass through it, as QEMU must, but not list it.
pub const POOL_MODE: u32 = 0o711;

/// A directory pool.
pub fn pool_xml(name: &str, path: &Path) -> Result<String, XmlError> {
    let permissions = Permissions { mode: format!("{POOL_MODE:04o}") };
    let target = PoolTarget { path: path.to_string_lossy().into_owned(), permissions };
    write("a pool", "pool", &PoolElement { kind: "dir", name, target })
}

#[derive(Serialize)]
struct VolumeElement<'a> {
    name: &'a str,
    capacity: Bytes,
    allocation: Bytes,
    target: VolumeTarget,
    #[serde(rename = "backingStore")]
    backing: BackingElement,
}

#[derive(Serialize)]
struct Bytes {
    #[serde(rename = "@unit")]
    unit: &'static str,
    #[serde(rename = "$text")]
    value: u64,
}

#[derive(Serialize)]
struct VolumeTarget {
    format: Typed,
    permissions: Permissions,
    compat: &'static str,
    features: Features,
}

#[derive(Serialize)]
struct Features {
    lazy_refcounts: super::Empty,
}

#[derive(Serialize)]
struct BackingElement {
    path: String,
    format: Typed,
}

/// A qcow2 overlay on a base image.
pub fn volume_xml(name: &str, capacity: u64, backing: &Path) -> Result<String, XmlError> {
    let element = VolumeElement {
        name,
        capacity: Bytes { unit: "bytes", value: capacity },
        allocation: Bytes { unit: "bytes", value: 0 },
        target: VolumeTarget {
            format: Typed { kind: "qcow2" },
            permissions: Permissions { mode: "0600".to_owned() },
            compat: "1.1",
            features: Features { lazy_refcounts: super::Empty {} },
        },
        backing: BackingElement {
            path: backing.to_string_lossy().into_owned(),
            format: Typed { kind: "qcow2" },
        },
    };
    write("a volume", "volume", &element)
}

#[derive(Deserialize)]
struct ReadPool {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(default)]
    target: Option<ReadPath>,
}

#[derive(Deserialize)]
struct ReadPath {
    #[serde(default)]
    path: Option<PathBuf>,
}

/// The directory of a directory pool; `None` for other types.
pub fn read_pool_path(xml: &str) -> Result<Option<PathBuf>, XmlError> {
    let pool: ReadPool = read("pool", xml)?;
    Ok(if pool.kind == "dir" { pool.target.and_then(|target| target.path) } else { None })
}

#[derive(Deserialize)]
struct ReadVolume {
    #[serde(rename = "backingStore", default)]
    backing: Option<ReadPath>,
}

/// The backing file of a volume.
pub fn read_volume_backing(xml: &str) -> Result<Option<PathBuf>, XmlError> {
    let volume: ReadVolume = read("volume", xml)?;
    Ok(volume.backing.and_then(|backing| backing.path))
}
