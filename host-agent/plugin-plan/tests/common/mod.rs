//! Manifests of real projects: where they lie, and what is known of them.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod needs;

use std::fs;
use std::path::{Path, PathBuf};

use plugin_plan::hash::sha256_hex;
use plugin_plan::{ReadinessRule, ReadyWhen, RemoteManifest};
use serde_json::Value;

/// One manifest, or a few that belong together.
pub struct Upstream {
    pub name: &'static str,
    pub files: &'static [&'static str],
    /// Lists taken apart.
    pub objects: usize,
    /// Of all its objects that have one; given to those that name none.
    pub namespace: &'static str,
    /// Its pods, or its volumes, are privileged.
    pub reaches_nodes: bool,
}

const fn of(
    name: &'static str,
    files: &'static [&'static str],
    objects: usize,
    namespace: &'static str,
) -> Upstream {
    Upstream { name, files, objects, namespace, reaches_nodes: false }
}

const fn reaching(upstream: Upstream) -> Upstream {
    Upstream { reaches_nodes: true, ..upstream }
}

/// All of them.
pub static FILES: [Upstream; 20] = [
    of("argo-cd", &["argo-cd-install.yaml"], 59, "argocd"),
    of("cert-manager-certificaterequests", &["cert-manager-crd-certificaterequests.yaml"], 1, ""),
    of("cert-manager-certificates", &["cert-manager-crd-certificates.yaml"], 1, ""),
    of("cert-manager-challenges", &["cert-manager-crd-challenges.yaml"], 1, ""),
    of("cert-manager-clusterissuers", &["cert-manager-crd-clusterissuers.yaml"], 1, ""),
    of("cert-manager-issuers", &["cert-manager-crd-issuers.yaml"], 1, ""),
    of("cert-manager-orders", &["cert-manager-crd-orders.yaml"], 1, ""),
    of("external-secrets", &["external-secrets-crds.yaml"], 25, ""),
    reaching(of("flannel", &["flannel.yaml"], 6, "kube-flannel")),
    of("gateway-api-gatewayclasses", &["gateway-api-gatewayclasses.yaml"], 1, ""),
    of("gateway-api-gateways", &["gateway-api-gateways.yaml"], 1, ""),
    of("gateway-api-grpcroutes", &["gateway-api-grpcroutes.yaml"], 1, ""),
    of("gateway-api-httproutes", &["gateway-api-httproutes.yaml"], 1, ""),
    of("gateway-api-referencegrants", &["gateway-api-referencegrants.yaml"], 1, ""),
    reaching(of("ingress-nginx", &["ingress-nginx.yaml"], 19, "ingress-nginx")),
    of("local-path-storage", &["local-path-storage.yaml"], 9, "local-path-storage"),
    reaching(of("metallb", &["metallb-native.yaml"], 26, "metallb-system")),
    of(
        "metrics-server",
        &[
            "metrics-server-apiservice.yaml",
            "metrics-server-deployment.yaml",
            "metrics-server-rbac.yaml",
            "metrics-server-service.yaml",
        ],
        9,
        "kube-system",
    ),
    of("nginx-gateway-fabric-crds", &["nginx-gateway-fabric-crds.yaml"], 11, ""),
    of("nginx-gateway-fabric", &["nginx-gateway-fabric.yaml"], 13, "nginx-gateway"),
];

pub fn workspace() -> PathBuf {
    let ours = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests"));
    ours.ancestors().nth(2).expect("two levels below the workspace").to_owned()
}

/// Where the manifests lie; `None`: nowhere, which is said.
pub fn upstream() -> Option<PathBuf> {
    let named = std::env::var_os("K8S_MYHOME_UPSTREAM").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| workspace().join("../shared/upstream"));
    if folder.is_dir() {
        return Some(folder);
    }
    let is_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    assert!(!is_ci, "there are no upstream manifests in {}", folder.display());
    eprintln!("not tested: there are no upstream manifests in {}", folder.display());
    None
}

/// Its files, one behind the other.
pub fn body(upstream: &Upstream, folder: &Path) -> Vec<u8> {
    let read = |file: &&str| {
        let path = folder.join(file);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let bodies: Vec<_> = upstream.files.iter().map(read).collect();
    bodies.join(&b"\n---\n"[..])
}

pub fn remote(upstream: &Upstream, folder: &Path) -> RemoteManifest {
    RemoteManifest {
        url: "https://upstream.example/manifest.yaml".to_owned(),
        sha256: sha256_hex(&body(upstream, folder)),
        max_bytes: 16 << 20,
        namespace: upstream.namespace.to_owned(),
        ..RemoteManifest::default()
    }
}

/// That being there is enough, for kinds that Kubernetes does not bring.
pub fn rules_of_ready(objects: &[Value]) -> Vec<ReadinessRule> {
    let mut rules: Vec<ReadinessRule> = Vec::new();
    for object in objects {
        let key = plugin_plan::ObjectKey::of(object).expect("a key");
        let rule =
            ReadinessRule { api_version: key.api_version(), kind: key.kind.clone(), is: ReadyWhen::Exists };
        if key.is_custom() && !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}
