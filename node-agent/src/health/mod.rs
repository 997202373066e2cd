//! Watches the node and keeps its conditions on the board: by signals where there are some, the rest by looking.
//!
//! | condition | by | kept in |
//! |---|---|---|
//! | `AgentReady` | being here | here |
//! | `ContainerdReady`, `KubeletReady` | D-Bus signals of the unit; CRI socket, healthz | [`mod@unit`], [`patience`], [`process`] |
//! | `UnitsOK` | systemd's list of failed units | [`failed`] |
//! | `DiskOK` | space and inodes of `/` and of containerd's directory | [`resources`] |
//! | `MemoryOK` | the kernel's pressure trigger, and looking | [`resources`], [`pressure`] |
//! | `KubeletCertificateValid`, `ControlPlaneCertificatesValid` | the files | [`certificates`] |
//! | `ApiServerReady`, `ControllerManagerReady`, `SchedulerReady`, `EtcdReady` | their health ports | [`control_plane`] |
//! | `ClockOK`, `CertificateValid` | the session | [`crate::session`] |
//!
//! `NodeReady` is the host's, who sees the Node object. What repair acts on, it reads from the [`Sights`].

pub mod certificates;
pub mod control_plane;
pub mod failed;
pub mod patience;
pub mod pressure;
pub mod process;
pub mod resources;
pub mod unit;

use std::time::Duration;

use k8sctl_proto::node::v1::ConditionStatus::{False, True};
use k8sctl_proto::node::v1::{DesiredState, NodeRole, Target};
use tokio::sync::watch;

use crate::durable::Root;
use crate::service::Service;
use crate::status::Board;
use unit::Seen;

/// What health sees that repair can act on.
#[derive(Clone, Debug)]
pub struct Sights {
    containerd: watch::Receiver<Seen>,
    kubelet: watch::Receiver<Seen>,
    /// How full the disk is; `None` means: it is not.
    pub disk: watch::Receiver<Option<String>>,
}

impl Sights {
    /// What is seen of a service.
    pub fn of(&self, service: Service) -> watch::Receiver<Seen> {
        match service {
            Service::Containerd => self.containerd.clone(),
            Service::Kubelet => self.kubelet.clone(),
        }
    }
}

/// Simulated agents share a machine, so that only `AgentReady` is theirs, and all else counts as well.
pub fn simulate(board: &Board) {
    agent_is_ready(board);
    for kind in ["ContainerdReady", "KubeletReady", "DiskOK", "MemoryOK"] {
        board.condition(kind, True, "Simulated", "");
    }
}

/// Changes the simulated memory pressure again and again; the first time is anywhere within that long.
pub async fn simulate_changes(board: Board, every: Duration) {
    let mut pause = every.mul_f64(rand::random_range(0.0..=1.0));
    loop {
        for status in [False, True] {
            tokio::time::sleep(pause).await;
            board.condition("MemoryOK", status, "Simulated", "");
            pause = every;
        }
    }
}

/// Starts the watchers; they end with the runtime.
pub fn start(board: &Board, root: &Root, desired: &watch::Receiver<Option<DesiredState>>) -> Sights {
    agent_is_ready(board);
    let watch_service = |service: Service| {
        let (sender, sight) = watch::channel(Seen::Unknown);
        let name = format!("watch-{}", service.unit());
        k8sctl_rpc::task::spawn(name, unit::watch(board.clone(), service, sender));
        sight
    };
    let (containerd, kubelet) = (watch_service(Service::Containerd), watch_service(Service::Kubelet));
    let (full, disk) = watch::channel(None);
    k8sctl_rpc::task::spawn("watch-resources", resources::watch(board.clone(), root.clone(), full));
    k8sctl_rpc::task::spawn("watch-failed-units", failed::watch(board.clone()));
    k8sctl_rpc::task::spawn(
        "watch-certificates",
        certificates::watch(board.clone(), root.clone(), desired.clone()),
    );
    k8sctl_rpc::task::spawn(
        "watch-control-plane",
        control_plane::watch(board.clone(), root.clone(), desired.clone()),
    );
    Sights { containerd, kubelet, disk }
}

fn agent_is_ready(board: &Board) {
    board.condition("AgentReady", True, "Running", format!("version {}", env!("CARGO_PKG_VERSION")));
}

/// Whether the host wants a control plane here.
pub fn is_control_plane(desired: &DesiredState) -> bool {
    desired.role() == NodeRole::ControlPlane && desired.target() == Target::Member
}
