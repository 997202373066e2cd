//! Checked plans out of plain objects. They go through the one door like any other, with a manifest that asks for exactly
//! what they hold: so they have the stages and digests that real ones have.

use std::collections::{BTreeMap, BTreeSet};

use k8sctl_types::failure::Failure;
use plugin_package::Manifest;
use plugin_plan::{
    CheckContext, CheckedPlan, Handling, ReadinessRule, ReadyWhen, RemoteManifest, SecretRef,
    UncheckedObject, UncheckedPlan, check_plan, hash, remote,
};
use serde_json::{Value, json};

/// A plan in the making.
#[derive(Clone, Default)]
pub struct Plan {
    plugin: String,
    plan: UncheckedPlan,
    bodies: BTreeMap<String, Vec<u8>>,
    secrets: BTreeSet<SecretRef>,
}

pub fn plan(plugin: &str) -> Plan {
    Plan { plugin: plugin.to_owned(), ..Plan::default() }
}

impl Plan {
    pub fn object(self, object: Value) -> Self {
        self.with(object, Handling::default())
    }

    pub fn objects(self, objects: impl IntoIterator<Item = Value>) -> Self {
        objects.into_iter().fold(self, Self::object)
    }

    pub fn with(mut self, object: Value, handling: Handling) -> Self {
        self.plan.objects.push(UncheckedObject { object, handling });
        self
    }

    /// Objects of this kind are ready when they are there.
    pub fn ready_when_there(mut self, api_version: &str, kind: &str) -> Self {
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        self.plan.readiness.push(ReadinessRule { api_version, kind, is: ReadyWhen::Exists });
        self
    }

    /// The config names this secret.
    pub fn secret(mut self, secret: &SecretRef) -> Self {
        self.secrets.insert(secret.clone());
        self
    }

    /// A manifest of upstream's and its body.
    pub fn remote(mut self, remote: RemoteManifest, body: &[u8]) -> Self {
        self.bodies.insert(remote.sha256.clone(), body.to_vec());
        self.plan.remotes.push(remote);
        self
    }

    /// All objects, those of manifests included.
    fn all(&self) -> Vec<Value> {
        let mut all: Vec<Value> = self.plan.objects.iter().map(|one| one.object.clone()).collect();
        for one in &self.plan.remotes {
            let objects = remote::objects_of(one, &self.bodies[&one.sha256], &[]);
            all.extend(objects.unwrap_or_else(|why| panic!("{}: {why}", one.url)));
        }
        all
    }

    /// Through the check, which must take it.
    pub fn checked(self) -> CheckedPlan {
        self.check().unwrap_or_else(|failure| panic!("{failure}\n{}", failure.evidence))
    }

    /// What the check says.
    pub fn check(self) -> Result<CheckedPlan, Failure> {
        let manifest = manifest_of(&self.plugin, &self.all(), &self.plan.remotes);
        let context = CheckContext {
            manifest: &manifest,
            fetched: &self.bodies,
            without_bodies: false,
            secrets: &self.secrets,
            accounts: &BTreeSet::new(),
        };
        check_plan(self.plan, &context)
    }
}

/// A manifest that asks for all that these objects are and hand on.
pub fn manifest_of(plugin: &str, objects: &[Value], remotes: &[RemoteManifest]) -> Manifest {
    let mut asks = Asks::default();
    objects.iter().for_each(|object| asks.take(object));
    let remotes: Vec<Value> = remotes
        .iter()
        .filter_map(|remote| {
            Some(json!({"prefix": format!("{}/", remote.url.rsplit_once('/')?.0), "why": "a test"}))
        })
        .collect();
    let all = ["*"];
    let grants = [
        json!({"groups": all, "resources": all, "verbs": all, "why": "a test"}),
        json!({"urls": all, "verbs": all, "why": "a test"}),
    ];
    let bind =
        |(role, subject): &(String, String)| json!({"role": role, "subject": subject, "why": "a test"});
    let binds: Vec<Value> = asks.binds.iter().map(bind).collect();
    let description = json!({
        "format": 1, "name": plugin, "version": "1.0.0", "summary": "A plan of a test", "protocol": [1],
        "privileged_pods": true,
        "program": {"name": plugin},
        "permission": asks.permissions,
        "grant": grants,
        "bind": binds,
        "aggregate": [{"to": ["view", "edit", "admin"], "why": "a test"}],
        "webhook": asks.webhooks,
        "remote": remotes,
    });
    let text = toml::to_string(&description).expect("TOML");
    Manifest::parse(&text).unwrap_or_else(|mistakes| panic!("{}\n{text}", mistakes.join("\n")))
}

#[derive(Default)]
struct Asks {
    permissions: Vec<Value>,
    binds: BTreeSet<(String, String)>,
    webhooks: Vec<Value>,
}

impl Asks {
    fn take(&mut self, object: &Value) {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("/apiVersion"), text("/kind"));
        let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
        let group = version.rsplit_once('/').map(|(group, _)| group).unwrap_or_default();
        let namespaces: Vec<&str> = if namespace.is_empty() { Vec::new() } else { vec![namespace.as_str()] };
        self.permissions.push(json!({
            "group": group, "kind": kind, "namespaces": namespaces, "names": [name],
            "verbs": ["get", "create", "patch", "delete"], "why": "a test",
        }));
        let role = format!("{} {}", text("/roleRef/kind"), text("/roleRef/name"));
        for subject in object["subjects"].as_array().into_iter().flatten() {
            let of = |field: &str| subject[field].as_str().unwrap_or_default();
            let place = if of("namespace").is_empty() { namespace.as_str() } else { of("namespace") };
            let subject = match of("kind") {
                "ServiceAccount" => format!("ServiceAccount {place}/{}", of("name")),
                kind => format!("{kind} {}", of("name")),
            };
            self.binds.insert((role.clone(), subject));
        }
        for webhook in object["webhooks"].as_array().into_iter().flatten() {
            for rule in webhook["rules"].as_array().into_iter().flatten() {
                let kind = if kind.starts_with("Mutating") { "mutating" } else { "validating" };
                self.webhooks.push(json!({
                    "kind": kind, "groups": rule["apiGroups"], "resources": rule["resources"], "why": "a test",
                }));
            }
        }
    }
}

/// A manifest that is served under this URL.
pub fn remote(url: &str, body: &[u8], objects: u32) -> RemoteManifest {
    RemoteManifest {
        url: url.to_owned(),
        sha256: hash::sha256_hex(body),
        max_bytes: 16 << 20,
        objects,
        ..RemoteManifest::default()
    }
}

pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

pub fn config_map(namespace: &str, name: &str, value: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name},
        "data": {"key": value},
    })
}

pub fn account(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}})
}

pub fn service(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80}]},
    })
}

fn pods(name: &str, image: &str) -> Value {
    json!({
        "metadata": {"labels": {"app": name}},
        "spec": {"containers": [{"name": name, "image": image, "ports": [{"containerPort": 80}]}]},
    })
}

pub fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": pods(name, "lab.k8s-myhome/busybox:1"),
        },
    })
}

pub fn daemon_set(namespace: &str, name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}}, "template": pods(name, "lab.k8s-myhome/busybox:1"),
        },
    })
}

pub fn stateful_set(namespace: &str, name: &str, storage: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "replicas": 1, "serviceName": name, "selector": {"matchLabels": {"app": name}},
            "template": pods(name, "lab.k8s-myhome/busybox:1"),
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": storage}}},
            }],
        },
    })
}

pub fn job(namespace: &str, name: &str, image: &str) -> Value {
    let mut template = pods(name, image);
    template["spec"]["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": namespace, "name": name},
        "spec": {"template": template},
    })
}

pub fn secret(namespace: &str, name: &str, data: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": name},
        "type": "Opaque", "stringData": data,
    })
}

pub fn claim(namespace: &str, name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": namespace, "name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    })
}

/// A kind of a group, with one version and one field, `spec.size`.
pub fn definition(group: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer"},
    }}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {
                "kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List"),
            },
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

pub fn custom(group: &str, kind: &str, namespace: &str, name: &str, size: i64) -> Value {
    json!({
        "apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"namespace": namespace, "name": name},
        "spec": {"size": size},
    })
}
