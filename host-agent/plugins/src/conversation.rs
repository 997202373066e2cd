//! What is asked of a plugin process over its socket, in order: handshake, describe, plan. Bounds every answer and
//! turns wire types into values of our own. Called by [`crate::host`]; knows nothing of processes or clusters.

use hyper_util::rt::TokioIo;
use k8sctl_proto::plugin::v1 as wire;
use k8sctl_proto::plugin::v1::plugin_service_client::PluginServiceClient;
use serde_json::Value;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::manifest::{Manifest, PROTOCOL_VERSIONS};
use crate::plan::{OBJECT_LIMIT, ReadinessRule};
use crate::schema;

/// Most objects of one plan.
const OBJECTS_LIMIT: usize = 2000;
/// Largest plan, in bytes.
const PLAN_LIMIT: usize = 16 * 1024 * 1024;
/// Largest schema, in bytes.
const SCHEMA_LIMIT: usize = 256 * 1024;
/// Most diagnostics that are shown.
pub(crate) const DIAGNOSTICS_LIMIT: usize = 100;
/// Longest text of a diagnostic, in bytes: all of them together are one message to whoever asked.
const TEXT_LIMIT: usize = 2 * 1024;
/// Behind a text that was cut.
const MARK: &str = " …(cut)";

/// A plugin broke the protocol.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConversationError {
    /// The connection could not be used.
    #[error("the plugin does not speak gRPC on its socket")]
    Connect(#[source] tonic::transport::Error),
    /// A call failed.
    #[error("the plugin answered {call} with {}: {}", .status.code(), .status.message())]
    Call {
        /// Name of the method.
        call: &'static str,
        /// What it answered.
        status: Box<tonic::Status>,
    },
    /// No common version.
    #[error("the plugin speaks protocol {0:?}, this host agent {PROTOCOL_VERSIONS:?}")]
    Version(Vec<u32>),
    /// The answer breaks a rule.
    #[error("{0}")]
    Contract(String),
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
}

/// A mistake in a plugin's config, or a remark on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// JSON pointer into the config; empty: the whole config.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// Does not stop the installation.
    pub warning: bool,
}

impl Diagnostic {
    /// The same, with long texts cut and marked.
    fn cut(mut self) -> Self {
        for text in [&mut self.path, &mut self.message, &mut self.hint] {
            if text.len() > TEXT_LIMIT {
                let end = TEXT_LIMIT - MARK.len();
                let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
                *text = format!("{}{MARK}", &text[..end]);
            }
        }
        self
    }
}

/// What a plugin wants on the cluster, unchecked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) objects: Vec<Value>,
    pub(crate) readiness: Vec<ReadinessRule>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Handshake, describe and plan. A config that breaks the schema is never shown to the plugin.
pub(crate) async fn ask_for_plan(
    stream: UnixStream,
    manifest: &Manifest,
    config_json: &str,
    facts: wire::ClusterFacts,
) -> Result<(Description, Answer), ConversationError> {
    let mut client = connect(stream).await?;
    handshake(&mut client).await?;
    let description = describe(&mut client, manifest).await?;
    let mistakes = schema::mistakes(&description.config_schema, config_json)
        .await
        .map_err(ConversationError::Contract)?;
    if !mistakes.is_empty() {
        let diagnostics = mistakes.into_iter().map(Diagnostic::cut).collect();
        return Ok((description, Answer { diagnostics, ..Answer::default() }));
    }
    let answer = plan(&mut client, config_json, facts).await?;
    Ok((description, answer))
}

async fn connect(stream: UnixStream) -> Result<PluginServiceClient<Channel>, ConversationError> {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("a plugin has only one connection"));
        std::future::ready(stream)
    });
    let channel = Endpoint::from_static("http://plugin.invalid")
        .connect_with_connector(connector)
        .await
        .map_err(ConversationError::Connect)?;
    Ok(PluginServiceClient::new(channel).max_decoding_message_size(OBJECT_LIMIT + 64 * 1024))
}

fn called(call: &'static str) -> impl FnOnce(tonic::Status) -> ConversationError {
    move |status| ConversationError::Call { call, status: Box::new(status) }
}

async fn handshake(client: &mut PluginServiceClient<Channel>) -> Result<(), ConversationError> {
    let request = wire::HandshakeRequest {
        versions: PROTOCOL_VERSIONS.to_vec(),
        host_version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let answer = client.handshake(request).await.map_err(called("Handshake"))?.into_inner();
    if PROTOCOL_VERSIONS.contains(&answer.version) {
        Ok(())
    } else {
        Err(ConversationError::Version(answer.supported))
    }
}

async fn describe(
    client: &mut PluginServiceClient<Channel>,
    manifest: &Manifest,
) -> Result<Description, ConversationError> {
    let answer = client.describe(wire::DescribeRequest {}).await.map_err(called("Describe"))?.into_inner();
    for (what, said, written) in
        [("name", &answer.name, &manifest.name), ("version", &answer.version, &manifest.version)]
    {
        if said != written {
            let reason = format!("the program says its {what} is {said:?}, its plugin.toml says {written:?}");
            return Err(ConversationError::Contract(reason));
        }
    }
    if answer.config_schema_json.len() > SCHEMA_LIMIT {
        let reason = format!(
            "its schema has {} bytes, expected at most {SCHEMA_LIMIT}",
            answer.config_schema_json.len()
        );
        return Err(ConversationError::Contract(reason));
    }
    let config_schema = serde_json::from_str(&answer.config_schema_json)
        .map_err(|error| ConversationError::Contract(format!("its schema is not JSON: {error}")))?;
    Ok(Description { name: answer.name, version: answer.version, summary: answer.summary, config_schema })
}

async fn plan(
    client: &mut PluginServiceClient<Channel>,
    config_json: &str,
    facts: wire::ClusterFacts,
) -> Result<Answer, ConversationError> {
    use wire::plan_response::Item;
    let request = wire::PlanRequest { config_json: config_json.to_owned(), facts: Some(facts) };
    let mut stream = client.plan(request).await.map_err(called("Plan"))?.into_inner();
    let (mut answer, mut size) = (Answer::default(), 0);
    while let Some(response) = stream.message().await.map_err(called("Plan"))? {
        match response.item {
            Some(Item::Object(object)) => {
                size += object.json.len();
                if object.json.len() > OBJECT_LIMIT {
                    let reason = format!("an object of its plan has more than {OBJECT_LIMIT} bytes");
                    return Err(ConversationError::Contract(reason));
                }
                if size > PLAN_LIMIT || answer.objects.len() == OBJECTS_LIMIT {
                    let reason =
                        format!("its plan has more than {OBJECTS_LIMIT} objects or {PLAN_LIMIT} bytes");
                    return Err(ConversationError::Contract(reason));
                }
                let value = serde_json::from_str(&object.json).map_err(|error| {
                    ConversationError::Contract(format!("an object of its plan is not JSON: {error}"))
                })?;
                answer.objects.push(value);
            }
            Some(Item::Readiness(rule)) if answer.readiness.len() < OBJECTS_LIMIT => {
                let wire::ReadinessRule { api_version, kind, condition } = rule;
                answer.readiness.push(ReadinessRule { api_version, kind, condition });
            }
            Some(Item::Diagnostic(diagnostic)) if answer.diagnostics.len() < DIAGNOSTICS_LIMIT => {
                let wire::Diagnostic { path, message, hint, warning } = diagnostic;
                answer.diagnostics.push(Diagnostic { path, message, hint, warning }.cut());
            }
            Some(Item::Readiness(_) | Item::Diagnostic(_)) => {}
            None => {
                return Err(ConversationError::Contract(
                    "an item of its plan is of no known kind".to_owned(),
                ));
            }
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_of_a_diagnostic_are_cut_and_marked() {
        let long = || "ä".repeat(1 << 19);
        let cut = Diagnostic { path: long(), message: long(), hint: long(), warning: true }.cut();
        for text in [&cut.path, &cut.message, &cut.hint] {
            assert!(text.len() <= TEXT_LIMIT && text.len() > TEXT_LIMIT - 10, "{}", text.len());
            assert!(text.ends_with("ä …(cut)"), "{text}");
        }
        let short = Diagnostic {
            path: "/a".to_owned(),
            message: "b".to_owned(),
            hint: String::new(),
            warning: false,
        };
        assert_eq!(short.clone().cut(), short);
    }
}
