//! libvirt's own documents of what is ours, for somebody who is to help: read, and never acted upon.

use async_trait::async_trait;
use k8sctl_types::failure::Failure;

/// A document of libvirt's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// `domain`, `network` or `pool`
    pub kind: &'static str,
    /// libvirt's name of the object.
    pub name: String,
    /// As libvirt gives it to everybody: without what it keeps secret.
    pub xml: String,
}

/// Whose documents are wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Clusters whose domains and networks are meant, by id.
    pub clusters: Vec<String>,
    /// Networks that they use, ours or adopted, by name.
    pub networks: Vec<String>,
    /// Our pool.
    pub pool: String,
}

/// Gives documents: the real libvirt, or a host in memory for tests.
#[async_trait]
pub trait Documents: Send + Sync {
    /// All that are wanted and there. `LIBVIRT-UNREACHABLE` while libvirt is away.
    async fn documents(&self, wanted: &Wanted) -> Result<Vec<Document>, Failure>;
}
