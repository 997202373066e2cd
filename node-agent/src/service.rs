//! The two services that make a machine a node, and who may start and stop their units now.
//!
//! Watched by health, kept running by repair, started by the steps. A step that works on a unit holds its claim
//! meanwhile, so that repair does not start again what the step has stopped.

use std::sync::Arc;

use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::steps::{containerd, kubelet};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// The container runtime.
    Containerd,
    /// Kubernetes' own agent.
    Kubelet,
}

impl Service {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Containerd, Self::Kubelet];

    /// As repairs and steps name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
        }
    }

    /// Its systemd unit.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Containerd => containerd::UNIT,
            Self::Kubelet => kubelet::UNIT,
        }
    }

    /// The condition that says how it is.
    pub fn condition(self) -> &'static str {
        match self {
            Self::Containerd => "ContainerdReady",
            Self::Kubelet => "KubeletReady",
        }
    }
}

/// Held by whoever starts or stops a service's unit.
pub type Claim = OwnedMutexGuard<()>;

/// One claim per service. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    containerd: Arc<Mutex<()>>,
    kubelet: Arc<Mutex<()>>,
}

impl Claims {
    /// Waits until nobody else works on the unit. Cancel-safe.
    pub async fn claim(&self, service: Service) -> Claim {
        Arc::clone(self.of(service)).lock_owned().await
    }

    /// `None` means: somebody else works on the unit.
    pub fn try_claim(&self, service: Service) -> Option<Claim> {
        Arc::clone(self.of(service)).try_lock_owned().ok()
    }

    fn of(&self, service: Service) -> &Arc<Mutex<()>> {
        match service {
            Service::Containerd => &self.containerd,
            Service::Kubelet => &self.kubelet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unit_is_one_owners_and_the_other_unit_is_free() {
        let claims = Claims::default();
        let held = claims.claim(Service::Kubelet).await;
        assert!(claims.clone().try_claim(Service::Kubelet).is_none());
        assert!(claims.try_claim(Service::Containerd).is_some());
        drop(held);
        assert!(claims.try_claim(Service::Kubelet).is_some());
    }
}
