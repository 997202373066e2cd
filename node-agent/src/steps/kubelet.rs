//! Step `kubelet`: the unit enabled, so that a node that boots without its host comes back, running and healthy.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;

use super::{run, systemctl, wait_until};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::probe;
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
}

impl Kubelet {
    /// Works below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }
}

/// `Err` says what the kubelet answers instead of `ok`.
pub async fn health() -> Result<(), String> {
    match probe::get(HEALTHZ, "/healthz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("healthz says {}", answer.status)),
        Err(error) => Err(k8sctl_rpc::chain(&error).to_string()),
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
        if let Err(why) = health().await {
            return Ok(Check::False(why));
        }
        Ok(if is_enabled().await { Check::True } else { Check::False("the unit is not enabled".to_owned()) })
    }

    async fn apply(&self, _desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        if !is_enabled().await {
            systemctl(&["enable", UNIT]).await?;
        }
        progress.say("starting the kubelet");
        systemctl(&["start", UNIT]).await?;
        wait_until("the kubelet is healthy", HEALTHY, health).await
    }
}
