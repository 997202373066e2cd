//! A real admission webhook: the API server dials the address of its Service, which is one of this host's own. It judges
//! nothing, and counts what it is asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Response;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::https::Identity;

/// Where a webhook's Service is.
pub struct Place {
    pub namespace: String,
    pub name: String,
    pub address: SocketAddr,
    identity: Identity,
}

impl Place {
    /// `address`: one of the cluster's services, with a port that anybody may have.
    pub fn new(namespace: &str, name: &str, address: &str) -> Self {
        let identity = Identity::of(&format!("{name}.{namespace}.svc"));
        let address = address.parse().expect("an address");
        Self { namespace: namespace.to_owned(), name: name.to_owned(), address, identity }
    }

    pub fn service(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": self.namespace, "name": self.name},
            "spec": {
                "clusterIP": self.address.ip().to_string(),
                "ports": [{"name": "https", "port": self.address.port(), "protocol": "TCP"}],
            },
        })
    }

    /// That it judges these.
    pub fn configuration(&self, name: &str, group: &str, resource: &str) -> Value {
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [{
                "name": format!("{resource}.{group}"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "failurePolicy": "Fail", "timeoutSeconds": 5,
                "clientConfig": {"service": {
                    "namespace": self.namespace, "name": self.name, "path": "/validate", "port": self.address.port(),
                }},
                "rules": [{
                    "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
                    "resources": [resource],
                }],
            }],
        })
    }

    /// What a controller puts into the configuration.
    pub fn ca_bundle(&self) -> String {
        STANDARD.encode(&self.identity.root_pem)
    }

    /// What the controller of endpoints would make of a pod that is ready.
    pub fn endpoints(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": self.namespace, "name": self.name},
            "subsets": [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "https", "port": self.address.port()}]}],
        })
    }

    /// Answers from now on.
    pub async fn open(&self) -> Webhook {
        let asked = Arc::new(AtomicUsize::new(0));
        let listener = TcpListener::bind(self.address).await.expect("the address is this host's");
        let count = asked.clone();
        let task = self.identity.serve(listener, move |request| {
            count.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                let body =
                    request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
                let review: Value = serde_json::from_slice(&body).unwrap_or_default();
                let answer = json!({
                    "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
                    "response": {"uid": review["request"]["uid"], "allowed": true},
                });
                let body = Full::new(Bytes::from(answer.to_string())).map_err(|never| match never {});
                let response = Response::builder().header("content-type", "application/json");
                response.body(BodyExt::boxed(body)).expect("a response")
            })
        });
        Webhook { asked, _task: task }
    }
}

/// Answers until it is dropped.
pub struct Webhook {
    asked: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

impl Webhook {
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
