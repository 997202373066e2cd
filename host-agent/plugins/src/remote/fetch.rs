//! Fetches one manifest. Redirects are followed by hand, so that each place is judged before it is asked; a body is read
//! only as far as it may be long. Nothing that comes is looked at before its digest was.

use std::time::Duration;

use k8sctl_types::failure::Failure;
use plugin_plan::hash;
use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Response, StatusCode, Url};
use tokio::time::{sleep, timeout};

use super::FetchSetup;
use super::place::{allowed, redirected};

const CONNECT: Duration = Duration::from_secs(10);
const REDIRECTS: usize = 3;
/// Pauses before the second and the third try of what may have been a moment's trouble.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];

/// What is to be fetched.
pub(super) struct Wanted<'a> {
    pub(super) url: &'a str,
    pub(super) sha256: &'a str,
    pub(super) most: u64,
    pub(super) may_fetch: &'a (dyn Fn(&str) -> bool + Sync),
}

/// A manifest that was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// No URL that may be asked.
    #[error("{0}")]
    Place(String),
    /// Nobody answered, or not now.
    #[error("{url} cannot be fetched: {reason}")]
    Unreachable { url: String, reason: String },
    /// The answer is no manifest.
    #[error("{url} answered {status}")]
    Refused { url: String, status: StatusCode },
    /// Longer than it may be.
    #[error("{url} is longer than {most} bytes")]
    TooLong { url: String, most: u64 },
    /// It ended before its end.
    #[error("{url} broke off after {got} bytes: {reason}")]
    Cut { url: String, got: usize, reason: String },
    /// It is another one.
    #[error("{url} has the digest {got}, expected {expected}")]
    Digest { url: String, got: String, expected: String },
    /// The whole took too long.
    #[error("{url} took longer than {after:?}")]
    Late { url: String, after: Duration },
}

impl FetchError {
    /// Whether another try may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// As a person meets it.
    pub(super) fn failure(&self, object: String) -> Failure {
        let (id, next) = match self {
            Self::Place(_) => (
                "PLUGIN-REMOTE-PLACE",
                "nothing was changed; the plugin's author must declare the place in plugin.toml, where you approve it",
            ),
            Self::Unreachable { .. } | Self::Refused { .. } | Self::Late { .. } => (
                "PLUGIN-REMOTE",
                "nothing was changed; run the same command again when it can be reached, or bring the file: \
                 k8sctl plugin vendor --from DIRECTORY",
            ),
            Self::TooLong { .. } | Self::Cut { .. } => (
                "PLUGIN-REMOTE-SIZE",
                "nothing was changed; if it happens again, something on the way changes files, like a proxy",
            ),
            Self::Digest { .. } => (
                "PLUGIN-REMOTE-DIGEST",
                "nothing was changed; the file is not the one that the plugin was written for: upgrade the plugin, or \
                 bring the right file: k8sctl plugin vendor --from DIRECTORY",
            ),
        };
        Failure::new(id, object, self.to_string(), next)
    }
}

/// The HTTP client. Clones share its connections.
#[derive(Clone, Debug)]
pub(super) struct Fetcher {
    client: Client,
    deadline: Duration,
}

impl Fetcher {
    pub(super) fn new(setup: &FetchSetup) -> Result<Self, Failure> {
        let failed = |error: reqwest::Error| {
            let next = "see that the system's certificate authorities can be read";
            Failure::new("PLUGIN-REMOTE", "the HTTP client", chain(&error), next)
        };
        let mut roots = Vec::with_capacity(setup.roots.len());
        for der in &setup.roots {
            roots.push(Certificate::from_der(der).map_err(failed)?);
        }
        let builder = Client::builder()
            .user_agent("k8s-myhome")
            .https_only(true)
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(setup.idle)
            .tls_certs_merge(roots);
        Ok(Self { client: builder.build().map_err(failed)?, deadline: setup.deadline })
    }

    /// The body, of the right digest.
    pub(super) async fn fetch(&self, wanted: &Wanted<'_>) -> Result<Vec<u8>, FetchError> {
        let tries = async {
            for pause in PAUSES {
                match self.attempt(wanted).await {
                    Err(error) if error.may_pass() => {
                        tracing::debug!(url = wanted.url, %error, "fetching a manifest is tried again");
                        sleep(pause).await;
                    }
                    settled => return settled,
                }
            }
            self.attempt(wanted).await
        };
        let late = |_| Err(FetchError::Late { url: wanted.url.to_owned(), after: self.deadline });
        timeout(self.deadline, tries).await.unwrap_or_else(late)
    }

    async fn attempt(&self, wanted: &Wanted<'_>) -> Result<Vec<u8>, FetchError> {
        let mut url = allowed(wanted.url, wanted.may_fetch).map_err(FetchError::Place)?;
        for _ in 0..=REDIRECTS {
            let response = self.client.get(url.clone()).send().await;
            let response = response.map_err(|error| unreachable(&url, &error))?;
            if !response.status().is_redirection() {
                return read(&url, response, wanted).await;
            }
            let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            let refused = || FetchError::Refused { url: url.to_string(), status: response.status() };
            url = redirected(&url, location.ok_or_else(refused)?, wanted.may_fetch)
                .map_err(FetchError::Place)?;
        }
        Err(FetchError::Place(format!("{} leads to more than {REDIRECTS} other places", wanted.url)))
    }
}

async fn read(url: &Url, mut response: Response, wanted: &Wanted<'_>) -> Result<Vec<u8>, FetchError> {
    let (text, most) = (url.to_string(), wanted.most);
    if response.status() != StatusCode::OK {
        return Err(FetchError::Refused { url: text, status: response.status() });
    }
    let announced = response.content_length();
    if announced.is_some_and(|length| length > most) {
        return Err(FetchError::TooLong { url: text, most });
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) if error.is_timeout() => return Err(unreachable(url, &error)),
            Err(error) => {
                let reason = chain(&error.without_url());
                return Err(FetchError::Cut { url: text, got: body.len(), reason });
            }
        }
        if body.len() as u64 > most {
            return Err(FetchError::TooLong { url: text, most });
        }
    }
    if announced.is_some_and(|length| length > body.len() as u64) {
        return Err(FetchError::Cut {
            url: text,
            got: body.len(),
            reason: "the body ended early".to_owned(),
        });
    }
    let got = hash::sha256_hex(&body);
    if got != wanted.sha256 {
        return Err(FetchError::Digest { url: text, got, expected: wanted.sha256.to_owned() });
    }
    Ok(body)
}

fn unreachable(url: &Url, error: &reqwest::Error) -> FetchError {
    let mut reason = String::new();
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(one) = cause {
        let text = one.to_string();
        // Its own words name the URL once more.
        if !text.contains(url.as_str()) && !reason.contains(&text) {
            reason = if reason.is_empty() { text } else { format!("{reason}: {text}") };
        }
        cause = one.source();
    }
    if reason.is_empty() {
        reason = error.to_string();
    }
    FetchError::Unreachable { url: url.to_string(), reason }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        let text = one.to_string();
        if !said.contains(&text) {
            said = format!("{said}: {text}");
        }
        cause = one.source();
    }
    said
}
