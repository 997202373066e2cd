//! A package on disk. Opening one looks at `plugin.toml`, its signature, and the names and sizes of what it lists, which is
//! little enough for a list of many; verifying one reads everything. Called by the host agent's library, `k8sctl plugin`
//! and [`mod@crate::assemble`]; never runs the program.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::PLATFORM;
use crate::error::PackageError;
use crate::manifest::{Binary, Manifest};
use crate::plain::{digest_below, files_below, open_below, read_below, size_below};
use crate::signature::{Trust, TrustPolicy};

/// Name of the file that holds the digests of all others.
pub const MANIFEST_FILE: &str = "plugin.toml";
/// Name of its signature.
pub const SIGNATURE_FILE: &str = "plugin.toml.sig";
/// Name of the file with the JSON Schema of the config.
pub const SCHEMA_FILE: &str = "schema.json";

/// Most files of a package.
pub const PACKAGE_FILES: usize = 200;
/// Most bytes of all its files.
pub const PACKAGE_BYTES: u64 = 128 << 20;
/// Most bytes of those files that the program is told.
pub const FILES_BYTES: u64 = 2 << 20;

const MANIFEST_BYTES: u64 = 256 << 10;
const SIGNATURE_BYTES: u64 = 4 << 10;

/// A package that was opened.
#[derive(Clone, Debug)]
pub struct Package {
    /// What it says of itself.
    pub manifest: Manifest,
    /// SHA-256 of `plugin.toml`, which stands for everything in it. 64 hex digits.
    pub sha256: String,
    /// Where it lies.
    pub folder: PathBuf,
    /// Who vouches for it.
    pub trust: Trust,
}

impl Package {
    /// Reads `plugin.toml` and its signature; looks at names and sizes, not at contents. With `dev`, what nobody signed is
    /// taken, and a source folder whose program lies beside `plugin.toml`.
    pub fn open(folder: &Path, policy: &TrustPolicy, dev: bool) -> Result<Self, PackageError> {
        let path = folder.join(MANIFEST_FILE);
        let text = read_below(folder, MANIFEST_FILE, MANIFEST_BYTES)?;
        let mut manifest = parse(&path, &text)?;
        let sha256 = sha256_hex(&text);
        if manifest.binaries.is_empty() {
            if !dev {
                return Err(PackageError::NotBuilt { folder: folder.to_owned() });
            }
            let program = unbuilt(&manifest);
            manifest.binaries.push(program);
        }
        let trust = trust_of(folder, &text, &sha256, policy, dev)?;
        let package = Self { manifest, sha256, folder: folder.to_owned(), trust };
        for listed in package.listed() {
            let got = size_below(folder, listed.path)?;
            if !listed.sha256.is_empty() && got != listed.bytes {
                let path = folder.join(listed.path);
                return Err(PackageError::Size { path, got, expected: listed.bytes });
            }
        }
        Ok(package)
    }

    /// Reads every file and compares digests; a file that `plugin.toml` does not list is a mistake.
    pub fn verify(&self) -> Result<(), PackageError> {
        let manifest = self.folder.join(MANIFEST_FILE);
        let text = read_below(&self.folder, MANIFEST_FILE, MANIFEST_BYTES)?;
        compare(&manifest, sha256_hex(&text), &self.sha256)?;
        let listed: BTreeMap<&str, Listed<'_>> = self.listed().map(|listed| (listed.path, listed)).collect();
        if listed.values().any(|listed| listed.sha256.is_empty()) {
            // A source folder has all kinds of files and no digests.
            return Ok(());
        }
        let is_known = |name: &String| {
            listed.contains_key(name.as_str()) || [MANIFEST_FILE, SIGNATURE_FILE].contains(&name.as_str())
        };
        let names: Vec<_> = files_below(&self.folder)?.into_iter().filter(|name| !is_known(name)).collect();
        if !names.is_empty() {
            return Err(PackageError::Unlisted { folder: self.folder.clone(), names });
        }
        for listed in listed.values() {
            let digest = digest_below(&self.folder, listed.path, listed.bytes)?;
            compare(&self.folder.join(listed.path), digest, listed.sha256)?;
        }
        Ok(())
    }

    /// The program of this platform; its digest is checked by whoever reads it.
    pub fn program(&self) -> Result<(&Binary, PathBuf), PackageError> {
        let found = self.manifest.binaries.iter().find(|binary| binary.platform == PLATFORM);
        match found {
            Some(binary) => Ok((binary, self.folder.join(&binary.path))),
            None => {
                let has = self.manifest.binaries.iter().map(|binary| binary.platform.clone()).collect();
                Err(PackageError::Platform { folder: self.folder.clone(), has })
            }
        }
    }

    /// A file of it, by its path within it, to be copied elsewhere: no link was followed to it, nothing of it compared.
    pub fn open_file(&self, name: &str) -> Result<File, PackageError> {
        open_below(&self.folder, name)
    }

    /// All `[[file]]`s with their contents, digests checked, in the order of their paths.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, PackageError> {
        let mut files = Vec::new();
        let mut left = FILES_BYTES;
        for file in &self.manifest.files {
            let path = self.folder.join(&file.path);
            let content = read_below(&self.folder, &file.path, left.min(file.bytes))?;
            compare(&path, sha256_hex(&content), &file.sha256)?;
            left -= content.len() as u64;
            files.push((file.path.clone(), content));
        }
        files.sort();
        Ok(files)
    }

    /// The JSON Schema of its config.
    pub fn config_schema(&self) -> Result<serde_json::Value, PackageError> {
        let unusable = |reason: String| PackageError::Schema { folder: self.folder.clone(), reason };
        let listed = self.manifest.files.iter().find(|file| file.path == SCHEMA_FILE);
        let Some(listed) = listed else {
            return Err(unusable(format!("plugin.toml lists no {SCHEMA_FILE}")));
        };
        let path = self.folder.join(SCHEMA_FILE);
        let content = read_below(&self.folder, SCHEMA_FILE, listed.bytes)?;
        compare(&path, sha256_hex(&content), &listed.sha256)?;
        serde_json::from_slice(&content).map_err(|error| unusable(format!("{SCHEMA_FILE}: {error}")))
    }

    /// `plugin.toml` as it is.
    pub fn manifest_text(&self) -> Result<String, PackageError> {
        let path = self.folder.join(MANIFEST_FILE);
        let text = read_below(&self.folder, MANIFEST_FILE, MANIFEST_BYTES)?;
        compare(&path, sha256_hex(&text), &self.sha256)?;
        utf8(&path, text)
    }

    fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        let binaries = self.manifest.binaries.iter();
        let binaries = binaries.map(|it| Listed { path: &it.path, sha256: &it.sha256, bytes: it.bytes });
        let files = self.manifest.files.iter();
        binaries.chain(files.map(|it| Listed { path: &it.path, sha256: &it.sha256, bytes: it.bytes }))
    }
}

/// A line of `plugin.toml` about a file; no digest: it is not compared.
struct Listed<'a> {
    path: &'a str,
    sha256: &'a str,
    bytes: u64,
}

/// The program of a source folder lies beside `plugin.toml`.
fn unbuilt(manifest: &Manifest) -> Binary {
    Binary {
        platform: PLATFORM.to_owned(),
        path: manifest.program.name.clone(),
        sha256: String::new(),
        bytes: 0,
    }
}

fn trust_of(
    folder: &Path,
    text: &[u8],
    sha256: &str,
    policy: &TrustPolicy,
    dev: bool,
) -> Result<Trust, PackageError> {
    if policy.built_in.contains(sha256) {
        return Ok(Trust::BuiltIn);
    }
    let path = folder.join(SIGNATURE_FILE);
    let signature = match read_below(folder, SIGNATURE_FILE, SIGNATURE_BYTES) {
        Ok(signature) => utf8(&path, signature)?,
        Err(PackageError::Missing { .. }) if dev => return Ok(Trust::Dev),
        Err(PackageError::Missing { .. }) => {
            return Err(PackageError::Unsigned { folder: folder.to_owned() });
        }
        Err(error) => return Err(error),
    };
    match policy.keys.verify(text, &signature) {
        Ok(key) => Ok(Trust::Signed { key }),
        Err(PackageError::UnknownKey { .. }) if dev => Ok(Trust::Dev),
        Err(error) => Err(error),
    }
}

fn parse(path: &Path, text: &[u8]) -> Result<Manifest, PackageError> {
    let mistakes = |mistakes| PackageError::Mistakes { path: path.to_owned(), mistakes };
    let text =
        std::str::from_utf8(text).map_err(|error| mistakes(vec![format!("it is no text: {error}")]))?;
    Manifest::parse(text).map_err(mistakes)
}

pub(crate) fn utf8(path: &Path, bytes: Vec<u8>) -> Result<String, PackageError> {
    String::from_utf8(bytes).map_err(|error| PackageError::Mistakes {
        path: path.to_owned(),
        mistakes: vec![format!("it is no text: {}", error.utf8_error())],
    })
}

pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn compare(path: &Path, got: String, expected: &str) -> Result<(), PackageError> {
    if got == expected {
        return Ok(());
    }
    Err(PackageError::Digest { path: path.to_owned(), got, expected: expected.to_owned() })
}
