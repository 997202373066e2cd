//! The agent's part and the guard's together, on real files; systemd is a stand-in that has the new program run, or not.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::StatusReport;
use tokio::sync::mpsc;
use tonic::transport::Endpoint;

use super::*;

const WAIT: Duration = Duration::from_secs(60);

/// Tells what it was asked for.
struct FakeUnits {
    calls: mpsc::UnboundedSender<&'static str>,
    /// Runs at each start of the agent.
    on_restart: Mutex<Box<dyn FnMut() + Send>>,
    /// A new program does not start.
    is_broken: bool,
}

impl FakeUnits {
    fn new(on_restart: impl FnMut() + Send + 'static) -> (Arc<Self>, mpsc::UnboundedReceiver<&'static str>) {
        let (calls, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { calls, on_restart: Mutex::new(Box::new(on_restart)), is_broken: false }), receiver)
    }

    fn called(&self, call: &'static str) {
        // Some tests do not listen.
        let _ = self.calls.send(call);
    }
}

#[async_trait]
impl Units for FakeUnits {
    async fn start_guard(&self) -> Result<(), SystemdError> {
        self.called("guard");
        Ok(())
    }

    async fn restart_agent(&self) -> Result<(), SystemdError> {
        self.called("restart");
        (self.on_restart.lock().expect("not poisoned"))();
        Ok(())
    }

    async fn try_out(&self, _: &Path) -> Result<String, CommandError> {
        self.called("try out");
        if self.is_broken {
            let source = std::io::Error::from_raw_os_error(8);
            return Err(CommandError::Start { argv: "k8s-node-agent.next --version".to_owned(), source });
        }
        Ok("k8s-node-agent 9.9.9".to_owned())
    }
}

/// A machine on whose disk a new program has arrived.
struct Machine {
    _dir: tempfile::TempDir,
    places: Places,
    old: String,
    new: String,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let places = Places::new(&Root::new(dir.path()), &dir.path().join("state"));
        let parent = places.program.parent().expect("a directory");
        std::fs::create_dir_all(parent).expect("made");
        std::fs::copy("/proc/self/exe", &places.program).expect("copied");
        let mut staging = disk::Staging::begin(&places.staged).expect("begun");
        staging.write(b"new").expect("written");
        // The digest of what was written is what it is not taken for.
        let new = staging.finish("").expect("finished").expect_err("another digest");
        let mut staging = disk::Staging::begin(&places.staged).expect("begun");
        staging.write(b"new").expect("written");
        staging.finish(&new).expect("finished").expect("it is that");
        let old = disk::running_digest().expect("this test's program");
        Self { _dir: dir, places, old, new }
    }

    fn wish(&self, seconds: i64) -> AgentProgram {
        AgentProgram {
            sha256: self.new.clone(),
            size_bytes: 3,
            attempt: "first".to_owned(),
            session_deadline: Some(prost_types::Duration { seconds, nanos: 0 }),
        }
    }

    /// Up to the start of the guard.
    async fn begin(
        &self,
        seconds: i64,
        units: Arc<FakeUnits>,
        calls: &mut mpsc::UnboundedReceiver<&'static str>,
    ) {
        let agent = start_with(self.places.clone(), units, Board::default(), Some(self.old.clone()));
        agent.heard();
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        agent.want(Some(&self.wish(seconds)), &channel);
        for expected in ["try out", "guard"] {
            let call = tokio::time::timeout(WAIT, calls.recv()).await.expect("in time");
            assert_eq!(call, Some(expected));
        }
        let disk = self.look();
        assert_eq!(disk.kept.as_ref(), Some(&self.old));
        assert!(disk.trial.is_some_and(|trial| trial.new == self.new && trial.starts == 0));
    }

    fn look(&self) -> Disk {
        Files::new(self.places.clone()).look().expect("a look")
    }

    async fn guard(&self, units: &FakeUnits) {
        let guard = guard::guard(Files::new(self.places.clone()), units);
        tokio::time::timeout(WAIT, guard).await.expect("in time").expect("to its end");
    }
}

async fn until(board: &Board, so: impl Fn(&StatusReport) -> bool) {
    let mut report = board.subscribe();
    tokio::time::timeout(WAIT, report.wait_for(so)).await.expect("in time").expect("the board lives");
}

fn state(report: &StatusReport) -> Option<ReplacementState> {
    report.replacement.as_ref().map(AgentReplacement::state)
}

#[tokio::test]
async fn a_program_that_does_not_start_is_not_tried_however_often_it_is_asked_for() {
    let (machine, board) = (Machine::new(), Board::default());
    let (calls, mut called) = mpsc::unbounded_channel();
    let units = Arc::new(FakeUnits { calls, on_restart: Mutex::new(Box::new(|| {})), is_broken: true });
    let agent = start_with(machine.places.clone(), units, board.clone(), Some(machine.old.clone()));
    agent.heard();
    let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    for attempt in ["first", "second"] {
        agent.want(Some(&AgentProgram { attempt: attempt.to_owned(), ..machine.wish(60) }), &channel);
        let has_failed = |report: &StatusReport| {
            let it = report.replacement.as_ref();
            it.is_some_and(|it| it.attempt == attempt && it.state() == ReplacementState::Failed)
        };
        until(&board, has_failed).await;
        assert_eq!(called.try_recv(), Ok("try out"));
        assert!(machine.look().trial.is_none(), "{attempt}");
    }
    assert!(called.try_recv().is_err(), "nothing else is done");
}

#[tokio::test(start_paused = true)]
async fn a_new_agent_that_has_a_session_stays() {
    let machine = Machine::new();
    let (places, new, board) = (machine.places.clone(), machine.new.clone(), Board::default());
    let told = board.clone();
    let on_restart = move || {
        // The new one, which gets a session at once.
        let (units, _) = FakeUnits::new(|| {});
        let agent = start_with(places.clone(), units, told.clone(), Some(new.clone()));
        agent.heard();
        k8sctl_rpc::task::spawn("new agent", async move {
            std::future::pending::<()>().await;
            drop(agent);
        });
    };
    let (units, mut calls) = FakeUnits::new(on_restart);
    machine.begin(60, Arc::clone(&units), &mut calls).await;
    machine.guard(&units).await;
    let disk = machine.look();
    assert_eq!((disk.program.as_ref(), disk.trial, disk.staged), (Some(&machine.new), None, None));
    assert_eq!(disk.kept.as_ref(), Some(&machine.old), "the old one is kept");
    assert!(disk.outcome.is_some_and(|outcome| outcome.reason.is_none()));
    until(&board, |report| state(report) == Some(ReplacementState::Replaced)).await;
}

#[tokio::test(start_paused = true)]
async fn one_whose_sessions_end_at_once_goes() {
    let machine = Machine::new();
    let (places, new) = (machine.places.clone(), machine.new.clone());
    let on_restart = move || {
        let (units, _) = FakeUnits::new(|| {});
        let agent = start_with(places.clone(), units, Board::default(), Some(new.clone()));
        k8sctl_rpc::task::spawn("new agent", async move {
            // It dies of what it is told, and systemd starts it anew.
            for _ in 0..100 {
                agent.heard();
                tokio::time::sleep(STEADY / 2).await;
                agent.lost();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    };
    let (units, mut calls) = FakeUnits::new(on_restart);
    machine.begin(60, Arc::clone(&units), &mut calls).await;
    let guard = guard::guard(Files::new(machine.places.clone()), &*units);
    tokio::time::timeout(2 * WAIT, guard).await.expect("in time").expect("to its end");
    let disk = machine.look();
    assert_eq!((disk.program.as_ref(), disk.trial), (Some(&machine.old), None));
    let reason = disk.outcome.and_then(|outcome| outcome.reason);
    assert_eq!(reason.as_deref(), Some("it had no lasting session within 60 s"));
}

#[tokio::test(start_paused = true)]
async fn one_that_has_none_goes_and_the_old_one_tells_of_it() {
    let machine = Machine::new();
    let (units, mut calls) = FakeUnits::new(|| {});
    machine.begin(3, Arc::clone(&units), &mut calls).await;
    machine.guard(&units).await;
    let disk = machine.look();
    assert_eq!((disk.program.as_ref(), disk.trial), (Some(&machine.old), None));
    let mut restarts = 0;
    while let Ok(call) = calls.try_recv() {
        restarts += u32::from(call == "restart");
    }
    assert_eq!(restarts, 2, "the new one, and the old one again");

    let board = Board::default();
    let old = start_with(machine.places.clone(), units, board.clone(), Some(machine.old.clone()));
    until(&board, |report| state(report) == Some(ReplacementState::RolledBack)).await;
    let message = board.subscribe().borrow().replacement.as_ref().map(|it| it.message.clone());
    assert_eq!(message.as_deref(), Some("it had no lasting session within 3 s"));
    drop(old);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_trial_is_told_though_nobody_asks() {
    let machine = Machine::new();
    let (units, mut calls) = FakeUnits::new(|| {});
    machine.begin(60, Arc::clone(&units), &mut calls).await;
    let board = Board::default();
    let agent = start_with(machine.places.clone(), units, board.clone(), Some(machine.old.clone()));
    agent.heard();
    until(&board, |report| state(report) == Some(ReplacementState::OnTrial)).await;
    let files = Files::new(machine.places.clone());
    let trial = machine.look().trial.expect("it goes on");
    let reason = Some("it had no session".to_owned());
    let outcome = plan::Outcome { attempt: trial.attempt, new: trial.new, reason };
    files.write_outcome(&outcome).expect("written");
    files.clear().expect("cleared");
    until(&board, |report| state(report) == Some(ReplacementState::RolledBack)).await;
}

#[tokio::test]
async fn a_guard_that_finds_no_trial_ends() {
    let machine = Machine::new();
    let (units, _calls) = FakeUnits::new(|| {});
    machine.guard(&units).await;
    assert_eq!(machine.look().program.as_ref(), Some(&machine.old));
}

#[test]
fn a_deadline_of_the_hosts_is_taken_within_bounds() {
    let of = |seconds: Option<i64>| {
        let session_deadline = seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        wanted(&AgentProgram { session_deadline, ..AgentProgram::default() }).seconds
    };
    assert_eq!([None, Some(0), Some(-1), Some(30)].map(of), [90, 90, 90, 30]);
    assert_eq!(of(Some(i64::MAX)), MOST_SECONDS);
}
