//! Packages by the digest of their `plugin.toml`, which holds those of all their files. One comes in whole and verified, or
//! not at all; what was read from elsewhere and changed since is not what was asked for, and is refused.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::folder::PACKAGE_BYTES;
use plugin_package::{Package, archive};
use tempfile::TempDir;

use super::{Library, failure};

/// Files beside those that the manifest lists.
const MANIFEST: &str = "plugin.toml";
const SIGNATURE: &str = "plugin.toml.sig";

impl Library {
    /// Takes a package into the store, under its digest, and gives the one that lies there. Again: nothing happens.
    pub fn take_in(&self, package: &Package) -> Result<Package, Failure> {
        let name = &package.manifest.name;
        if package.folder == self.place(&package.sha256) {
            return Ok(package.clone());
        }
        if let Some(stored) = self.sound(package) {
            return Ok(stored);
        }
        let unusable = |error: &io::Error| self.unusable(name, error);
        let new = self.new_folder().map_err(|error| unusable(&error))?;
        let folder = new.path().join("package");
        self.copy(package, &folder)?;
        let copied = self.checked(&folder, name)?;
        if copied.sha256 != package.sha256 {
            let reason = format!(
                "its plugin.toml changed while it was read: its digest was {}, and is {}",
                package.sha256, copied.sha256
            );
            return Err(failure("PLUGIN-DIGEST", name, reason, "run the same command again"));
        }
        self.put(&folder, &package.sha256).map_err(|error| unusable(&error))?;
        self.stored(&package.sha256)
    }

    /// The package of this digest.
    pub fn stored(&self, sha256: &str) -> Result<Package, Failure> {
        let short = sha256.get(..12).unwrap_or(sha256);
        let lacking = |reason: String| {
            let next = "put the package back into the plugin path, and add or apply it again";
            failure("PLUGIN-UNKNOWN", &format!("package {short}"), reason, next)
        };
        if !is_digest(sha256) {
            return Err(lacking(format!("{sha256:?} is no digest of a package")));
        }
        let folder = self.place(sha256);
        if !folder.join(MANIFEST).is_file() {
            return Err(lacking(format!("it is not in the store, {}", self.inner.store.display())));
        }
        // Whoever let it in has decided whether it may be one of nobody.
        let package = Package::open(&folder, &self.inner.policy, true)
            .map_err(|error| error.failure(&format!("package {short}")))?;
        if package.sha256 == sha256 {
            return Ok(package);
        }
        let reason = format!("{} has the digest {}", folder.join(MANIFEST).display(), package.sha256);
        Err(failure("PLUGIN-DIGEST", &package.manifest.name, reason, "add or apply the plugin again"))
    }

    /// Digests of all that lies in the store.
    pub(crate) fn kept(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.inner.store).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut kept: Vec<_> = names.filter(|name| is_digest(name)).collect();
        kept.sort();
        kept
    }

    /// Forgets packages. One that is in use by somebody who has opened it stays readable for them.
    pub(crate) fn forget(&self, packages: &[String]) {
        for sha256 in packages.iter().filter(|sha256| sha256.len() == 64) {
            let folder = self.place(sha256);
            if let Err(error) = fs::remove_dir_all(&folder)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %folder.display(), error = %error, "a package cannot be forgotten");
            }
        }
    }

    /// An archive, unpacked into the store.
    pub(super) fn unpack(&self, file: &Path, dev: bool) -> Result<Package, Failure> {
        let name = super::source::folder_name(file);
        let unusable = |error: &io::Error| self.unusable(&name, error);
        let new = self.new_folder().map_err(|error| unusable(&error))?;
        let folder = archive::unpack(file, new.path()).map_err(|error| error.failure(&name))?;
        let package =
            Package::open(&folder, &self.inner.policy, dev).map_err(|error| error.failure(&name))?;
        if let Some(stored) = self.sound(&package) {
            return Ok(stored);
        }
        package.verify().map_err(|error| error.failure(&package.manifest.name))?;
        self.put(&folder, &package.sha256).map_err(|error| unusable(&error))?;
        self.stored(&package.sha256)
    }

    /// The same package as it lies in the store, if all of it is as it was. It may have been signed since.
    fn sound(&self, package: &Package) -> Option<Package> {
        let stored = self.stored(&package.sha256).ok()?;
        let is_as_trusted = stored.trust.to_string() == package.trust.to_string();
        (is_as_trusted && stored.verify().is_ok()).then_some(stored)
    }

    /// Everything that the manifest lists, and nothing else. Who may change the package must not choose what is read here:
    /// its files are opened as packages are read, over no link, and none without end.
    fn copy(&self, package: &Package, into: &Path) -> Result<(), Failure> {
        let name = &package.manifest.name;
        let binaries = package.manifest.binaries.iter().map(|binary| (binary.path.as_str(), 0o755));
        let files = package.manifest.files.iter().map(|file| (file.path.as_str(), 0o644));
        let signature =
            package.folder.join(SIGNATURE).symlink_metadata().is_ok().then_some((SIGNATURE, 0o644));
        for (path, mode) in binaries.chain(files).chain([(MANIFEST, 0o644)]).chain(signature) {
            let from = package.open_file(path).map_err(|error| error.failure(name))?;
            write(from, &into.join(path), mode).map_err(|error| self.unusable(name, &error))?;
        }
        Ok(())
    }

    fn checked(&self, folder: &Path, name: &str) -> Result<Package, Failure> {
        let package = Package::open(folder, &self.inner.policy, true).map_err(|error| error.failure(name))?;
        package.verify().map_err(|error| error.failure(name))?;
        Ok(package)
    }

    /// Moves a folder to its place, in place of a damaged one.
    fn put(&self, folder: &Path, sha256: &str) -> io::Result<()> {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
        let place = self.place(sha256);
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::rename(folder, &place)?;
        fs::File::open(&self.inner.store)?.sync_all()
    }

    /// Where the package of this digest lies, if it is there.
    pub(crate) fn place(&self, sha256: &str) -> PathBuf {
        self.inner.store.join(sha256)
    }

    /// A folder in the store, so that what is made in it can be moved to its place.
    fn new_folder(&self) -> io::Result<TempDir> {
        fs::create_dir_all(&self.inner.store)?;
        tempfile::Builder::new().prefix(".new-").tempdir_in(&self.inner.store)
    }

    fn unusable(&self, plugin: &str, error: &io::Error) -> Failure {
        let reason = format!("{}: {error}", self.inner.store.display());
        let next = "see that the host agent's state directory has space and is writable, then run the same command \
            again";
        failure("PLUGIN-STORE", plugin, reason, next)
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// More than a package may have is not what was asked for: its digest will say so.
fn write(from: fs::File, to: &Path, mode: u32) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::File::create_new(to)?;
    io::copy(&mut from.take(PACKAGE_BYTES), &mut file)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}
