//! The two JSON lines of the secret exchange: [`Request`] out, [`Offer`] in. Bytes are hex, the time is RFC 3339.
//!
//! They mirror `SecretRequest` and `SecretOffer` of `node.proto`, which only fix the names.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// Version of this exchange.
pub const VERSION: u32 = 1;

/// What the agent writes when it needs a secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`]
    pub version: u32,
    /// The kernel's boot id.
    pub boot_id: String,
    /// DMI product UUID, lower case.
    pub machine_uuid: String,
    /// Counts up, so that a late answer is recognised.
    pub sequence: u64,
}

/// What the host agent answers. `Debug` does not show the secret.
#[derive(Clone)]
pub struct Offer {
    /// Copied from the request.
    pub sequence: u64,
    /// Cluster that the node belongs to.
    pub cluster_id: String,
    /// Who the host agent takes this machine for.
    pub node_id: String,
    /// 32 bytes.
    pub secret: Vec<u8>,
    /// `192.168.122.1:7443`
    pub host_address: String,
    /// The only trusted root.
    pub ca_der: Vec<u8>,
    /// DNS name in the host agent's certificate.
    pub server_name: String,
    /// The host's clock.
    pub host_time: Option<SystemTime>,
}

/// A line that is no offer.
#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    /// No JSON of this shape.
    #[error("the answer on the port is no secret offer")]
    Json(#[source] serde_json::Error),
    /// Another version of the exchange.
    #[error(
        "the host agent speaks version {got} of the secret exchange, this agent version {VERSION}: rebuild the node image"
    )]
    Version {
        /// Its version.
        got: u32,
    },
    /// Bytes that are no hex.
    #[error("field {field} of the secret offer is no hex")]
    Hex {
        /// Its name.
        field: &'static str,
    },
    /// The secret is not 32 bytes long.
    #[error("the secret has {got} bytes instead of 32")]
    Length {
        /// Its length.
        got: usize,
    },
}

#[derive(Deserialize)]
struct Line {
    version: u32,
    sequence: u64,
    #[serde(default)]
    cluster_id: String,
    node_id: String,
    secret: String,
    host_address: String,
    ca_der: String,
    server_name: String,
    #[serde(default)]
    host_time: Option<Time>,
}

/// RFC 3339 as protobuf's JSON has it, or the message's two fields.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Text(jiff::Timestamp),
    Fields {
        seconds: i64,
        #[serde(default)]
        nanos: i32,
    },
}

impl Offer {
    /// Reads a line.
    pub fn parse(line: &[u8]) -> Result<Self, OfferError> {
        let line: Line = serde_json::from_slice(line).map_err(OfferError::Json)?;
        if line.version != VERSION {
            return Err(OfferError::Version { got: line.version });
        }
        let bytes = |field, text: &str| hex::decode(text).map_err(|_| OfferError::Hex { field });
        let secret = bytes("secret", &line.secret)?;
        if secret.len() != 32 {
            return Err(OfferError::Length { got: secret.len() });
        }
        Ok(Self {
            sequence: line.sequence,
            cluster_id: line.cluster_id,
            node_id: line.node_id,
            secret,
            host_address: line.host_address,
            ca_der: bytes("ca_der", &line.ca_der)?,
            server_name: line.server_name,
            host_time: line.host_time.map(|time| match time {
                Time::Text(stamp) => SystemTime::from(stamp),
                Time::Fields { seconds, nanos } => {
                    crate::clock::system_time(&prost_types::Timestamp { seconds, nanos })
                }
            }),
        })
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Offer")
            .field("sequence", &self.sequence)
            .field("node_id", &self.node_id)
            .field("host_address", &self.host_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: u32, secret: &str, time: &str) -> String {
        format!(
            r#"{{"version":{version},"sequence":7,"cluster_id":"c","node_id":"n","secret":"{secret}",
            "host_address":"192.168.122.1:7443","ca_der":"3000","server_name":"host","host_time":{time}}}"#
        )
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let secret = "ab".repeat(32);
        let text = Offer::parse(line(1, &secret, "\"1970-01-01T00:00:05Z\"").as_bytes()).expect("an offer");
        let fields =
            Offer::parse(line(1, &secret, r#"{"seconds":5,"nanos":0}"#).as_bytes()).expect("an offer");
        assert_eq!(text.host_time, fields.host_time);
        assert_eq!((text.sequence, text.secret.len(), text.ca_der.as_slice()), (7, 32, &[0x30, 0][..]));
        assert!(!format!("{text:?}").contains("abab"));
    }

    #[test]
    fn wrong_lines_are_refused() {
        assert!(matches!(Offer::parse(b"{"), Err(OfferError::Json(_))));
        assert!(matches!(Offer::parse(line(2, "", "null").as_bytes()), Err(OfferError::Version { got: 2 })));
        assert!(matches!(
            Offer::parse(line(1, "abcd", "null").as_bytes()),
            Err(OfferError::Length { got: 2 })
        ));
        assert!(matches!(Offer::parse(line(1, "zz", "null").as_bytes()), Err(OfferError::Hex { .. })));
    }
}
