//! Step `kubelet`: the unit enabled, so that a node that boots without its host comes back, running and healthy.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{run, systemctl, wait_until};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::probe::{self, ProbeError};
use crate::service::{Claims, Service};
use crate::status::Progress;

/// The unit.
pub const UNIT: &str = "kubelet.service";
/// Where the kubelet says that it is well.
pub const HEALTHZ: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10248);
/// Longest wait for that after a start.
const HEALTHY: Duration = Duration::from_secs(240);

/// The step.
pub struct Kubelet {
    root: Root,
    claims: Claims,
}

impl Kubelet {
    /// Works below this root.
    pub fn new(root: Root, claims: Claims) -> Self {
        Self { root, claims }
    }
}

/// What the kubelet says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthz {
    /// `ok`
    Well,
    /// Something else, or nobody listens.
    Unwell(String),
    /// Nothing within the deadline.
    Slow(String),
}

/// Asks it.
pub async fn healthz(deadline: Duration) -> Healthz {
    match probe::get_within(HEALTHZ, "/healthz", deadline).await {
        Ok(answer) if answer.status == 200 => Healthz::Well,
        Ok(answer) => Healthz::Unwell(format!("healthz says {}", answer.status)),
        Err(error @ ProbeError::Slow { .. }) => Healthz::Slow(k8sctl_rpc::chain(&error).to_string()),
        Err(error) => Healthz::Unwell(k8sctl_rpc::chain(&error).to_string()),
    }
}

/// `Err` says what the kubelet answers instead of `ok`.
pub async fn health() -> Result<(), String> {
    match healthz(probe::DEADLINE).await {
        Healthz::Well => Ok(()),
        Healthz::Unwell(why) | Healthz::Slow(why) => Err(why),
    }
}

/// The certificate and key that the kubelet makes itself for its own port, where the host delivers none.
const SERVING: [&str; 2] = ["/var/lib/kubelet/pki/kubelet.crt", "/var/lib/kubelet/pki/kubelet.key"];

/// Removes a serving pair that lost its content when the power went: the kubelet does not sync it, never makes it anew
/// while it is there, and ends at each start because of it.
pub fn remove_torn_serving_pair(root: &Root) -> Result<(), StepError> {
    let mut found = Vec::new();
    for path in SERVING {
        found.push(root.read(path).map_err(StepError::read(path))?);
    }
    let certificate = |pem: &Vec<u8>| CertificateDer::from_pem_slice(pem).is_ok();
    let key = |pem: &Vec<u8>| PrivateKeyDer::from_pem_slice(pem).is_ok();
    let is_torn = match (&found[0], &found[1]) {
        (None, None) => false,
        (one, other) => !one.as_ref().is_some_and(certificate) || !other.as_ref().is_some_and(key),
    };
    if is_torn {
        tracing::warn!("the kubelet's serving certificate lost its content; it makes another one");
        for path in SERVING {
            root.remove(path).map_err(StepError::write(path))?;
        }
    }
    Ok(())
}

async fn is_enabled() -> bool {
    run("systemctl", &["is-enabled", "--quiet", UNIT]).await.is_ok()
}

#[async_trait]
impl Step for Kubelet {
    fn name(&self) -> &'static str {
        "kubelet"
    }

    fn unit(&self) -> Option<&'static str> {
        Some(UNIT)
    }

    fn members_only(&self) -> bool {
        true
    }

    async fn check(&self, _desired: &DesiredState) -> Result<Check, StepError> {
        if !self.root.is_live() {
            return Ok(Check::True);
        }
        match healthz(probe::DEADLINE).await {
            Healthz::Well => {}
            Healthz::Unwell(why) => return Ok(Check::False(why)),
            // Slow or hung: to start it again changes neither, and repair tells them apart.
            Healthz::Slow(why) => return Ok(Check::Waits(why)),
        }
        Ok(if is_enabled().await { Check::True } else { Check::False("the unit is not enabled".to_owned()) })
    }

    async fn apply(&self, _desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        if !is_enabled().await {
            systemctl(&["enable", UNIT]).await?;
        }
        let claim = self.claims.claim(Service::Kubelet).await;
        remove_torn_serving_pair(&self.root)?;
        progress.say("starting the kubelet");
        systemctl(&["start", UNIT]).await?;
        // One that hangs while it is waited for is repair's.
        drop(claim);
        wait_until("the kubelet is healthy", HEALTHY, health).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----\nQQ==\n-----END CERTIFICATE-----\n";
    const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\nQQ==\n-----END PRIVATE KEY-----\n";

    #[test]
    fn a_serving_pair_goes_when_either_file_lost_its_content() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        remove_torn_serving_pair(&root).expect("nothing there");
        for (certificate, key, stays) in [
            (CERTIFICATE, KEY, true),
            (b"", KEY, false),
            (CERTIFICATE, b"", false),
            (b"", b"", false),
            (&[0; 64], KEY, false),
        ] {
            root.write(SERVING[0], certificate, 0o644).expect("written");
            root.write(SERVING[1], key, 0o600).expect("written");
            remove_torn_serving_pair(&root).expect("looked at");
            assert_eq!(SERVING.map(|path| root.exists(path)), [stays; 2], "{certificate:?} {key:?}");
        }
    }
}
