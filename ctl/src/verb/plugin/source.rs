//! What a path that is given for a plugin is: the source of one, a package, or a package as one file. Whoever wants a
//! package of it gets one, built or unpacked where it must be.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::{KeyRing, Manifest, Package, TrustPolicy, unpack};
use tempfile::TempDir;

use super::build::{self, Build};
use crate::ended::{self, Ended};
use crate::terminal::Context;

/// Where the host agent has the keys that this host trusts, unless its config names another folder.
const KEYS: &str = "/etc/k8s-myhome/plugin-keys.d";
/// Name of the file that says what a plugin is.
pub(super) const MANIFEST: &str = "plugin.toml";

/// What lies at a path.
#[derive(Debug)]
pub(super) enum Given {
    /// A source folder, with what its `plugin.toml` says.
    Source(Box<Manifest>),
    /// A package folder.
    Package,
    /// A file, which should be a package.
    Archive,
}

/// A package that lies somewhere, as long as this lives.
#[derive(Debug)]
pub(super) struct Opened {
    /// It.
    pub(super) package: Package,
    /// Where it was unpacked.
    _unpacked: Option<TempDir>,
}

/// What lies there. A `plugin.toml` with mistakes is told with all of them.
pub(super) fn look(path: &Path) -> Result<Given, Failure> {
    let data = fs::metadata(path).map_err(|error| not_found(path, &error))?;
    if !data.is_dir() {
        return Ok(Given::Archive);
    }
    let file = path.join(MANIFEST);
    let text = fs::read_to_string(&file).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => format!("it has no {MANIFEST}, so it is no plugin"),
            _ => format!("cannot read its {MANIFEST}: {error}"),
        };
        let next = "name the folder of a plugin; `k8sctl plugin new NAME` writes one";
        Failure::new("PLUGIN-MANIFEST", format!("plugin {}", path.display()), reason, next)
    })?;
    match Manifest::parse(&text) {
        Ok(manifest) if manifest.binaries.is_empty() => Ok(Given::Source(Box::new(manifest))),
        Ok(_) => Ok(Given::Package),
        Err(mistakes) => {
            let object = format!("plugin {}", path.display());
            let reason = format!("{} has {} mistake(s)", file.display(), mistakes.len());
            let failure = Failure::new("PLUGIN-MANIFEST", object, reason, "correct what is shown above");
            Err(failure.with_evidence(mistakes.join("\n")))
        }
    }
}

/// The package of it, with every digest checked: a source folder is built, an archive unpacked.
pub(super) async fn open(context: &Context, path: &Path) -> Result<Opened, Ended> {
    let (folder, unpacked) = match look(path)? {
        Given::Source(manifest) => {
            let package = build::build(context, &Build::of(path, &manifest)).await?;
            (package.folder, None)
        }
        Given::Package => (path.to_owned(), None),
        Given::Archive => {
            let into = scratch()?;
            let folder = unpack(path, into.path()).map_err(|error| error.failure(&name_of(path)))?;
            (folder, Some(into))
        }
    };
    let (keys, unreadable) = KeyRing::load(Path::new(KEYS));
    for error in unreadable {
        ended::print(&context.err, "warning", &error.failure(&name_of(path)))?;
    }
    let policy = TrustPolicy { keys, ..TrustPolicy::default() };
    let package = Package::open(&folder, &policy, true).map_err(|error| error.failure(&name_of(path)))?;
    package.verify().map_err(|error| error.failure(&package.manifest.name))?;
    Ok(Opened { package, _unpacked: unpacked })
}

/// A plugin as the host agent is told it: a name stays one, a path becomes absolute, since it is the host agent that reads
/// it. With `dev` a source folder is built first, and a plugin's folder in this directory needs no slash.
pub(super) async fn for_the_host(context: &Context, name: &str, dev: bool) -> Result<String, Ended> {
    let is_folder_here = dev && Path::new(name).join(MANIFEST).is_file();
    if !is_path(name) && !is_folder_here {
        return Ok(name.to_owned());
    }
    path_for_the_host(context, Path::new(name), dev).await
}

/// The same of what can only be a path.
pub(super) async fn path_for_the_host(context: &Context, path: &Path, dev: bool) -> Result<String, Ended> {
    match look(path)? {
        Given::Source(manifest) if dev => {
            let package = build::build(context, &Build::of(path, &manifest)).await?;
            Ok(absolute(&package.folder)?)
        }
        Given::Source(manifest) => {
            let reason = "it is the source of a plugin, and no package";
            let next = "build it with: k8sctl plugin build, or have it built and taken as it is with --dev";
            Err(Failure::new("PLUGIN-UNSIGNED", format!("plugin {}", manifest.name), reason, next).into())
        }
        Given::Package | Given::Archive => Ok(absolute(path)?),
    }
}

/// A name has neither a slash nor a dot.
pub(super) fn is_path(name: &str) -> bool {
    name.contains('/') || (name.contains('.') && Path::new(name).exists())
}

/// For the host agent, which is told paths as text.
pub(super) fn absolute(path: &Path) -> Result<String, Failure> {
    let found = fs::canonicalize(path).map_err(|error| not_found(path, &error))?;
    found.into_os_string().into_string().map_err(|path| {
        let reason = format!("its path is not UTF-8: {}", path.display());
        let next = "move it to a path in plain letters";
        Failure::new("PLUGIN-NOT-FOUND", format!("plugin {}", path.display()), reason, next)
    })
}

fn not_found(path: &Path, error: &io::Error) -> Failure {
    let next = "name a plugin of the host's plugin path, or the folder or archive of one";
    let object = format!("plugin {}", path.display());
    Failure::new("PLUGIN-NOT-FOUND", object, format!("cannot find it: {error}"), next)
}

/// What it is called before it has said so itself.
pub(super) fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// A folder that goes with the run.
pub(super) fn scratch() -> Result<TempDir, Failure> {
    tempfile::Builder::new().prefix("k8sctl-plugin-").tempdir().map_err(|error| {
        let reason = format!("cannot make a folder in {}: {error}", std::env::temp_dir().display());
        Failure::new("PLUGIN-BUILD", "plugin", reason, "make room there, or name another one with TMPDIR")
    })
}

/// Where what is built of a source folder lies, unless it is said otherwise.
pub(super) fn built(source: &Path) -> PathBuf {
    source.join("target").join("plugin")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "format = 1\nname = \"x\"\nversion = \"0.1.0\"\nsummary = \"X\"\nprotocol = [1]\n\
                          [program]\nname = \"data-plugin\"\n";

    #[test]
    fn what_lies_there_is_told_apart() {
        let dir = tempfile::tempdir().expect("a folder");
        let refused = |path: &Path| look(path).expect_err("it is no plugin");
        assert_eq!(refused(&dir.path().join("nothing")).id, "PLUGIN-NOT-FOUND");
        assert!(refused(dir.path()).reason.contains("has no plugin.toml"));
        let file = dir.path().join(MANIFEST);
        fs::write(&file, "name = 1\n").expect("written");
        let failure = refused(dir.path());
        assert!(failure.id == "PLUGIN-MANIFEST" && !failure.evidence.is_empty(), "{failure:?}");
        fs::write(&file, SOURCE).expect("written");
        assert!(matches!(look(dir.path()), Ok(Given::Source(manifest)) if manifest.name == "x"));
        assert!(matches!(look(&file), Ok(Given::Archive)));
    }

    #[test]
    fn names_are_no_paths() {
        let told = [".", "..", "./x", "a/b", "/a"].map(is_path);
        assert_eq!(told, [true; 5]);
        assert_eq!(["x", "metallb", "there.is.none"].map(is_path), [false; 3]);
    }
}
