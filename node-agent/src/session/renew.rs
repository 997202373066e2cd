//! Renews the node's certificate at half its life, over the open session's channel, with a new key.

use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::RenewCertificateRequest;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use tokio::time::Instant;
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
    let begun = Instant::now();
    while let Some(pause) = pause_before(identity, SystemTime::now(), jitter, begun.elapsed()) {
        tokio::time::sleep(pause).await;
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

/// How long until the clock is looked at again; `None` when renewal is due. One that is due for the clock's sake waits
/// until the host's time was heard: by a clock that stays wrong the next one is due at once, too.
fn pause_before(identity: &Identity, now: SystemTime, jitter: f64, waited: Duration) -> Option<Duration> {
    let left = if identity.is_of_this_clock(now) {
        identity.renew_in(now, jitter).min(CLOCK_CHECK)
    } else {
        CLOCK_CHECK.saturating_sub(waited)
    };
    (!left.is_zero()).then_some(left)
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

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn what_is_due_waits_for_nothing_and_the_rest_for_the_next_look_at_the_clock() {
        let host = SystemTime::UNIX_EPOCH + 100 * DAY;
        let fresh = Identity::example(host, host + DAY);
        assert_eq!(pause_before(&fresh, host, 0.0, DAY), Some(CLOCK_CHECK));
        let soon = Duration::from_secs(7);
        assert_eq!(pause_before(&fresh, host + DAY / 2 - soon, 0.0, DAY), Some(soon));
        assert_eq!(pause_before(&fresh, host + DAY / 2, 0.0, Duration::ZERO), None);
    }

    #[test]
    fn a_clock_that_was_wrong_has_it_renewed_once_and_one_that_stays_wrong_at_a_slow_pace() {
        let host = SystemTime::UNIX_EPOCH + 100 * DAY;
        let ahead = host + DAY + DAY / 4;
        let received = Identity::example(ahead, host + DAY);
        for now in [host, ahead] {
            assert_eq!(pause_before(&received, now, 0.0, Duration::ZERO), Some(CLOCK_CHECK));
            assert_eq!(pause_before(&received, now, 0.0, CLOCK_CHECK), None);
        }
        // Renewed by the right clock.
        assert_eq!(
            pause_before(&Identity::example(host, host + DAY), host, 0.0, CLOCK_CHECK),
            Some(CLOCK_CHECK)
        );
    }
}
