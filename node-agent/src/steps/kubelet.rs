//! Step `kubelet`: the unit enabled, so that a node that boots without its host comes back, running and healthy.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;

use super::{run, systemctl, wait_until, whether_starting_helps};
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
            Healthz::Unwell(why) => return Ok(whether_starting_helps(UNIT, why).await),
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
        progress.say("starting the kubelet");
        systemctl(&["start", UNIT]).await?;
        // One that hangs while it is waited for is repair's.
        drop(claim);
        wait_until("the kubelet is healthy", HEALTHY, health).await
    }
}
