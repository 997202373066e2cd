//! What can go wrong while fetching, and how a person is told.

use std::error::Error;

use k8sctl_types::failure::Failure;

use crate::bundle::BundleError;

/// A bundle that cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection at all: no route, no name, no answer. `make up` may fall back on this one only.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The client's reason.
        #[source]
        source: reqwest::Error,
    },
    /// The other side answered, and then the transfer broke off more often than it is tried again.
    #[error("the transfer of {url} broke off at {got} bytes")]
    Interrupted {
        /// What was asked for.
        url: String,
        /// Bytes that are kept for the next run.
        got: u64,
        /// The client's reason; `None` means that the body ended early.
        #[source]
        source: Option<reqwest::Error>,
    },
    /// The other side answered with something else.
    #[error("{url}: {reason}")]
    Upstream {
        /// What was asked for.
        url: String,
        /// What came.
        reason: String,
    },
    /// What came is not what its digest says. The download was thrown away.
    #[error("{url} has digest {got}, expected {expected}")]
    Digest {
        /// What was asked for.
        url: String,
        /// The digest of what came.
        got: String,
        /// The digest that was published.
        expected: String,
    },
    /// No versions are known for this Kubernetes.
    #[error("Kubernetes {version} cannot be fetched")]
    Unsupported {
        /// The version asked for.
        version: String,
    },
    /// The store or the bundle.
    #[error("cannot make the bundle")]
    Bundle(#[from] BundleError),
}

impl FetchError {
    /// Sorts a failed request: no connection, or a connection that went wrong.
    pub(super) fn request(url: &str, source: reqwest::Error) -> Self {
        let source = source.without_url();
        if is_tls(&source) {
            return Self::Upstream {
                url: url.to_owned(),
                reason: format!("no trusted TLS: {}", chain(&source)),
            };
        }
        if source.is_builder() {
            return Self::Upstream { url: url.to_owned(), reason: chain(&source) };
        }
        if source.is_connect() || source.is_timeout() {
            return Self::Unreachable { url: url.to_owned(), source };
        }
        Self::Interrupted { url: url.to_owned(), got: 0, source: Some(source) }
    }

    /// Whether the same request may succeed a moment later.
    pub(super) fn is_retryable(&self) -> bool {
        matches!(self, Self::Interrupted { .. } | Self::Unreachable { .. })
    }
}

fn is_tls(error: &(dyn Error + 'static)) -> bool {
    // An io::Error hides what it wraps from source().
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    error.is::<rustls::Error>()
        || inner.is_some_and(|inner| is_tls(inner))
        || error.source().is_some_and(is_tls)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text += &format!(": {error}");
        next = error.source();
    }
    text
}

impl From<FetchError> for Failure {
    fn from(error: FetchError) -> Self {
        let object = |url: &str| format!("download {url}");
        match error {
            FetchError::Unreachable { url, source } => Failure::new(
                "BUNDLE-UNREACHABLE",
                object(&url),
                format!("no connection: {}", chain(&source)),
                "check the network and the proxy; or copy a bundle here and `k8sctl bundle import FILE`",
            ),
            FetchError::Interrupted { url, got, source } => Failure::new(
                "BUNDLE-INTERRUPTED",
                object(&url),
                format!(
                    "the transfer broke off at {got} bytes: {}",
                    source.as_ref().map_or_else(|| "the body ended early".to_owned(), |source| chain(source))
                ),
                "run the command again: it goes on where this one stopped",
            ),
            FetchError::Upstream { url, reason } => Failure::new(
                "BUNDLE-UPSTREAM",
                object(&url),
                reason,
                "check that this Kubernetes version exists and that the configured mirror has it",
            ),
            FetchError::Digest { url, got, expected } => Failure::new(
                "BUNDLE-DIGEST",
                object(&url),
                format!("got sha256 {got}, expected {expected}"),
                "it was thrown away: run the command again; if it happens again, the mirror or a proxy changes files",
            ),
            FetchError::Unsupported { version } => Failure::new(
                "BUNDLE-UNSUPPORTED",
                format!("Kubernetes {version}"),
                format!("versions {} can be fetched", super::releases::supported()),
                "choose one of these, or bring a bundle of your own: `k8sctl bundle import FILE`",
            ),
            FetchError::Bundle(error) => error.into(),
        }
    }
}
