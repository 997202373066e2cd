//! Kubeconfig files with everything inside: no paths, so that a file works wherever it is. JSON, which is YAML of every
//! version: a cluster may be called `no`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// A kubeconfig of one cluster and one user; its context is `USER@CLUSTER`, as kubeadm names it.
pub(super) fn kubeconfig(
    cluster: &str,
    server: &str,
    user: &str,
    ca_pem: &str,
    certificate_pem: &str,
    key_pem: &str,
) -> String {
    let context = format!("{user}@{cluster}");
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{
            "name": cluster,
            "cluster": { "certificate-authority-data": STANDARD.encode(ca_pem), "server": server },
        }],
        "users": [{
            "name": user,
            "user": {
                "client-certificate-data": STANDARD.encode(certificate_pem),
                "client-key-data": STANDARD.encode(key_pem),
            },
        }],
        "contexts": [{ "name": context, "context": { "cluster": cluster, "user": user } }],
        "current-context": context,
    });
    let mut text = serde_json::to_string_pretty(&config).expect("texts become JSON");
    text.push('\n');
    text
}
