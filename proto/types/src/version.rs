//! Kubernetes versions: parsed once, compared as numbers, printed with the leading `v`.

use std::fmt;
use std::str::FromStr;

/// A Kubernetes release, `v1.29.0`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KubernetesVersion(semver::Version);

/// The text is no Kubernetes version.
#[derive(Debug, thiserror::Error)]
#[error("{text:?} is no Kubernetes version (expected the form v1.29.0)")]
pub struct VersionError {
    text: String,
}

impl KubernetesVersion {
    /// `29` of `v1.29.0`.
    pub fn minor(&self) -> u64 {
        self.0.minor
    }

    /// The ConfigMaps in kube-system that `kubeadm join` of this release reads.
    pub fn join_config_maps(&self) -> [String; 2] {
        let kubelet = match self.minor() {
            minor @ ..=23 => format!("kubelet-config-1.{minor}"),
            _ => "kubelet-config".to_owned(),
        };
        ["kubeadm-config".to_owned(), kubelet]
    }
}

impl FromStr for KubernetesVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.strip_prefix('v')
            .and_then(|rest| semver::Version::parse(rest).ok())
            .filter(|version| version.major == 1)
            .map(Self)
            .ok_or_else(|| VersionError { text: text.to_owned() })
    }
}

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl TryFrom<String> for KubernetesVersion {
    type Error = VersionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KubernetesVersion> for String {
    fn from(version: KubernetesVersion) -> Self {
        version.to_string()
    }
}
