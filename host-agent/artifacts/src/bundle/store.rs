//! The directory of installed bundles: `<name>.k8sbundle` files, and `partial/` for downloads.
//!
//! The host agent asks it which Kubernetes there is. A file appears in it by rename only, so every
//! `*.k8sbundle` was whole and verified once. Blocking; call from a blocking thread.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use k8sctl_types::version::KubernetesVersion;

use super::archive::{self, Discard};
use super::lock::{StoreLock, WAITING};
use super::{BundleError, Manifest};
use crate::digest::Tee;

const SUFFIX: &str = "k8sbundle";

/// A bundle file and what it says of itself.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The file.
    pub path: PathBuf,
    /// SHA-256 of `bundle.toml`, hexadecimal: identifies the content.
    pub digest: String,
    /// Bytes of the file.
    pub size: u64,
    /// The parsed `bundle.toml`.
    pub manifest: Manifest,
}

/// All installed bundles, newest first, and the files that are none.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Newest Kubernetes first; among equals, trial bundles last, and those in a file of another name behind others.
    pub bundles: Vec<Bundle>,
    /// Files with a bundle's suffix that cannot be read as one.
    pub broken: Vec<Failure>,
}

/// The installed bundles.
#[derive(Clone, Debug)]
pub struct BundleStore {
    dir: PathBuf,
}

impl BundleStore {
    /// A store in `dir`, which is made when first needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Every installed bundle. Reads the first entry and the end of each file only.
    pub fn list(&self) -> Result<Listing, Failure> {
        let mut listing = Listing::default();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(listing),
            Err(error) => return Err(BundleError::io("list", &self.dir)(error).into()),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|suffix| suffix == SUFFIX));
        paths.sort();
        for path in paths {
            match inspect(&path) {
                Ok(bundle) => listing.bundles.push(bundle),
                Err(failure) => listing.broken.push(failure),
            }
        }
        let rank = |bundle: &Bundle| {
            let manifest = &bundle.manifest;
            (manifest.kubernetes.clone(), !manifest.trial, bundle.path == self.path_of(&manifest.name))
        };
        listing.bundles.sort_by_key(|bundle| std::cmp::Reverse(rank(bundle)));
        Ok(listing)
    }

    /// The bundle with the newest Kubernetes. `None` means: the store is empty. A store in which
    /// every file is broken is a failure.
    pub fn newest(&self) -> Result<Option<Bundle>, Failure> {
        let listing = self.list()?;
        match listing.bundles.into_iter().next() {
            Some(bundle) => Ok(Some(bundle)),
            None => listing.broken.into_iter().next().map_or(Ok(None), Err),
        }
    }

    /// The bundle of this version, or `BUNDLE-MISSING` with the command that gets it.
    pub fn by_version(&self, version: &KubernetesVersion) -> Result<Bundle, Failure> {
        self.find(&version.to_string(), |bundle| bundle.manifest.kubernetes == *version)
    }

    /// The bundle of this name, or `BUNDLE-MISSING`.
    pub fn by_name(&self, name: &str) -> Result<Bundle, Failure> {
        self.find(name, |bundle| bundle.manifest.name == name)
    }

    fn find(&self, wanted: &str, matches: impl Fn(&Bundle) -> bool) -> Result<Bundle, Failure> {
        let listing = self.list()?;
        if let Some(bundle) = listing.bundles.iter().find(|bundle| matches(bundle)) {
            return Ok(bundle.clone());
        }
        // A file named after what is wanted is the likely reason.
        if let Some(broken) = listing.broken.into_iter().find(|failure| failure.object.contains(wanted)) {
            return Err(broken);
        }
        let names: Vec<_> = listing.bundles.iter().map(|bundle| bundle.manifest.name.as_str()).collect();
        let installed = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(BundleError::Missing { wanted: wanted.to_owned(), installed }.into())
    }

    /// Copies a bundle into the store, checking all of it on the way. While another fetch or import writes there
    /// it waits. Lines of progress go to `progress`.
    pub fn import(&self, path: &Path, progress: impl Fn(String)) -> Result<Bundle, Failure> {
        Ok(self.import_impl(path, progress)?)
    }

    fn import_impl(&self, path: &Path, progress: impl Fn(String)) -> Result<Bundle, BundleError> {
        let _lock = StoreLock::take(&self.dir, || progress(WAITING.to_owned()))?;
        progress(format!("verifying {}", path.display()));
        let temp = tempfile::Builder::new()
            .prefix(".import-")
            .tempfile_in(&self.dir)
            .map_err(BundleError::io("write to", &self.dir))?;
        let input = archive::open(path)?;
        let tee = Tee::new(BufReader::with_capacity(1 << 20, &input), temp.as_file());
        let head = archive::read(path, tee, &mut Discard)?;
        archive::check_end(path, &input)?;
        self.adopt(temp, &head.manifest.name)
    }

    /// The file of the bundle of this name, there or not.
    pub(crate) fn path_of(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{SUFFIX}"))
    }

    /// Gives a whole, verified temporary file in the store's directory its name.
    pub(crate) fn adopt(&self, temp: tempfile::NamedTempFile, name: &str) -> Result<Bundle, BundleError> {
        let path = self.path_of(name);
        temp.as_file().sync_all().map_err(BundleError::io("write", &path))?;
        temp.persist(&path).map_err(|error| BundleError::io("write", &path)(error.error))?;
        sync_dir(&self.dir)?;
        inspect_impl(&path)
    }
}

/// Makes renames in `dir` outlast a crash of the host.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), BundleError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(BundleError::io("write", dir))
}

/// What a bundle says of itself. Reads its first entry and its end only and checks no content.
pub fn inspect(path: &Path) -> Result<Bundle, Failure> {
    Ok(inspect_impl(path)?)
}

pub(crate) fn inspect_impl(path: &Path) -> Result<Bundle, BundleError> {
    let head = archive::read_head(path)?;
    let size = fs::metadata(path).map_err(BundleError::io("read", path))?.len();
    Ok(Bundle { path: path.to_owned(), digest: head.digest, size, manifest: head.manifest })
}

/// Checks every digest in a bundle, that nothing is missing and that nothing else is in it.
pub fn verify(path: &Path) -> Result<Bundle, Failure> {
    Ok(verify_impl(path)?)
}

pub(crate) fn verify_impl(path: &Path) -> Result<Bundle, BundleError> {
    let file = archive::open(path)?;
    archive::read(path, BufReader::with_capacity(1 << 20, file), &mut Discard)?;
    inspect_impl(path)
}
