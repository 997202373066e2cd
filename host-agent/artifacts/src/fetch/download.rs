//! Downloads that survive being cut: by digest, with Range requests, checked before anyone sees them.
//!
//! A finished download lies in the partial directory under its digest, one under way has `.part`
//! behind it. Called by [`super::assemble`] and [`super::registry`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{FetchError, FetchSources};
use crate::bundle::BundleError;
use crate::digest::sha256_file;

/// Checksums, manifests and tokens are smaller than this.
const SMALL_LIMIT: usize = 4 << 20;
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A transfer that brings nothing for so long has broken off.
const READ_DEADLINE: Duration = Duration::from_secs(30);

/// Fetches files and small texts.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: reqwest::Client,
    partial: PathBuf,
    progress: mpsc::Sender<String>,
}

/// Named policy: three more tries, half a second to four seconds apart. What is out of reach fails
/// after one more.
fn policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(3)
        .with_jitter()
}

impl Downloader {
    /// A downloader that keeps what it gets in `partial`.
    pub fn new(
        sources: &FetchSources,
        partial: PathBuf,
        progress: mpsc::Sender<String>,
    ) -> Result<Self, FetchError> {
        let bad = |source: reqwest::Error| FetchError::Upstream {
            url: "the HTTP client".to_owned(),
            reason: source.to_string(),
        };
        let mut builder = reqwest::Client::builder()
            .user_agent("k8s-myhome")
            .connect_timeout(CONNECT_DEADLINE)
            .read_timeout(READ_DEADLINE);
        if let Some(pem) = &sources.extra_ca_pem {
            builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(bad)?);
        }
        Ok(Self { client: builder.build().map_err(bad)?, partial, progress })
    }

    /// The directory of finished and unfinished downloads.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// One request, tried again where that may help. `range` and `bearer` are for files.
    pub(super) async fn request(
        &self,
        url: &str,
        accept: Option<&str>,
        bearer: Option<&str>,
        from: u64,
    ) -> Result<Response, FetchError> {
        let send = || async {
            let mut request = self.client.get(url);
            if let Some(accept) = accept {
                request = request.header("accept", accept);
            }
            if let Some(bearer) = bearer {
                request = request.header(AUTHORIZATION, format!("Bearer {bearer}"));
            }
            if from > 0 {
                request = request.header(RANGE, format!("bytes={from}-"));
            }
            let response = request.send().await.map_err(|error| FetchError::request(url, error))?;
            if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
                return Err(FetchError::Upstream {
                    url: url.to_owned(),
                    reason: format!("answered {}", response.status()),
                });
            }
            Ok(response)
        };
        let mut unreachable = 0;
        send.retry(policy())
            .when(|error| {
                unreachable += u32::from(matches!(error, FetchError::Unreachable { .. }));
                let busy =
                    matches!(error, FetchError::Upstream { reason, .. } if reason.starts_with("answered"));
                (error.is_retryable() || busy) && unreachable < 2
            })
            .await
    }

    /// The text at `url`: a checksum file.
    pub async fn text(&self, url: &str) -> Result<String, FetchError> {
        let response = succeed(url, self.request(url, None, None, 0).await?)?;
        let bytes = small(url, response).await?;
        String::from_utf8(bytes)
            .map_err(|_| FetchError::Upstream { url: url.to_owned(), reason: "is not text".to_owned() })
    }

    /// The file at `url`, whose content has the digest `sha256`. Resumes what an earlier call left.
    pub async fn file(&self, url: &str, sha256: &str, bearer: Option<&str>) -> Result<PathBuf, FetchError> {
        let done = self.partial.join(sha256);
        if fs::try_exists(&done).await.unwrap_or(false) {
            return Ok(done);
        }
        let part = self.partial.join(format!("{sha256}.part"));
        fs::create_dir_all(&self.partial).await.map_err(BundleError::io("make", &self.partial))?;
        let attempt = || self.attempt(url, &part, bearer);
        attempt.retry(policy()).when(|error| matches!(error, FetchError::Interrupted { .. })).await?;
        let path = part.clone();
        let got = tokio::task::spawn_blocking(move || sha256_file(&path))
            .await
            .unwrap_or_else(|_| Ok(String::new()));
        let got = got.map_err(BundleError::io("read", &part))?;
        if got != sha256 {
            fs::remove_file(&part).await.map_err(BundleError::io("remove", &part))?;
            return Err(FetchError::Digest { url: url.to_owned(), got, expected: sha256.to_owned() });
        }
        fs::rename(&part, &done).await.map_err(BundleError::io("write", &done))?;
        Ok(done)
    }

    async fn attempt(&self, url: &str, part: &Path, bearer: Option<&str>) -> Result<(), FetchError> {
        let have = fs::metadata(part).await.map_or(0, |data| data.len());
        let mut response = self.request(url, None, bearer, have).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // What is there is the whole file, or rubbish: the digest tells.
            return Ok(());
        }
        response = succeed(url, response)?;
        let resumes = response.status() == StatusCode::PARTIAL_CONTENT
            && response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|value| value.to_str().ok())
                .is_some_and(|value| value.starts_with(&format!("bytes {have}-")));
        if response.status() == StatusCode::PARTIAL_CONTENT && !resumes {
            return Err(FetchError::Upstream {
                url: url.to_owned(),
                reason: "sent another range".to_owned(),
            });
        }
        let mut got = if resumes { have } else { 0 };
        let total = response.content_length().map(|length| length + got);
        let name = url.rsplit('/').next().unwrap_or(url);
        let mebibytes = total.map_or_else(String::new, |total| format!(" ({} MiB)", total >> 20));
        let verb = if resumes { "resuming" } else { "downloading" };
        let _ = self.progress.try_send(format!("{verb} {name}{mebibytes}"));
        let io = |source| FetchError::from(BundleError::io("write", part)(source));
        let mut file = fs::File::options()
            .create(true)
            .write(true)
            .append(resumes)
            .truncate(!resumes)
            .open(part)
            .await
            .map_err(io)?;
        let mut body = response.bytes_stream();
        let mut broken = None;
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => {
                    file.write_all(&chunk).await.map_err(io)?;
                    got += chunk.len() as u64;
                }
                Err(error) => {
                    broken = Some(error.without_url());
                    break;
                }
            }
        }
        file.flush().await.map_err(io)?;
        if broken.is_some() || total.is_some_and(|total| got < total) {
            return Err(FetchError::Interrupted { url: url.to_owned(), got, source: broken });
        }
        Ok(())
    }
}

/// Turns an answer that is no success into an error.
pub(super) fn succeed(url: &str, response: Response) -> Result<Response, FetchError> {
    if response.status().is_success() {
        return Ok(response);
    }
    Err(FetchError::Upstream { url: url.to_owned(), reason: format!("answered {}", response.status()) })
}

/// The body of an answer that must be small.
pub(super) async fn small(url: &str, response: Response) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| FetchError::request(url, error))?);
        if bytes.len() > SMALL_LIMIT {
            return Err(FetchError::Upstream {
                url: url.to_owned(),
                reason: "is larger than 4 MiB".to_owned(),
            });
        }
    }
    Ok(bytes)
}
