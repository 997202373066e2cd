//! `bundle.toml`: what a bundle says of itself. Strict: unknown keys and odd values are errors.
//!
//! Read by [`super::archive`], written by [`crate::fetch`].

use std::collections::BTreeSet;

use k8sctl_types::version::KubernetesVersion;
use serde::{Deserialize, Serialize};

use crate::digest;

/// The only format there is.
pub const FORMAT: u32 = 1;

/// Programs without which no node works.
const REQUIRED: [&str; 7] =
    ["kubeadm", "kubelet", "kubectl", "containerd", "containerd-shim-runc-v2", "ctr", "runc"];

/// The content of `bundle.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: u32,
    /// The release.
    pub kubernetes: KubernetesVersion,
    /// `x86_64`.
    pub arch: String,
    /// Name without suffix, also the stem of the file in the store.
    pub name: String,
    /// A lab's bundle, not for a household's data; `status` keeps saying so.
    pub trial: bool,
    /// Where it comes from, for people.
    pub source: String,
    /// RFC 3339; unset means unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Every file below `bin/` and `cni/`, in the order of the archive.
    #[serde(rename = "component")]
    pub components: Vec<Component>,
    /// Every container image.
    #[serde(rename = "image")]
    pub images: Vec<ImageEntry>,
}

/// A program in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// `kubelet`.
    pub name: String,
    /// The upstream's or distribution's version.
    pub version: String,
    /// `bin/kubelet` or `cni/bridge`.
    pub path: String,
    /// Hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// A container image in the bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// The full reference that kubeadm asks for.
    pub name: String,
    /// What the image is for.
    pub role: Role,
    /// `sha256:…` of its manifest.
    pub manifest: String,
    /// Bytes of manifest, config and layers.
    pub size: u64,
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Static pod of the control plane.
    KubeApiserver,
    /// Static pod of the control plane.
    KubeControllerManager,
    /// Static pod of the control plane.
    KubeScheduler,
    /// DaemonSet on every node.
    KubeProxy,
    /// Static pod of the control plane.
    Etcd,
    /// The sandbox of every pod.
    Pause,
    /// Cluster DNS; may be missing.
    Coredns,
    /// Anything else, for tests.
    Workload,
}

impl Manifest {
    /// Parses and checks; the error is a sentence about the first mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let manifest: Self =
            toml::from_str(text).map_err(|error| format!("bundle.toml: {}", error.to_string().trim_end()))?;
        manifest.check().map_err(|reason| format!("bundle.toml: {reason}"))?;
        Ok(manifest)
    }

    /// The image with this role, if the bundle has one.
    pub fn image(&self, role: Role) -> Option<&ImageEntry> {
        self.images.iter().find(|image| image.role == role)
    }

    /// The component of this name, if the bundle has one.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    fn check(&self) -> Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("format is {}, expected {FORMAT}", self.format));
        }
        if self.arch != "x86_64" {
            return Err(format!("arch is {:?}, expected \"x86_64\"", self.arch));
        }
        if !is_name(&self.name) {
            return Err(format!("name {:?} has other characters than a-z, 0-9, '.', '-'", self.name));
        }
        let mut paths = BTreeSet::new();
        for component in &self.components {
            component.check()?;
            if !paths.insert(&component.path) {
                return Err(format!("component {} is listed twice", component.path));
            }
        }
        for name in REQUIRED {
            if !paths.contains(&format!("bin/{name}")) {
                return Err(format!("component bin/{name} is missing"));
            }
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            if digest::of_oci(&image.manifest).is_none() {
                return Err(format!(
                    "image {}: manifest {:?} is no sha256 digest",
                    image.name, image.manifest
                ));
            }
            if !names.insert(&image.name) {
                return Err(format!("image {} is listed twice", image.name));
            }
        }
        Ok(())
    }
}

impl Component {
    fn check(&self) -> Result<(), String> {
        let file = self.path.strip_prefix("bin/").or_else(|| self.path.strip_prefix("cni/"));
        if !file.is_some_and(is_name) {
            return Err(format!("component path {:?} is not bin/NAME or cni/NAME", self.path));
        }
        if !digest::is_sha256(&self.sha256) {
            return Err(format!("component {}: sha256 {:?} is no digest", self.path, self.sha256));
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
}
