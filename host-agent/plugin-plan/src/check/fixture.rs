//! A small plugin with one namespace, and plans of it that read like sentences.

use std::collections::{BTreeMap, BTreeSet};

use plugin_package::Manifest;
use serde_json::{Value, json};

use super::{CheckContext, check_plan};
use crate::checked::CheckedPlan;
use crate::hash::sha256_hex;
use crate::unchecked::{
    Alphabet, GeneratedSecret, Handling, NodeRequirement, NodeWant, ReadinessRule, ReadyWhen, RemoteManifest,
    SecretRef, UncheckedObject, UncheckedPlan,
};

const MANIFEST: &str = r#"
format = 1
name = "shop"
version = "1.0.0"
summary = "A shop"
protocol = [1]
[program]
name = "shop"
[[remote]]
prefix = "https://shop.example/manifests/"
"#;

/// Kinds of the shop's own namespace that it may have.
const NAMESPACED: [(&str, &str); 12] = [
    ("", "ConfigMap"),
    ("", "PersistentVolumeClaim"),
    ("", "Pod"),
    ("", "PodTemplate"),
    ("", "Secret"),
    ("", "Service"),
    ("", "ServiceAccount"),
    ("apps", "Deployment"),
    ("networking.k8s.io", "Ingress"),
    ("rbac.authorization.k8s.io", "Role"),
    ("rbac.authorization.k8s.io", "RoleBinding"),
    ("shop.example", "Till"),
];

/// And of the whole cluster, all of them called `shop` but definitions and parts of the API.
const CLUSTER: [(&str, &str, &str); 12] = [
    ("", "Namespace", "shop"),
    ("", "PersistentVolume", "shop"),
    ("admissionregistration.k8s.io", "MutatingAdmissionPolicy", "shop"),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration", "shop"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", "shop"),
    ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding", "shop"),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", "shop"),
    ("apiextensions.k8s.io", "CustomResourceDefinition", "tills.shop.example"),
    ("apiregistration.k8s.io", "APIService", "v1.shop"),
    ("rbac.authorization.k8s.io", "ClusterRole", "shop"),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding", "shop"),
    ("storage.k8s.io", "StorageClass", "shop"),
];

/// A plan and all that it is held against.
#[derive(Clone, Debug)]
pub(super) struct Fixture {
    text: String,
    pub(super) plan: UncheckedPlan,
    pub(super) fetched: BTreeMap<String, Vec<u8>>,
    pub(super) secrets: BTreeSet<SecretRef>,
    pub(super) accounts: BTreeSet<(String, String)>,
    pub(super) without_bodies: bool,
}

impl Fixture {
    /// The shop, with nothing in its plan.
    pub(super) fn shop() -> Self {
        let mut text = MANIFEST.to_owned();
        let verbs = "verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n";
        for (group, kind) in NAMESPACED {
            text += &format!(
                "[[permission]]\ngroup = \"{group}\"\nkind = \"{kind}\"\nnamespaces = [\"shop\"]\n{verbs}"
            );
        }
        for (group, kind, name) in CLUSTER {
            text += &format!(
                "[[permission]]\ngroup = \"{group}\"\nkind = \"{kind}\"\nnames = [\"{name}\"]\n{verbs}"
            );
        }
        Self {
            text,
            plan: UncheckedPlan::default(),
            fetched: BTreeMap::new(),
            secrets: BTreeSet::new(),
            accounts: BTreeSet::new(),
            without_bodies: false,
        }
    }

    /// With more of what a plugin may ask for.
    pub(super) fn asking(mut self, toml: &str) -> Self {
        self.text += toml;
        self.text += "\n";
        self
    }

    /// Its pods may reach into the node.
    pub(super) fn privileged(mut self) -> Self {
        self.text = self.text.replacen("protocol = [1]", "protocol = [1]\nprivileged_pods = true", 1);
        self
    }

    pub(super) fn manifest(&self) -> Manifest {
        Manifest::parse(&self.text)
            .unwrap_or_else(|mistakes| panic!("{}\n{}", self.text, mistakes.join("\n")))
    }

    pub(super) fn object(self, object: Value) -> Self {
        self.object_with(object, Handling::default())
    }

    pub(super) fn object_with(mut self, object: Value, handling: Handling) -> Self {
        self.plan.objects.push(UncheckedObject { object, handling });
        self
    }

    pub(super) fn account(self, name: &str) -> Self {
        self.object(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "shop"}}))
    }

    pub(super) fn role(self, name: &str, rules: Value) -> Self {
        self.object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": name, "namespace": "shop"}, "rules": rules}))
    }

    pub(super) fn cluster_role(self, rules: Value) -> Self {
        self.object(json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "shop"}, "rules": rules}))
    }

    /// `role` as in `ClusterRole shop`, subjects as the API has them.
    pub(super) fn binding(self, role: &str, subjects: Value) -> Self {
        self.object(binding("RoleBinding", json!({"name": "shop", "namespace": "shop"}), role, subjects))
    }

    pub(super) fn cluster_binding(self, role: &str, subjects: Value) -> Self {
        self.object(binding("ClusterRoleBinding", json!({"name": "shop"}), role, subjects))
    }

    pub(super) fn deployment(self, pod: Value) -> Self {
        self.object(deployment(pod))
    }

    pub(super) fn service(self, name: &str) -> Self {
        self.object(
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"ports": [{"port": 443}]}}),
        )
    }

    pub(super) fn secret(self, data: Value) -> Self {
        self.object(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys", "namespace": "shop"},
            "stringData": data}),
        )
    }

    /// A Till, and that being there is enough for one.
    pub(super) fn till(self, spec: Value) -> Self {
        self.object(json!({"apiVersion": "shop.example/v1", "kind": "Till", "metadata": {"name": "first", "namespace": "shop"},
            "spec": spec}))
            .ready("shop.example/v1", "Till", ReadyWhen::Exists)
    }

    pub(super) fn ready(mut self, api_version: &str, kind: &str, is: ReadyWhen) -> Self {
        self.plan.readiness.push(ReadinessRule {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            is,
        });
        self
    }

    pub(super) fn node(mut self, what: NodeWant) -> Self {
        self.plan.node.push(NodeRequirement { what, why: "it needs that".to_owned() });
        self
    }

    pub(super) fn generated(mut self, handle: &str, key: &str, length: u32) -> Self {
        let (handle, key) = (handle.to_owned(), key.to_owned());
        self.plan.secrets.push(GeneratedSecret { handle, key, length, alphabet: Alphabet::default() });
        self
    }

    /// A manifest that was fetched.
    pub(super) fn manifest_of(self, body: &str) -> Self {
        self.manifest_with(body, |_| {})
    }

    pub(super) fn manifest_with(mut self, body: &str, change: impl FnOnce(&mut RemoteManifest)) -> Self {
        let mut remote = RemoteManifest {
            url: "https://shop.example/manifests/v1.yaml".to_owned(),
            sha256: sha256_hex(body.as_bytes()),
            namespace: "shop".to_owned(),
            ..RemoteManifest::default()
        };
        self.fetched.insert(remote.sha256.clone(), body.as_bytes().to_vec());
        change(&mut remote);
        self.plan.remotes.push(remote);
        self
    }

    fn check(&self) -> Result<CheckedPlan, k8sctl_types::failure::Failure> {
        let context = CheckContext {
            manifest: &self.manifest(),
            fetched: &self.fetched,
            without_bodies: self.without_bodies,
            secrets: &self.secrets,
            accounts: &self.accounts,
        };
        check_plan(self.plan.clone(), &context)
    }

    /// The plan, which is fine.
    pub(super) fn checked(&self) -> CheckedPlan {
        self.check().unwrap_or_else(|failure| panic!("{failure}\n{}", failure.evidence))
    }

    /// Why it is refused: id, colon, all lines.
    pub(super) fn refusal(&self) -> String {
        let failure = self.check().map(|plan| plan.keys()).expect_err("a plan that must not pass");
        format!("{}: {}", failure.id, failure.evidence)
    }

    /// That it is refused for one reason, which has this in it.
    pub(super) fn is_refused_for(&self, why: &str) {
        let said = self.refusal();
        assert!(said.contains(why) && said.lines().count() == 1, "expected only {why:?}: {said}");
    }
}

pub(super) fn deployment(pod: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "shop", "namespace": "shop"},
        "spec": {"template": {"spec": pod}}})
}

pub(super) fn own(name: &str) -> Value {
    json!([{"kind": "ServiceAccount", "name": name, "namespace": "shop"}])
}

fn binding(kind: &str, metadata: Value, role: &str, subjects: Value) -> Value {
    let (role_kind, name) = role.split_once(' ').expect("a kind and a name");
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": name}, "subjects": subjects})
}
