//! `plugin.toml`: what a plugin is and what it may ask for, read without starting it; and the folder in which the
//! host agent looks for plugins. Knows nothing of processes or clusters.

use std::fmt;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Versions of `k8sctl.plugin` that this host agent speaks, ascending.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];

const FILE: &str = "plugin.toml";
/// Longest `plugin.toml` that is read, in bytes.
const FILE_LIMIT: u64 = 256 * 1024;

/// The contents of `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Name: lower case letters, digits and dashes.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// Versions of `k8sctl.plugin` that the program speaks.
    pub protocol: Vec<u32>,
    /// Name of the program beside this file.
    pub binary: String,
    /// May its pods reach into the node: privileged, host namespaces, hostPath?
    #[serde(default)]
    pub privileged_pods: bool,
    /// What it may ask for.
    #[serde(default, rename = "permission")]
    pub permissions: Vec<Permission>,
}

/// Objects of one kind that a plugin may ask for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// API group; empty: the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// `get`, `create`, `patch`, `delete`.
    pub verbs: Vec<String>,
    /// Namespaces in which; empty: the kind has none.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Names; empty: any.
    #[serde(default)]
    pub names: Vec<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(","), self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.names.is_empty() {
            write!(f, " named {}", self.names.join(","))?;
        }
        match self.namespaces.as_slice() {
            [] => write!(f, " in the whole cluster")?,
            namespaces => write!(f, " in namespace {}", namespaces.join(","))?,
        }
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        Ok(())
    }
}

impl Manifest {
    /// One line per permission, as the admin sees them.
    pub fn permission_lines(&self) -> Vec<String> {
        let privileged = "pods that reach into the node: privileged, host namespaces or hostPath";
        let lines = self.permissions.iter().map(ToString::to_string);
        self.privileged_pods.then(|| privileged.to_owned()).into_iter().chain(lines).collect()
    }

    /// Digest of what the admin approves: the name and every permission, not the version.
    pub fn permissions_digest(&self) -> String {
        let mut hash = Sha256::new();
        for part in std::iter::once(&self.name).chain(&self.permission_lines()) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }
}

/// A plugin on disk: its manifest and its program.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it says of itself.
    pub manifest: Manifest,
    /// The program.
    pub program: PathBuf,
}

/// The folders in which plugins lie, one folder per plugin. Read anew each time: dropping a folder is all it takes.
#[derive(Clone, Debug)]
pub struct PluginDir {
    folders: Vec<PathBuf>,
}

impl PluginDir {
    /// Looks into these folders, the first one first.
    pub fn new(folders: impl IntoIterator<Item = PathBuf>) -> Self {
        Self { folders: folders.into_iter().collect() }
    }

    /// Every plugin that can be read, by name, and the failures of those that cannot.
    pub fn scan(&self) -> (Vec<Found>, Vec<Failure>) {
        let (mut found, mut failures) = (Vec::<Found>::new(), Vec::new());
        for folder in &self.folders {
            let Ok(entries) = std::fs::read_dir(folder) else { continue };
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                if !path.join(FILE).is_file() {
                    continue;
                }
                match read(&path) {
                    Ok(plugin) if found.iter().any(|other| other.manifest.name == plugin.manifest.name) => {}
                    Ok(plugin) => found.push(plugin),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        found.sort_by(|a, b| a.manifest.name.cmp(&b.manifest.name));
        (found, failures)
    }

    /// The plugin of that name, or the one in the folder with that absolute path.
    pub fn find(&self, plugin: &str) -> Result<Found, Failure> {
        if Path::new(plugin).is_absolute() {
            return read(Path::new(plugin));
        }
        let (found, failures) = self.scan();
        let names: Vec<_> = found.iter().map(|plugin| plugin.manifest.name.clone()).collect();
        if let Some(found) = found.into_iter().find(|found| found.manifest.name == plugin) {
            return Ok(found);
        }
        if let Some(failure) =
            failures.into_iter().find(|failure| failure.object == format!("plugin {plugin}"))
        {
            return Err(failure);
        }
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        Err(Failure::new(
            "PLUGIN-UNKNOWN",
            format!("plugin {plugin}"),
            format!("there is no such plugin in {}; there are: {}", folders.join(", "), names.join(", ")),
            "put the plugin's folder there, or give the absolute path of its folder",
        ))
    }
}

fn read(folder: &Path) -> Result<Found, Failure> {
    let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let refuse = |reason: String| {
        let next = format!("correct {}, or take the folder away", folder.join(FILE).display());
        Failure::new("PLUGIN-MANIFEST", format!("plugin {name}"), reason, next)
    };
    let file = folder.join(FILE);
    let size = file.metadata().map_err(|error| refuse(format!("{}: {error}", file.display())))?.len();
    if size > FILE_LIMIT {
        return Err(refuse(format!("{FILE} has {size} bytes, expected at most {FILE_LIMIT}")));
    }
    let text =
        std::fs::read_to_string(&file).map_err(|error| refuse(format!("{}: {error}", file.display())))?;
    let manifest: Manifest = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
    let mistakes = mistakes(&manifest);
    if !mistakes.is_empty() {
        return Err(refuse(mistakes.join("; ")));
    }
    let program = folder.join(&manifest.binary);
    Ok(Found { manifest, program })
}

fn mistakes(manifest: &Manifest) -> Vec<String> {
    let mut mistakes = Vec::new();
    let name = &manifest.name;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > 40 || !name.chars().all(plain) || name.starts_with('-') {
        mistakes.push(format!("name {name:?}: expected at most 40 lower case letters, digits and dashes"));
    }
    let binary = &manifest.binary;
    if binary.is_empty() || binary.contains('/') || binary.starts_with('.') {
        mistakes.push(format!("binary {binary:?}: expected the name of a file beside {FILE}"));
    }
    if !manifest.protocol.iter().any(|version| PROTOCOL_VERSIONS.contains(version)) {
        mistakes
            .push(format!("protocol {:?}: this host agent speaks {PROTOCOL_VERSIONS:?}", manifest.protocol));
    }
    for permission in &manifest.permissions {
        for verb in permission
            .verbs
            .iter()
            .filter(|verb| !["get", "create", "patch", "delete"].contains(&verb.as_str()))
        {
            mistakes
                .push(format!("verb {verb:?} of {}: expected get, create, patch or delete", permission.kind));
        }
        let wild = |text: &String| text.contains('*') || text.contains('\n');
        if permission.kind.is_empty()
            || [&permission.group, &permission.kind].into_iter().any(wild)
            || permission.namespaces.iter().chain(&permission.names).any(wild)
        {
            mistakes.push(format!(
                "permission {permission}: kind, group and namespaces are spelled out, without *"
            ));
        }
    }
    mistakes
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = include_str!("../../../plugins/hello/plugin.toml");

    #[test]
    fn the_manifest_of_hello_reads_as_people_would_say_it() {
        let manifest: Manifest = toml::from_str(HELLO).expect("parses");
        assert_eq!(mistakes(&manifest), Vec::<String>::new());
        assert_eq!(
            manifest.permission_lines()[0..2],
            [
                "get,create,patch,delete Namespace named hello in the whole cluster: a namespace of its own",
                "get,create,patch,delete Deployment.apps in namespace hello: the web servers",
            ]
        );
    }

    #[test]
    fn a_wider_permission_changes_the_digest_and_a_version_does_not() {
        let manifest: Manifest = toml::from_str(HELLO).expect("parses");
        let mut newer = manifest.clone();
        newer.version = "9.0.0".to_owned();
        assert_eq!(manifest.permissions_digest(), newer.permissions_digest());
        newer.permissions[1].namespaces.push("kube-system".to_owned());
        assert_ne!(manifest.permissions_digest(), newer.permissions_digest());
    }

    #[test]
    fn a_manifest_may_not_reach_out_of_its_folder_or_ask_for_everything() {
        let text = HELLO
            .replace("binary = \"hello\"", "binary = \"../../bin/sh\"")
            .replace("[\"hello\"]", "[\"*\"]");
        let manifest: Manifest = toml::from_str(&text).expect("parses");
        let said = mistakes(&manifest).join("\n");
        assert!(said.contains("../../bin/sh") && said.contains("without *"), "{said}");
    }
}
