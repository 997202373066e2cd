//! The plugin `hello`: a web server that answers with a message, with its pods on different nodes, behind one
//! Service. Turns its [`Config`] into three objects; the host agent applies them.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, HTTPGetAction, Namespace,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SecurityContext, Service, ServicePort, ServiceSpec,
    TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use plugin_sdk::{Assessment, Description, Diagnostic, Facts, Health, Plan, Plugin};

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
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
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
    #[serde(default)]
    #[schemars(title = "Image", length(min = 1, max = 255))]
    pub image: Option<String>,
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
        }
    }

    fn plan(&self, config: &Config, facts: &Facts) -> Result<Plan, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        if !(1..=10).contains(&config.replicas) {
            let message = format!("{} replicas, expected 1 to 10", config.replicas);
            mistakes.push(Diagnostic::error("/replicas", message, "the default is 2"));
        }
        if config.message.is_empty() || config.message.len() > MESSAGE_LIMIT {
            let message = format!("{} bytes, expected 1 to {MESSAGE_LIMIT}", config.message.len());
            mistakes.push(Diagnostic::error("/message", message, "one short line"));
        }
        if config.image.as_ref().is_some_and(|image| !is_image(image)) {
            let hint = "a name that a node can pull, like registry.k8s.io/e2e-test-images/busybox:1.29-4";
            mistakes.push(Diagnostic::error("/image", "no name of an image", hint));
        }
        let image = config.image.as_ref().or(facts.images.get(IMAGE_ROLE)).filter(|image| !image.is_empty());
        match image {
            Some(image) if mistakes.is_empty() => {
                Ok(Plan::default().object(namespace()).object(deployment(config, image)).object(service()))
            }
            None if config.image.is_none() => {
                let message = "the cluster's bundle brings no image for it";
                let hint = "name one with busybox in it that the nodes can pull: \
                            --set image=registry.k8s.io/e2e-test-images/busybox:1.29-4";
                mistakes.push(Diagnostic::error("/image", message, hint));
                Err(mistakes)
            }
            _ => Err(mistakes),
        }
    }

    fn assess(&self, config: &Config, _: &Facts, objects: &[serde_json::Value]) -> Assessment {
        let available = objects
            .iter()
            .find(|object| object["kind"] == "Deployment")
            .and_then(|deployment| deployment["status"]["availableReplicas"].as_i64())
            .unwrap_or_default();
        let message = format!("{available} of {} pods available", config.replicas);
        let health = match available {
            0 => Health::Degraded,
            n if n < i64::from(config.replicas) => Health::Progressing,
            _ => Health::Ready,
        };
        Assessment { health, message }
    }
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

fn deployment(config: &Config, image: &str) -> Deployment {
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
        containers: vec![container(config, image)],
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
            replicas: Some(config.replicas),
            selector,
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
                spec: Some(pod),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

/// busybox's httpd over a page that the shell writes first. The message is the shell's `$1`, so no quoting of it
/// can ever become a command.
fn container(config: &Config, image: &str) -> Container {
    let script =
        format!("printf '%s\\n' \"$1\" >{WWW}/index.html && exec /bin/busybox httpd -f -p {PORT} -h {WWW}");
    // Kubernetes expands $(NAME) in args; $$ keeps a message that holds one as it is.
    let message = config.message.replace('$', "$$");
    Container {
        name: NAME.to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(["/bin/busybox", "sh", "-c"].map(str::to_owned).to_vec()),
        args: Some(vec![script, NAME.to_owned(), message]),
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
