//! The manifest of the MetalLB project, by URL and digest, and what is changed in it.

use plugin_sdk::Remote;
use serde_json::{Value, json};

use crate::{LogLevel, NAMESPACE};

const URL: &str =
    "https://raw.githubusercontent.com/metallb/metallb/v0.16.1/config/manifests/metallb-native.yaml";
const SHA256: &str = "bf25feebb7582ca7df845efd52ffbc2960d6cbf4cfc972f47fded9f788b67f0b";
/// Objects in it.
const OBJECTS: u32 = 26;

/// The first Kubernetes that checks the rules of definitions by itself. Older ones do not know the field.
const RULES_SINCE: (u32, u32) = (1, 25);
/// Rules in definitions: which one, which of its versions, and what they are about.
const RULES: [(&str, u32, &str); 9] = [
    ("bgpadvertisements", 0, "spec"),
    ("bgppeers", 1, "spec/properties/connectTime"),
    ("bgppeers", 1, "spec/properties/enableGracefulRestart"),
    ("servicebgpstatuses", 0, "status/properties/node"),
    ("servicebgpstatuses", 0, "status/properties/serviceName"),
    ("servicebgpstatuses", 0, "status/properties/serviceNamespace"),
    ("servicel2statuses", 0, "status/properties/node"),
    ("servicel2statuses", 0, "status/properties/serviceName"),
    ("servicel2statuses", 0, "status/properties/serviceNamespace"),
];

/// The namespace is this plugin's own: speakers may be in the network of their node whatever upstream labels it with.
pub(crate) fn namespace() -> Value {
    let level = "privileged";
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": NAMESPACE,
            "labels": {
                "pod-security.kubernetes.io/audit": level,
                "pod-security.kubernetes.io/enforce": level,
                "pod-security.kubernetes.io/warn": level,
            },
        },
    })
}

/// Everything else.
pub(crate) fn remote(log_level: LogLevel, kubernetes: (u32, u32)) -> Remote {
    let mut remote = Remote::new(URL, SHA256, OBJECTS).without("Namespace", NAMESPACE);
    if kubernetes < RULES_SINCE {
        for (resource, version, about) in RULES {
            let path = format!(
                "/spec/versions/{version}/schema/openAPIV3Schema/properties/{about}/x-kubernetes-validations"
            );
            let definition = format!("{resource}.metallb.io");
            let remove = json!([{"op": "remove", "path": path}]);
            remote = remote.patch("CustomResourceDefinition", &definition, remove);
        }
    }
    if log_level != LogLevel::Info {
        for (kind, name) in [("Deployment", "controller"), ("DaemonSet", "speaker")] {
            let path = "/spec/template/spec/containers/0/args/1";
            let operations = json!([
                {"op": "test", "path": path, "value": "--log-level=info"},
                {"op": "replace", "path": path, "value": format!("--log-level={}", log_level.name())},
            ]);
            remote = remote.patch(kind, name, operations);
        }
    }
    remote
}
