//! Starts containerd and the kubelet again when they were stopped, have failed, or hang, on a node that is a member.
//!
//! What is wrong is health's to see; whether a unit is a step's to work on now, its claim says. A crash is systemd's to
//! restart, and shows up here only if that comes to nothing, or to another crash again and again: then a person is told. After a boot the steps start both, in their order, and a
//! machine that shuts down stops them for good.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Repairs;
use crate::durable::Root;
use crate::health::unit::{Seen, Trouble};
use crate::retry::{self, Backoff};
use crate::service::{Claims, Service};
use crate::steps::kubeadm;
use crate::systemd::{Systemd, SystemdError};

/// How long a unit must stay stopped: whoever restarts it is between stop and start for a moment.
const STAYS_STOPPED: Duration = Duration::from_secs(1);
/// How often it is looked whether it is repair's turn.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked whether the machine has become a member, and whether a person has ended a rest.
const SLICE: Duration = Duration::from_secs(5);
/// Longest that one try may take. On an emulated machine a kubelet comes up slowly, and that is no failure.
pub const LONGEST: Duration = Duration::from_secs(120);

/// Starts and ends units.
#[async_trait]
pub trait Units: Send + Sync {
    /// Begins to start it.
    async fn start(&self, unit: &'static str) -> Result<(), SystemdError>;
    /// Ends its main process, which cannot defend itself. What that one has started lives on.
    async fn kill(&self, unit: &'static str) -> Result<(), SystemdError>;
    /// Ends it in its own way and starts it again.
    async fn restart(&self, unit: &'static str) -> Result<(), SystemdError>;
    /// Whether the machine is shutting down.
    async fn are_stopping(&self) -> bool;
}

/// systemd, connected to for each act: when all is well, that costs nothing.
#[derive(Clone, Copy, Debug)]
pub struct RealUnits;

#[async_trait]
impl Units for RealUnits {
    async fn start(&self, unit: &'static str) -> Result<(), SystemdError> {
        Systemd::connect().await?.start(unit).await
    }

    async fn kill(&self, unit: &'static str) -> Result<(), SystemdError> {
        let systemd = Systemd::connect().await?;
        // Who stopped the main process by its name has stopped what it has started too, which would stay so.
        if let Err(error) = systemd.let_go_on(unit).await {
            tracing::debug!(unit, error = %k8sctl_rpc::chain(&error), "stopped processes stay so");
        }
        systemd.kill(unit).await
    }

    async fn restart(&self, unit: &'static str) -> Result<(), SystemdError> {
        Systemd::connect().await?.restart(unit).await
    }

    async fn are_stopping(&self) -> bool {
        match Systemd::connect().await {
            Ok(systemd) => systemd.is_stopping().await,
            Err(_) => false,
        }
    }
}

/// Keeps one service running.
pub struct UnitRepair {
    /// Which.
    pub service: Service,
    /// The machine.
    pub root: Root,
    /// What the host wants; `None` means: nothing yet.
    pub desired: watch::Receiver<Option<DesiredState>>,
    /// Who works on the unit.
    pub claims: Claims,
    /// The list and its limits.
    pub repairs: Repairs,
    /// systemd.
    pub units: Arc<dyn Units>,
    /// What health sees of the service.
    pub seen: watch::Receiver<Seen>,
    /// The service has been well in this life of the agent.
    pub has_been_well: bool,
}

impl UnitRepair {
    /// Runs until health has ended.
    pub async fn keep(mut self) {
        let mut backoff = Backoff::new(retry::REPAIR);
        loop {
            let Some(trouble) = self.trouble().await else { return };
            if !self.is_wanted() {
                sleep(SLICE).await;
                continue;
            }
            if let Trouble::Stopped(_) = trouble {
                sleep(STAYS_STOPPED).await;
            }
            let claim = self.claims.try_claim(self.service);
            let fresh = match &*self.seen.borrow_and_update() {
                Seen::Trouble(trouble) => Some(trouble.clone()),
                _ => None,
            };
            // It may be well by now, and a step may be at it, which starts it itself.
            let (Some(claim), Some(trouble)) = (claim, fresh) else {
                sleep(LOOK_AGAIN).await;
                continue;
            };
            // Where systemd does not even say that, starting is not left undone for it.
            if timeout(SLICE, self.units.are_stopping()).await.unwrap_or(false) {
                drop(claim);
                sleep(SLICE).await;
                continue;
            }
            let reason = trouble.words();
            if let Err(rest) = self.repairs.leave(self.service.name(), &reason) {
                drop(claim);
                sleep(rest.left.min(SLICE)).await;
                continue;
            }
            let result = timeout(LONGEST, self.repair(&trouble)).await;
            let result = result.unwrap_or_else(|_| Err(self.still()));
            let repaired = result.is_ok();
            self.repairs.ended(self.service.name(), &reason, &self.action(&trouble), result);
            drop(claim);
            if repaired {
                backoff.reset();
            } else {
                sleep(backoff.next_pause()).await;
            }
        }
    }

    /// Waits for one that is repair's. `None` means: health has ended.
    async fn trouble(&mut self) -> Option<Trouble> {
        let known = &mut self.has_been_well;
        let is_ours = |seen: &Seen| {
            *known |= *seen == Seen::Well;
            match seen {
                // Nobody else sees to that.
                Seen::Trouble(Trouble::Hung(_)) => true,
                Seen::Trouble(Trouble::Stopped(_) | Trouble::Ending(_)) => *known,
                Seen::Unknown | Seen::Well | Seen::Unwell(_) => false,
            }
        };
        let seen = self.seen.wait_for(is_ours).await.ok()?;
        match &*seen {
            Seen::Trouble(trouble) => Some(trouble.clone()),
            _ => None,
        }
    }

    /// A machine with a kubelet's configuration is a member, whose services run. Before that they are the steps' own,
    /// and so is a kubelet that lost its configuration.
    fn is_wanted(&self) -> bool {
        self.desired.borrow().is_some() && kubeadm::is_member(&self.root)
    }

    async fn repair(&mut self, trouble: &Trouble) -> Result<(), String> {
        let unit = self.service.unit();
        let said = |error: SystemdError| k8sctl_rpc::chain(&error).to_string();
        if let Trouble::Hung(_) = trouble {
            self.units.kill(unit).await.map_err(said)?;
        }
        self.units.start(unit).await.map_err(said)?;
        // Not what health saw before.
        let well = self.seen.wait_for(|seen| matches!(seen, Seen::Well)).await;
        well.map(drop).map_err(|_| "the agent ends".to_owned())
    }

    fn action(&self, trouble: &Trouble) -> String {
        let unit = self.service.unit();
        match trouble {
            Trouble::Stopped(_) | Trouble::Ending(_) => format!("started {unit}"),
            Trouble::Hung(_) => format!("killed the main process of {unit} and started it"),
        }
    }

    /// What health sees when the time is over.
    fn still(&self) -> String {
        let seen = match &*self.seen.borrow() {
            Seen::Trouble(trouble) => trouble.words(),
            Seen::Unwell(words) => words.clone(),
            Seen::Well | Seen::Unknown => "it is not known how it is".to_owned(),
        };
        format!("not well after {} s: {seen}", LONGEST.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use k8sctl_proto::node::v1::{Repair, RepairOutcome};

    use super::super::tests::listed;
    use super::*;
    use crate::service::Claim;
    use crate::status::Board;

    /// A systemd whose units health sees at once.
    struct FakeUnits {
        seen: watch::Sender<Seen>,
        acts: Mutex<Vec<&'static str>>,
        /// Starts that still come to nothing.
        vain: AtomicU32,
        /// The machine is shutting down.
        stopping: AtomicBool,
    }

    #[async_trait]
    impl Units for FakeUnits {
        async fn start(&self, _: &'static str) -> Result<(), SystemdError> {
            self.acts.lock().expect("lock").push("start");
            let vain = self.vain.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if vain.is_err() {
                self.seen.send_replace(Seen::Well);
            }
            Ok(())
        }

        async fn kill(&self, _: &'static str) -> Result<(), SystemdError> {
            self.acts.lock().expect("lock").push("kill");
            self.seen.send_replace(Seen::Unwell("activating (auto-restart)".into()));
            Ok(())
        }

        async fn restart(&self, _: &'static str) -> Result<(), SystemdError> {
            self.acts.lock().expect("lock").push("restart");
            Ok(())
        }

        async fn are_stopping(&self) -> bool {
            self.stopping.load(Ordering::SeqCst)
        }
    }

    fn stopped() -> Seen {
        Seen::Trouble(Trouble::Stopped("containerd.service is inactive (dead)".into()))
    }

    struct Fixture {
        units: Arc<FakeUnits>,
        claims: Claims,
        board: Board,
        _desired: watch::Sender<Option<DesiredState>>,
        _dir: tempfile::TempDir,
    }

    /// Of a service that is as `first` when the agent starts, and has been seen so.
    async fn fixture(is_member: bool, first: Seen, vain: u32) -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        if is_member {
            kubeadm::observe::write_kubelet_config(&root);
        }
        let (seen, receiver) = watch::channel(first);
        let (desired, wanted) = watch::channel(Some(DesiredState::default()));
        let units = Arc::new(FakeUnits {
            seen,
            acts: Mutex::default(),
            vain: AtomicU32::new(vain),
            stopping: AtomicBool::new(false),
        });
        let (claims, board) = (Claims::default(), Board::default());
        let repair = UnitRepair {
            service: Service::Containerd,
            root,
            desired: wanted,
            claims: claims.clone(),
            repairs: Repairs::in_memory(board.clone()),
            units: units.clone(),
            seen: receiver,
            has_been_well: false,
        };
        k8sctl_rpc::task::spawn("repair", repair.keep());
        sleep(Duration::from_millis(1)).await;
        Fixture { units, claims, board, _desired: desired, _dir: dir }
    }

    impl Fixture {
        async fn repairs(&self, count: usize) -> Vec<Repair> {
            listed(&self.board, count).await
        }

        fn acts(&self) -> Vec<&'static str> {
            self.units.acts.lock().expect("lock").clone()
        }

        async fn nothing_happens(&self, seconds: u64) {
            sleep(Duration::from_secs(seconds)).await;
            assert!(self.acts().is_empty(), "{:?}", self.acts());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopped_service_is_started_within_seconds() {
        let fixture = fixture(true, Seen::Well, 0).await;
        let begun = tokio::time::Instant::now();
        fixture.units.seen.send_replace(stopped());
        let repair = &fixture.repairs(1).await[0];
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert_eq!((repair.object.as_str(), repair.outcome()), ("containerd", RepairOutcome::Repaired));
        assert_eq!(repair.reason, "containerd.service is inactive (dead)");
        assert_eq!(repair.action, "started containerd.service");
        assert_eq!(fixture.acts(), ["start"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_service_is_killed_first() {
        let fixture = fixture(true, Seen::Well, 0).await;
        fixture.units.seen.send_replace(Seen::Trouble(Trouble::Hung("no answer".into())));
        assert_eq!(fixture.repairs(1).await[0].outcome(), RepairOutcome::Repaired);
        assert_eq!(fixture.acts(), ["kill", "start"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_repair_that_does_not_work_is_given_up_and_tried_again_after_the_rest() {
        let fixture = fixture(true, Seen::Well, 4).await;
        fixture.units.seen.send_replace(stopped());
        let begun = tokio::time::Instant::now();
        let told = fixture.repairs(4).await;
        assert!(begun.elapsed() < Duration::from_secs(600), "{:?}", begun.elapsed());
        let outcomes: Vec<_> = told.iter().map(Repair::outcome).collect();
        let failed = RepairOutcome::Failed;
        assert_eq!(outcomes, [failed, failed, failed, RepairOutcome::GaveUp]);
        assert!(told[0].message.contains("inactive (dead)"), "{}", told[0].message);
        sleep(super::super::USUAL.rest - Duration::from_secs(30)).await;
        assert_eq!(fixture.acts().len(), 3);
        assert_eq!(fixture.repairs(6).await[5].outcome(), RepairOutcome::Repaired);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_ends_at_each_start_is_given_up() {
        let ending = Seen::Trouble(Trouble::Ending("containerd.service is activating".into()));
        let fixture = fixture(true, Seen::Well, 3).await;
        fixture.units.seen.send_replace(ending);
        let told = fixture.repairs(4).await;
        let outcomes: Vec<_> = told.iter().map(Repair::outcome).collect();
        let failed = RepairOutcome::Failed;
        assert_eq!(outcomes, [failed, failed, failed, RepairOutcome::GaveUp]);
        assert_eq!(told[0].message, "not well after 120 s: containerd.service is activating");
        assert_eq!(fixture.acts(), ["start"; 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_is_no_member_and_a_unit_that_a_step_works_on_are_left_alone() {
        let stranger = fixture(false, Seen::Well, 0).await;
        stranger.units.seen.send_replace(stopped());
        stranger.nothing_happens(600).await;

        let member = fixture(true, Seen::Well, 0).await;
        let claim: Claim = member.claims.claim(Service::Containerd).await;
        member.units.seen.send_replace(stopped());
        member.nothing_happens(600).await;
        drop(claim);
        member.repairs(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_boot_finds_stopped_is_the_steps_and_what_hangs_is_not() {
        let fixture = fixture(true, stopped(), 0).await;
        fixture.nothing_happens(600).await;
        fixture.units.seen.send_replace(Seen::Trouble(Trouble::Hung("no answer".into())));
        fixture.repairs(1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_shuts_down_starts_nothing() {
        let fixture = fixture(true, Seen::Well, 0).await;
        fixture.units.stopping.store(true, Ordering::SeqCst);
        fixture.units.seen.send_replace(stopped());
        fixture.nothing_happens(600).await;
        assert!(fixture.board.subscribe().borrow().repairs.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_being_restarted_by_others_is_left_alone() {
        let fixture = fixture(true, Seen::Well, 0).await;
        fixture.units.seen.send_replace(stopped());
        sleep(Duration::from_millis(500)).await;
        fixture.units.seen.send_replace(Seen::Well);
        fixture.nothing_happens(60).await;
        assert!(fixture.board.subscribe().borrow().repairs.is_empty());
    }
}
