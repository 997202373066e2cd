//! Renews the node's certificate at half its life, over the open session's channel, with a new key.

use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::RenewCertificateRequest;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use tonic::transport::Channel;

use crate::bootstrap::identity::{Identity, IdentityError, Pending, Store};
use crate::clock;
use crate::retry::{self, Backoff};

/// Longest that one call may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The wall clock may be stepped and a VM may be paused, so that it is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
enum RenewError {
    #[error("the host agent did not renew the certificate ({:?}): {}", .0.code(), .0.message())]
    Call(Box<tonic::Status>),
    #[error("cannot keep the renewed identity")]
    Identity(#[from] IdentityError),
}

/// Waits until renewal is due, renews, keeps and returns the new identity. Tries until it works, unless the host agent
/// does not accept the old one any more: no further try is better then.
pub async fn renew_when_due(
    channel: Channel,
    store: &Store,
    identity: &Identity,
) -> Result<Identity, tonic::Status> {
    let jitter = rand::random_range(-1.0..=1.0);
    loop {
        let left = identity.renew_in(SystemTime::now(), jitter);
        if left.is_zero() {
            break;
        }
        tokio::time::sleep(left.min(CLOCK_CHECK)).await;
    }
    let mut backoff = Backoff::new(retry::RENEW);
    loop {
        match renew(channel.clone(), store, identity).await {
            Ok(renewed) => {
                tracing::info!(node.id = renewed.node_id, "certificate renewed");
                return Ok(renewed);
            }
            Err(RenewError::Call(status)) if is_refused(&status) => return Err(*status),
            Err(error) => {
                tracing::warn!(error = %k8sctl_rpc::chain(&error), "certificate not renewed");
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }
    }
}

/// Whether it is the certificate that is refused, and not this one call.
pub(super) fn is_refused(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::Unauthenticated | tonic::Code::PermissionDenied)
}

async fn renew(channel: Channel, store: &Store, identity: &Identity) -> Result<Identity, RenewError> {
    let pending = Pending::make()?;
    let mut request = tonic::Request::new(RenewCertificateRequest { csr_der: pending.csr_der.clone() });
    request.set_timeout(DEADLINE);
    let call = NodeServiceClient::new(channel).renew_certificate(request).await;
    let response = call.map_err(|status| RenewError::Call(Box::new(status)))?.into_inner();
    let now = SystemTime::now();
    let not_after = response.not_after.as_ref().map_or(now, clock::system_time);
    let renewed = identity.renewed(pending, response.certificate_der, not_after, now);
    store.save(&renewed)?;
    Ok(renewed)
}
