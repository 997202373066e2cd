//! The plugin `metallb`: the manifest of the MetalLB project, with one pool and its announcement on the nodes' network.
//!
//! - [`Config`]: what the user may set
//! - `pool`: the addresses, and everybody who has one of them already
//! - `manifest`: the project's manifest and what is changed in it

use plugin_sdk::{
    Assessment, Context, Description, Diagnostic, Health, Plan, Plugin, assess_workloads, nothing_older,
};
use serde_json::{Value, json};

mod manifest;
mod pool;
mod range;

/// Namespace of everything.
const NAMESPACE: &str = "metallb-system";
/// Name of the pool and of its announcement.
const POOL: &str = "default";
/// Of MetalLB's own kinds.
const API: &str = "metallb.io/v1beta1";
/// Longest name of a network interface, in bytes: as Linux has it.
const INTERFACE_LIMIT: usize = 15;

/// What the user may set.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "metallb")]
pub struct Config {
    /// Addresses that Services get: FIRST-LAST, or a network. Left out: the cluster file's network.load_balancer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "Addresses", length(min = 1, max = 16), inner(length(min = 9, max = 31)))]
    pub addresses: Option<Vec<String>>,
    /// Network interface of the nodes on which they are announced. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "Interface", length(min = 1, max = 15))]
    pub interface: Option<String>,
    /// Whether a Service gets an address that asks for none in particular.
    #[serde(default = "yes")]
    #[schemars(title = "Auto assign")]
    pub auto_assign: bool,
    /// Whether addresses that end with .0 and .255 are kept back, which old devices take for something else.
    #[serde(default = "yes")]
    #[schemars(title = "Avoid buggy IPs")]
    pub avoid_buggy_ips: bool,
    /// What its pods log.
    #[serde(default)]
    #[schemars(title = "Log level")]
    pub log_level: LogLevel,
}

fn yes() -> bool {
    true
}

/// What pods log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What changes.
    #[default]
    Info,
    /// What is not as usual.
    Warn,
    /// What went wrong.
    Error,
}

impl LogLevel {
    /// As its programs name it.
    fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The plugin.
#[derive(Clone, Copy, Debug)]
pub struct MetalLb;

impl Plugin for MetalLb {
    type Config = Config;

    fn describe(&self) -> Description {
        Description {
            name: "metallb",
            version: env!("CARGO_PKG_VERSION"),
            summary: "Addresses for Services of type LoadBalancer, announced on the nodes' network",
            config_version: 1,
        }
    }

    fn plan(&self, config: &Config, context: &Context) -> Result<Plan, Vec<Diagnostic>> {
        let mut mistakes = Vec::new();
        let is_name = |name: &String| {
            (1..=INTERFACE_LIMIT).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
        };
        if let Some(interface) = config.interface.as_ref().filter(|interface| !is_name(interface)) {
            let message = format!("{interface:?} is no name of a network interface");
            mistakes.push(Diagnostic::error("/interface", message, "as `ip link` lists them, like eth0"));
        }
        let (addresses, remarks) = match pool::pool(config.addresses.as_deref(), &context.facts) {
            Ok(pool) if mistakes.is_empty() => pool,
            Ok(_) => return Err(mistakes),
            Err(of_pool) => {
                mistakes.extend(of_pool);
                return Err(mistakes);
            }
        };
        let plan = Plan::default()
            .object(manifest::namespace())
            .object(pool_object(config, &addresses))
            .object(announcement(config))
            .remote(manifest::remote(config.log_level, context.kubernetes()))
            .ready_when_there(API, "IPAddressPool")
            .ready_when_there(API, "L2Advertisement");
        Ok(remarks.into_iter().fold(plan, Plan::warn))
    }

    fn assess(&self, config: &Config, context: &Context, objects: &[Value]) -> Assessment {
        let workloads = judge(context, objects);
        let addresses = pool::pool(config.addresses.as_deref(), &context.facts).unwrap_or_default().0;
        workloads.output("pool", POOL).output("addresses", addresses.join(","))
    }

    fn migrate(&self, from: u32, _: Value) -> Result<Value, Vec<Diagnostic>> {
        Err(nothing_older(from))
    }
}

/// The controller gives addresses, and a speaker on each node answers for them.
fn judge(context: &Context, objects: &[Value]) -> Assessment {
    let find = |kind: &str, name: &str| {
        objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    };
    let (Some(_), Some(speakers)) = (find("Deployment", "controller"), find("DaemonSet", "speaker")) else {
        return Assessment::new(Health::Progressing, "controller and speakers are not both there");
    };
    let assessment = assess_workloads(objects);
    let wanted = speakers["status"]["desiredNumberScheduled"].as_u64().unwrap_or_default();
    let nodes = u64::try_from(context.facts.nodes.len()).unwrap_or(u64::MAX);
    if assessment.health == Health::Ready && wanted < nodes {
        let message =
            format!("speakers are meant to run on {wanted} of {nodes} nodes: others announce nothing");
        return Assessment::new(Health::Degraded, message);
    }
    assessment
}

fn pool_object(config: &Config, addresses: &[String]) -> Value {
    json!({
        "apiVersion": API,
        "kind": "IPAddressPool",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": {
            "addresses": addresses,
            "autoAssign": config.auto_assign,
            "avoidBuggyIPs": config.avoid_buggy_ips,
        },
    })
}

fn announcement(config: &Config) -> Value {
    let mut spec = json!({"ipAddressPools": [POOL]});
    if let Some(interface) = &config.interface {
        spec["interfaces"] = json!([interface]);
    }
    json!({
        "apiVersion": API,
        "kind": "L2Advertisement",
        "metadata": {"name": POOL, "namespace": NAMESPACE},
        "spec": spec,
    })
}
