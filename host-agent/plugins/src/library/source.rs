//! A name of the plugin path, a package's folder or its archive becomes a package.

use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::Package;

use super::{Library, failure};

/// What makes a folder a package.
const MANIFEST: &str = "plugin.toml";

impl Library {
    /// Packages of the plugin path by name, by their `plugin.toml` alone, and the failures of those that cannot be read. Of
    /// two of one name the newer one counts; of the same version the one in the first folder.
    pub fn scan(&self) -> (Vec<Package>, Vec<Failure>) {
        let (mut found, mut failures) = (Vec::<Package>::new(), Vec::new());
        for folder in self.folders() {
            // Also those that nobody signed: they are shown as such.
            match Package::open(&folder, &self.inner.policy, true) {
                Ok(package) => {
                    let known = found.iter().position(|it| it.manifest.name == package.manifest.name);
                    match known {
                        Some(at) if found[at].manifest.version >= package.manifest.version => {}
                        Some(at) => found[at] = package,
                        None => found.push(package),
                    }
                }
                Err(error) => failures.push(error.failure(&folder_name(&folder))),
            }
        }
        found.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
        (found, failures)
    }

    /// By name, package folder or archive: opened and verified. With `dev` also one that nobody signed.
    pub fn find(&self, source: &str, dev: bool) -> Result<Package, Failure> {
        let package = self.locate(source, dev)?;
        package.verify().map_err(|error| error.failure(&package.manifest.name))?;
        Ok(package)
    }

    /// The same, by its `plugin.toml` alone. An archive is verified: it has to be unpacked anyway.
    pub(crate) fn locate(&self, source: &str, dev: bool) -> Result<Package, Failure> {
        let path = Path::new(source);
        if path.is_absolute() {
            return match path.metadata() {
                Ok(found) if found.is_dir() => self.open(path, dev),
                Ok(_) => self.unpack(path, dev),
                Err(error) => {
                    let next = "give the absolute path of a package's folder or archive";
                    Err(failure("PLUGIN-UNKNOWN", source, format!("{}: {error}", path.display()), next))
                }
            };
        }
        let (found, failures) = self.scan();
        if let Some(found) = found.iter().find(|found| found.manifest.name == source) {
            return self.open(&found.folder, dev);
        }
        let object = format!("plugin {source}");
        if let Some(failure) = failures.into_iter().find(|failure| failure.object == object) {
            return Err(failure);
        }
        let names: Vec<_> = found.iter().map(|found| found.manifest.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let folders: Vec<_> = self.inner.path.iter().map(|folder| folder.display().to_string()).collect();
        Err(failure(
            "PLUGIN-UNKNOWN",
            source,
            format!("there is no such plugin in {}; there are: {names}", folders.join(", ")),
            "put the package's folder there, or give the absolute path of its folder or archive",
        ))
    }

    fn open(&self, folder: &Path, dev: bool) -> Result<Package, Failure> {
        Package::open(folder, &self.inner.policy, dev).map_err(|error| error.failure(&folder_name(folder)))
    }

    /// Every folder of the plugin path that has a manifest, in the order of names.
    fn folders(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for path in &self.inner.path {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
            folders.retain(|folder| folder.join(MANIFEST).is_file());
            folders.sort();
            all.extend(folders);
        }
        all
    }
}

/// By which a package is called that does not say its name.
pub(super) fn folder_name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
