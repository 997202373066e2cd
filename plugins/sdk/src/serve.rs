//! A plugin as `k8sctl.plugin.v1.PluginService`: the order of the calls, wire types, limits. Called by [`crate::start`];
//! decides nothing about the cluster.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8sctl_proto::plugin::v1 as wire;
use k8sctl_proto::plugin::v1::plan_response::Item;
use k8sctl_proto::plugin::v1::plugin_service_server::PluginService;
use prost::Message as _;
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::context::Context;
use crate::diagnostic::Diagnostic;
use crate::plan::Plan;
use crate::raw::{OpenPlugin, RawPlugin};

/// Protocol versions that this SDK speaks, ascending.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];

/// What this SDK knows of beyond the version.
const CAPABILITIES: [&str; 4] = ["remote", "node", "secret", "assess"];
/// Largest message that the host agent sends: the live objects of an installed plugin, with room to spare.
pub(crate) const REQUEST_BYTES: usize = 8 << 20;
/// Largest schema.
const SCHEMA_BYTES: usize = 256 << 10;
/// Longest reason of a failure: it travels in a trailer, each byte as up to three.
const REASON_BYTES: usize = 4 << 10;
/// Largest object, where the host names no other limit.
const OBJECT_BYTES: usize = 1 << 20;
/// Largest message, where the host names no other limit.
const MESSAGE_BYTES: usize = (1 << 20) + (64 << 10);

/// What a plugin makes of a config: its plan and the effective config, or diagnostics.
type Planned = Result<(Plan, Option<Value>), Vec<Diagnostic>>;

/// One conversation with the host agent.
pub(crate) struct Service {
    plugin: Box<dyn RawPlugin>,
    conversation: Mutex<Conversation>,
    /// Raised when the plugin's code panics.
    panicked: Arc<AtomicBool>,
}

/// What was said so far.
#[derive(Clone, Default)]
struct Conversation {
    greeted: bool,
    /// What the host can do.
    offered: Vec<String>,
    limits: wire::Limits,
    plugin: Option<Arc<dyn OpenPlugin>>,
}

impl Service {
    pub(crate) fn new(plugin: impl RawPlugin, panicked: Arc<AtomicBool>) -> Self {
        Self { plugin: Box::new(plugin), conversation: Mutex::default(), panicked }
    }

    fn conversation(&self) -> MutexGuard<'_, Conversation> {
        self.conversation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said, once there was a handshake.
    fn after_handshake(&self) -> Result<Conversation, Status> {
        let conversation = self.conversation().clone();
        if conversation.greeted {
            Ok(conversation)
        } else {
            Err(Status::failed_precondition("Handshake has to be the first call"))
        }
    }

    /// The plugin, once it was described.
    fn opened(&self) -> Result<(Conversation, Arc<dyn OpenPlugin>), Status> {
        let conversation = self.after_handshake()?;
        let plugin = conversation.plugin.clone();
        let plugin =
            plugin.ok_or_else(|| Status::failed_precondition("Describe has to be the second call"))?;
        Ok((conversation, plugin))
    }

    /// Runs the plugin's code. A panic of it has been printed by the time that this returns.
    fn guarded<T>(&self, call: &str, code: impl FnOnce() -> T) -> Result<T, Status> {
        std::panic::catch_unwind(AssertUnwindSafe(code)).map_err(|panic| {
            self.panicked.store(true, Ordering::Release);
            internal(format!("{call} panicked: {}", panic_message(panic.as_ref())))
        })
    }

    /// The plan for a config, or diagnostics at least one of which is a mistake.
    fn planned(
        &self,
        call: &str,
        plugin: &dyn OpenPlugin,
        config_json: &str,
        context: &Context,
    ) -> Result<Planned, Status> {
        let config = match config(config_json) {
            Ok(config) => config,
            Err(mistake) => return Ok(Err(vec![mistake])),
        };
        let planned = self.guarded(call, || plugin.plan(&config, context))?;
        if planned.as_ref().is_err_and(|diagnostics| names_no_mistake(diagnostics)) {
            return Err(Status::internal(format!("{call} refused the config and named no mistake in it")));
        }
        Ok(planned)
    }
}

/// A mistake of the plugin's.
fn internal(reason: String) -> Status {
    Status::internal(cut(reason))
}

/// No longer than a trailer may be.
fn cut(mut reason: String) -> String {
    if reason.len() > REASON_BYTES {
        let end = (0..=REASON_BYTES).rev().find(|&end| reason.is_char_boundary(end)).unwrap_or_default();
        reason.truncate(end);
        reason.push_str(" …(cut)");
    }
    reason
}

/// Then a plugin says no without saying why.
fn names_no_mistake(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().all(|diagnostic| diagnostic.warning)
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it said nothing")
}

/// Nothing at all stands for an empty config.
fn config(json: &str) -> Result<Value, Diagnostic> {
    let json = if json.is_empty() { "{}" } else { json };
    serde_json::from_str(json).map_err(|error| {
        let hint = "a JSON object as the plugin's schema describes it";
        Diagnostic::error("", format!("not JSON: {error}"), hint)
    })
}

/// A limit of the host's, or this SDK's own where it names none.
fn limit(named: u64, own: usize) -> usize {
    if named == 0 { own } else { usize::try_from(named).unwrap_or(usize::MAX) }
}

/// What the author of a plugin looks for in a plan: which object it is.
fn name_of(json: &str) -> String {
    let object: Value = serde_json::from_str(json).unwrap_or_default();
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let namespace = text("/metadata/namespace");
    let slash = if namespace.is_empty() { "" } else { "/" };
    format!("{} {} {namespace}{slash}{}", text("/apiVersion"), text("/kind"), text("/metadata/name"))
}

/// The message of an item, if it is no larger than it may be.
fn message(item: Item, limits: &wire::Limits) -> Result<wire::PlanResponse, Status> {
    if let Item::Object(object) = &item {
        let (size, most) = (object.json.len(), limit(limits.object_bytes, OBJECT_BYTES));
        if size > most {
            let reason = format!("{} has {size} bytes, at most {most} are taken", name_of(&object.json));
            return Err(Status::internal(reason));
        }
    }
    let response = wire::PlanResponse { item: Some(item) };
    let (size, most) = (response.encoded_len(), limit(limits.message_bytes, MESSAGE_BYTES));
    if size > most {
        let what = match &response.item {
            Some(Item::Remote(remote)) => format!("the manifest {}", remote.url),
            Some(Item::Object(object)) => name_of(&object.json),
            _ => "an item of the plan".to_owned(),
        };
        return Err(Status::internal(format!(
            "{what} makes a message of {size} bytes, at most {most} are taken"
        )));
    }
    Ok(response)
}

/// The messages of a plan, made as they are sent.
type Messages = Box<dyn Iterator<Item = Result<wire::PlanResponse, Status>> + Send>;

/// All items, and how many they were.
fn messages(items: impl Iterator<Item = Item> + Send + 'static, limits: wire::Limits) -> Messages {
    let mut sent = 0;
    let mut items = items.map(Some).chain(std::iter::once(None));
    Box::new(std::iter::from_fn(move || match items.next()? {
        Some(item) => {
            sent += 1;
            Some(message(item, &limits))
        }
        None => Some(Ok(wire::PlanResponse { item: Some(Item::End(wire::End { items: sent })) })),
    }))
}

#[tonic::async_trait]
impl PluginService for Service {
    type PlanStream = tokio_stream::Iter<Messages>;

    async fn handshake(
        &self,
        request: Request<wire::HandshakeRequest>,
    ) -> Result<Response<wire::HandshakeResponse>, Status> {
        let request = request.into_inner();
        let common =
            PROTOCOL_VERSIONS.iter().rev().find(|version| request.versions.contains(version)).copied();
        let mut conversation = self.conversation();
        if conversation.greeted {
            return Err(Status::failed_precondition("Handshake is made once"));
        }
        conversation.greeted = common.is_some();
        conversation.limits = request.limits.unwrap_or_default();
        conversation.offered = request.capabilities;
        let used = CAPABILITIES.iter().filter(|it| conversation.offered.iter().any(|offered| offered == *it));
        Ok(Response::new(wire::HandshakeResponse {
            version: common.unwrap_or_default(),
            supported: PROTOCOL_VERSIONS.to_vec(),
            nonce: request.nonce,
            capabilities: used.map(|name| (*name).to_owned()).collect(),
            sdk: concat!("plugin-sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
        }))
    }

    async fn describe(
        &self,
        request: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeResponse>, Status> {
        self.after_handshake()?;
        let mut files = BTreeMap::new();
        for wire::PackageFile { path, content } in request.into_inner().files {
            if files.insert(path.clone(), content).is_some() {
                return Err(Status::invalid_argument(format!("the file {path} is there twice")));
            }
        }
        let (plugin, description) = self.guarded("Describe", || {
            let plugin = self.plugin.open(&files).map_err(internal)?;
            let description = plugin.describe();
            Ok::<_, Status>((plugin, description))
        })??;
        let config_schema_json = description.schema.to_string();
        if config_schema_json.len() > SCHEMA_BYTES {
            let size = config_schema_json.len();
            let reason = format!("the schema has {size} bytes, at most {SCHEMA_BYTES} are taken");
            return Err(Status::internal(reason));
        }
        self.conversation().plugin = Some(Arc::from(plugin));
        Ok(Response::new(wire::DescribeResponse {
            name: description.name,
            version: description.version,
            summary: description.summary,
            config_schema_json,
            config_version: description.config_version,
        }))
    }

    async fn validate_config(
        &self,
        request: Request<wire::ValidateConfigRequest>,
    ) -> Result<Response<wire::ValidateConfigResponse>, Status> {
        let (_, plugin) = self.opened()?;
        let request = request.into_inner();
        let context = Context::of(request.facts, request.dependencies, request.secrets);
        let planned = self.planned("ValidateConfig", plugin.as_ref(), &request.config_json, &context)?;
        let (diagnostics, effective) = match planned {
            Ok((plan, effective)) => (plan.warnings, effective),
            Err(diagnostics) => (diagnostics, None),
        };
        Ok(Response::new(wire::ValidateConfigResponse {
            diagnostics: diagnostics.into_iter().map(Into::into).collect(),
            effective_config_json: effective.map(|config| config.to_string()).unwrap_or_default(),
        }))
    }

    async fn migrate_config(
        &self,
        request: Request<wire::MigrateConfigRequest>,
    ) -> Result<Response<wire::MigrateConfigResponse>, Status> {
        let (_, plugin) = self.opened()?;
        let wire::MigrateConfigRequest { from_config_version: from, config_json } = request.into_inner();
        let config = config(&config_json).map_err(|mistake| Status::invalid_argument(mistake.message))?;
        let (own, migrated) = self.guarded("MigrateConfig", || {
            let own = plugin.describe().config_version;
            (own, (from < own).then(|| plugin.migrate(from, config)))
        })?;
        let (config_json, diagnostics) = match migrated {
            Some(Ok(config)) => (config.to_string(), Vec::new()),
            Some(Err(diagnostics)) if names_no_mistake(&diagnostics) => {
                return Err(Status::internal("MigrateConfig refused the config and named no mistake in it"));
            }
            Some(Err(diagnostics)) => (String::new(), diagnostics),
            None => {
                let reason = format!("config version {from} is not older than this plugin's, {own}");
                return Err(Status::invalid_argument(reason));
            }
        };
        Ok(Response::new(wire::MigrateConfigResponse {
            config_json,
            diagnostics: diagnostics.into_iter().map(Into::into).collect(),
        }))
    }

    async fn plan(&self, request: Request<wire::PlanRequest>) -> Result<Response<Self::PlanStream>, Status> {
        let (conversation, plugin) = self.opened()?;
        let request = request.into_inner();
        let context = Context::of(request.facts, request.dependencies, request.secrets);
        let messages = match self.planned("Plan", plugin.as_ref(), &request.config_json, &context)? {
            Ok((plan, _)) => {
                let lacking =
                    plan.needs().into_iter().find(|need| !conversation.offered.iter().any(|it| it == need));
                if let Some(need) = lacking {
                    let reason = format!("the plan needs {need:?}, which this host agent does not offer");
                    return Err(Status::unimplemented(reason));
                }
                messages(plan.into_items(), conversation.limits)
            }
            Err(diagnostics) => {
                let items = diagnostics.into_iter().map(|it| Item::Diagnostic(it.into()));
                messages(items, conversation.limits)
            }
        };
        Ok(Response::new(tokio_stream::iter(messages)))
    }

    async fn assess(
        &self,
        request: Request<wire::AssessRequest>,
    ) -> Result<Response<wire::AssessResponse>, Status> {
        let (_, plugin) = self.opened()?;
        let request = request.into_inner();
        let config =
            config(&request.config_json).map_err(|mistake| Status::invalid_argument(mistake.message))?;
        let objects = request
            .objects_json
            .iter()
            .map(|json| serde_json::from_str(json))
            .collect::<Result<Vec<Value>, _>>()
            .map_err(|error| {
                Status::invalid_argument(format!("objects_json holds something else than JSON: {error}"))
            })?;
        let context = Context::of(request.facts, request.dependencies, Vec::new());
        let assessment =
            self.guarded("Assess", || plugin.assess(&config, &context, &objects))?.map_err(|mistakes| {
                let why = mistakes.first().map(|mistake| mistake.message.as_str()).unwrap_or_default();
                let reason = format!("config_json is not a config that this plugin planned with: {why}");
                Status::invalid_argument(cut(reason))
            })?;
        Ok(Response::new(wire::AssessResponse {
            health: wire::Health::from(assessment.health).into(),
            message: assessment.message,
            outputs: assessment.outputs.into_iter().collect(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(bytes: usize) -> Item {
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"c","namespace":"n"}},"data":{{"a":"{}"}}}}"#,
            "x".repeat(bytes)
        );
        Item::Object(wire::PlannedObject { json, handling: None })
    }

    #[test]
    fn the_last_message_says_how_many_there_were() {
        let items = vec![object(1), object(2)];
        let sent: Vec<_> = messages(items.into_iter(), wire::Limits::default()).collect();
        let last = sent.last().and_then(|last| last.as_ref().ok()).and_then(|last| last.item.clone());
        assert_eq!((sent.len(), last), (3, Some(Item::End(wire::End { items: 2 }))));
    }

    #[test]
    fn a_long_reason_is_cut() {
        let status = internal("ä".repeat(REASON_BYTES));
        assert!(status.message().len() < REASON_BYTES + 20 && status.message().ends_with("ä …(cut)"));
        assert_eq!(internal("short".to_owned()).message(), "short");
    }

    #[test]
    fn what_is_too_large_is_named() {
        let limits = wire::Limits { object_bytes: 200, ..wire::Limits::default() };
        for (item, limits) in [(object(OBJECT_BYTES), wire::Limits::default()), (object(200), limits)] {
            let status = message(item, &limits).expect_err("it is too large");
            assert_eq!(status.code(), tonic::Code::Internal);
            assert!(status.message().starts_with("v1 ConfigMap n/c has "), "{}", status.message());
        }
        let remote = wire::RemoteManifest { namespace: "x".repeat(MESSAGE_BYTES), ..Default::default() };
        let remote = wire::RemoteManifest { url: "https://example.org/x".to_owned(), ..remote };
        let status = message(Item::Remote(remote), &wire::Limits::default()).expect_err("it is too large");
        assert!(
            status.message().starts_with("the manifest https://example.org/x makes"),
            "{}",
            status.message()
        );
        message(object(1000), &wire::Limits::default()).expect("it is not");
    }
}
