//! Serves a [`Plugin`] as `k8sctl.plugin.v1.PluginService` over one connected socket, until that closes. Called by
//! a plugin's `main`; decides nothing about the cluster.

use std::io;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use k8sctl_proto::plugin::v1 as wire;
use k8sctl_proto::plugin::v1::plugin_service_server::{PluginService, PluginServiceServer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};

use crate::plugin::{Description, Diagnostic, Facts, Health, Plugin, schema};

/// Protocol versions that this SDK speaks.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];

/// `EX_USAGE`: started by hand.
const EXIT_USAGE: u8 = 64;

/// Runs a plugin: serves the host agent on fd 3 and ends when it hangs up. Started any other way, says so and
/// ends with 64.
pub fn main<P: Plugin>(plugin: P) -> ExitCode {
    let Some(stream) = crate::inherited::take() else {
        let Description { name, .. } = plugin.describe();
        eprintln!("{name} is a plugin of k8sctl and is started by its host agent: k8sctl plugin add {name}");
        return ExitCode::from(EXIT_USAGE);
    };
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Ok(serve(plugin, UnixStream::from_std(stream)?).await?) })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve the host agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves one connection until the other side closes it.
pub async fn serve<P: Plugin>(plugin: P, stream: UnixStream) -> Result<(), tonic::transport::Error> {
    let (open, closed) = oneshot::channel();
    let connection = Connection { stream, _open: open };
    // Without the pending tail the server would end, and drop the connection, as soon as it has accepted it.
    let incoming = tokio_stream::once(Ok::<_, io::Error>(connection)).chain(tokio_stream::pending());
    let service =
        PluginServiceServer::new(Service { plugin: Arc::new(plugin), greeted: AtomicBool::new(false) });
    let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming);
    // Both arms end the process; a dropped server loses nothing that anybody could still read.
    tokio::select! {
        result = server => result,
        _ = closed => Ok(()),
    }
}

struct Service<P> {
    plugin: Arc<P>,
    greeted: AtomicBool,
}

impl<P: Plugin> Service<P> {
    fn after_handshake(&self) -> Result<(), Status> {
        if self.greeted.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(Status::failed_precondition("Handshake has to be the first call"))
        }
    }

    /// The config, or one diagnostic that says why it is none.
    fn config(&self, json: &str) -> Result<P::Config, Vec<Diagnostic>> {
        let json = if json.is_empty() { "{}" } else { json };
        serde_json::from_str(json).map_err(|error| {
            vec![Diagnostic::error(
                "",
                error.to_string(),
                "a JSON object as the plugin's schema describes it",
            )]
        })
    }
}

fn facts(facts: Option<wire::ClusterFacts>) -> Facts {
    facts.unwrap_or_default().into()
}

#[tonic::async_trait]
impl<P: Plugin> PluginService for Service<P> {
    type PlanStream = tokio_stream::Iter<std::vec::IntoIter<Result<wire::PlanResponse, Status>>>;

    async fn handshake(
        &self,
        request: Request<wire::HandshakeRequest>,
    ) -> Result<Response<wire::HandshakeResponse>, Status> {
        let offered = request.into_inner().versions;
        let common = PROTOCOL_VERSIONS.iter().rev().find(|version| offered.contains(version)).copied();
        self.greeted.store(common.is_some(), Ordering::Release);
        Ok(Response::new(wire::HandshakeResponse {
            version: common.unwrap_or_default(),
            supported: PROTOCOL_VERSIONS.to_vec(),
        }))
    }

    async fn describe(
        &self,
        _: Request<wire::DescribeRequest>,
    ) -> Result<Response<wire::DescribeResponse>, Status> {
        self.after_handshake()?;
        let description = self.plugin.describe();
        Ok(Response::new(wire::DescribeResponse {
            name: description.name.to_owned(),
            version: description.version.to_owned(),
            summary: description.summary.to_owned(),
            config_schema_json: schema::<P>().to_string(),
        }))
    }

    async fn validate_config(
        &self,
        request: Request<wire::ValidateConfigRequest>,
    ) -> Result<Response<wire::ValidateConfigResponse>, Status> {
        self.after_handshake()?;
        let request = request.into_inner();
        let planned = self
            .config(&request.config_json)
            .and_then(|config| self.plugin.plan(&config, &facts(request.facts)));
        let diagnostics = planned.err().unwrap_or_default().into_iter().map(Into::into).collect();
        Ok(Response::new(wire::ValidateConfigResponse { diagnostics }))
    }

    async fn plan(&self, request: Request<wire::PlanRequest>) -> Result<Response<Self::PlanStream>, Status> {
        use wire::plan_response::Item;
        self.after_handshake()?;
        let request = request.into_inner();
        let planned = self
            .config(&request.config_json)
            .and_then(|config| self.plugin.plan(&config, &facts(request.facts)));
        let items: Vec<Item> = match planned {
            Ok(plan) => {
                let objects = plan.objects.iter();
                let objects =
                    objects.map(|object| Item::Object(wire::PlannedObject { json: object.to_string() }));
                let readiness = plan.readiness.into_iter().map(|rule| {
                    Item::Readiness(wire::ReadinessRule {
                        api_version: rule.api_version,
                        kind: rule.kind,
                        condition: rule.condition,
                    })
                });
                objects.chain(readiness).collect()
            }
            Err(diagnostics) => diagnostics.into_iter().map(|d| Item::Diagnostic(d.into())).collect(),
        };
        let items: Vec<_> =
            items.into_iter().map(|item| Ok(wire::PlanResponse { item: Some(item) })).collect();
        Ok(Response::new(tokio_stream::iter(items)))
    }

    async fn assess(
        &self,
        request: Request<wire::AssessRequest>,
    ) -> Result<Response<wire::AssessResponse>, Status> {
        self.after_handshake()?;
        let request = request.into_inner();
        let config = self.config(&request.config_json).map_err(|_| {
            Status::invalid_argument("config_json is not a config that this plugin planned with")
        })?;
        let objects = request
            .objects_json
            .iter()
            .map(|json| serde_json::from_str(json))
            .collect::<Result<Vec<serde_json::Value>, _>>()
            .map_err(|error| {
                Status::invalid_argument(format!("objects_json holds something else than JSON: {error}"))
            })?;
        let assessment = self.plugin.assess(&config, &facts(request.facts), &objects);
        let health = match assessment.health {
            Health::Ready => wire::Health::Ready,
            Health::Progressing => wire::Health::Progressing,
            Health::Degraded => wire::Health::Degraded,
        };
        Ok(Response::new(wire::AssessResponse { health: health.into(), message: assessment.message }))
    }
}

/// The socket; dropping it, which the server does when the other side is gone, is heard by [`serve`].
struct Connection {
    stream: UnixStream,
    _open: oneshot::Sender<()>,
}

impl Connected for Connection {
    type ConnectInfo = ();
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
