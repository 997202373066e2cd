//! Versions and the host's own health.

use std::sync::Arc;

use k8sctl_proto::control::v1::host_service_server::HostService;
use k8sctl_proto::control::v1::{DoctorRequest, DoctorResponse, GetVersionRequest, GetVersionResponse};
use tonic::{Request, Response, Status};

use crate::cluster::manager::Manager;

/// Control protocol of this host agent.
const PROTOCOL: u32 = 1;

/// See [`HostService`].
#[derive(Debug)]
pub(super) struct Host {
    pub(super) manager: Arc<Manager>,
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

    async fn doctor(&self, _request: Request<DoctorRequest>) -> Result<Response<DoctorResponse>, Status> {
        let checks = crate::doctor::check(self.manager.shared()).await;
        Ok(Response::new(DoctorResponse { checks }))
    }
}
