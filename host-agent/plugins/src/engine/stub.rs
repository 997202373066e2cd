//! An engine on an API server that a test plays: for what no real one does when it is asked to.

use std::sync::Arc;

use host_store::Store;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use k8sctl_types::failure::Failure;
use kube::Client;
use kube::client::Body;
use plugin_plan::SecretRef;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Engine, EngineSetup, Limits, Progress, Secrets};
use crate::inventory::Inventory;

struct NoSecrets;

impl Secrets for NoSecrets {
    fn value(&self, secret: &SecretRef) -> Result<Zeroizing<Vec<u8>>, Failure> {
        Err(Failure::new("PLUGIN-SECRET", &secret.handle, "nobody has set it", "set it"))
    }
}

/// Each request is answered by what this gives: a status and JSON.
pub(super) fn engine(
    limits: Limits,
    answer: impl Fn(&Request<Body>) -> (u16, Value) + Send + 'static,
) -> Engine {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (code, body) = answer(&request);
        let body = Full::new(Bytes::from(body.to_string()));
        let response = Response::builder().status(code).body(body);
        async move { response }
    });
    let store = Store::in_memory(&[crate::SCHEMA]).expect("a database in memory");
    Engine::new(EngineSetup {
        client: Client::new(service, "default"),
        cluster_id: "c".to_owned(),
        plugin: "hello".to_owned(),
        kubernetes: "v1.33.0".to_owned(),
        inventory: Inventory::new(store, "c", "hello"),
        limits,
        progress: Progress::new(),
        points: |_| {},
        secrets: Arc::new(NoSecrets),
    })
}

/// There is no such object.
pub(super) fn absent() -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound",
        "message": "not found",
    });
    (404, status)
}

/// That a group version has one kind, in namespaces.
pub(super) fn kind(group_version: &str, kind: &str, plural: &str) -> (u16, Value) {
    let resource = json!({
        "name": plural, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get", "list", "delete"],
    });
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": [resource],
    });
    (200, list)
}
