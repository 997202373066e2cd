//! Every digest and signature of packages, wherever this host has them: in the plugin path, where a lock file says, in the
//! store. Starts nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::{LockFile, Package};

use super::PluginHost;
use super::spec::lock_mismatch;
use crate::inventory::store_failure;
use crate::library::Library;
use crate::status::{Found, Verified};

/// Where a package is taken from.
struct Place {
    /// What it is called until it has said so itself.
    name: String,
    /// A name of the plugin path, or an absolute path.
    source: String,
    found: Found,
}

impl PluginHost {
    /// Checks every digest and signature of a package, or of all that the host has, and against a lock file. What lies in the
    /// store too, as sound as elsewhere, is told once.
    pub async fn verify(
        &self,
        plugin: Option<&str>,
        lock: Option<&LockFile>,
    ) -> Result<Vec<Verified>, Failure> {
        let kept = self.inner.records.packages().await.map_err(|error| store_failure("all", &error))?;
        let library = self.inner.library.clone();
        let (plugin, lock) = (plugin.map(str::to_owned), lock.cloned().unwrap_or_default());
        Ok(task::blocking(move || verify(&library, plugin.as_deref(), &lock, &kept)).await)
    }
}

/// `kept`: packages that are installed, or can be rolled back to, by digest, and whose they are.
fn verify(
    library: &Library,
    plugin: Option<&str>,
    lock: &LockFile,
    kept: &BTreeMap<String, String>,
) -> Vec<Verified> {
    if let Some(path) = plugin.filter(|plugin| Path::new(plugin).is_absolute()) {
        let place = Place { name: path.to_owned(), source: path.to_owned(), found: Found::Given };
        return vec![at(library, place, lock)];
    }
    let mut verified: Vec<_> =
        places(library, plugin, lock).into_iter().map(|place| at(library, place, lock)).collect();
    let stored = in_store(library, kept).into_iter().filter(|stored| {
        let is_told = |told: &Verified| told.problem.is_none() && told.sha256 == stored.sha256;
        let is_news = stored.problem.is_some() || !verified.iter().any(is_told);
        is_news && plugin.is_none_or(|plugin| plugin == stored.name)
    });
    let stored: Vec<_> = stored.collect();
    // What is installed may have left the plugin path.
    if let [only] = verified.as_slice()
        && plugin.is_some()
        && !stored.is_empty()
        && only.problem.as_ref().is_some_and(|problem| problem.id == "PLUGIN-UNKNOWN")
    {
        verified.clear();
    }
    verified.extend(stored);
    verified
}

/// Of one name, or of all that the plugin path and the lock file have; by name, each once.
fn places(library: &Library, plugin: Option<&str>, lock: &LockFile) -> Vec<Place> {
    let of_path = |name: String| Place { source: name.clone(), name, found: Found::PluginPath };
    if let Some(plugin) = plugin {
        return vec![of_path(plugin.to_owned())];
    }
    let (found, broken) = library.scan();
    let names = found.into_iter().map(|package| package.manifest.name);
    let broken = broken.iter().map(|failure| failure.object.trim_start_matches("plugin ").to_owned());
    let mut places: Vec<_> = names.chain(broken).map(of_path).collect();
    for locked in &lock.plugins {
        let by_path = Path::new(&locked.source).is_absolute();
        let source = if by_path { &locked.source } else { &locked.name };
        let place = Place { name: locked.name.clone(), source: source.clone(), found: Found::LockFile };
        match places.iter_mut().find(|known| known.name == locked.name) {
            Some(known) if by_path => *known = place,
            Some(_) => {}
            None => places.push(place),
        }
    }
    places
}

fn at(library: &Library, place: Place, lock: &LockFile) -> Verified {
    let Place { name, source, found } = place;
    let given = Path::new(&source).is_absolute().then(|| PathBuf::from(&source));
    match library.find(&source, true) {
        Ok(package) => {
            let problem = lock_mismatch(lock, &package);
            // An archive is opened elsewhere than it lies.
            let path = given.unwrap_or_else(|| package.folder.clone());
            Verified { path, problem, ..sound(package, found) }
        }
        Err(failure) => {
            let path = given.unwrap_or_default();
            Verified { name, found, path, problem: Some(failure), ..Verified::default() }
        }
    }
}

/// All that it has, and all that it should have.
fn in_store(library: &Library, kept: &BTreeMap<String, String>) -> Vec<Verified> {
    let mut all = kept.clone();
    for sha256 in library.kept() {
        all.entry(sha256).or_default();
    }
    let verified = |(sha256, plugin): (String, String)| {
        let package = library.stored(&sha256).and_then(|package| {
            let checked = package.verify().map_err(|error| error.failure(&package.manifest.name));
            checked.map(|()| package)
        });
        let path = library.place(&sha256);
        match package {
            Ok(package) => Verified { path, ..sound(package, Found::Store) },
            Err(failure) => {
                let name = if plugin.is_empty() { sha256.chars().take(12).collect() } else { plugin };
                Verified {
                    name,
                    sha256,
                    found: Found::Store,
                    path,
                    problem: Some(failure),
                    ..Verified::default()
                }
            }
        }
    };
    let mut verified: Vec<_> = all.into_iter().map(verified).collect();
    verified.sort_by(|a, b| a.name.cmp(&b.name));
    verified
}

fn sound(package: Package, found: Found) -> Verified {
    Verified {
        version: package.manifest.version.to_string(),
        trust: package.trust.to_string(),
        sha256: package.sha256,
        name: package.manifest.name,
        found,
        path: package.folder,
        problem: None,
    }
}
