//! What can go wrong while fetching, and how a person is told.

use std::error::Error;
use std::time::Duration;

use k8sctl_types::failure::Failure;
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use crate::bundle::BundleError;

/// A bundle that cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection: no route, no name, no answer. As the end of a fetch it means that no upstream host answered;
    /// `make up` may fall back on this one only.
    #[error("cannot reach {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// The client's reason.
        #[source]
        source: reqwest::Error,
    },
    /// No connection to this host, while others answer.
    #[error("cannot reach {host}")]
    HostUnreachable {
        /// The host.
        host: String,
        /// What it was asked for.
        url: String,
        /// Hosts that answered.
        answering: Vec<String>,
        /// The client's reason.
        #[source]
        source: reqwest::Error,
    },
    /// The other side answered that it cannot serve this now.
    #[error("{} answered {status}", super::reach::host_of(url))]
    Busy {
        /// What was asked for.
        url: String,
        /// 429 or 5xx.
        status: StatusCode,
        /// For how long it asks to be left alone.
        pause: Option<Duration>,
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
        // The client has no type for this one.
        let text = chain(&source);
        if text.contains("proxy authorization required") {
            return Self::Upstream { url: url.to_owned(), reason: text };
        }
        if source.is_connect() || source.is_timeout() {
            return Self::Unreachable { url: url.to_owned(), source };
        }
        Self::Interrupted { url: url.to_owned(), got: 0, source: Some(source) }
    }

    /// An answer of 429 or 5xx.
    pub(super) fn busy(url: &str, response: &Response) -> Self {
        let wish = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        Self::Busy { url: url.to_owned(), status: response.status(), pause: wish.and_then(pause_of) }
    }

    /// Whether the same request may succeed a moment later, when nobody waits longer than `limit`.
    pub(super) fn is_retryable(&self, limit: Duration) -> bool {
        match self {
            Self::Interrupted { .. } | Self::Unreachable { .. } => true,
            Self::Busy { pause, .. } => pause.is_none_or(|pause| pause <= limit),
            _ => false,
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn pause_of(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text.trim()).ok()?;
    Some(date.timestamp().duration_since(jiff::Timestamp::now()).try_into().unwrap_or_default())
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
                format!("no upstream host can be reached; this one: {}", chain(&source)),
                "check the network and the host agent's proxy (docs/configuration.md); or copy a bundle here and `k8sctl bundle import FILE`",
            ),
            FetchError::HostUnreachable { host, url, answering, source } => {
                // Where the host itself answers, it is the one that it redirects to.
                let what = if answering.contains(&host) {
                    format!("{host} answers, but not the host that it leads to for {url}")
                } else {
                    format!("no connection for {url}, while others answer ({})", answering.join(", "))
                };
                Failure::new(
                    "BUNDLE-HOST-UNREACHABLE",
                    format!("host {host}"),
                    format!("{what}: {}", chain(&source)),
                    "check name service, firewall and proxy for this host, then run the command again: what arrived is kept",
                )
            }
            FetchError::Busy { url, status, pause } => {
                let wish = pause.map(|pause| format!(" and asks to be left alone for {} s", pause.as_secs()));
                Failure::new(
                    "BUNDLE-UPSTREAM",
                    object(&url),
                    format!("answered {status}{}", wish.unwrap_or_default()),
                    "run the command again later: what arrived is kept",
                )
            }
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
                "check that upstream has this Kubernetes version, and that no proxy answers in its place",
            ),
            FetchError::Digest { url, got, expected } => Failure::new(
                "BUNDLE-DIGEST",
                object(&url),
                format!("got sha256 {got}, expected {expected}"),
                "it was thrown away: run the command again; if it happens again, something on the way changes files, like a proxy",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_seconds_or_a_date() {
        assert_eq!(pause_of("7"), Some(Duration::from_secs(7)));
        assert_eq!(pause_of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let date = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3600);
        let text =
            jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&date).expect("a date");
        let pause = pause_of(&text).expect("a date is one");
        assert!((3590..=3600).contains(&pause.as_secs()), "{pause:?}");
        assert_eq!(pause_of("soon"), None);
    }

    #[test]
    fn nobody_waits_for_long() {
        let busy =
            |pause| FetchError::Busy { url: String::new(), status: StatusCode::TOO_MANY_REQUESTS, pause };
        let limit = Duration::from_secs(60);
        assert!(busy(None).is_retryable(limit) && busy(Some(limit)).is_retryable(limit));
        assert!(!busy(Some(limit * 2)).is_retryable(limit));
    }
}
