//! The plugin `hello`: a web server that answers with a message, with its pods on different nodes, behind one
//! Service. Turns its [`Config`] into three objects; the host agent applies them. [`Next`] is its next version, for whoever
//! tries an upgrade: the same objects, of a config with other names.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, Namespace,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SecurityContext, Service, ServicePort, ServiceSpec,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plugin_sdk::{Assessment, Context, Description, Diagnostic, Health, Plan, Plugin, nothing_older};
use serde_json::Value;

mod next;

pub use next::{Colour, Next, NextConfig};

/// Namespace and name of everything.
const NAME: &str = "hello";
/// The key of the image in the cluster facts.
const IMAGE_ROLE: &str = "workload";
const PORT: i32 = 8080;
/// Where the page lies, on a volume that any user may write.
const WWW: &str = "/www";
/// Longest message, in bytes.
const MESSAGE_LIMIT: usize = 200;
/// Longest name of an image, in bytes.
const IMAGE_LIMIT: usize = 255;

/// What the user may set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "hello")]
pub struct Config {
    /// Number of pods, spread over the nodes.
    #[serde(default = "default_replicas")]
    #[schemars(title = "Replicas", range(min = 1, max = 10))]
    pub replicas: i32,
    /// The text of the page.
    #[serde(default = "default_message")]
    #[schemars(title = "Message", length(min = 1, max = 200))]
    pub message: String,
    /// The image of the pods, with busybox and its web server at /bin/busybox. Left out: the bundle's workload image,
    /// which only trial bundles have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "Image", length(min = 1, max = 255))]
    pub image: Option<String>,
    /// When nodes pull the image.
    #[serde(default)]
    #[schemars(title = "Pull")]
    pub pull: Pull,
}

/// When nodes pull an image.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
pub enum Pull {
    /// Never: it is on every node.
    Never,
    /// Once.
    #[default]
    IfNotPresent,
    /// At each start of a pod.
    Always,
}

impl Pull {
    /// As Kubernetes names it.
    fn policy(self) -> &'static str {
        match self {
            Self::Never => "Never",
            Self::IfNotPresent => "IfNotPresent",
            Self::Always => "Always",
        }
    }
}

fn default_replicas() -> i32 {
    2
}

fn default_message() -> String {
    "hello from k8sctl".to_owned()
}

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct Hello;

impl Plugin for Hello {
    type Config = Config;

    fn describe(&self) -> Description {
        Description {
            name: NAME,
            version: env!("CARGO_PKG_VERSION"),
            summary: "A web page that says hello, with a pod on each worker",
            config_version: 1,
        }
    }

    fn plan(&self, config: &Config, context: &Context) -> Result<Plan, Vec<Diagnostic>> {
        let script = format!(
            "printf '%s\\n' \"$1\" >{WWW}/index.html && exec /bin/busybox httpd -f -p {PORT} -h {WWW}"
        );
        let Config { replicas, message, image, pull } = config;
        let asked =
            Asked { replicas: *replicas, message, at: "/message", image: image.as_deref(), pull: *pull };
        asked.plan(context, vec![script, NAME.to_owned(), literal(message)], BTreeMap::new())
    }

    fn assess(&self, config: &Config, _: &Context, objects: &[Value]) -> Assessment {
        judge(config.replicas, objects)
    }

    fn migrate(&self, from: u32, _: Value) -> Result<Value, Vec<Diagnostic>> {
        Err(nothing_older(from))
    }
}

/// What both versions ask for.
struct Asked<'a> {
    replicas: i32,
    message: &'a str,
    /// Where the message is in the config.
    at: &'static str,
    image: Option<&'a str>,
    pull: Pull,
}

impl Asked<'_> {
    fn mistakes(&self) -> Vec<Diagnostic> {
        let mut mistakes = Vec::new();
        if !(1..=10).contains(&self.replicas) {
            let message = format!("{} replicas, expected 1 to 10", self.replicas);
            mistakes.push(Diagnostic::error("/replicas", message, "the default is 2"));
        }
        if self.message.is_empty() || self.message.len() > MESSAGE_LIMIT {
            let message = format!("{} bytes, expected 1 to {MESSAGE_LIMIT}", self.message.len());
            mistakes.push(Diagnostic::error(self.at, message, "one short line"));
        }
        if self.image.is_some_and(|image| !is_image(image)) {
            let hint = "a name that a node can pull, like registry.k8s.io/e2e-test-images/busybox:1.29-4";
            mistakes.push(Diagnostic::error("/image", "no name of an image", hint));
        }
        mistakes
    }

    /// The shell's arguments say what the pods do; annotations, that they are others than before.
    fn plan(
        &self,
        context: &Context,
        args: Vec<String>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Plan, Vec<Diagnostic>> {
        let mut mistakes = self.mistakes();
        let of_bundle = context.facts.images.get(IMAGE_ROLE).map(String::as_str);
        match self.image.or(of_bundle).filter(|image| !image.is_empty()) {
            Some(image) if mistakes.is_empty() => {
                let container = container(args, image, self.pull);
                let deployment = deployment(self.replicas, container, annotations);
                Ok(Plan::default().object(namespace()).object(deployment).object(service()))
            }
            None if self.image.is_none() => {
                let message = "the cluster's bundle brings no image for it";
                let hint = "name one with busybox in it that the nodes can pull: \
                            --set image=registry.k8s.io/e2e-test-images/busybox:1.29-4";
                mistakes.push(Diagnostic::error("/image", message, hint));
                Err(mistakes)
            }
            _ => Err(mistakes),
        }
    }
}

fn judge(replicas: i32, objects: &[Value]) -> Assessment {
    let available = objects
        .iter()
        .find(|object| object["kind"] == "Deployment")
        .and_then(|deployment| deployment["status"]["availableReplicas"].as_i64())
        .unwrap_or_default();
    let message = format!("{available} of {replicas} pods available");
    let health = match available {
        0 => Health::Degraded,
        n if n < i64::from(replicas) => Health::Progressing,
        _ => Health::Ready,
    };
    Assessment::new(health, message).output("url", format!("http://{NAME}.{NAME}.svc"))
}

/// Kubernetes expands $(NAME) in args; $$ keeps a text that holds one as it is.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// What a name of an image is made of; whether it is one, the node finds out.
fn is_image(name: &str) -> bool {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    (1..=IMAGE_LIMIT).contains(&name.len()) && name.bytes().all(part)
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app.kubernetes.io/name".to_owned(), NAME.to_owned())])
}

fn metadata() -> ObjectMeta {
    ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(NAME.to_owned()),
        labels: Some(labels()),
        ..ObjectMeta::default()
    }
}

fn namespace() -> Namespace {
    Namespace { metadata: ObjectMeta { namespace: None, ..metadata() }, ..Namespace::default() }
}

fn deployment(replicas: i32, container: Container, annotations: BTreeMap<String, String>) -> Deployment {
    let selector = LabelSelector { match_labels: Some(labels()), ..LabelSelector::default() };
    let spread = TopologySpreadConstraint {
        label_selector: Some(selector.clone()),
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    };
    let pod = PodSpec {
        automount_service_account_token: Some(false),
        containers: vec![container],
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(65534),
            ..PodSecurityContext::default()
        }),
        termination_grace_period_seconds: Some(5),
        topology_spread_constraints: Some(vec![spread]),
        volumes: Some(vec![Volume {
            name: "www".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    };
    Deployment {
        metadata: metadata(),
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    annotations: (!annotations.is_empty()).then_some(annotations),
                    labels: Some(labels()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// busybox's httpd over a page that the shell writes first. What the user writes is an argument of the shell, `$1`, so no
/// quoting of it can ever become a command.
fn container(args: Vec<String>, image: &str, pull: Pull) -> Container {
    Container {
        name: NAME.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some(pull.policy().to_owned()),
        command: Some(["/bin/busybox", "sh", "-c"].map(str::to_owned).to_vec()),
        args: Some(args),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: PORT,
            // Server-side apply keys ports by number and protocol; API servers before 1.21 insist on both.
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/".to_owned()),
                port: IntOrString::Int(PORT),
                ..HTTPGetAction::default()
            }),
            period_seconds: Some(2),
            ..Probe::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: "www".to_owned(),
            mount_path: WWW.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn service() -> Service {
    Service {
        metadata: metadata(),
        spec: Some(ServiceSpec {
            selector: Some(labels()),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                port: 80,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            type_: Some("ClusterIP".to_owned()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
