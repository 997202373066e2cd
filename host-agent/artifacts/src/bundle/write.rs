//! Writes a bundle: the same inputs give the same bytes.
//!
//! Called by [`crate::fetch`] and by tests. The files' digests are in the manifest already; readers
//! check them, this does not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Manifest;

/// An image for `index.json`: its name, and the descriptor of its manifest.
#[derive(Clone, Debug)]
pub struct IndexEntry {
    /// The full reference.
    pub name: String,
    /// Media type of the manifest.
    pub media_type: String,
    /// Hexadecimal digest of the manifest.
    pub sha256: String,
    /// Bytes of the manifest.
    pub size: u64,
}

/// Writes a bundle of `manifest`, the components' files by path in the bundle, and the images' blobs
/// by hexadecimal digest.
pub fn write(
    output: impl Write,
    manifest: &Manifest,
    components: &BTreeMap<String, PathBuf>,
    index: &[IndexEntry],
    blobs: &BTreeMap<String, PathBuf>,
) -> io::Result<()> {
    let mut tar = tar::Builder::new(output);
    let text = toml::to_string(manifest).map_err(io::Error::other)?;
    bytes(&mut tar, "bundle.toml", text.as_bytes())?;
    for component in &manifest.components {
        let path = components.get(&component.path).ok_or(io::ErrorKind::NotFound)?;
        file(&mut tar, &component.path, path, 0o755)?;
    }
    bytes(&mut tar, "images/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let manifests: Vec<_> = index
        .iter()
        .map(|image| {
            json!({
                "mediaType": image.media_type, "digest": format!("sha256:{}", image.sha256), "size": image.size,
                "annotations": {
                    "org.opencontainers.image.ref.name": image.name, "io.containerd.image.name": image.name,
                },
                "platform": { "architecture": "amd64", "os": "linux" },
            })
        })
        .collect();
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
    });
    bytes(&mut tar, "images/index.json", index.to_string().as_bytes())?;
    for (hex, path) in blobs {
        file(&mut tar, &format!("images/blobs/sha256/{hex}"), path, 0o644)?;
    }
    tar.into_inner()?.flush()
}

fn header(size: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn bytes(tar: &mut tar::Builder<impl Write>, name: &str, bytes: &[u8]) -> io::Result<()> {
    tar.append_data(&mut header(bytes.len() as u64, 0o644), name, bytes)
}

fn file(tar: &mut tar::Builder<impl Write>, name: &str, path: &Path, mode: u32) -> io::Result<()> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    tar.append_data(&mut header(size, mode), name, file.take(size))
}
