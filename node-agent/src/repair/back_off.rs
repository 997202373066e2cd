//! Ends the kubelet's back-off of a control plane. A container that has ended several times is started again only after a
//! while, five minutes at most, and the kubelet counts on for ten minutes after the trouble is over: a cluster whose API
//! server ended often while a slow machine booted is without one for minutes after the next small fault. The count is in
//! the kubelet's memory, so a restart of the kubelet, which no container notices, begins anew.
//!
//! Only what has ended in this life of the agent: what a boot finds ended is started by the kubelet, in its own time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::units::{LONGEST, Units};
use super::{CONTROL_PLANE, Repairs};
use crate::durable::Root;
use crate::health::is_control_plane;
use crate::health::unit::Seen;
use crate::service::{Claims, Service};
use crate::steps::containerd;
use crate::steps::cri::{Container, Cri, CriError};
use crate::steps::kubeadm::{self, observe};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(15);
/// How often it is looked whether a restart has helped.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long one must have ended and not been started: the shorter back-offs, up to 80 s, end as soon by themselves as a
/// kubelet on a slow machine is there again.
const STAYS_ENDED: Duration = Duration::from_secs(90);
/// Longest that the runtime may take to answer.
const CALL: Duration = Duration::from_secs(10);
/// Where kubeadm's static pods are.
const NAMESPACE: &str = "kube-system";

/// Lists containers.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// All of them, whatever their state.
    async fn containers(&self) -> Result<Vec<Container>, CriError>;
}

/// This machine's.
#[derive(Debug)]
pub struct RealRuntime(Root);

impl RealRuntime {
    /// Below this root.
    pub fn new(root: Root) -> Self {
        Self(root)
    }
}

#[async_trait]
impl Runtime for RealRuntime {
    async fn containers(&self) -> Result<Vec<Container>, CriError> {
        Cri::connect(&self.0.path(containerd::SOCKET), CALL).await?.containers().await
    }
}

/// Keeps a control plane's parts from waiting for the kubelet.
pub struct BackOffRepair {
    /// The machine.
    pub root: Root,
    /// What the host wants.
    pub desired: watch::Receiver<Option<DesiredState>>,
    /// Who works on the kubelet's unit.
    pub claims: Claims,
    /// The list and its limits.
    pub repairs: Repairs,
    /// systemd.
    pub units: Arc<dyn Units>,
    /// The container runtime.
    pub runtime: Arc<dyn Runtime>,
    /// What health sees of containerd.
    pub containerd: watch::Receiver<Seen>,
    /// What health sees of the kubelet.
    pub kubelet: watch::Receiver<Seen>,
}

/// A part of a control plane, and its newest container, which has ended.
type Ended = HashMap<&'static str, String>;

impl BackOffRepair {
    /// Runs until health has ended.
    pub async fn keep(self) {
        // What had ended before, and since when what has ended since then.
        let mut before: Option<HashSet<String>> = None;
        let mut since: HashMap<String, Instant> = HashMap::new();
        while self.kubelet.has_changed().is_ok() {
            sleep(LOOK).await;
            let Some(mut ended) = self.look().await else {
                since.clear();
                continue;
            };
            let before = before.get_or_insert_with(|| ended.values().cloned().collect());
            ended.retain(|_, id| !before.contains(id));
            let now = Instant::now();
            since.retain(|id, _| ended.values().any(|it| it == id));
            for id in ended.values() {
                since.entry(id.clone()).or_insert(now);
            }
            ended.retain(|_, id| since.get(id).is_some_and(|since| now - *since >= STAYS_ENDED));
            if !ended.is_empty() {
                self.repair(&ended).await;
                since.clear();
            }
        }
    }

    /// What has ended of a control plane whose kubelet could start it. `None` means: it is not to be said now, or not ours.
    async fn look(&self) -> Option<Ended> {
        let is_ours = self.desired.borrow().as_ref().is_some_and(is_control_plane)
            && kubeadm::is_member(&self.root)
            && [&self.containerd, &self.kubelet].iter().all(|seen| *seen.borrow() == Seen::Well);
        if !is_ours {
            return None;
        }
        let containers = self.runtime.containers().await.ok()?;
        Some(ended(&containers, |name| self.root.exists(observe::manifest_path(name))))
    }

    async fn repair(&self, ended: &Ended) {
        let Some(_claim) = self.claims.try_claim(Service::Kubelet) else { return };
        let unit = Service::Kubelet.unit();
        // Where systemd does not even say that, a restart is not left undone for it.
        if timeout(CALL, self.units.are_stopping()).await.unwrap_or(false) {
            return;
        }
        let mut names: Vec<&str> = ended.keys().copied().collect();
        names.sort_unstable();
        let reason = format!(
            "{} has ended, and the kubelet has not started it again for {} s",
            names.join(", "),
            STAYS_ENDED.as_secs()
        );
        if self.repairs.leave(CONTROL_PLANE, &reason).is_err() {
            return;
        }
        let lies = |now: Ended| ended.iter().any(|(name, id)| now.get(name) == Some(id));
        let restarted = async {
            let begun = self.units.restart(unit).await;
            begun.map_err(|error| k8sctl_rpc::chain(&error).to_string())?;
            // Not yet known: the runtime may not answer, or the kubelet not be there.
            while self.look().await.is_none_or(lies) {
                sleep(LOOK_AGAIN).await;
            }
            Ok(())
        };
        let late = || Err(format!("not started after {} s", LONGEST.as_secs()));
        let result = timeout(LONGEST, restarted).await.unwrap_or_else(|_| late());
        self.repairs.ended(CONTROL_PLANE, &reason, &format!("restarted {unit}"), result);
    }
}

/// The newest container of each part that has a manifest, where all of its containers have ended. Others' pods may have
/// containers of such a name, and a clock that was ahead may have made an older one the newest.
fn ended(containers: &[Container], has_manifest: impl Fn(&str) -> bool) -> Ended {
    let newest = |name: &str| {
        let of_it = || containers.iter().filter(|container| container.is(NAMESPACE, name));
        let newest = of_it().max_by_key(|container| container.created_at)?;
        of_it().all(Container::has_ended).then(|| newest.id.clone())
    };
    let parts = observe::MANIFESTS.into_iter().filter(|name| has_manifest(name));
    parts.filter_map(|name| Some((name, newest(name)?))).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8sctl_proto::node::v1::{NodeRole, Repair, RepairOutcome, Target};

    use super::super::tests::listed;
    use super::*;
    use crate::status::Board;
    use crate::systemd::SystemdError;

    fn container(id: &str, name: &str, created_at: i64, has_ended: bool) -> Container {
        Container::of_pod(id, NAMESPACE, name, created_at, has_ended)
    }

    #[test]
    fn a_part_has_ended_when_all_of_its_containers_have() {
        let containers = [
            container("a", "etcd", 1, true),
            container("b", "etcd", 2, false),
            container("c", "kube-apiserver", 4, true),
            container("d", "kube-apiserver", 3, true),
            container("e", "kube-scheduler", 5, true),
            // A job's, behind the part's own.
            container("h", "etcd", 9, true),
            container("f", "echo", 6, true),
            Container::of_pod("g", "default", "kube-controller-manager", 7, true),
        ];
        let found = ended(&containers, |name| name != "kube-scheduler");
        assert_eq!(found, HashMap::from([("kube-apiserver", "c".to_owned())]));
    }

    /// An API server that ends seconds after each start, by a kubelet that runs since then: its back-off begins at 10 s and
    /// is doubled up to 300 s.
    fn crashing(kubelet_since: Instant) -> Container {
        let now = Instant::now();
        let (mut started, mut pause) = (kubelet_since, Duration::from_secs(10));
        loop {
            let ended = started + Duration::from_secs(3);
            if now < ended + pause {
                return container(&format!("{started:?}"), "kube-apiserver", 1, now >= ended);
            }
            started = ended + pause;
            pause = (pause * 2).min(Duration::from_secs(300));
        }
    }

    /// A kubelet that starts what has ended when it is restarted, if it is not in vain.
    struct FakeNode {
        containers: Mutex<Vec<Container>>,
        restarts: Mutex<u32>,
        in_vain: bool,
        /// Set: its API server is [`crashing`] instead.
        crashes_since: Mutex<Option<Instant>>,
    }

    #[async_trait]
    impl Runtime for FakeNode {
        async fn containers(&self) -> Result<Vec<Container>, CriError> {
            let crashes_since = *self.crashes_since.lock().expect("lock");
            Ok(match crashes_since {
                Some(since) => vec![crashing(since)],
                None => self.containers.lock().expect("lock").clone(),
            })
        }
    }

    #[async_trait]
    impl Units for FakeNode {
        async fn start(&self, _: &'static str) -> Result<(), SystemdError> {
            unreachable!("it runs")
        }

        async fn kill(&self, _: &'static str) -> Result<(), SystemdError> {
            unreachable!("it is well")
        }

        async fn restart(&self, unit: &'static str) -> Result<(), SystemdError> {
            assert_eq!(unit, Service::Kubelet.unit());
            *self.restarts.lock().expect("lock") += 1;
            if let Some(since) = self.crashes_since.lock().expect("lock").as_mut() {
                *since = Instant::now();
            }
            if !self.in_vain {
                self.set("new", 9, false);
            }
            Ok(())
        }

        async fn are_stopping(&self) -> bool {
            false
        }
    }

    impl FakeNode {
        fn set(&self, id: &str, created_at: i64, has_ended: bool) {
            let newest = container(id, "kube-apiserver", created_at, has_ended);
            *self.containers.lock().expect("lock") = vec![newest];
        }

        fn crash(&self) {
            *self.crashes_since.lock().expect("lock") = Some(Instant::now());
        }

        fn restarts(&self) -> u32 {
            *self.restarts.lock().expect("lock")
        }
    }

    struct Fixture {
        node: Arc<FakeNode>,
        claims: Claims,
        board: Board,
        kubelet: watch::Sender<Seen>,
        _containerd: watch::Sender<Seen>,
        _desired: watch::Sender<Option<DesiredState>>,
        _dir: tempfile::TempDir,
    }

    /// A node whose API server is as `has_ended` says when the agent starts.
    async fn fixture(role: NodeRole, has_ended: bool, in_vain: bool) -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        observe::write_kubelet_config(&root);
        for name in observe::MANIFESTS {
            observe::write_manifest(&root, name);
        }
        let mut wanted = DesiredState::default();
        wanted.set_role(role);
        wanted.set_target(Target::Member);
        let (desired, wanted) = watch::channel(Some(wanted));
        let (containerd, containerd_seen) = watch::channel(Seen::Well);
        let (kubelet, kubelet_seen) = watch::channel(Seen::Well);
        let node = Arc::new(FakeNode {
            containers: Mutex::default(),
            restarts: Mutex::default(),
            in_vain,
            crashes_since: Mutex::default(),
        });
        node.set("first", 1, has_ended);
        let (claims, board) = (Claims::default(), Board::default());
        let repair = BackOffRepair {
            root,
            desired: wanted,
            claims: claims.clone(),
            repairs: Repairs::in_memory(board.clone()),
            units: node.clone(),
            runtime: node.clone(),
            containerd: containerd_seen,
            kubelet: kubelet_seen,
        };
        k8sctl_rpc::task::spawn("repair", repair.keep());
        sleep(LOOK * 2).await;
        Fixture { node, claims, board, kubelet, _containerd: containerd, _desired: desired, _dir: dir }
    }

    impl Fixture {
        async fn repairs(&self, count: usize) -> Vec<Repair> {
            listed(&self.board, count).await
        }

        async fn nothing_happens(&self) {
            sleep(Duration::from_secs(1_000)).await;
            assert_eq!(self.node.restarts(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_kubelet_lets_lie_is_started_by_its_restart() {
        let fixture = fixture(NodeRole::ControlPlane, false, false).await;
        let begun = Instant::now();
        fixture.node.set("first", 1, true);
        let repair = &fixture.repairs(1).await[0];
        let took = begun.elapsed();
        assert!(took >= STAYS_ENDED && took < STAYS_ENDED + LOOK * 2, "{took:?}");
        assert_eq!((repair.object.as_str(), repair.outcome()), (CONTROL_PLANE, RepairOutcome::Repaired));
        let reason = "kube-apiserver has ended, and the kubelet has not started it again for 90 s";
        assert_eq!((repair.reason.as_str(), repair.action.as_str()), (reason, "restarted kubelet.service"));
        sleep(Duration::from_secs(1_000)).await;
        assert_eq!(fixture.node.restarts(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_ends_again_and_again_waits_anew_each_time() {
        let fixture = fixture(NodeRole::ControlPlane, false, false).await;
        for number in 2..20 {
            let id = number.to_string();
            fixture.node.set(&id, number, true);
            sleep(Duration::from_secs(80)).await;
            fixture.node.set(&id, number, false);
            sleep(LOOK * 2).await;
        }
        assert_eq!(fixture.node.restarts(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_that_does_not_help_is_given_up() {
        let fixture = fixture(NodeRole::ControlPlane, false, true).await;
        fixture.node.set("first", 1, true);
        let told = fixture.repairs(4).await;
        let outcomes: Vec<_> = told.iter().map(Repair::outcome).collect();
        let failed = RepairOutcome::Failed;
        assert_eq!(outcomes, [failed, failed, failed, RepairOutcome::GaveUp]);
        assert_eq!(told[0].message, "not started after 120 s");
        assert_eq!(fixture.node.restarts(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_ends_seconds_after_each_start_is_given_up() {
        let fixture = fixture(NodeRole::ControlPlane, false, false).await;
        fixture.node.crash();
        let told = fixture.repairs(4).await;
        let outcomes: Vec<_> = told.iter().map(Repair::outcome).collect();
        let repaired = RepairOutcome::Repaired;
        assert_eq!(outcomes, [repaired, repaired, repaired, RepairOutcome::GaveUp]);
        assert_eq!(told[3].action, "gave up after 3 tries within 60 minutes");
        sleep(super::super::ENDED_PART.rest - Duration::from_secs(60)).await;
        assert_eq!(fixture.node.restarts(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_boot_finds_ended_and_a_worker_are_left_alone() {
        let booted = fixture(NodeRole::ControlPlane, true, false).await;
        booted.nothing_happens().await;
        let worker = fixture(NodeRole::Worker, false, false).await;
        worker.node.set("first", 1, true);
        worker.nothing_happens().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_kubelet_that_is_not_well_or_that_a_step_works_on_is_left_alone() {
        let fixture = fixture(NodeRole::ControlPlane, false, false).await;
        fixture.kubelet.send_replace(Seen::Unwell("it starts".into()));
        fixture.node.set("first", 1, true);
        fixture.nothing_happens().await;
        let claim = fixture.claims.claim(Service::Kubelet).await;
        fixture.kubelet.send_replace(Seen::Well);
        fixture.nothing_happens().await;
        drop(claim);
        fixture.repairs(1).await;
    }
}
