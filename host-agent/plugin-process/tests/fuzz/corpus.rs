//! Sound inputs to begin with: a plan with an item of each kind, manifests, a `plugin.toml`, an archive.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use k8sctl_proto::plugin::v1::plan_response::Item;
use k8sctl_proto::plugin::v1::{
    Diagnostic, End, FieldIs, GeneratedSecret, Handling, ManifestPatch, NodeRequirement, ObjectSelector,
    PlannedObject, ReadinessRule, RemoteManifest, Sysctl, node_requirement,
};
use plugin_plan::hash::sha256_hex;
use serde_json::json;

/// Longest manifest of upstream that is taken, in bytes: longer ones take longer and are no other.
const MANIFEST_BYTES: u64 = 120_000;

pub const MANIFEST: &str = r#"
format = 1
name = "fuzzed"
version = "0.1.0-rc.1"
summary = "One of everything" # a comment
protocol = [1]
config_version = 2
kubernetes = ">=1.20, <2"
provides = ["fuzz"]
privileged_pods = true

[program]
name = "fuzzed"

[[requires]]
what = "cni"
why = "a pod network"

[[permission]]
group = ""
kind = "ConfigMap"
namespaces = ["fuzz"]
verbs = ["get", "create", "patch", "delete"]
why = "settings"

[[permission]]
group = ""
kind = "Secret"
namespaces = ["fuzz"]
verbs = ["get", "create", "patch", "delete"]
why = "passwords"

[[permission]]
group = "apps"
kind = "Deployment"
namespaces = ["fuzz"]
verbs = ["get", "create", "patch", "delete"]
why = "pods"

[[permission]]
group = "rbac.authorization.k8s.io"
kind = "Role"
namespaces = ["fuzz"]
verbs = ["get", "create", "patch", "delete"]
why = "rights"

[[grant]]
groups = [""]
resources = ["pods"]
verbs = ["get", "list"]
why = "to see"

[[remote]]
prefix = "https://manifests.invalid/"
why = "upstream"

[node]
sysctls = ["vm.max_map_count"]
modules = ["vxlan"]
"#;

pub const YAML: &str = r#"apiVersion: v1
kind: List
items:
- &one
  apiVersion: v1
  kind: ConfigMap
  metadata:
    name: a
    namespace: fuzz
  data: {mode: "0644", text: "a\nb"}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: b, namespace: fuzz}
  data:
    more: |
      yes
      no
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: c
  namespace: fuzz
spec:
  replicas: 2
  template:
    spec:
      containers:
      - name: c
        image: registry.invalid/c:1
        ports: [{containerPort: 80}]
"#;

/// Bodies by their digest, as they were fetched.
pub fn bodies() -> BTreeMap<String, Vec<u8>> {
    [(sha256_hex(YAML.as_bytes()), YAML.as_bytes().to_vec())].into()
}

/// Items of a sound plan, without its end.
pub fn plan() -> Vec<Item> {
    let of = |kind: &str, api: &str, name: &str, key: &str, value: serde_json::Value| {
        let mut object =
            json!({"apiVersion": api, "kind": kind, "metadata": {"name": name, "namespace": "fuzz"}});
        object[key] = value;
        object.to_string()
    };
    let handling =
        Handling { leave: vec!["/spec/replicas".to_owned()], replace: true, ..Handling::default() };
    let object = |json: String| Item::Object(PlannedObject { json, handling: Some(handling.clone()) });
    let secret = json!({"$k8sctl.secret": {"handle": "admin", "key": "password"}});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    let pods = json!({"spec": {
        "containers": [{"name": "c", "image": "registry.invalid/c:1", "securityContext": {"privileged": true}}],
        "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
    }});
    let patch = json!([{"op": "replace", "path": "/data/mode", "value": "0600"}]);
    let target =
        ObjectSelector { kind: "ConfigMap".to_owned(), name: "a".to_owned(), ..ObjectSelector::default() };
    vec![
        object(of("ConfigMap", "v1", "settings", "data", json!({"a": "b"}))),
        object(of("Secret", "v1", "admin", "stringData", json!({"password": secret}))),
        object(of("Role", "rbac.authorization.k8s.io/v1", "see", "rules", rules)),
        object(of("Deployment", "apps/v1", "web", "spec", json!({"replicas": 2, "template": pods}))),
        Item::Remote(RemoteManifest {
            url: "https://manifests.invalid/all.yaml".to_owned(),
            sha256: sha256_hex(YAML.as_bytes()),
            objects: 3,
            exclude: vec![ObjectSelector { name: "b".to_owned(), ..ObjectSelector::default() }],
            patches: vec![ManifestPatch { target: Some(target), operations_json: patch.to_string() }],
            ..RemoteManifest::default()
        }),
        Item::Readiness(ReadinessRule {
            api_version: "fuzz.invalid/v1".to_owned(),
            kind: "Thing".to_owned(),
            field: Some(FieldIs { pointer: "/status/phase".to_owned(), value_json: "\"Bound\"".to_owned() }),
            ..ReadinessRule::default()
        }),
        Item::Node(NodeRequirement {
            what: Some(node_requirement::What::Sysctl(Sysctl {
                key: "vm.max_map_count".to_owned(),
                value: "262144".to_owned(),
            })),
            why: "many maps".to_owned(),
        }),
        Item::Secret(GeneratedSecret {
            handle: "admin".to_owned(),
            key: "password".to_owned(),
            length: 24,
            alphabet: "hex".to_owned(),
        }),
        Item::Diagnostic(Diagnostic {
            path: "/a".to_owned(),
            message: "a remark".to_owned(),
            warning: true,
            code: "FUZZ-1".to_owned(),
            ..Diagnostic::default()
        }),
    ]
}

pub fn end(items: usize) -> Item {
    Item::End(End { items: u32::try_from(items).unwrap_or(u32::MAX) })
}

/// Ours, and what upstream has that is not too long, where that is at hand.
pub fn manifests(workspace: &Path) -> Vec<Vec<u8>> {
    let folder = std::env::var_os("K8S_MYHOME_UPSTREAM")
        .map_or_else(|| workspace.join("../shared/upstream"), PathBuf::from);
    let mut all = vec![YAML.as_bytes().to_vec()];
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "yaml")) {
        if file.metadata().is_ok_and(|data| data.len() <= MANIFEST_BYTES) {
            all.extend(std::fs::read(file));
        }
    }
    println!("fuzz: {} manifests, with those of {}", all.len(), folder.display());
    all
}
