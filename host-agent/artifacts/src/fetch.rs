//! Makes a bundle from upstream: release hosts for programs, an OCI registry for container images.
//!
//! - [`releases`]: which versions go together, per Kubernetes minor
//! - [`download`]: resumable, digest-checked downloads
//! - [`registry`]: the pull side of the OCI distribution API
//! - `reach`: whether the network is out of reach or one host
//! - [`assemble`]: all of it in order, up to the installed bundle
//!
//! The only module here that uses a network. Called by the host agent for `k8sctl bundle fetch`.

pub mod assemble;
pub mod download;
pub mod error;
mod reach;
pub mod registry;
pub mod releases;

pub use assemble::fetch;
pub use error::FetchError;
pub use releases::{DEFAULT_RELEASE, default_release};

/// Where upstream is. Mirrors and tests put theirs here.
#[derive(Clone, Debug)]
pub struct FetchSources {
    /// Kubernetes' own release host.
    pub kubernetes: String,
    /// Host of containerd, runc, CNI plugins and crictl.
    pub github: String,
    /// Registry that images are pulled from; their names in the bundle stay kubeadm's.
    pub registry: String,
    /// Certificate authorities besides the system's, PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
}

impl Default for FetchSources {
    fn default() -> Self {
        Self {
            kubernetes: "https://dl.k8s.io".to_owned(),
            github: "https://github.com".to_owned(),
            registry: "https://registry.k8s.io".to_owned(),
            extra_ca_pem: None,
        }
    }
}
