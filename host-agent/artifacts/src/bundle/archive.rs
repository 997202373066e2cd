//! Reads a bundle entry by entry, checks every digest on the way and refuses what the format does not know.
//!
//! Called by the store (verify, import) and by the image builder (unpack). An archive may come from a
//! stranger: only plain files with expected names, in the expected order, with bounded sizes, each once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{BundleError, Manifest};
use crate::digest::{self, Hashing};

/// Bytes of a block of a tar archive, and of the zeros at its end.
const BLOCK: u64 = 512;
const END: usize = 1024;
const TOML_LIMIT: u64 = 1 << 20;
const JSON_LIMIT: u64 = 4 << 20;
const BLOB_LIMIT: u64 = 8 << 30;
const BLOB_COUNT_LIMIT: usize = 4096;

/// What [`read`] does with the entries it has a name for.
pub trait Sink {
    /// A place for the entry's content. The content is checked only when it was all written.
    fn open(&mut self, entry: &str, executable: bool) -> io::Result<Box<dyn Write>>;
}

/// Throws the content away: for verifying.
pub struct Discard;

impl Sink for Discard {
    fn open(&mut self, _: &str, _: bool) -> io::Result<Box<dyn Write>> {
        Ok(Box::new(io::sink()))
    }
}

/// Writes each tree of the bundle to a directory.
pub struct Unpack {
    /// Where `bin/*` goes.
    pub bin: PathBuf,
    /// Where `cni/*` goes.
    pub cni: PathBuf,
    /// Where `images/*`, an OCI layout, goes.
    pub images: PathBuf,
}

impl Sink for Unpack {
    fn open(&mut self, entry: &str, executable: bool) -> io::Result<Box<dyn Write>> {
        let (tree, rest) = entry.split_once('/').ok_or(io::ErrorKind::InvalidInput)?;
        let path = match tree {
            "bin" => &self.bin,
            "cni" => &self.cni,
            _ => &self.images,
        }
        .join(rest);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mode = if executable { 0o755 } else { 0o644 };
        let file = File::options().write(true).create_new(true).mode(mode).open(&path)?;
        // The mode above passed the umask.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        Ok(Box::new(file))
    }
}

/// A bundle's own description, and the digest that identifies the bundle.
#[derive(Clone, Debug)]
pub struct Head {
    /// The parsed `bundle.toml`.
    pub manifest: Manifest,
    /// SHA-256 of `bundle.toml`; since that names every digest, it stands for the whole content.
    pub digest: String,
}

/// Opens a bundle to read it. What is no regular file is refused before: opening a pipe waits for who writes to it.
pub(super) fn open(path: &Path) -> Result<File, BundleError> {
    let data = fs::metadata(path).map_err(BundleError::io("open", path))?;
    if !data.is_file() {
        return Err(BundleError::corrupt(path, "it is no regular file"));
    }
    File::open(path).map_err(BundleError::io("open", path))
}

/// Refuses a file that does not end as an archive does: whole blocks, and the last two of them zeros.
pub(super) fn check_end(path: &Path, file: &File) -> Result<(), BundleError> {
    let size = file.metadata().map_err(BundleError::io("read", path))?.len();
    let mut end = [1; END];
    let has_end = match size.checked_sub(END as u64) {
        Some(before) if size.is_multiple_of(BLOCK) => {
            file.read_exact_at(&mut end, before).map_err(BundleError::io("read", path))?;
            end == [0; END]
        }
        _ => false,
    };
    if has_end {
        Ok(())
    } else {
        Err(BundleError::corrupt(path, "it is cut short: the end of the archive is missing"))
    }
}

/// Reads only `bundle.toml`, the first entry, and the end of the file.
pub fn read_head(path: &Path) -> Result<Head, BundleError> {
    let file = open(path)?;
    let mut archive = tar::Archive::new(&file);
    let reader = Reader { path, sink: &mut Discard, stage: 0, seen: BTreeSet::new() };
    let mut entries = archive.entries().map_err(|error| reader.corrupt(error))?.raw(true);
    let head = reader.head(&mut entries)?;
    check_end(path, &file)?;
    Ok(head)
}

/// Reads a whole bundle from `input`, hands its content to `sink` and checks everything.
pub fn read(path: &Path, input: impl Read, sink: &mut dyn Sink) -> Result<Head, BundleError> {
    let mut archive = tar::Archive::new(input);
    let mut reader = Reader { path, sink, stage: 0, seen: BTreeSet::new() };
    let mut entries = archive.entries().map_err(|error| reader.corrupt(error))?.raw(true);
    let head = reader.head(&mut entries)?;
    let mut content = Content::of(&head.manifest);
    for entry in entries {
        let entry = entry.map_err(|error| reader.corrupt(error))?;
        reader.entry(entry, &mut content)?;
    }
    content.complete().map_err(|reason| BundleError::corrupt(path, reason))?;
    let mut rest = [0; 4096];
    let mut input = archive.into_inner();
    loop {
        match input.read(&mut rest) {
            Ok(0) => return Ok(head),
            Ok(read) if rest[..read].iter().all(|&byte| byte == 0) => {}
            Ok(_) => return Err(BundleError::corrupt(path, "there is data after the end of the archive")),
            Err(error) => return Err(reader.corrupt(error)),
        }
    }
}

struct Reader<'a> {
    path: &'a Path,
    sink: &'a mut dyn Sink,
    stage: u8,
    seen: BTreeSet<String>,
}

impl Reader<'_> {
    fn corrupt(&self, error: io::Error) -> BundleError {
        BundleError::corrupt(self.path, format!("not a readable bundle: {error}"))
    }

    fn head<R: Read>(&self, entries: &mut tar::Entries<'_, R>) -> Result<Head, BundleError> {
        let first = entries.next().ok_or_else(|| BundleError::corrupt(self.path, "it is empty"))?;
        let mut first = first.map_err(|error| self.corrupt(error))?;
        if &*first.path_bytes() != b"bundle.toml" || !first.header().entry_type().is_file() {
            return Err(BundleError::corrupt(self.path, "its first entry is not the file bundle.toml"));
        }
        let text = self.small(&mut first, "bundle.toml", TOML_LIMIT)?;
        let digest = digest::sha256(&text);
        let text = String::from_utf8(text)
            .map_err(|_| BundleError::corrupt(self.path, "bundle.toml is not UTF-8"))?;
        let manifest = Manifest::parse(&text).map_err(|reason| BundleError::corrupt(self.path, reason))?;
        Ok(Head { manifest, digest })
    }

    fn small(&self, entry: &mut impl Read, name: &str, limit: u64) -> Result<Vec<u8>, BundleError> {
        let mut bytes = Vec::new();
        entry.take(limit + 1).read_to_end(&mut bytes).map_err(|error| self.corrupt(error))?;
        if bytes.len() as u64 > limit {
            return Err(BundleError::corrupt(self.path, format!("{name} is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    fn entry<R: Read>(
        &mut self,
        mut entry: tar::Entry<'_, R>,
        content: &mut Content,
    ) -> Result<(), BundleError> {
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refuse = |reason: String| BundleError::corrupt(self.path, format!("entry {name:?} {reason}"));
        if !entry.header().entry_type().is_file() {
            return Err(refuse("is not a plain file".to_owned()));
        }
        let stage = stage_of(&name).ok_or_else(|| refuse("does not belong in a bundle".to_owned()))?;
        if stage < self.stage {
            return Err(refuse("is out of order".to_owned()));
        }
        if !self.seen.insert(name.clone()) {
            return Err(refuse("is there twice".to_owned()));
        }
        if self.seen.len() > BLOB_COUNT_LIMIT {
            return Err(refuse(format!("is one more than the {BLOB_COUNT_LIMIT} entries a bundle may have")));
        }
        self.stage = stage;
        let size = entry.header().size().map_err(|error| self.corrupt(error))?;
        let expected = content.expect(&name).map_err(refuse)?;
        if expected.size.is_some_and(|expected| expected != size) {
            return Err(refuse(format!(
                "has {size} bytes, expected {:?}",
                expected.size.unwrap_or_default()
            )));
        }
        if size > expected.limit {
            return Err(refuse(format!("has {size} bytes, more than {} are not allowed", expected.limit)));
        }
        let writer = self.sink.open(&name, stage <= 2).map_err(BundleError::io("unpack", self.path))?;
        let mut writer = Hashing::new(writer);
        let mut kept = Vec::new();
        let copied = if expected.keep {
            kept = self.small(&mut entry, &name, expected.limit)?;
            writer.write_all(&kept)
        } else {
            io::copy(&mut entry, &mut writer).map(drop)
        };
        copied.and_then(|()| writer.flush()).map_err(|error| self.corrupt(error))?;
        let (got, written) = writer.finish();
        if written != size {
            return Err(BundleError::corrupt(
                self.path,
                format!("it is cut short in {name}: got {written} of {size} bytes"),
            ));
        }
        if let Some(expected) = expected.sha256
            && expected != got
        {
            return Err(BundleError::Digest { path: self.path.to_owned(), entry: name, got, expected });
        }
        content.take(&name, &kept, size).map_err(|reason| BundleError::corrupt(self.path, reason))
    }
}

/// The place in the fixed order, for the names that a bundle may have.
fn stage_of(name: &str) -> Option<u8> {
    match name {
        "images/oci-layout" => Some(3),
        "images/index.json" => Some(4),
        _ if name.starts_with("bin/") => Some(1),
        _ if name.starts_with("cni/") => Some(2),
        _ => name.strip_prefix(BLOBS).filter(|hex| digest::is_sha256(hex)).map(|_| 5),
    }
}

const BLOBS: &str = "images/blobs/sha256/";

struct Expected {
    sha256: Option<String>,
    size: Option<u64>,
    limit: u64,
    keep: bool,
}

/// What still has to come, and what came.
struct Content {
    components: BTreeMap<String, (String, u64)>,
    images: BTreeMap<String, String>,
    /// Manifest digest → size, from index.json.
    manifests: BTreeMap<String, u64>,
    /// Config and layer digests → size, from the manifests.
    referenced: BTreeMap<String, u64>,
    blobs: BTreeMap<String, u64>,
    has_layout: bool,
    has_index: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageManifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layout {
    image_layout_version: String,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn hex(&self) -> Result<String, String> {
        digest::of_oci(&self.digest)
            .map(str::to_owned)
            .ok_or_else(|| format!("{:?} is no sha256 digest", self.digest))
    }
}

impl Content {
    fn of(manifest: &Manifest) -> Self {
        let images = manifest.images.iter().map(|image| (image.name.clone(), image.manifest.clone()));
        let components =
            manifest.components.iter().map(|part| (part.path.clone(), (part.sha256.clone(), part.size)));
        Self {
            components: components.collect(),
            images: images.collect(),
            manifests: BTreeMap::new(),
            referenced: BTreeMap::new(),
            blobs: BTreeMap::new(),
            has_layout: false,
            has_index: false,
        }
    }

    fn expect(&self, name: &str) -> Result<Expected, String> {
        if let Some(hex) = name.strip_prefix(BLOBS) {
            let size = self.manifests.get(hex).copied();
            let limit = if size.is_some() { JSON_LIMIT } else { BLOB_LIMIT };
            return Ok(Expected { sha256: Some(hex.to_owned()), size, limit, keep: size.is_some() });
        }
        if name.starts_with("images/") {
            return Ok(Expected { sha256: None, size: None, limit: JSON_LIMIT, keep: true });
        }
        let (sha256, size) = self.components.get(name).ok_or("is not listed in bundle.toml")?;
        Ok(Expected { sha256: Some(sha256.clone()), size: Some(*size), limit: BLOB_LIMIT, keep: false })
    }

    fn take(&mut self, name: &str, bytes: &[u8], size: u64) -> Result<(), String> {
        let bad = |error: serde_json::Error| format!("{name}: {error}");
        if name == "images/oci-layout" {
            let layout: Layout = serde_json::from_slice(bytes).map_err(bad)?;
            if layout.image_layout_version != "1.0.0" {
                return Err(format!(
                    "{name}: version is {:?}, expected \"1.0.0\"",
                    layout.image_layout_version
                ));
            }
            self.has_layout = true;
        } else if name == "images/index.json" {
            let index: Index = serde_json::from_slice(bytes).map_err(bad)?;
            self.index(index).map_err(|reason| format!("{name}: {reason}"))?;
            self.has_index = true;
        } else if let Some(hex) = name.strip_prefix(BLOBS) {
            if self.manifests.contains_key(hex) {
                let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(bad)?;
                for part in manifest.layers.iter().chain([&manifest.config]) {
                    self.referenced.insert(part.hex()?, part.size);
                }
            }
            self.blobs.insert(hex.to_owned(), size);
        } else {
            self.components.remove(name);
        }
        Ok(())
    }

    fn index(&mut self, index: Index) -> Result<(), String> {
        let mut wanted = self.images.clone();
        for image in index.manifests {
            let name = image.annotations.get("io.containerd.image.name").ok_or("an image has no name")?;
            match wanted.remove(name) {
                Some(manifest) if manifest == image.digest => {}
                Some(manifest) => {
                    return Err(format!("{name} is {}, bundle.toml says {manifest}", image.digest));
                }
                None => return Err(format!("{name} is not listed in bundle.toml, or twice here")),
            }
            self.manifests.insert(image.hex()?, image.size);
        }
        match wanted.into_keys().next() {
            Some(name) => Err(format!("{name} is missing")),
            None => Ok(()),
        }
    }

    fn complete(&self) -> Result<(), String> {
        if let Some(path) = self.components.keys().next() {
            return Err(format!("{path} is missing"));
        }
        if !self.has_layout || !self.has_index {
            return Err("images/oci-layout or images/index.json is missing".to_owned());
        }
        for (hex, size) in &self.referenced {
            if let Some(got) = self.blobs.get(hex).filter(|got| *got != size) {
                return Err(format!("blob sha256:{hex} has {got} bytes, its image says {size}"));
            }
        }
        let wanted: BTreeSet<&String> = self.manifests.keys().chain(self.referenced.keys()).collect();
        if let Some(hex) = wanted.iter().find(|hex| !self.blobs.contains_key(**hex)) {
            return Err(format!("blob sha256:{hex} is missing"));
        }
        if let Some(hex) = self.blobs.keys().find(|hex| !wanted.contains(hex)) {
            return Err(format!("blob sha256:{hex} belongs to no image"));
        }
        Ok(())
    }
}
