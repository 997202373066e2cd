//! Puts right by itself what went wrong on the node, with limits, and keeps a list of it that the host is told.
//!
//! - [`limiter`]: how often, pure; [`ledger`]: the numbered list on the disk; [`Repairs`]: both, for all objects
//! - [`units`]: containerd and the kubelet, stopped or hung
//! - [`back_off`]: what the kubelet does not start again for minutes, of a control plane
//! - [`disk`]: unused images and old journal of a full disk; [`images`]: which images those are
//! - the clock: [`crate::session`] sees it, and sets it
//! - [`drift`]: wakes converge when what a step keeps was changed; the step's apply is the repair
//!
//! What is wrong is seen by [`crate::health`] and by the steps' checks. `docs/reliability.md` says to a user what
//! stands here: change both.

pub mod back_off;
pub mod disk;
pub mod drift;
pub mod images;
pub mod ledger;
pub mod limiter;
pub mod units;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use k8sctl_proto::node::v1::{DesiredState, Repair, RepairOutcome};
use tokio::sync::{Notify, watch};

use crate::clock;
use crate::durable::Root;
use crate::health::Sights;
use crate::service::{Claims, Service};
use crate::status::Board;
use crate::steps::{host_os, network};
use disk::RealStock;
use ledger::{Ledger, entry};
use limiter::{Leave, Limit, Limiter, Why};
use units::{RealUnits, UnitRepair};

/// Object of the repairs of a full disk.
pub const DISK: &str = "disk";
/// Object of the repairs of a clock that is not the host's.
pub const CLOCK: &str = "clock";
/// Object of the repairs of what the kubelet does not start again.
pub const CONTROL_PLANE: &str = "control-plane";

/// containerd, the kubelet, and each step. A machine that loses the same thing five times in ten minutes, or twenty things of
/// one step, has another trouble, which restarts only hide; three tries without effect say that a fourth has none. Then a quarter of an hour,
/// in which a person sees it as it is, and after which the cause may have gone.
const USUAL: Limit = Limit {
    tries: 5,
    in_all: 20,
    failures: 3,
    within: Duration::from_secs(10 * 60),
    rest: Duration::from_secs(15 * 60),
};
/// The disk. What has been removed is gone: a disk that is full again within the hour is filled by something else.
const FULL_DISK: Limit = Limit {
    tries: 3,
    in_all: 3,
    failures: 2,
    within: Duration::from_secs(60 * 60),
    rest: Duration::from_secs(60 * 60),
};

/// The control plane, whichever of its parts has ended. One that ends at each start is started by each restart of the
/// kubelet, and then lies again only after some minutes of shorter back-offs: each restart seems to help, and too few come
/// within ten minutes.
const ENDED_PART: Limit = Limit {
    tries: 3,
    in_all: 3,
    failures: 3,
    within: Duration::from_secs(60 * 60),
    rest: Duration::from_secs(60 * 60),
};

/// The clock. Each time that the host was suspended it is far behind, and a host may be suspended often.
const CLOCK_SET: Limit = Limit { tries: 10, in_all: 10, failures: 3, ..USUAL };

fn limit_of(object: &str) -> Limit {
    match object {
        CLOCK => CLOCK_SET,
        DISK => FULL_DISK,
        CONTROL_PLANE => ENDED_PART,
        _ => USUAL,
    }
}

/// There is no further try for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Until there is.
    pub left: Duration,
    /// "rests until 2026-11-28T18:45:12Z"
    pub message: String,
}

/// All repairs of this machine: asked for, limited, listed, put on the board. Clones share them.
#[derive(Clone, Debug)]
pub struct Repairs(Arc<Mutex<Book>>);

#[derive(Debug)]
struct Book {
    ledger: Ledger,
    limiters: HashMap<String, Limiter>,
    board: Board,
}

impl Repairs {
    /// Those that the state directory has, and their limits: an agent that is restarted does not begin to count anew.
    pub fn open(state_dir: &Path, board: Board) -> Self {
        let ledger = Ledger::open(state_dir);
        board.repairs(ledger.repairs());
        Self::of(ledger, board)
    }

    /// None so far, and kept nowhere.
    pub fn in_memory(board: Board) -> Self {
        Self::of(Ledger::in_memory(), board)
    }

    fn of(ledger: Ledger, board: Board) -> Self {
        let limiters = recall(ledger.counted(), SystemTime::now(), now());
        Self(Arc::new(Mutex::new(Book { ledger, limiters, board })))
    }

    /// Asks whether this may be repaired once more. The try that follows is written down at once, so that it counts
    /// though the agent should die of it; its end is told by [`Self::ended`] or [`Self::passed`]. That the agent gives up
    /// is listed here, once.
    pub fn leave(&self, object: &str, reason: &str) -> Result<(), Rest> {
        let mut book = self.book();
        let limit = limit_of(object);
        let limiter = book.limiters.entry(object.to_owned()).or_insert_with(|| Limiter::new(limit));
        let Leave::Rest { left, begins } = limiter.ask(&ledger::cut(reason), now()) else {
            book.ledger.begin(object, reason);
            return Ok(());
        };
        let message = rests_until(SystemTime::now() + left);
        if let Some(why) = begins {
            let minutes = limit.within.as_secs() / 60;
            let action = match why {
                Why::Tries => format!("gave up after {} tries within {minutes} minutes", limit.tries),
                Why::InAll => format!("gave up after {} tries within {minutes} minutes", limit.in_all),
                Why::Failures => format!("gave up after {} tries in a row without effect", limit.failures),
            };
            book.add(entry(object, reason, &action, RepairOutcome::GaveUp, message.clone()));
        }
        Err(Rest { left, message })
    }

    /// Lists how a try ended; `Err` says why it failed.
    pub fn ended(&self, object: &str, reason: &str, action: &str, result: Result<(), String>) {
        let mut book = self.book();
        if let Some(limiter) = book.limiters.get_mut(object) {
            limiter.ended(result.is_ok(), now());
        }
        book.ledger.strike(object, reason);
        let outcome = if result.is_ok() { RepairOutcome::Repaired } else { RepairOutcome::Failed };
        book.add(entry(object, reason, action, outcome, result.err().unwrap_or_default()));
    }

    /// A try has ended of which somebody else has listed what there is to tell.
    pub fn passed(&self, object: &str, reason: &str) {
        let mut book = self.book();
        book.ledger.strike(object, reason);
        book.ledger.save();
    }

    /// Number of an object's newest repair that is kept.
    pub fn newest(&self, object: &str) -> Option<u64> {
        self.book().ledger.newest(object).map(|repair| repair.number)
    }

    /// Whether an object's last repair did not help, and it was not well since.
    pub fn is_unsettled(&self, object: &str) -> bool {
        self.book().ledger.is_unsettled(object)
    }

    /// An object is well, whoever has seen to that.
    pub fn settle(&self, object: &str) {
        self.book().ledger.settle(object);
    }

    /// Notes the number of what a person asked for last. With another one everything is asked for anew: what was tried
    /// before does not count, and nobody rests any more. Says whether that is so.
    pub fn asked_for(&self, number: u64) -> bool {
        let mut book = self.book();
        let is_anew = book.ledger.asked_for(number);
        if is_anew {
            book.limiters.values_mut().for_each(Limiter::clear);
        }
        is_anew
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every critical section leaves whole values, so what a panic leaves behind is sound.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn add(&mut self, repair: Repair) {
        self.ledger.add(repair);
        self.board.repairs(self.ledger.repairs());
    }
}

/// The limits as the list leaves them: times on the disk are of the wall clock, those of limits are not.
fn recall(repairs: &[Repair], wall: SystemTime, now: Instant) -> HashMap<String, Limiter> {
    let mut limiters: HashMap<String, Limiter> = HashMap::new();
    for repair in repairs {
        let time = repair.time.as_ref().map_or(wall, clock::system_time);
        // A clock that was ahead then makes it count as of now.
        let age = wall.duration_since(time).unwrap_or_default();
        let at = now.checked_sub(age).unwrap_or(now);
        let limit = limit_of(&repair.object);
        let limiter = limiters.entry(repair.object.clone()).or_insert_with(|| Limiter::new(limit));
        match repair.outcome() {
            RepairOutcome::GaveUp => limiter.recall_rest(at),
            outcome => limiter.recall_try(&repair.reason, at, outcome == RepairOutcome::Repaired),
        }
    }
    limiters
}

/// Follows a paused clock in tests.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn rests_until(time: SystemTime) -> String {
    let until = jiff::Timestamp::try_from(time).unwrap_or_default();
    format!("rests until {until:.0}")
}

/// What repair works with.
pub struct Surroundings {
    /// The machine.
    pub root: Root,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// What the host wants.
    pub desired: watch::Receiver<Option<DesiredState>>,
    /// Who works on which unit.
    pub claims: Claims,
    /// The list and its limits.
    pub repairs: Repairs,
    /// What health sees.
    pub sights: Sights,
    /// Wakes converge.
    pub wake: Arc<Notify>,
}

/// Starts the tasks that repair; they end with the runtime.
pub fn start(with: Surroundings) {
    for service in Service::ALL {
        let repair = UnitRepair {
            service,
            root: with.root.clone(),
            desired: with.desired.clone(),
            claims: with.claims.clone(),
            repairs: with.repairs.clone(),
            units: Arc::new(RealUnits),
            seen: with.sights.of(service),
            has_been_well: false,
        };
        k8sctl_rpc::task::spawn(format!("repair-{}", service.name()), repair.keep());
    }
    let back_off = back_off::BackOffRepair {
        root: with.root.clone(),
        desired: with.desired.clone(),
        claims: with.claims.clone(),
        repairs: with.repairs.clone(),
        units: Arc::new(RealUnits),
        runtime: Arc::new(back_off::RealRuntime::new(with.root.clone())),
        containerd: with.sights.of(Service::Containerd),
        kubelet: with.sights.of(Service::Kubelet),
    };
    k8sctl_rpc::task::spawn("repair-back-off", back_off.keep());
    let known = images::Known::new(&with.state_dir);
    let containerd = with.sights.of(Service::Containerd);
    let stock = Arc::new(RealStock::new(with.root.clone()));
    let repair = disk::DiskRepair {
        root: with.root.clone(),
        desired: with.desired.clone(),
        repairs: with.repairs,
        known,
        stock,
        full: with.sights.disk,
        containerd,
    };
    k8sctl_rpc::task::spawn("repair-disk", repair.keep());
    if with.root.is_live() {
        let desired = with.desired;
        let look = move || host_os::kernel_wrongs(desired.borrow().as_ref());
        let kernel = drift::watch_kernel(look, Arc::clone(&with.wake));
        k8sctl_rpc::task::spawn("watch-kernel", kernel);
        let lacks_address = move || {
            let desired = with.desired.borrow();
            desired.as_ref().is_some_and(|desired| network::lacks_address(&desired.node_ip))
        };
        let address = drift::watch_address(lacks_address, Arc::clone(&with.wake));
        k8sctl_rpc::task::spawn("watch-address", address);
    }
    k8sctl_rpc::task::spawn("watch-drift", drift::watch(with.root, with.wake));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits until the board has so many repairs; a paused clock runs on by itself.
    pub(super) async fn listed(board: &Board, count: usize) -> Vec<Repair> {
        let mut report = board.subscribe();
        let listed = report.wait_for(|report| report.repairs.len() == count);
        let listed = tokio::time::timeout(Duration::from_secs(3600), listed).await.expect("in time");
        listed.expect("the board lives").repairs.clone()
    }

    fn outcomes(board: &Board) -> Vec<(RepairOutcome, String)> {
        let report = board.subscribe().borrow().clone();
        report.repairs.iter().map(|repair| (repair.outcome(), repair.message.clone())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_help_is_given_up_once_and_tried_again_after_the_rest() {
        let board = Board::default();
        let repairs = Repairs::in_memory(board.clone());
        for _ in 0..USUAL.failures {
            repairs.leave("cni", "broken").expect("a try");
            repairs.ended("cni", "broken", "applied", Err("no".into()));
        }
        for _ in 0..3 {
            let rest = repairs.leave("cni", "broken").expect_err("a rest");
            assert!(rest.message.starts_with("rests until 20"), "{rest:?}");
        }
        let told = outcomes(&board);
        assert_eq!(told.len(), USUAL.failures + 1, "{told:?}");
        assert_eq!(told[USUAL.failures].0, RepairOutcome::GaveUp);
        repairs.leave("kubelet", "another object").expect("a try");
        tokio::time::advance(USUAL.rest).await;
        repairs.leave("cni", "broken").expect("a try");
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_who_asks_again_ends_the_rest() {
        let repairs = Repairs::in_memory(Board::default());
        assert!(!repairs.asked_for(3));
        for _ in 0..USUAL.tries {
            repairs.leave("cni", "broken").expect("a try");
            repairs.ended("cni", "broken", "applied", Ok(()));
        }
        assert!(!repairs.asked_for(3));
        repairs.leave("cni", "broken").expect_err("a rest");
        assert!(repairs.asked_for(4));
        repairs.leave("cni", "broken").expect("a try");
    }

    #[tokio::test(start_paused = true)]
    async fn parts_of_a_control_plane_that_end_in_turn_are_given_up_too() {
        let repairs = Repairs::in_memory(Board::default());
        for part in ["etcd", "kube-apiserver", "kube-scheduler"] {
            repairs.leave(CONTROL_PLANE, part).expect("a try");
            repairs.ended(CONTROL_PLANE, part, "restarted", Ok(()));
            tokio::time::advance(Duration::from_secs(5 * 60)).await;
        }
        repairs.leave(CONTROL_PLANE, "kube-controller-manager").expect_err("a rest");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_restarted_rests_on_and_goes_on_counting() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for _ in 0..USUAL.failures {
            // Each try in another life: the agent dies of it.
            let repairs = Repairs::open(dir.path(), Board::default());
            repairs.leave("cni", "broken").expect("a try");
            repairs.ended("cni", "broken", "applied", Err("no".into()));
        }
        Repairs::open(dir.path(), Board::default()).leave("cni", "broken").expect_err("a rest");
        let board = Board::default();
        Repairs::open(dir.path(), board.clone()).leave("cni", "broken").expect_err("it rests on");
        assert_eq!(outcomes(&board).len(), USUAL.failures + 1);
        for number in [1, 2] {
            assert_eq!(Repairs::open(dir.path(), Board::default()).asked_for(number), number == 2);
        }
        let board = Board::default();
        Repairs::open(dir.path(), board.clone()).leave("cni", "broken").expect("a person has ended the rest");
        assert_eq!(outcomes(&board).len(), USUAL.failures + 1, "and nothing is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn tries_in_whose_midst_the_agent_dies_count_and_are_told_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let open = || {
            let board = Board::default();
            (Repairs::open(dir.path(), board.clone()), board)
        };
        let failed = |count: usize| vec![RepairOutcome::Failed; count];
        let told = |board: &Board| outcomes(board).into_iter().map(|told| told.0).collect::<Vec<_>>();
        for life in 0..USUAL.failures {
            let (repairs, board) = open();
            assert_eq!(told(&board), failed(life));
            repairs.leave("cni", "broken").expect("a try");
            assert_eq!(told(&board), failed(life), "what goes on is not told");
        }
        let (repairs, board) = open();
        assert_eq!(outcomes(&board)[0].1, "the agent ended in the midst of it");
        repairs.leave("cni", "broken").expect_err("a rest");
        let mut all = failed(USUAL.failures);
        all.push(RepairOutcome::GaveUp);
        assert_eq!(told(&board), all);
        assert_eq!(told(&open().1), all);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_has_ended_is_told_as_it_ended_and_one_that_others_told_not_at_all() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let repairs = Repairs::open(dir.path(), Board::default());
        let long = "why\n".repeat(1000);
        repairs.leave("kubelet", &long).expect("a try");
        repairs.leave("kubelet", "hangs").expect("another one's");
        repairs.ended("kubelet", &long, "started", Ok(()));
        repairs.passed("kubelet", "hangs");
        let board = Board::default();
        let repairs = Repairs::open(dir.path(), board.clone());
        assert_eq!(outcomes(&board), [(RepairOutcome::Repaired, String::new())]);

        // Who gives up while another one's try goes on rests on.
        repairs.leave("cni", "another one's").expect("a try");
        while repairs.leave("cni", "broken").is_ok() {
            repairs.ended("cni", "broken", "applied", Err("no".into()));
        }
        Repairs::open(dir.path(), Board::default()).leave("cni", "broken").expect_err("it rests on");
    }

    #[test]
    fn a_list_from_the_future_counts_as_of_now() {
        let ahead = SystemTime::now() + Duration::from_secs(1_000_000);
        let tried = |outcome: RepairOutcome| Repair {
            time: Some(clock::timestamp(ahead)),
            ..entry("cni", "", "", outcome, String::new())
        };
        let repairs = vec![tried(RepairOutcome::Failed); USUAL.failures];
        let mut limiters = recall(&repairs, SystemTime::now(), Instant::now());
        let limiter = limiters.get_mut("cni").expect("there");
        assert!(matches!(limiter.ask("any", Instant::now()), Leave::Rest { .. }));
    }
}
