//! Downloads that survive being cut: by digest, with Range requests, checked before anyone sees them.
//!
//! A finished download lies in the partial directory under its digest, one under way has `.part`
//! behind it. What lies there is trusted only after it was read. Called by [`super::assemble`] and
//! [`super::registry`].

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use futures::StreamExt;
use reqwest::header::{AUTHORIZATION, AsHeaderName, CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};
use tokio::fs;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::{FetchError, FetchSources, reach};
use crate::blocking;
use crate::bundle::{BundleError, store};
use crate::digest::sha256_file;

/// Checksums, manifests and tokens are smaller than this.
const SMALL_LIMIT: usize = 4 << 20;
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A transfer that brings nothing for so long has broken off.
const READ_DEADLINE: Duration = Duration::from_secs(30);
/// A busy host that asks for a longer pause than this is not waited for.
const PAUSE_LIMIT: Duration = Duration::from_secs(60);

/// Fetches files and small texts.
#[derive(Clone, Debug)]
pub struct Downloader {
    client: reqwest::Client,
    partial: PathBuf,
    progress: mpsc::Sender<String>,
    /// Digest → whether its file was downloaded or read already. One at a time works on each: images share layers.
    files: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<bool>>>>>,
    /// Hosts that answered anything.
    answered: Arc<Mutex<BTreeSet<String>>>,
}

/// Named policy: three more tries, half a second to four seconds apart; a busy host's own wish comes first. What is
/// out of reach fails after one more.
fn policy() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(4))
        .with_max_times(3)
        .with_jitter()
}

impl Downloader {
    /// A downloader that keeps what it gets in `partial`. Proxies are those of the environment.
    pub fn new(
        sources: &FetchSources,
        partial: PathBuf,
        progress: mpsc::Sender<String>,
    ) -> Result<Self, FetchError> {
        let builder = reqwest::Client::builder().read_timeout(READ_DEADLINE);
        let client = reach::client(builder, sources)?;
        Ok(Self { client, partial, progress, files: Arc::default(), answered: Arc::default() })
    }

    /// The directory of finished and unfinished downloads.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// The hosts that answered so far.
    pub(super) fn answered(&self) -> BTreeSet<String> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn has_answered(&self, url: &str) {
        let host = reach::host_of(url);
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).insert(host);
    }

    /// One request, tried again where that may help. `range` and `bearer` are for files.
    async fn request(&self, url: &str, bearer: Option<&str>, from: u64) -> Result<Response, FetchError> {
        self.retried(|| self.send(url, None, bearer, from)).await
    }

    async fn send(
        &self,
        url: &str,
        accept: Option<&str>,
        bearer: Option<&str>,
        from: u64,
    ) -> Result<Response, FetchError> {
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
        // After redirects there are two.
        self.has_answered(url);
        self.has_answered(response.url().as_str());
        if response.status().is_server_error() || response.status() == StatusCode::TOO_MANY_REQUESTS {
            return Err(FetchError::busy(url, &response));
        }
        Ok(response)
    }

    /// What [`policy`] says.
    async fn retried<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, FetchError>
    where
        F: Future<Output = Result<T, FetchError>>,
    {
        let mut unreachable = 0;
        attempt
            .retry(policy())
            .when(|error| {
                unreachable += u32::from(matches!(error, FetchError::Unreachable { .. }));
                error.is_retryable(PAUSE_LIMIT) && unreachable < 2
            })
            .adjust(|error, pause| match error {
                FetchError::Busy { pause: Some(wish), .. } => pause.map(|pause| pause.max(*wish)),
                _ => pause,
            })
            .notify(|error, pause| {
                if matches!(error, FetchError::Busy { .. }) {
                    self.say(format!("{error}, trying again in {} s", pause.as_secs_f32().ceil()));
                }
            })
            .await
    }

    /// An answer whose body must be small: a manifest, a token. A body that breaks off is asked for again as the
    /// request is. One that is no success comes without its body.
    pub(super) async fn small(
        &self,
        url: &str,
        accept: Option<&str>,
        bearer: Option<&str>,
    ) -> Result<Small, FetchError> {
        self.retried(|| async {
            let response = self.send(url, accept, bearer, 0).await?;
            let (status, headers) = (response.status(), response.headers().clone());
            let bytes = if status.is_success() { read_small(url, response).await? } else { Vec::new() };
            Ok(Small { status, headers, bytes })
        })
        .await
    }

    /// The text at `url`: a checksum file.
    pub async fn text(&self, url: &str) -> Result<String, FetchError> {
        let bytes = self.small(url, None, None).await?.succeed(url)?.bytes;
        String::from_utf8(bytes)
            .map_err(|_| FetchError::Upstream { url: url.to_owned(), reason: "is not text".to_owned() })
    }

    /// The file at `url`, whose content has the digest `sha256`. Resumes what an earlier call left; what lies there
    /// and is not what it should be is downloaded anew.
    pub async fn file(&self, url: &str, sha256: &str, bearer: Option<&str>) -> Result<PathBuf, FetchError> {
        let slot = self.slot(sha256);
        let mut is_sound = slot.lock().await;
        let done = self.partial.join(sha256);
        if *is_sound || self.finished(url, &done, sha256).await? {
            *is_sound = true;
            return Ok(done);
        }
        let part = self.partial.join(format!("{sha256}.part"));
        fs::create_dir_all(&self.partial).await.map_err(BundleError::io("make", &self.partial))?;
        let mut had_part = fs::try_exists(&part).await.unwrap_or(false);
        loop {
            let attempt = || self.attempt(url, &part, bearer);
            attempt.retry(policy()).when(|error| matches!(error, FetchError::Interrupted { .. })).await?;
            let (from, to, wanted) = (part.clone(), done.clone(), sha256.to_owned());
            match blocking::run(move || finish(&from, &to, &wanted)).await? {
                None => break,
                // The beginning is another run's: the host may have crashed before the disk had it.
                Some(_) if had_part => self.say_damaged(url),
                Some(got) => {
                    return Err(FetchError::Digest { url: url.to_owned(), got, expected: sha256.to_owned() });
                }
            }
            had_part = false;
        }
        *is_sound = true;
        Ok(done)
    }

    fn slot(&self, sha256: &str) -> Arc<tokio::sync::Mutex<bool>> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(sha256.to_owned()).or_default())
    }

    /// Whether an earlier run finished this file. One that is not what its name says goes.
    async fn finished(&self, url: &str, done: &Path, sha256: &str) -> Result<bool, FetchError> {
        let path = done.to_owned();
        let got = match blocking::run(move || sha256_file(&path)).await {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(BundleError::io("read", done)(error).into()),
        };
        if got == sha256 {
            return Ok(true);
        }
        self.say_damaged(url);
        fs::remove_file(done).await.map_err(BundleError::io("remove", done))?;
        Ok(false)
    }

    fn say_damaged(&self, url: &str) {
        self.say(format!("what was kept of {} is damaged: downloading it anew", name_of(url)));
    }

    fn say(&self, line: String) {
        let _ = self.progress.try_send(line);
    }

    async fn attempt(&self, url: &str, part: &Path, bearer: Option<&str>) -> Result<(), FetchError> {
        let have = fs::metadata(part).await.map_or(0, |data| data.len());
        let response = self.request(url, bearer, have).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // What is there is the whole file, or rubbish: the digest tells.
            return Ok(());
        }
        succeed(url, response.status())?;
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
        let mebibytes = total.map_or_else(String::new, |total| format!(" ({} MiB)", total >> 20));
        let verb = if resumes { "resuming" } else { "downloading" };
        self.say(format!("{verb} {}{mebibytes}", name_of(url)));
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

/// Gives a download its name when it has the digest `sha256`, so that it outlasts a crash of the host. Otherwise it
/// goes, and what its digest was is returned. Blocking.
fn finish(part: &Path, done: &Path, sha256: &str) -> Result<Option<String>, BundleError> {
    let got = sha256_file(part).map_err(BundleError::io("read", part))?;
    if got != sha256 {
        std::fs::remove_file(part).map_err(BundleError::io("remove", part))?;
        return Ok(Some(got));
    }
    let written = std::fs::File::open(part).and_then(|file| file.sync_all());
    written.and_then(|()| std::fs::rename(part, done)).map_err(BundleError::io("write", done))?;
    if let Some(dir) = done.parent() {
        store::sync_dir(dir)?;
    }
    Ok(None)
}

/// What people call the file at `url`.
fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

/// An answer that was read whole.
#[derive(Debug)]
pub(super) struct Small {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    /// Empty where `status` is no success.
    pub(super) bytes: Vec<u8>,
}

impl Small {
    /// The text of a header.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Turns an answer that is no success into an error.
    pub(super) fn succeed(self, url: &str) -> Result<Self, FetchError> {
        succeed(url, self.status).map(|()| self)
    }
}

fn succeed(url: &str, status: StatusCode) -> Result<(), FetchError> {
    if status.is_success() {
        return Ok(());
    }
    Err(FetchError::Upstream { url: url.to_owned(), reason: format!("answered {status}") })
}

async fn read_small(url: &str, response: Response) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let got = bytes.len() as u64;
        bytes.extend_from_slice(&chunk.map_err(|error| FetchError::Interrupted {
            url: url.to_owned(),
            got,
            source: Some(error.without_url()),
        })?);
        if bytes.len() > SMALL_LIMIT {
            return Err(FetchError::Upstream {
                url: url.to_owned(),
                reason: "is larger than 4 MiB".to_owned(),
            });
        }
    }
    Ok(bytes)
}
