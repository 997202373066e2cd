//! A plugin that keeps to every rule but one: the tests of the checks write which one into a copy of the program. It speaks
//! the protocol without the SDK, so that it can break any of it.
#![allow(unsafe_code)] // A raw descriptor number has no owner until somebody claims it.

mod answers;
mod socket;

use std::os::fd::FromRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use answers::{diagnostics, objects, schema};
use k8sctl_proto::plugin::v1 as proto;
use k8sctl_proto::plugin::v1::plan_response::Item;
use k8sctl_proto::plugin::v1::plugin_service_server::{PluginService, PluginServiceServer};
use serde_json::{Value, json};
use socket::Socket;
use tokio_stream::StreamExt as _;
use tonic::{Request, Response, Status};

/// What it does wrong, behind the colon.
static MODE: [u8; 48] = *b"bad-plugin-mode:good............................";

fn mode() -> &'static str {
    // As it is in memory: the compiler knows what was written here, and not what is.
    let written = std::hint::black_box(&MODE);
    std::str::from_utf8(&written[16..]).unwrap_or_default().trim_end_matches('.')
}

fn main() {
    let mode = mode();
    if mode == "slow-start" {
        std::thread::sleep(Duration::from_millis(600));
    }
    let fat = vec![1_u8; if mode == "fat" { 80 << 20 } else { 0 }];
    std::hint::black_box(&fat);
    // SAFETY: the host agent leaves a socket there, and this is the program's first act, so nothing else in it owns fd 3.
    let stream = unsafe { std::os::unix::net::UnixStream::from_raw_fd(3) };
    stream.set_nonblocking(true).expect("it is a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let stream = tokio::net::UnixStream::from_std(stream).expect("it is a socket");
        let socket = Socket::new(stream, mode == "lingers");
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(socket)).chain(tokio_stream::pending());
        let bad = Bad { mode, greeted: AtomicBool::new(false), calls: AtomicU32::new(0) };
        let server = tonic::transport::Server::builder().add_service(PluginServiceServer::new(bad));
        // It ends with the socket.
        let _ = server.serve_with_incoming(incoming).await;
    });
}

struct Bad {
    mode: &'static str,
    greeted: AtomicBool,
    calls: AtomicU32,
}

impl Bad {
    fn config(&self, text: &str) -> Result<Value, Status> {
        serde_json::from_str(text).map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// The config with its defaults.
    fn effective(&self, config: &Value) -> Value {
        let mut effective = config.clone();
        let size = config["size"].as_u64().unwrap_or(2);
        effective["size"] = json!(if self.mode == "restless" { size % 9 + 1 } else { size });
        effective
    }
}

#[tonic::async_trait]
impl PluginService for Bad {
    type PlanStream = tokio_stream::Iter<std::vec::IntoIter<Result<proto::PlanResponse, Status>>>;

    async fn handshake(
        &self,
        request: Request<proto::HandshakeRequest>,
    ) -> Result<Response<proto::HandshakeResponse>, Status> {
        let request = request.into_inner();
        let is_common = request.versions.contains(&1);
        self.greeted.store(is_common, Ordering::Release);
        // Of those that the checks send; hosts get what they gave.
        let is_tried = self.mode == "nonce" && request.host_version == "conformance";
        Ok(Response::new(proto::HandshakeResponse {
            version: u32::from(is_common),
            supported: vec![1],
            nonce: if is_tried { vec![7; 16] } else { request.nonce },
            capabilities: Vec::new(),
            sdk: String::new(),
        }))
    }

    async fn describe(
        &self,
        _: Request<proto::DescribeRequest>,
    ) -> Result<Response<proto::DescribeResponse>, Status> {
        if !self.greeted.load(Ordering::Acquire) {
            return Err(Status::failed_precondition("Handshake has to be the first call"));
        }
        Ok(Response::new(proto::DescribeResponse {
            name: "bad".to_owned(),
            version: "0.1.0".to_owned(),
            summary: "Keeps to every rule but one".to_owned(),
            config_schema_json: schema(self.mode).to_string(),
            config_version: 2,
        }))
    }

    async fn validate_config(
        &self,
        request: Request<proto::ValidateConfigRequest>,
    ) -> Result<Response<proto::ValidateConfigResponse>, Status> {
        let config = self.config(&request.into_inner().config_json)?;
        if self.mode == "fails" && config["size"] == 7 {
            return Err(Status::internal("seven"));
        }
        let diagnostics = diagnostics(self.mode, &config);
        let effective = diagnostics.is_empty().then(|| self.effective(&config).to_string());
        Ok(Response::new(proto::ValidateConfigResponse {
            diagnostics,
            effective_config_json: effective.unwrap_or_default(),
        }))
    }

    async fn migrate_config(
        &self,
        request: Request<proto::MigrateConfigRequest>,
    ) -> Result<Response<proto::MigrateConfigResponse>, Status> {
        let config = self.config(&request.into_inner().config_json)?;
        let migrated = if self.mode == "no-migration" { json!({"old": config}) } else { config };
        let config_json = migrated.to_string();
        Ok(Response::new(proto::MigrateConfigResponse { config_json, diagnostics: Vec::new() }))
    }

    async fn plan(&self, request: Request<proto::PlanRequest>) -> Result<Response<Self::PlanStream>, Status> {
        let config = self.config(&request.into_inner().config_json)?;
        let wrong = diagnostics(self.mode, &config);
        let mut items: Vec<Item> = wrong.into_iter().map(Item::Diagnostic).collect();
        if items.is_empty() {
            let object = |object: Value| {
                Item::Object(proto::PlannedObject { json: object.to_string(), handling: None })
            };
            items.extend(objects(self.mode, &self.effective(&config)).into_iter().map(object));
        }
        let count = items.len() as u32;
        items.push(Item::End(proto::End { items: count }));
        let items: Vec<_> =
            items.into_iter().map(|item| Ok(proto::PlanResponse { item: Some(item) })).collect();
        Ok(Response::new(tokio_stream::iter(items)))
    }

    async fn assess(
        &self,
        request: Request<proto::AssessRequest>,
    ) -> Result<Response<proto::AssessResponse>, Status> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        if self.mode == "no-judge" && request.into_inner().objects_json.is_empty() {
            return Err(Status::internal("there is nothing to judge"));
        }
        let moody = self.mode == "moody" && calls % 2 == 1;
        let health = if moody { proto::Health::Degraded } else { proto::Health::Ready };
        let outputs = [("size".to_owned(), "2".to_owned())].into();
        Ok(Response::new(proto::AssessResponse { health: health.into(), message: String::new(), outputs }))
    }
}
