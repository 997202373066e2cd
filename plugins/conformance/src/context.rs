//! What the checks share: the subject, runners that have patience, a cluster that plugins are told of, and plans.

use std::collections::BTreeSet;
use std::time::Duration;

use k8sctl_proto::plugin::v1::NodeFact;
use plugin_plan::{Diagnostic, SecretRef, UncheckedPlan};
use plugin_process::{Ceilings, ClusterFacts, Deadlines, Description, PlanAnswer, PlanAsk, Runner, schema};
use serde_json::{Value, json};

use crate::{Effort, Subject};

/// A name of a secret that the host has and no config asks for.
pub(crate) const CANARY: &str = "conformance-canary";

pub(crate) struct Context {
    pub(crate) subject: Subject,
    pub(crate) effort: Effort,
    pub(crate) runner: Runner,
    description: Result<Description, String>,
}

/// A plan and what it was made of.
pub(crate) struct Planned {
    pub(crate) config: Value,
    pub(crate) plan: UncheckedPlan,
    pub(crate) effective_config: Option<Value>,
}

/// For conversations with thousands of questions.
pub(crate) fn patient() -> Deadlines {
    Deadlines { conversation: Duration::from_secs(900), ..Deadlines::default() }
}

impl Context {
    pub(crate) async fn new(subject: &Subject, effort: Effort) -> Self {
        let runner = Runner::new(patient(), Ceilings::default());
        let described = runner.describe(&subject.package).await;
        let description = described.map(|run| run.answer).map_err(|error| error.to_string());
        Self { subject: subject.clone(), effort, runner, description }
    }

    /// What the plugin says of itself; the error is what a check that needs it says.
    pub(crate) fn description(&self) -> Result<&Description, Vec<String>> {
        self.description.as_ref().map_err(|why| vec![why.clone()])
    }

    /// The configs with which it is planned: fixtures, or none at all.
    pub(crate) fn configs(&self) -> Vec<Value> {
        if self.subject.valid.is_empty() { vec![json!({})] } else { self.subject.valid.clone() }
    }

    pub(crate) fn ask(&self, config: &Value) -> PlanAsk {
        let mut secrets: Vec<SecretRef> = self.secrets_in(config).into_iter().collect();
        secrets.push(SecretRef { handle: CANARY.to_owned(), key: "value".to_owned() });
        PlanAsk { config_json: config.to_string(), facts: facts(), dependencies: Vec::new(), secrets }
    }

    /// Secrets that a config names.
    pub(crate) fn secrets_in(&self, config: &Value) -> BTreeSet<SecretRef> {
        let of = |description: &Description| schema::secrets_in(&description.config_schema, config);
        self.description.as_ref().map(of).unwrap_or_default()
    }

    /// In a process of its own.
    pub(crate) async fn answer(&self, config: &Value) -> Result<PlanAnswer, String> {
        let run = self.runner.plan(&self.subject.package, &self.ask(config)).await;
        run.map(|run| run.answer).map_err(|error| format!("with the config {}: {error}", shortly(config)))
    }

    pub(crate) async fn plan(&self, config: &Value) -> Result<Planned, String> {
        match self.answer(config).await? {
            PlanAnswer::Plan { plan, effective_config, .. } => {
                let effective_config = effective_config.and_then(|text| serde_json::from_str(&text).ok());
                Ok(Planned { config: config.clone(), plan, effective_config })
            }
            PlanAnswer::Mistakes(mistakes) => {
                let hint = if self.subject.valid.is_empty() {
                    "; put one that is whole into tests/valid"
                } else {
                    ""
                };
                Err(format!("the config {} has mistakes: {}{hint}", shortly(config), said(&mistakes)))
            }
        }
    }

    /// Plans of all configs, and what went wrong with the others.
    pub(crate) async fn plans(&self) -> (Vec<Planned>, Vec<String>) {
        let (mut plans, mut wrong) = (Vec::new(), Vec::new());
        for config in self.configs() {
            match self.plan(&config).await {
                Ok(planned) => plans.push(planned),
                Err(why) => wrong.push(why),
            }
        }
        (plans, wrong)
    }
}

/// What mistakes say.
pub(crate) fn said(mistakes: &[Diagnostic]) -> String {
    let one = |mistake: &Diagnostic| format!("{:?}: {}", mistake.path, mistake.message);
    mistakes.iter().filter(|mistake| !mistake.warning).map(one).collect::<Vec<_>>().join("; ")
}

/// A value that fits onto a line.
pub(crate) fn shortly(value: &Value) -> String {
    const MOST: usize = 300;
    let text = value.to_string();
    if text.chars().count() <= MOST { text } else { text.chars().take(MOST).chain(['…']).collect() }
}

/// A cluster as they are at home: three nodes, a pool beside DHCP.
pub(crate) fn facts() -> ClusterFacts {
    let node = |name: &str, role: &str, ip: &str| NodeFact {
        name: name.to_owned(),
        role: role.to_owned(),
        ip: ip.to_owned(),
        arch: "amd64".to_owned(),
        labels: [("kubernetes.io/hostname".to_owned(), name.to_owned())].into(),
    };
    let nodes = vec![
        node("k8s-control-plane-1", "control-plane", "192.168.122.10"),
        node("k8s-worker-1", "worker", "192.168.122.11"),
        node("k8s-worker-2", "worker", "192.168.122.12"),
    ];
    ClusterFacts {
        cluster_name: "conformance".to_owned(),
        kubernetes_version: "v1.33.1".to_owned(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/12".to_owned(),
        node_cidr: "192.168.122.0/24".to_owned(),
        node_names: nodes.iter().map(|node| node.name.clone()).collect(),
        load_balancer_first: "192.168.122.100".to_owned(),
        load_balancer_last: "192.168.122.150".to_owned(),
        images: [("workload".to_owned(), "registry.invalid/workload:1".to_owned())].into(),
        nodes,
        dhcp_first: "192.168.122.20".to_owned(),
        dhcp_last: "192.168.122.90".to_owned(),
        gateway: "192.168.122.1".to_owned(),
        cluster_dns: "10.96.0.10".to_owned(),
        has_dns: true,
        api_endpoint: "192.168.122.10:6443".to_owned(),
    }
}
