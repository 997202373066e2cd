//! Who can be reached: the HTTP client, and whether a fetch failed for want of a network or of one host.
//!
//! `make up` falls back to its trial bundle only where nobody at all answers, so that is found out and
//! not guessed from the first host that fails. Called by [`super::assemble`] and [`super::download`].

use std::collections::BTreeSet;

use reqwest::{Client, ClientBuilder, Url};

use super::download::{CONNECT_DEADLINE, Downloader};
use super::{FetchError, FetchSources};

/// A client that trusts the system's authorities and those of `sources`.
pub(super) fn client(builder: ClientBuilder, sources: &FetchSources) -> Result<Client, FetchError> {
    let bad = |source: reqwest::Error| FetchError::Upstream {
        url: "the HTTP client".to_owned(),
        reason: source.to_string(),
    };
    let mut builder = builder.user_agent("k8s-myhome").connect_timeout(CONNECT_DEADLINE);
    if let Some(pem) = &sources.extra_ca_pem {
        builder = builder.tls_certs_merge(reqwest::Certificate::from_pem_bundle(pem).map_err(bad)?);
    }
    builder.build().map_err(bad)
}

/// The host of a URL, with its port where that is not the usual one.
pub(super) fn host_of(url: &str) -> String {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(|url| Some((url.host_str()?, url.port())));
    match host {
        Some((host, Some(port))) => format!("{host}:{port}"),
        Some((host, None)) => host.to_owned(),
        None => url.to_owned(),
    }
}

/// Tells a host that is out of reach from a network that is: by who answered, and where nobody was asked yet, by
/// asking every host of `sources`. Other errors stay.
pub(super) async fn explain(
    error: FetchError,
    downloader: &Downloader,
    sources: &FetchSources,
) -> FetchError {
    let FetchError::Unreachable { url, source } = error else { return error };
    let mut answering = downloader.answered();
    if answering.is_empty() {
        answering = probe(sources).await;
    }
    if answering.is_empty() {
        return FetchError::Unreachable { url, source };
    }
    FetchError::HostUnreachable {
        host: host_of(&url),
        url,
        answering: answering.into_iter().collect(),
        source,
    }
}

/// The hosts of `sources` that answer anything at all; a certificate that nobody trusts is an answer, too.
async fn probe(sources: &FetchSources) -> BTreeSet<String> {
    let builder = Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(2 * CONNECT_DEADLINE);
    let Ok(client) = client(builder, sources) else { return BTreeSet::new() };
    let bases = BTreeSet::from([&sources.kubernetes, &sources.github, &sources.registry]);
    let asked = bases.into_iter().map(|base| {
        let request = client.head(base).send();
        async move {
            match request.await {
                Ok(_) => Some(host_of(base)),
                Err(error) => {
                    let out_of_reach =
                        matches!(FetchError::request(base, error), FetchError::Unreachable { .. });
                    (!out_of_reach).then(|| host_of(base))
                }
            }
        }
    });
    futures::future::join_all(asked).await.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_port_where_that_is_not_the_usual() {
        assert_eq!(host_of("https://dl.k8s.io/release/v1.34.1/bin"), "dl.k8s.io");
        assert_eq!(host_of("https://localhost:8443/v2/"), "localhost:8443");
    }
}
