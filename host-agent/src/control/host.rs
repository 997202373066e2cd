//! Versions, the host's own health, and what only the host agent sees for a support bundle.

use std::sync::Arc;
use std::time::Duration;

use k8sctl_proto::control::v1::host_service_server::HostService;
use k8sctl_proto::control::v1::{
    CollectSupportRequest, CollectSupportResponse, DoctorRequest, DoctorResponse, GetVersionRequest,
    GetVersionResponse,
};
use k8sctl_types::failure::Failure;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::queue::{Queues, caller};
use super::{Reply, refused, stream_of};
use crate::cluster::manager::Manager;
use crate::support;

/// Control protocol of this host agent.
const PROTOCOL: u32 = 1;
/// Parts of a support bundle on their way to one client; each may be large.
const PARTS: usize = 2;

/// Support bundles that are gathered at a time: each reads logs, consoles and the API of every cluster.
const COLLECTIONS: usize = 2;

/// See [`HostService`].
#[derive(Debug)]
pub(super) struct Host {
    manager: Arc<Manager>,
    queues: Queues,
    collections: Arc<Semaphore>,
}

impl Host {
    pub(super) fn new(manager: Arc<Manager>, queues: Queues) -> Self {
        Self { manager, queues, collections: Arc::new(Semaphore::new(COLLECTIONS)) }
    }
}

#[tonic::async_trait]
impl HostService for Host {
    async fn get_version(
        &self,
        _request: Request<GetVersionRequest>,
    ) -> Result<Response<GetVersionResponse>, Status> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Response::new(GetVersionResponse { version, protocol: PROTOCOL }))
    }

    async fn doctor(&self, request: Request<DoctorRequest>) -> Result<Response<DoctorResponse>, Status> {
        let shared = Arc::clone(self.manager.shared());
        let check = async move { crate::doctor::check(&shared).await };
        let checks = self.queues.checks.run("doctor", caller(&request), check).await?;
        Ok(Response::new(DoctorResponse { checks }))
    }

    type CollectSupportStream = Reply<CollectSupportResponse>;

    async fn collect_support(
        &self,
        request: Request<CollectSupportRequest>,
    ) -> Result<Response<Self::CollectSupportStream>, Status> {
        let CollectSupportRequest { cluster_name, deadline } = request.into_inner();
        if !cluster_name.is_empty() {
            // What is misspelt would look like a cluster of which there is nothing.
            self.manager.find(&cluster_name).await?;
        }
        let deadline = deadline.and_then(|it| Duration::try_from(it).ok());
        let place = Arc::clone(&self.collections).try_acquire_owned().map_err(|_| {
            let reason = format!("{COLLECTIONS} support bundles are being gathered already");
            refused(&Failure::new(
                "HOST-BUSY",
                "host agent",
                reason,
                "wait until they are there, then run it again",
            ))
        })?;
        let manager = Arc::clone(&self.manager);
        let work = |sender| async move {
            // Also of a client that lives and does not read: others wait for its place.
            let collecting = support::collect(manager, cluster_name, deadline, sender);
            let collected = timeout(support::LONGEST, collecting).await;
            drop(place);
            collected.unwrap_or_else(|_| Err(refused(&support::late("support bundle"))))
        };
        Ok(Response::new(stream_of("collect-support", PARTS, work)))
    }
}
