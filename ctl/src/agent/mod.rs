//! The connection to the host agent: found by flags and the host agent's own config, started where none runs.
//!
//! - `settings`: which socket, and whether starting makes sense
//! - `start`: how a host agent is started

mod settings;
mod start;

use std::error::Error as _;
use std::io;
use std::path::Path;

use k8sctl_proto::control::v1::bundle_service_client::BundleServiceClient;
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::host_service_client::HostServiceClient;
use k8sctl_proto::control::v1::image_service_client::ImageServiceClient;
use k8sctl_proto::control::v1::plugin_service_client::PluginServiceClient;
use k8sctl_proto::control::v1::{ListClustersRequest, WatchStatusRequest};
use k8sctl_rpc::unix::{UnixError, connect_unix};
use k8sctl_types::failure::Failure;
use tonic::Status;
use tonic::transport::Channel;

use crate::ended::{Ended, is_lost};
use crate::exit::Exit;
use crate::terminal::Context;

pub use settings::{Settings, Source};

/// Largest answer: a plan or a kubeconfig is far below it.
const DECODE_BYTES: usize = 64 * 1024 * 1024;

/// A host agent that answers.
#[derive(Clone, Debug)]
pub struct Agent {
    channel: Channel,
}

/// Connects, and starts a host agent where none runs.
pub async fn connect(context: &Context) -> Result<Agent, Ended> {
    let settings = Settings::load(&context.source)?;
    match dial(&settings.socket).await {
        Ok(agent) => Ok(agent),
        Err(error) if is_absent(&error) && settings.may_start => {
            start::start(context, &settings).await?;
            dial(&settings.socket).await.map_err(|error| unreachable(&settings, &error))
        }
        Err(error) => Err(unreachable(&settings, &error)),
    }
}

/// Connects only where a host agent runs already.
pub async fn connect_running(context: &Context) -> Result<Agent, Ended> {
    let settings = Settings::load(&context.source)?;
    dial(&settings.socket).await.map_err(|error| unreachable(&settings, &error))
}

async fn dial(socket: &Path) -> Result<Agent, UnixError> {
    Ok(Agent { channel: connect_unix(socket).await? })
}

fn cause(error: &UnixError) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

/// Nobody listens, as opposed to: somebody listens whom we cannot reach.
fn is_absent(error: &UnixError) -> bool {
    cause(error).is_some_and(|error| {
        matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    })
}

fn unreachable(settings: &Settings, error: &UnixError) -> Ended {
    let object = format!("socket {}", settings.socket.display());
    if cause(error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        let next = "run it with sudo, or become a member of the group k8sctl (operator) or k8sctl-admin and log in again";
        return Ended::with(
            Exit::Denied,
            Failure::new("AUTH-SOCKET", object, "you may not use the host agent", next),
        );
    }
    let reason = format!(
        "no host agent answers: {}",
        cause(error).map_or_else(|| k8sctl_rpc::chain(error).to_string(), |c| c.to_string())
    );
    let next = if settings.may_start {
        "look into the host agent's log, then try again"
    } else {
        "start the host agent that listens there, or leave out --socket (K8SCTL_SOCKET), so that one is started"
    };
    Ended::with(Exit::Unreachable, Failure::new("HOST-AGENT-UNREACHABLE", object, reason, next))
}

impl Agent {
    /// Versions and doctor.
    pub fn host(&self) -> HostServiceClient<Channel> {
        HostServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES)
    }

    /// Clusters.
    pub fn clusters(&self) -> ClusterServiceClient<Channel> {
        ClusterServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES)
    }

    /// Images.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES)
    }

    /// Bundles.
    pub fn bundles(&self) -> BundleServiceClient<Channel> {
        BundleServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES)
    }

    /// Plugins.
    pub fn plugins(&self) -> PluginServiceClient<Channel> {
        PluginServiceClient::new(self.channel.clone()).max_decoding_message_size(DECODE_BYTES)
    }

    /// The cluster that the user named, or the only one there is.
    pub async fn cluster_name(&self, context: &Context, given: Option<&str>) -> Result<String, Ended> {
        self.name_of_cluster(context, given).await?.map_err(Ended::from)
    }

    /// The same; the inner error is a connection that was lost, for those who ask again.
    pub async fn name_of_cluster(
        &self,
        context: &Context,
        given: Option<&str>,
    ) -> Result<Result<String, Status>, Ended> {
        if let Some(name) = given {
            return Ok(Ok(name.to_owned()));
        }
        let listed = match self.clusters().list_clusters(ListClustersRequest {}).await {
            Ok(listed) => listed.into_inner().clusters,
            Err(status) if is_lost(&status) => return Ok(Err(status)),
            Err(status) => return Err(status.into()),
        };
        match listed.as_slice() {
            [one] => Ok(Ok(one.name.clone())),
            [] => {
                let up = context.source.command(&["up"]);
                let next = format!("write a cluster.toml (examples/home.toml is one) and run: {up}");
                Err(Failure::new("CLUSTER-NONE", "this host", "it has no cluster", next).into())
            }
            many => {
                let names: Vec<_> = many.iter().map(|cluster| cluster.name.as_str()).collect();
                let reason = format!("it has {} clusters: {}", names.len(), names.join(", "));
                let next = "name the one that you mean: behind the verb, or with --cluster where it takes nodes or plugins";
                Err(Failure::new("CLUSTER-WHICH", "this host", reason, next).into())
            }
        }
    }

    /// The status of a cluster, once.
    pub async fn status(&self, cluster: &str) -> Result<crate::view::ClusterView, Ended> {
        let request = WatchStatusRequest { cluster_name: cluster.to_owned(), watch: false };
        let mut stream = self.clusters().watch_status(request).await?.into_inner();
        let status = stream.message().await?.and_then(|response| response.status).unwrap_or_default();
        Ok(status.into())
    }
}
