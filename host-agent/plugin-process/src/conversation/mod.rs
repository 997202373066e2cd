//! What is asked of a plugin process over its socket: handshake and description first, then whatever an operation needs.
//! Bounds every answer and turns wire types into values of our own. Called by [`crate::Runner`]; knows nothing of processes
//! or clusters.
//!
//! - [`plan`], [`config`], [`assess`]: the calls behind the first two
//! - [`wire`]: where wire types stop

mod assess;
mod config;
mod plan;
mod wire;

use std::error::Error as _;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8sctl_proto::plugin::v1::plugin_service_client::PluginServiceClient;
use k8sctl_proto::plugin::v1::{DescribeRequest, HandshakeRequest, Limits, PackageFile};
use k8sctl_rpc::chain;
use plugin_package::PROTOCOL_VERSIONS;
use plugin_package::manifest::Manifest;
use plugin_plan::limits;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

pub use assess::{AssessAsk, Assessment, Health};
pub use config::MigrateAnswer;
pub use plan::{Dependency, PlanAnswer, PlanAsk, PlanReader};

use crate::launch::{Deadlines, Started};
use wire::cut;

/// What this host can do beyond version 1 of the protocol.
pub(crate) const CAPABILITIES: [&str; 4] = ["remote", "node", "secret", "assess"];
/// What a plugin may answer a call with.
const CODES: [Code; 5] = [
    Code::InvalidArgument,
    Code::FailedPrecondition,
    Code::Unimplemented,
    Code::ResourceExhausted,
    Code::Internal,
];

/// A plugin broke the protocol.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConversationError {
    /// The connection could not be used.
    #[error("the plugin does not speak gRPC on its socket: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("the connection broke while {call} was asked: {reason}")]
    Lost {
        /// Name of the method.
        call: &'static str,
        /// How it broke.
        reason: String,
    },
    /// A call failed.
    #[error("the plugin answered {call} with {code:?}: {message}{}", only(.code))]
    Call {
        /// Name of the method.
        call: &'static str,
        /// What it answered.
        code: Code,
        /// And said to it.
        message: String,
    },
    /// A call that has a deadline of its own was not answered.
    #[error("{call} was not answered after {after:?}")]
    Late {
        /// Name of the method.
        call: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// No common version.
    #[error("the plugin speaks protocol {0:?}, this host agent {PROTOCOL_VERSIONS:?}")]
    Version(Vec<u32>),
    /// The answer breaks a rule.
    #[error("{0}")]
    Contract(String),
}

fn only(code: &Code) -> &'static str {
    if CODES.contains(code) { "" } else { ", a code that no plugin may answer with" }
}

fn called(call: &'static str) -> impl FnOnce(Status) -> ConversationError {
    move |status| {
        if status.source().is_some() {
            // Made on this side: nobody answered.
            let reason = cut(&chain(&status).to_string());
            return ConversationError::Lost { call, reason };
        }
        ConversationError::Call { call, code: status.code(), message: cut(status.message()) }
    }
}

fn broken(reason: impl Into<String>) -> ConversationError {
    ConversationError::Contract(reason.into())
}

/// What a plugin says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One line.
    pub summary: String,
    /// JSON Schema of its config.
    pub config_schema: Value,
    /// Counts up with every change of the schema that old configs do not survive.
    pub config_version: u32,
    /// What it was made with, "plugin-sdk 0.1.0"; may be empty.
    pub sdk: String,
}

/// What a plugin must agree with.
pub(crate) struct Opening<'a> {
    pub(crate) manifest: &'a Manifest,
    /// Those that it is told.
    pub(crate) files: &'a [(String, Vec<u8>)],
    /// `None`: the package has none yet.
    pub(crate) schema: Option<&'a Value>,
    pub(crate) deadlines: Deadlines,
}

/// A plugin process that has said what it is. Dropping this closes its socket.
#[derive(Debug)]
pub struct Talk {
    /// What it has said.
    pub description: Description,
    /// Number of its process.
    pub pid: u32,
    client: PluginServiceClient<Channel>,
}

/// Handshake and description.
pub(crate) async fn open(started: Started, opening: &Opening<'_>) -> Result<Talk, ConversationError> {
    let Started { stream, pid, user: _ } = started;
    let after = opening.deadlines.handshake;
    let greeting = async {
        let mut client = connect(stream).await?;
        let sdk = handshake(&mut client, opening.deadlines).await?;
        Ok::<_, ConversationError>((client, sdk))
    };
    let late = |_| ConversationError::Late { call: "Handshake", after };
    let (mut client, sdk) = tokio::time::timeout(after, greeting).await.map_err(late)??;
    let description = describe(&mut client, opening, sdk).await?;
    Ok(Talk { description, pid, client })
}

/// The client of a plugin's service on its socket, with the bounds that this host has for its answers.
pub async fn connect(stream: UnixStream) -> Result<PluginServiceClient<Channel>, ConversationError> {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("a plugin has only one connection"));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://plugin.invalid")
        .connect_with_connector(connector)
        .await
        .map_err(|error| ConversationError::Connect(chain(&error).to_string()))?;
    Ok(PluginServiceClient::new(channel).max_decoding_message_size(limits::MESSAGE_BYTES))
}

async fn handshake(
    client: &mut PluginServiceClient<Channel>,
    deadlines: Deadlines,
) -> Result<String, ConversationError> {
    let nonce: [u8; 16] = rand::random();
    let request = HandshakeRequest {
        versions: PROTOCOL_VERSIONS.to_vec(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
        nonce: nonce.to_vec(),
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        limits: Some(Limits {
            message_bytes: limits::MESSAGE_BYTES as u64,
            object_bytes: limits::OBJECT_BYTES as u64,
            plan_bytes: limits::PLAN_BYTES as u64,
            objects: limits::OBJECTS as u32,
            remotes: limits::REMOTES as u32,
            deadline_ms: u64::try_from(deadlines.conversation.as_millis()).unwrap_or(u64::MAX),
        }),
    };
    let answer = client.handshake(request).await.map_err(called("Handshake"))?.into_inner();
    if !PROTOCOL_VERSIONS.contains(&answer.version) {
        return Err(ConversationError::Version(answer.supported.into_iter().take(16).collect()));
    }
    if answer.nonce != nonce {
        let length = answer.nonce.len();
        return Err(broken(format!(
            "its handshake echoes {length} bytes that are not the 16 that it was given"
        )));
    }
    if let Some(other) = answer.capabilities.iter().find(|name| !CAPABILITIES.contains(&name.as_str())) {
        let other = cut(other);
        return Err(broken(format!("it makes use of {other:?}, expected some of {CAPABILITIES:?}")));
    }
    Ok(cut(&answer.sdk))
}

async fn describe(
    client: &mut PluginServiceClient<Channel>,
    opening: &Opening<'_>,
    sdk: String,
) -> Result<Description, ConversationError> {
    let files = opening.files.iter();
    let files =
        files.map(|(path, content)| PackageFile { path: path.clone(), content: content.clone() }).collect();
    let answer = client.describe(DescribeRequest { files }).await.map_err(called("Describe"))?.into_inner();
    let manifest = opening.manifest;
    let config_version = answer.config_version.max(1);
    for (what, said, written) in [
        ("name", answer.name.as_str(), manifest.name.as_str()),
        ("version", answer.version.as_str(), manifest.version.to_string().as_str()),
        ("summary", answer.summary.as_str(), manifest.summary.as_str()),
        ("config_version", config_version.to_string().as_str(), manifest.config_version.to_string().as_str()),
    ] {
        if said != written {
            let said = cut(said);
            return Err(broken(format!(
                "the program says its {what} is {said:?}, its plugin.toml says {written:?}"
            )));
        }
    }
    let size = answer.config_schema_json.len();
    if size > limits::SCHEMA_BYTES {
        return Err(broken(format!(
            "its schema has {size} bytes, expected at most {}",
            limits::SCHEMA_BYTES
        )));
    }
    let config_schema: Value = serde_json::from_str(&answer.config_schema_json)
        .map_err(|error| broken(format!("its schema is not JSON: {error}")))?;
    if opening.schema.is_some_and(|written| *written != config_schema) {
        return Err(broken("the program gives another schema than the schema.json of its package"));
    }
    Ok(Description {
        name: answer.name,
        version: answer.version,
        summary: answer.summary,
        config_schema,
        config_version,
        sdk,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_made_it() {
        let internal = called("Plan")(Status::internal("x".repeat(10_000)));
        let said = internal.to_string();
        assert!(
            said.starts_with("the plugin answered Plan with Internal: xxx") && said.len() < 3_000,
            "{said}"
        );
        let aborted = called("Plan")(Status::aborted("later")).to_string();
        assert!(aborted.ends_with("Aborted: later, a code that no plugin may answer with"), "{aborted}");
        let lost = called("Plan")(Status::from_error(Box::new(std::io::Error::other("broken pipe"))));
        assert!(matches!(&lost, ConversationError::Lost { call: "Plan", .. }), "{lost}");
    }

    #[test]
    fn versions_are_named_on_both_sides() {
        let said = ConversationError::Version(vec![2, 3]).to_string();
        assert_eq!(said, "the plugin speaks protocol [2, 3], this host agent [1]");
    }
}
