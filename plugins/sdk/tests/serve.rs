//! The service of a plugin as the host agent sees it: over a connected socket, in the order of the protocol.

use std::collections::BTreeMap;

use hyper_util::rt::TokioIo;
use k8sctl_proto::plugin::v1 as wire;
use k8sctl_proto::plugin::v1::plan_response::Item;
use k8sctl_proto::plugin::v1::plugin_service_client::PluginServiceClient;
use plugin_sdk::{
    Assessment, Context, Description, Diagnostic, Ending, Health, OpenPlugin, OwnedDescription, Plan, Plugin,
    RawPlugin, SecretRef, Typed, nothing_older,
};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

type Client = PluginServiceClient<Channel>;

#[derive(serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many ConfigMaps.
    #[serde(default = "one")]
    maps: usize,
    /// How large each is.
    #[serde(default)]
    bytes: usize,
    /// Whose name is the password's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    password: Option<SecretRef>,
    /// A manifest of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
}

fn one() -> usize {
    1
}

/// Makes ConfigMaps, and panics for 13 of them.
struct Maps;

impl Plugin for Maps {
    type Config = Config;

    fn describe(&self) -> Description {
        Description { name: "maps", version: "0.1.0", summary: "ConfigMaps", config_version: 2 }
    }

    fn plan(&self, config: &Config, context: &Context) -> Result<Plan, Vec<Diagnostic>> {
        assert!(config.maps != 13, "thirteen is too many");
        if config.maps == 0 {
            return Err(vec![Diagnostic::error("/maps", "0 maps", "at least one").code("MAPS-NONE")]);
        }
        if config.maps == 14 {
            return Err(vec![Diagnostic::warning("/maps", "14 maps", "")]);
        }
        let mut plan = Plan::default();
        for number in 0..config.maps {
            plan = plan.object(json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": format!("map-{number}"), "namespace": context.facts.cluster_name},
                "data": {"a": "x".repeat(config.bytes)},
            }));
        }
        if let Some(password) = &config.password {
            plan = plan.object(json!({"kind": "Secret", "data": {"password": password.placeholder()}}));
        }
        if let Some(manifest) = &config.manifest {
            plan = plan.remote(plugin_sdk::Remote::new(manifest, &"0".repeat(64), 1));
        }
        if config.maps > 100 {
            plan = plan.warn(Diagnostic::warning("/maps", "many maps", ""));
        }
        Ok(plan)
    }

    fn assess(&self, _: &Config, _: &Context, objects: &[Value]) -> Assessment {
        Assessment::new(Health::Ready, format!("{} maps", objects.len()))
            .output("maps", objects.len().to_string())
    }

    fn migrate(&self, from: u32, config: Value) -> Result<Value, Vec<Diagnostic>> {
        if config.get("count").is_none() {
            return Err(nothing_older(from));
        }
        Ok(json!({"maps": config["count"]}))
    }
}

/// A plugin that its package's file `name` names.
struct Files;

impl RawPlugin for Files {
    fn open(&self, files: &BTreeMap<String, Vec<u8>>) -> Result<Box<dyn OpenPlugin>, String> {
        let name = files.get("name").ok_or("the file name is missing")?;
        Ok(Box::new(Named(String::from_utf8_lossy(name).into_owned())))
    }

    fn name(&self) -> &str {
        "files"
    }
}

struct Named(String);

impl OpenPlugin for Named {
    fn describe(&self) -> OwnedDescription {
        let (version, summary) = ("1.0.0".to_owned(), "named by a file".to_owned());
        let schema = json!({"type": "object", "additionalProperties": false});
        OwnedDescription { name: self.0.clone(), version, summary, config_version: 1, schema }
    }

    fn plan(&self, config: &Value, _: &Context) -> Result<(Plan, Option<Value>), Vec<Diagnostic>> {
        Ok((Plan::default().object(json!({"kind": "ConfigMap", "data": config})), None))
    }

    fn assess(&self, _: &Value, _: &Context, _: &[Value]) -> Result<Assessment, Vec<Diagnostic>> {
        Err(nothing_older(1))
    }

    fn migrate(&self, from: u32, _: Value) -> Result<Value, Vec<Diagnostic>> {
        Err(nothing_older(from))
    }
}

async fn connect(stream: UnixStream) -> Client {
    let mut once = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_| {
        let stream = once.take().ok_or_else(|| std::io::Error::other("there is one connection"));
        std::future::ready(stream)
    });
    let endpoint = Endpoint::from_static("http://plugin.invalid");
    PluginServiceClient::new(endpoint.connect_with_connector(connector).await.expect("it connects"))
}

/// Serves the plugin, talks with it, hangs up, and gives what was heard and how it ended.
async fn talk<T>(plugin: impl RawPlugin, conversation: impl AsyncFnOnce(Client) -> T) -> (T, Ending) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let serving = plugin_sdk::serve_raw(plugin, theirs);
    let talking = async { conversation(connect(ours).await).await };
    let (ending, heard) = tokio::join!(serving, talking);
    (heard, ending.expect("it serves"))
}

fn greeting(versions: &[u32]) -> wire::HandshakeRequest {
    wire::HandshakeRequest {
        versions: versions.to_vec(),
        nonce: vec![7; 16],
        capabilities: ["remote", "telepathy"].map(str::to_owned).to_vec(),
        ..wire::HandshakeRequest::default()
    }
}

/// Handshake and Describe.
async fn begin(client: &mut Client) -> wire::DescribeResponse {
    client.handshake(greeting(&[1])).await.expect("a handshake");
    client.describe(wire::DescribeRequest::default()).await.expect("a description").into_inner()
}

fn plan_request(config: &Value) -> wire::PlanRequest {
    let facts = wire::ClusterFacts { cluster_name: "home".to_owned(), ..wire::ClusterFacts::default() };
    wire::PlanRequest { config_json: config.to_string(), facts: Some(facts), ..wire::PlanRequest::default() }
}

async fn plan(client: &mut Client, config: &Value) -> Result<Vec<Item>, Status> {
    let mut stream = client.plan(plan_request(config)).await?.into_inner();
    let mut items = Vec::new();
    while let Some(response) = stream.message().await? {
        items.push(response.item.expect("an item"));
    }
    Ok(items)
}

#[tokio::test]
async fn a_handshake_agrees_on_a_version_and_on_capabilities() {
    let (answer, ending) = talk(Typed::new(Maps), async |mut client: Client| {
        let answer = client.handshake(greeting(&[1, 2])).await.expect("a handshake").into_inner();
        let again = client.handshake(greeting(&[1])).await.expect_err("it is made once");
        assert_eq!(again.code(), Code::FailedPrecondition);
        answer
    })
    .await;
    assert_eq!((answer.version, answer.supported), (1, vec![1]));
    assert_eq!(answer.nonce, vec![7; 16]);
    assert_eq!(answer.capabilities, ["remote"], "what the host offers and the SDK knows");
    assert!(answer.sdk.starts_with("plugin-sdk "), "{}", answer.sdk);
    assert_eq!(ending, Ending::HungUp);
}

#[tokio::test]
async fn without_a_common_version_nothing_else_is_answered() {
    talk(Typed::new(Maps), async |mut client: Client| {
        let answer = client.handshake(greeting(&[2, 3])).await.expect("an answer").into_inner();
        assert_eq!((answer.version, answer.supported), (0, vec![1]));
        let refused = client.describe(wire::DescribeRequest::default()).await.expect_err("no handshake");
        assert_eq!(refused.code(), Code::FailedPrecondition);
    })
    .await;
}

#[tokio::test]
async fn calls_have_an_order() {
    talk(Typed::new(Maps), async |mut client: Client| {
        let early = client.plan(plan_request(&json!({}))).await.expect_err("no handshake");
        assert_eq!(early.code(), Code::FailedPrecondition);
        client.handshake(greeting(&[1])).await.expect("a handshake");
        let early = client.plan(plan_request(&json!({}))).await.expect_err("no description");
        assert_eq!(
            (early.code(), early.message()),
            (Code::FailedPrecondition, "Describe has to be the second call")
        );
    })
    .await;
}

#[tokio::test]
async fn a_plan_ends_with_its_count() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let password = json!({"handle": "admin", "key": "password"});
        let items = plan(&mut client, &json!({"maps": 2, "password": password})).await.expect("a plan");
        assert_eq!(items.len(), 4);
        assert_eq!(items.last(), Some(&Item::End(wire::End { items: 3 })));
        let Item::Object(secret) = &items[2] else { panic!("{items:?}") };
        let object: Value = serde_json::from_str(&secret.json).expect("JSON");
        assert_eq!(object["data"]["password"], json!({"$k8sctl.secret": password}));
        let Item::Object(map) = &items[0] else { panic!("{items:?}") };
        assert!(map.json.contains(r#""namespace":"home""#), "facts are told: {}", map.json);
    })
    .await;
}

#[tokio::test]
async fn mistakes_are_an_answer() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let items = plan(&mut client, &json!({"maps": 0})).await.expect("an answer");
        let [Item::Diagnostic(mistake), Item::End(end)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((mistake.path.as_str(), mistake.code.as_str(), end.items), ("/maps", "MAPS-NONE", 1));
        for config in [json!({"nonsense": 1}), json!([1]), json!({"maps": "many"}), json!(null)] {
            let items = plan(&mut client, &config).await.expect("an answer");
            assert!(matches!(&items[..], [Item::Diagnostic(mistake), _] if !mistake.warning), "{items:?}");
        }
        let request = wire::PlanRequest { config_json: "{".to_owned(), ..wire::PlanRequest::default() };
        let mut stream = client.plan(request).await.expect("an answer").into_inner();
        let first = stream.message().await.expect("a message").and_then(|message| message.item);
        assert!(matches!(first, Some(Item::Diagnostic(_))), "{first:?}");
    })
    .await;
}

#[tokio::test]
async fn validation_fills_in_defaults_and_tells_warnings() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let mut validate = async |config: Value| {
            let config_json = config.to_string();
            let request =
                wire::ValidateConfigRequest { config_json, ..wire::ValidateConfigRequest::default() };
            client.validate_config(request).await.expect("an answer").into_inner()
        };
        let answer = validate(json!({})).await;
        assert!(answer.diagnostics.is_empty(), "{answer:?}");
        assert_eq!(answer.effective_config_json, r#"{"bytes":0,"maps":1}"#);
        let answer = validate(json!({"maps": 101})).await;
        assert!(answer.diagnostics[0].warning && !answer.effective_config_json.is_empty(), "{answer:?}");
        let answer = validate(json!({"maps": 0})).await;
        assert!(!answer.diagnostics[0].warning && answer.effective_config_json.is_empty(), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn an_object_that_is_too_large_is_named() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let status = plan(&mut client, &json!({"bytes": 1 << 20})).await.expect_err("it is too large");
        assert_eq!(status.code(), Code::Internal);
        assert!(status.message().starts_with("v1 ConfigMap home/map-0 has 1"), "{status:?}");
        plan(&mut client, &json!({"bytes": 1_000_000, "maps": 20})).await.expect("each is small enough");
    })
    .await;
}

#[tokio::test]
async fn a_plan_asks_for_nothing_that_the_host_cannot_do() {
    let manifest = json!({"manifest": "https://example.org/x.yaml"});
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let items = plan(&mut client, &manifest).await.expect("the host offers it");
        assert!(matches!(items[1], Item::Remote(_)), "{items:?}");
    })
    .await;
    talk(Typed::new(Maps), async |mut client: Client| {
        let greeting = wire::HandshakeRequest { versions: vec![1], ..wire::HandshakeRequest::default() };
        client.handshake(greeting).await.expect("a handshake");
        client.describe(wire::DescribeRequest::default()).await.expect("a description");
        let status = plan(&mut client, &manifest).await.expect_err("the host does not");
        assert_eq!(status.code(), Code::Unimplemented);
        assert!(status.message().contains(r#""remote""#), "{status:?}");
    })
    .await;
}

#[tokio::test]
async fn a_panic_is_an_answer_and_shows_at_the_end() {
    let (status, ending) = talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let status = plan(&mut client, &json!({"maps": 13})).await.expect_err("it panics");
        plan(&mut client, &json!({"maps": 1})).await.expect("the next call is answered");
        status
    })
    .await;
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("thirteen is too many"), "{status:?}");
    assert_eq!(ending, Ending::Panicked);
}

#[tokio::test]
async fn a_refusal_without_a_mistake_is_the_plugins_fault() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let status = plan(&mut client, &json!({"maps": 14})).await.expect_err("a warning refuses nothing");
        assert_eq!(status.code(), Code::Internal);
    })
    .await;
}

#[tokio::test]
async fn only_older_configs_are_migrated() {
    talk(Typed::new(Maps), async |mut client: Client| {
        let description = begin(&mut client).await;
        assert_eq!((description.name.as_str(), description.config_version), ("maps", 2));
        let mut migrate = async |from_config_version: u32, config: Value| {
            let config_json = config.to_string();
            client.migrate_config(wire::MigrateConfigRequest { from_config_version, config_json }).await
        };
        let answer = migrate(1, json!({"count": 3})).await.expect("an answer").into_inner();
        assert_eq!((answer.config_json.as_str(), answer.diagnostics.len()), (r#"{"maps":3}"#, 0));
        let answer = migrate(1, json!({})).await.expect("an answer").into_inner();
        assert_eq!((answer.config_json.as_str(), answer.diagnostics.len()), ("", 1));
        let status = migrate(2, json!({"count": 3})).await.expect_err("it is as new");
        assert_eq!(status.code(), Code::InvalidArgument);
    })
    .await;
}

#[tokio::test]
async fn live_objects_are_judged() {
    talk(Typed::new(Maps), async |mut client: Client| {
        begin(&mut client).await;
        let request = |object: &str| wire::AssessRequest {
            objects_json: vec![object.to_owned()],
            ..wire::AssessRequest::default()
        };
        let answer = client.assess(request("{}")).await.expect("a judgement").into_inner();
        assert_eq!((answer.health(), answer.message.as_str()), (wire::Health::Ready, "1 maps"));
        assert_eq!(answer.outputs.get("maps").map(String::as_str), Some("1"));
        let status = client.assess(request("no JSON")).await.expect_err("it is none");
        assert_eq!(status.code(), Code::InvalidArgument);
        let strange = wire::AssessRequest { config_json: r#"{"colour":1}"#.to_owned(), ..request("{}") };
        let status = client.assess(strange).await.expect_err("nobody planned with that");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("colour"), "it says why: {status:?}");
    })
    .await;
}

#[tokio::test]
async fn a_plugin_of_files_is_made_of_them() {
    talk(Files, async |mut client: Client| {
        client.handshake(greeting(&[1])).await.expect("a handshake");
        let file = |content: &[u8]| wire::PackageFile { path: "name".to_owned(), content: content.to_vec() };
        let request = |files: Vec<wire::PackageFile>| wire::DescribeRequest { files };
        let status = client.describe(request(vec![])).await.expect_err("the file is missing");
        assert_eq!((status.code(), status.message()), (Code::Internal, "the file name is missing"));
        let twice = vec![file(b"a"), file(b"b")];
        let status = client.describe(request(twice)).await.expect_err("which of them?");
        assert_eq!(status.code(), Code::InvalidArgument);
        let answer = client.describe(request(vec![file(b"acme")])).await.expect("a description").into_inner();
        assert_eq!(answer.name, "acme");
        let items = plan(&mut client, &json!({"a": "b"})).await.expect("a plan");
        let Item::Object(object) = &items[0] else { panic!("{items:?}") };
        assert_eq!(object.json, r#"{"data":{"a":"b"},"kind":"ConfigMap"}"#);
    })
    .await;
}
