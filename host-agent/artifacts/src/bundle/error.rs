//! What can be wrong with a bundle, and how a person is told.

use std::io;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use k8sctl_types::version::KubernetesVersion;

use crate::fetch::releases::{companions, supported};

/// A bundle that cannot be read, trusted or stored.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// It is no bundle, is cut short, or breaks the format.
    #[error("{}: {reason}", path.display())]
    Corrupt {
        /// The bundle.
        path: PathBuf,
        /// What is wrong, and with which entry.
        reason: String,
    },
    /// An entry's content is not what its digest says.
    #[error("{}: {entry} has digest {got}, expected {expected}", path.display())]
    Digest {
        /// The bundle.
        path: PathBuf,
        /// The entry in it.
        entry: String,
        /// The digest of what is there.
        got: String,
        /// The digest that was promised.
        expected: String,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No installed bundle has this version.
    #[error("no bundle of Kubernetes {wanted} is installed (installed: {installed})")]
    Missing {
        /// The version or name asked for.
        wanted: String,
        /// What there is.
        installed: String,
    },
}

impl BundleError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(crate) fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        Self::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}

impl From<BundleError> for Failure {
    fn from(error: BundleError) -> Self {
        let object = |path: &Path| format!("bundle {}", path.display());
        match error {
            BundleError::Corrupt { path, reason } => Failure::new(
                "BUNDLE-CORRUPT",
                object(&path),
                reason,
                "the file is damaged, or no bundle: get it again with `k8sctl bundle fetch --kubernetes VERSION`, or copy it again and check it with `k8sctl bundle verify FILE`",
            ),
            BundleError::Digest { path, entry, got, expected } => Failure::new(
                "BUNDLE-DIGEST",
                object(&path),
                format!("{entry}: got sha256 {got}, expected {expected}"),
                "the file was changed or damaged after it was made: fetch or copy it again, then `k8sctl bundle verify FILE`",
            ),
            BundleError::Io { doing, path, source } => Failure::new(
                "BUNDLE-IO",
                object(&path),
                format!("cannot {doing} it: {source}"),
                "check that the path exists, that its directory may be written and that the disk has room",
            ),
            BundleError::Missing { wanted, installed } => Failure::new(
                "BUNDLE-MISSING",
                format!("bundle {wanted}"),
                format!("no such bundle is installed (installed: {installed})"),
                way_to(&wanted),
            ),
        }
    }
}

/// How to get a bundle of this name or version: only versions that can be fetched are to be fetched.
fn way_to(wanted: &str) -> String {
    let text = wanted.strip_prefix("kubernetes-").unwrap_or(wanted);
    let Ok(version) = text.parse::<KubernetesVersion>() else {
        return "see `k8sctl bundle list`, or get another with `k8sctl bundle fetch --kubernetes VERSION`"
            .to_owned();
    };
    if companions(&version).is_some() {
        return format!(
            "get it with `k8sctl bundle fetch --kubernetes {version}`, or `k8sctl bundle import FILE`"
        );
    }
    format!(
        "`k8sctl bundle fetch` gets {} only: take one of these, or bring a bundle of {version} with \
         `k8sctl bundle import FILE`",
        supported()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_of_a_missing_bundle_can_be_done() {
        let next = |wanted: &str| {
            let error = BundleError::Missing { wanted: wanted.to_owned(), installed: "none".to_owned() };
            Failure::from(error).next_step
        };
        for wanted in ["v1.29.0", "kubernetes-v1.29.0"] {
            assert!(next(wanted).contains("`k8sctl bundle fetch --kubernetes v1.29.0`"), "{}", next(wanted));
        }
        for wanted in ["v1.20.2", "kubernetes-v1.99.0"] {
            let next = next(wanted);
            assert!(next.contains(&supported()) && next.contains("`k8sctl bundle import FILE`"), "{next}");
            assert!(!next.contains("--kubernetes"), "{next}");
        }
        assert!(next("mine").contains("`k8sctl bundle list`"));
    }
}
