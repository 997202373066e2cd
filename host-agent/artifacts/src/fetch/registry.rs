//! The pull side of the OCI distribution API: a token where one is asked for, the image of this
//! architecture out of a list, every digest checked.
//!
//! Its own client and not a crate's, because blobs must be resumable across runs and share the
//! downloads' directory. Called by [`super::assemble`].

use reqwest::StatusCode;
use reqwest::header::WWW_AUTHENTICATE;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::FetchError;
use super::download::Downloader;
use crate::digest;

const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// A registry.
#[derive(Debug)]
pub struct Registry<'a> {
    base: &'a str,
    downloader: &'a Downloader,
}

/// An image's manifest, as it was served.
#[derive(Clone, Debug)]
pub struct PulledManifest {
    /// The bytes that the digest is of.
    pub bytes: Vec<u8>,
    /// Hexadecimal.
    pub sha256: String,
    /// Media type.
    pub media_type: String,
    /// `(hexadecimal digest, size)` of config and layers.
    pub blobs: Vec<(String, u64)>,
    /// For the blobs' requests.
    token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnyManifest {
    media_type: Option<String>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Registry<'a> {
    /// The registry at `base`, `https://registry.k8s.io`.
    pub fn new(base: &'a str, downloader: &'a Downloader) -> Self {
        Self { base: base.trim_end_matches('/'), downloader }
    }

    /// The manifest of `repository:tag` for linux/amd64.
    pub async fn manifest(&self, repository: &str, tag: &str) -> Result<PulledManifest, FetchError> {
        let token = Mutex::new(None);
        let (mut url, mut bytes, mut kind) = self.get(repository, tag, &token).await?;
        let mut manifest = parse(&url, &bytes)?;
        if manifest.config.is_none() {
            let fits = |entry: &&Descriptor| {
                entry.platform.as_ref().is_some_and(|on| on.os == "linux" && on.architecture == "amd64")
            };
            let entry = manifest.manifests.iter().find(fits).ok_or_else(|| FetchError::Upstream {
                url: url.clone(),
                reason: "has no image for linux/amd64".to_owned(),
            })?;
            let expected = hex_of(&url, &entry.digest)?;
            (url, bytes, kind) = self.get(repository, &entry.digest, &token).await?;
            let got = digest::sha256(&bytes);
            if got != expected {
                return Err(FetchError::Digest { url, got, expected });
            }
            manifest = parse(&url, &bytes)?;
        }
        let config = manifest.config.as_ref().ok_or_else(|| FetchError::Upstream {
            url: url.clone(),
            reason: "is no image manifest".to_owned(),
        })?;
        let mut blobs = Vec::new();
        for part in manifest.layers.iter().chain([config]) {
            blobs.push((hex_of(&url, &part.digest)?, part.size));
        }
        let media_type = manifest.media_type.or(kind).unwrap_or_default();
        let sha256 = digest::sha256(&bytes);
        Ok(PulledManifest { sha256, media_type, blobs, token: token.into_inner(), bytes })
    }

    /// One blob of an image, as a file in the downloads' directory.
    pub async fn blob(
        &self,
        repository: &str,
        sha256: &str,
        of: &PulledManifest,
    ) -> Result<std::path::PathBuf, FetchError> {
        let url = format!("{}/v2/{repository}/blobs/sha256:{sha256}", self.base);
        self.downloader.file(&url, sha256, of.token.as_deref()).await
    }

    async fn get(
        &self,
        repository: &str,
        reference: &str,
        token: &Mutex<Option<String>>,
    ) -> Result<(String, Vec<u8>, Option<String>), FetchError> {
        let url = format!("{}/v2/{repository}/manifests/{reference}", self.base);
        let mut token = token.lock().await;
        let mut answer = self.downloader.small(&url, Some(ACCEPT), token.as_deref()).await?;
        if answer.status == StatusCode::UNAUTHORIZED && token.is_none() {
            let challenge = answer.header(WWW_AUTHENTICATE).unwrap_or_default().to_owned();
            *token = Some(self.token(&url, &challenge).await?);
            answer = self.downloader.small(&url, Some(ACCEPT), token.as_deref()).await?;
        }
        let answer = answer.succeed(&url)?;
        let header = |name: &str| answer.header(name).map(str::to_owned);
        let (kind, promised) = (header("content-type"), header("docker-content-digest"));
        let bytes = answer.bytes;
        if let Some(expected) = promised.as_deref().and_then(digest::of_oci) {
            let got = digest::sha256(&bytes);
            if got != expected {
                return Err(FetchError::Digest { url, got, expected: expected.to_owned() });
            }
        }
        Ok((url, bytes, kind))
    }

    async fn token(&self, url: &str, challenge: &str) -> Result<String, FetchError> {
        let refuse = |reason: &str| FetchError::Upstream { url: url.to_owned(), reason: reason.to_owned() };
        let asked =
            plan_token_url(challenge).ok_or_else(|| refuse("asks for a login that is no bearer token"))?;
        let bytes = self.downloader.small(&asked, None, None).await?.succeed(&asked)?.bytes;
        let token: Token =
            serde_json::from_slice(&bytes).map_err(|_| refuse("its token service sent no token"))?;
        token.token.or(token.access_token).ok_or_else(|| refuse("its token service sent no token"))
    }
}

/// Where an anonymous token is to be had, by a `WWW-Authenticate: Bearer …` header.
fn plan_token_url(challenge: &str) -> Option<String> {
    let parameters = challenge.strip_prefix("Bearer ")?;
    let mut rest = parameters;
    let (mut realm, mut query) = (None, Vec::new());
    while let Some((key, after)) = rest.split_once("=\"") {
        let (value, after) = after.split_once('"')?;
        match key.trim_matches([',', ' ']) {
            "realm" => realm = Some(value.to_owned()),
            key @ ("service" | "scope") => query.push(format!("{key}={}", value.replace(' ', "%20"))),
            _ => {}
        }
        rest = after;
    }
    let realm = realm.filter(|realm| realm.starts_with("https://"))?;
    let separator = if realm.contains('?') { '&' } else { '?' };
    Some(if query.is_empty() { realm } else { format!("{realm}{separator}{}", query.join("&")) })
}

fn parse(url: &str, bytes: &[u8]) -> Result<AnyManifest, FetchError> {
    serde_json::from_slice(bytes).map_err(|error| FetchError::Upstream {
        url: url.to_owned(),
        reason: format!("is no manifest: {error}"),
    })
}

fn hex_of(url: &str, digest: &str) -> Result<String, FetchError> {
    digest::of_oci(digest).map(str::to_owned).ok_or_else(|| FetchError::Upstream {
        url: url.to_owned(),
        reason: format!("names the digest {digest:?}, which is no sha256"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_becomes_a_token_url() {
        let challenge =
            r#"Bearer realm="https://auth.test/token",service="reg.test",scope="repository:etcd:pull""#;
        let url = plan_token_url(challenge);
        assert_eq!(
            url.as_deref(),
            Some("https://auth.test/token?service=reg.test&scope=repository:etcd:pull")
        );
    }

    #[test]
    fn a_token_is_never_asked_for_in_the_clear() {
        assert_eq!(plan_token_url(r#"Bearer realm="http://auth.test/token""#), None);
        assert_eq!(plan_token_url(r#"Basic realm="x""#), None);
    }
}
