//! Keys of what is told about the host agent: who can reach the metrics, where traces go.

use std::net::SocketAddr;

use http::Uri;
use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer};

/// An address that only this host reaches: at a port there are no roles.
pub(super) fn loopback_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = SocketAddr::deserialize(from)?;
    if address.ip().is_loopback() {
        return Ok(Some(address));
    }
    Err(D::Error::custom(format!(
        "got {address}, expected a loopback address, such as 127.0.0.1:9642: there everybody may read who can reach it"
    )))
}

/// `http://HOST:PORT` and nothing else.
pub(super) fn endpoint_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let text = String::deserialize(from)?;
    mistake(&text).map_or(Ok(Some(text)), |got| {
        let expected = "a collector's URL for OTLP over gRPC, such as \"http://127.0.0.1:4317\"";
        Err(D::Error::custom(format!("got {got}; expected {expected}")))
    })
}

/// What is wrong with a URL; not with what may be a password in it.
fn mistake(text: &str) -> Option<String> {
    let Ok(uri) = text.parse::<Uri>() else { return Some("no URL".to_owned()) };
    if text.contains('@') {
        return Some("a URL with a user in it".to_owned());
    }
    let why = match uri.scheme_str() {
        // One beside the host agent can pass them on over TLS.
        Some("https") => ", and TLS is not spoken: send to a collector on this host",
        Some("http") if uri.path() != "/" || uri.query().is_some() => ", with a path",
        Some("http") if uri.port_u16().is_none() => ", without a port",
        Some("http") => return None,
        _ => "",
    };
    Some(format!("{text:?}{why}"))
}

#[cfg(test)]
mod tests {
    use super::super::{ConfigError, HostConfig};

    fn load(text: &str) -> Result<HostConfig, ConfigError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("host-agent.toml");
        std::fs::write(&path, text).expect("writes");
        HostConfig::load(Some(&path))
    }

    #[test]
    fn metrics_are_served_to_this_host_alone() {
        for address in ["127.0.0.1:9642", "127.8.0.1:1", "[::1]:9642"] {
            let config = load(&format!("metrics_listen = '{address}'")).expect("valid");
            assert_eq!(config.metrics_listen, address.parse().ok());
        }
        for address in ["0.0.0.0:9642", "192.168.122.1:9642", "[::]:9642", "[::ffff:127.0.0.1]:9642"] {
            let told = load(&format!("\nmetrics_listen = '{address}'")).expect_err(address).to_string();
            let mistake = "line 2: metrics_listen: got ";
            assert!(told.contains(mistake) && told.contains("expected a loopback address"), "{told}");
        }
        assert!(load("metrics_listen = 9642").is_err() && load("metrics_listen = 'localhost:1'").is_err());
    }

    #[test]
    fn a_collector_has_a_plain_url() {
        for url in ["http://127.0.0.1:4317", "http://collector.lan:4317", "http://[::1]:4317/"] {
            let config = load(&format!("trace_endpoint = '{url}'")).expect("valid");
            assert_eq!(config.trace_endpoint.as_deref(), Some(url));
        }
        for (url, why) in [
            ("127.0.0.1:4317", ""),
            ("", ""),
            ("http://127.0.0.1", "without a port"),
            ("http://me:secret@127.0.0.1:4317", "with a user in it"),
            ("http://127.0.0.1:4318/v1/traces", "with a path"),
            ("https://127.0.0.1:4317", "TLS is not spoken"),
        ] {
            let told = load(&format!("trace_endpoint = '{url}'")).expect_err(url).to_string();
            assert!(told.contains("line 1: trace_endpoint: got ") && told.contains(why), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}
