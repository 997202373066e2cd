//! The loop against fake steps: order, evidence, retry, drift, interruption, resuming.

mod restarts;
mod unknown;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use k8sctl_command::Evidence;
use k8sctl_proto::node::v1::{AgentProgram, RepairOutcome, StatusReport, StepStatus};

use super::*;

/// A step whose truth is a flag, shared with the test as a machine's state would be.
#[derive(Clone, Default)]
struct FakeStep {
    name: &'static str,
    members_only: bool,
    truth: Arc<Mutex<bool>>,
    failures_left: Arc<AtomicU32>,
    /// Looks that still fail.
    blind: Arc<AtomicU32>,
    /// It waits for others.
    waits: Arc<Mutex<bool>>,
    /// Nobody can say how it is.
    unknown: Arc<Mutex<bool>>,
    /// It will, once it was applied.
    waits_then: bool,
    applies: Arc<AtomicU32>,
    never_ends: bool,
    /// Runs at the end of apply.
    then: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl FakeStep {
    fn new(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    fn failing(self, times: u32) -> Self {
        self.failures_left.store(times, Ordering::SeqCst);
        self
    }

    fn break_it(&self) {
        *self.truth.lock().expect("not poisoned") = false;
    }

    fn applies(&self) -> u32 {
        self.applies.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Step for FakeStep {
    fn name(&self) -> &'static str {
        self.name
    }

    fn unit(&self) -> Option<&'static str> {
        Some("fake.service")
    }

    fn members_only(&self) -> bool {
        self.members_only
    }

    async fn check(&self, _: &DesiredState) -> Result<Check, StepError> {
        let left = self.blind.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() {
            return Err(StepError::Simulated(Evidence { argv: vec!["look".into()], ..Evidence::default() }));
        }
        if *self.unknown.lock().expect("not poisoned") {
            return Ok(Check::Unknown("the API server is away".into()));
        }
        if *self.waits.lock().expect("not poisoned") {
            return Ok(Check::Waits("the API server is away".into()));
        }
        let truth = *self.truth.lock().expect("not poisoned");
        Ok(if truth { Check::True } else { Check::False("not yet".into()) })
    }

    async fn apply(&self, _: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        self.applies.fetch_add(1, Ordering::SeqCst);
        progress.say("applying");
        if self.never_ends {
            std::future::pending::<()>().await;
        }
        if self.failures_left.load(Ordering::SeqCst) > 0 {
            self.failures_left.fetch_sub(1, Ordering::SeqCst);
            return Err(StepError::Simulated(Evidence {
                argv: vec!["fake".into()],
                exit_status: Some(3),
                output_tail: "why\n".into(),
            }));
        }
        *self.truth.lock().expect("not poisoned") = true;
        *self.waits.lock().expect("not poisoned") |= self.waits_then;
        if let Some(then) = &self.then {
            then();
        }
        Ok(())
    }
}

struct FakeJournal;

#[async_trait]
impl Journal for FakeJournal {
    async fn tail(&self, unit: &str) -> String {
        format!("journal of {unit}")
    }
}

struct Fixture {
    desired: watch::Sender<Option<DesiredState>>,
    repairs: Repairs,
    wake: Arc<Notify>,
    report: watch::Receiver<StatusReport>,
    shutdown: CancellationToken,
}

fn want(generation: u64, target: Target) -> Option<DesiredState> {
    Some(DesiredState { generation, target: target.into(), ..DesiredState::default() })
}

/// For a member, and more than its number is another.
fn want_other(generation: u64) -> Option<DesiredState> {
    want(generation, Target::Member)
        .map(|wanted| DesiredState { node_name: format!("n{generation}"), ..wanted })
}

fn start(steps: &[FakeStep], wanted: Option<DesiredState>) -> Fixture {
    let board = Board::default();
    let (desired, receiver) = watch::channel(wanted);
    let shutdown = CancellationToken::new();
    let steps = steps.iter().map(|step| Box::new(step.clone()) as Box<dyn Step>).collect();
    let (repairs, wake) = (Repairs::in_memory(board.clone()), Arc::<Notify>::default());
    let converge = Converge::new(steps, receiver, board.clone(), Arc::new(FakeJournal), shutdown.clone())
        .with_repairs(repairs.clone())
        .woken_by(Arc::clone(&wake));
    k8sctl_rpc::task::spawn("converge", converge.run());
    Fixture { desired, repairs, wake, report: board.subscribe(), shutdown }
}

impl Fixture {
    /// Waits until the report is so; the paused clock runs on by itself meanwhile.
    async fn until(&mut self, so: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let waited = timeout(Duration::from_secs(600), self.report.wait_for(|report| so(report))).await;
        waited.expect("it comes").expect("the board lives").clone()
    }
}

fn step<'a>(report: &'a StatusReport, name: &str) -> &'a StepStatus {
    report.steps.iter().find(|step| step.name == name).expect("a step of this name")
}

fn states(report: &StatusReport) -> Vec<StepState> {
    report.steps.iter().map(StepStatus::state).collect()
}

#[tokio::test(start_paused = true)]
async fn all_steps_become_true_and_members_wait_for_the_target() {
    let steps = [FakeStep::new("a"), FakeStep { members_only: true, ..FakeStep::new("b") }];
    let mut fixture = start(&steps, want(1, Target::Prepared));
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Pending]).await;
    assert_eq!(report.observed_generation, 1);
    assert_eq!(steps[1].applies(), 0);
    fixture.desired.send_replace(want(2, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!((report.observed_generation, steps[0].applies()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_keeps_its_evidence_and_is_tried_again() {
    let steps = [FakeStep::new("a").failing(2), FakeStep::new("b")];
    let mut fixture = start(&steps, want(1, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Failed, StepState::Pending]).await;
    let evidence = step(&report, "a").evidence.clone().expect("evidence");
    assert_eq!((evidence.exit_status, evidence.output_tail.as_str()), (Some(3), "why\n"));
    assert_eq!(
        (evidence.argv, evidence.journal_tail.as_str()),
        (vec!["fake".to_owned()], "journal of fake.service")
    );
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!((step(&report, "a").attempts, step(&report, "a").evidence.is_none()), (0, true));
    assert_eq!(steps[0].applies(), 3);
}

#[tokio::test(start_paused = true)]
async fn tries_count_in_a_row_whether_looking_or_applying_failed() {
    let steps = [FakeStep::new("a").failing(1)];
    steps[0].blind.store(2, Ordering::SeqCst);
    let mut fixture = start(&steps, want(1, Target::Member));
    for tries in 1..=3 {
        let failed = |report: &StatusReport| {
            states(report) == [StepState::Failed] && step(report, "a").attempts == tries
        };
        let report = fixture.until(failed).await;
        let evidence = step(&report, "a").evidence.clone().expect("evidence");
        assert_eq!(evidence.argv, [if tries < 3 { "look" } else { "fake" }]);
        assert_eq!(evidence.journal_tail, "journal of fake.service");
        assert_eq!(steps[0].applies(), u32::from(tries == 3));
    }
    let report = fixture.until(|report| states(report) == [StepState::Done]).await;
    assert_eq!(step(&report, "a").attempts, 0);
    // What failed before it was so once does not count.
    *steps[0].truth.lock().expect("not poisoned") = false;
    steps[0].failures_left.store(1, Ordering::SeqCst);
    let report = fixture.until(|report| states(report) == [StepState::Failed]).await;
    assert_eq!(step(&report, "a").attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn when_a_person_asks_again_tries_count_from_one() {
    let steps = [FakeStep::new("a").failing(5)];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Failed] && step(report, "a").attempts == 3).await;
    let mut again = want(2, Target::Member).expect("wanted");
    again.spec_generation = 2;
    fixture.desired.send_replace(Some(again));
    let report = fixture.until(|report| report.observed_generation == 2).await;
    assert!(step(&report, "a").attempts <= 1, "{:?}", step(&report, "a"));
    let report = fixture.until(|report| states(report) == [StepState::Done]).await;
    assert_eq!((step(&report, "a").attempts, steps[0].applies()), (0, 6));
}

fn listed(report: &StatusReport) -> Vec<(u64, RepairOutcome)> {
    report.repairs.iter().map(|repair| (repair.number, repair.outcome())).collect()
}

#[tokio::test(start_paused = true)]
async fn of_another_generation_nothing_has_failed_that_was_not_tried() {
    let steps = [FakeStep { never_ends: true, ..FakeStep::new("a") }, FakeStep::new("b").failing(9)];
    *steps[0].truth.lock().expect("not poisoned") = true;
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Failed]).await;
    // It stays with the first one for as long as it is looked at.
    *steps[0].truth.lock().expect("not poisoned") = false;
    fixture.desired.send_replace(want(2, Target::Member));
    let report = fixture.until(|report| states(report)[0] == StepState::Running).await;
    assert_eq!((report.observed_generation, states(&report)[1]), (2, StepState::Pending));
    assert_eq!((step(&report, "b").attempts, steps[1].applies()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn drift_is_repaired_within_one_interval_and_listed() {
    let steps = [FakeStep::new("a")];
    let mut fixture = start(&steps, want(1, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Done]).await;
    assert!(report.repairs.is_empty(), "to become so is no repair");
    let begun = tokio::time::Instant::now();
    steps[0].break_it();
    let report = fixture.until(|report| !report.repairs.is_empty()).await;
    assert!(begun.elapsed() <= DRIFT_INTERVAL, "{:?}", begun.elapsed());
    assert_eq!((steps[0].applies(), states(&report)), (2, vec![StepState::Done]));
    let repair = &report.repairs[0];
    assert_eq!((repair.object.as_str(), repair.reason.as_str()), ("a", "not yet"));
    assert_eq!((repair.action.as_str(), repair.outcome()), ("ran step a again", RepairOutcome::Repaired));
}

#[tokio::test(start_paused = true)]
async fn another_desired_state_is_no_drift() {
    let steps = [FakeStep::new("a")];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done]).await;
    steps[0].break_it();
    fixture.desired.send_replace(want_other(2));
    let done = |report: &StatusReport| {
        report.observed_generation == 2 && steps[0].applies() == 2 && states(report) == [StepState::Done]
    };
    assert!(fixture.until(done).await.repairs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_is_woken_looks_at_once_unless_a_step_fails() {
    let steps = [FakeStep::new("a")];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done]).await;
    let begun = tokio::time::Instant::now();
    steps[0].break_it();
    fixture.wake.notify_one();
    fixture.until(|report| report.repairs.len() == 1).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    steps[0].break_it();
    steps[0].failures_left.store(1, Ordering::SeqCst);
    fixture.wake.notify_one();
    fixture.until(|report| report.repairs.len() == 2).await;
    fixture.wake.notify_one();
    fixture.until(|report| report.repairs.len() == 3).await;
    assert!(begun.elapsed() >= Duration::from_secs(4), "{:?}", begun.elapsed());
}

/// Somebody who undoes it soon after it is done.
async fn undo_again_and_again(truth: Arc<Mutex<bool>>, wake: Arc<Notify>) {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        *truth.lock().expect("not poisoned") = false;
        wake.notify_one();
    }
}

#[tokio::test(start_paused = true)]
async fn what_drifts_again_and_again_rests_and_holds_up_nobody() {
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    let undo = Arc::clone(&first.truth);
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    let enemy = k8sctl_rpc::task::spawn("enemy", undo_again_and_again(undo, Arc::clone(&fixture.wake)));
    let report = fixture.until(|report| states(report)[0] == StepState::Failed).await;
    enemy.abort();
    let applies = first.applies();
    let given_up: Vec<_> =
        listed(&report).into_iter().filter(|(_, outcome)| *outcome == RepairOutcome::GaveUp).collect();
    assert_eq!((applies, given_up.len(), report.repairs.len()), (6, 1, 6));
    let message = &step(&report, "a").message;
    assert!(message.starts_with("not yet; repaired too often, rests until 20"), "{message}");
    second.break_it();
    fixture.until(|report| report.repairs.last().is_some_and(|repair| repair.object == "b")).await;
    assert_eq!(first.applies(), applies);
    // A person who asks again ends the rest.
    let mut again = want(1, Target::Member).expect("wanted");
    again.spec_generation = 1;
    fixture.desired.send_replace(Some(again));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!(first.applies(), applies + 1);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_others_is_neither_repaired_nor_undone_nor_in_the_way() {
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    *first.waits.lock().expect("not poisoned") = true;
    second.break_it();
    let report = fixture.until(|report| !report.repairs.is_empty()).await;
    assert_eq!((report.repairs.len(), report.repairs[0].object.as_str()), (1, "b"));
    assert_eq!(states(&report)[0], StepState::Done);
    assert_eq!((step(&report, "a").message.as_str(), first.applies()), ("the API server is away", 1));
    *first.waits.lock().expect("not poisoned") = false;
    fixture.until(|report| step(report, "a").message.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_repair_that_leaves_the_rest_to_others_is_done_and_not_in_the_way() {
    let (first, second) = (FakeStep { waits_then: true, ..FakeStep::new("a") }, FakeStep::new("b"));
    *first.truth.lock().expect("not poisoned") = true;
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    first.break_it();
    second.break_it();
    let report = fixture.until(|report| report.repairs.len() == 2).await;
    assert_eq!(listed(&report), [(1, RepairOutcome::Repaired), (2, RepairOutcome::Repaired)]);
    assert_eq!((states(&report)[0], first.applies()), (StepState::Done, 1));
    assert_eq!(step(&report, "a").message, "the API server is away");

    // What was not done before waits in a second apply, and has failed where that is not enough.
    let mut fixture = start(&[FakeStep { waits_then: true, ..FakeStep::new("a") }], want(1, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Failed]).await;
    assert_eq!(step(&report, "a").message, "applied, but still not so: the API server is away");
    assert!(report.repairs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_looked_at_any_more_is_given_up_and_holds_up_nobody() {
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    first.blind.store(u32::MAX, Ordering::SeqCst);
    second.break_it();
    let report = fixture.until(|report| report.repairs.iter().any(|repair| repair.object == "b")).await;
    let outcomes: Vec<_> = listed(&report).into_iter().map(|(_, outcome)| outcome).collect();
    let failed = RepairOutcome::Failed;
    assert_eq!(outcomes, [failed, failed, failed, RepairOutcome::GaveUp, RepairOutcome::Repaired]);
    assert_eq!((states(&report)[0], first.applies()), (StepState::Failed, 4));
    first.blind.store(0, Ordering::SeqCst);
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
}

#[tokio::test(start_paused = true)]
async fn what_others_have_listed_meanwhile_is_not_listed_twice() {
    let slot: Arc<Mutex<Option<Repairs>>> = Arc::default();
    let lists = Arc::clone(&slot);
    let then = Arc::new(move || {
        if let Some(repairs) = &*lists.lock().expect("not poisoned") {
            repairs.ended("a", "stopped", "started", Ok(()));
        }
    });
    let steps = [FakeStep { then: Some(then), ..FakeStep::new("a") }];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done]).await;
    *slot.lock().expect("not poisoned") = Some(fixture.repairs.clone());
    steps[0].break_it();
    let report = fixture.until(|report| steps[0].applies() == 2 && states(report) == [StepState::Done]).await;
    assert_eq!(listed(&report), [(1, RepairOutcome::Repaired)]);
    assert_eq!(report.repairs[0].action, "started");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_was_raised_is_not_lowered() {
    let steps = [FakeStep::new("a"), FakeStep { members_only: true, ..FakeStep::new("b") }];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    steps[1].break_it();
    fixture.desired.send_replace(want(2, Target::Prepared));
    let report = fixture.until(|report| !report.repairs.is_empty()).await;
    assert_eq!((report.observed_generation, states(&report)), (2, vec![StepState::Done; 2]));
}

#[tokio::test(start_paused = true)]
async fn a_new_generation_interrupts_between_steps() {
    let (desired, _) = watch::channel(None);
    let desired = Arc::new(desired);
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    let changer = Arc::clone(&desired);
    let first = FakeStep {
        then: Some(Arc::new(move || drop(changer.send_replace(want(2, Target::Member))))),
        ..first
    };
    let board = Board::default();
    desired.send_replace(want(1, Target::Member));
    let steps: Vec<Box<dyn Step>> = vec![Box::new(first.clone()), Box::new(second.clone())];
    let converge = Converge::new(
        steps,
        desired.subscribe(),
        board.clone(),
        Arc::new(FakeJournal),
        CancellationToken::new(),
    );
    let wanted = desired.borrow().clone().expect("wanted");
    let mut converge = converge;
    converge.desired.borrow_and_update();
    board.observe(1, &["a", "b"], false);
    assert_eq!(converge.round(&wanted, true).await, Round::Interrupted);
    assert_eq!((first.applies(), second.applies()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_step_that_hangs_fails_at_its_deadline() {
    let steps = [FakeStep { never_ends: true, ..FakeStep::new("a") }];
    let mut wanted = want(1, Target::Member).expect("wanted");
    wanted.step_deadline = Some(prost_types::Duration { seconds: 30, nanos: 0 });
    let mut fixture = start(&steps, Some(wanted));
    let report = fixture.until(|report| states(report) == [StepState::Failed]).await;
    assert_eq!(step(&report, "a").message, "not done after 30s; at the end: applying");
}

#[tokio::test(start_paused = true)]
async fn an_apply_that_changes_nothing_is_a_failure() {
    let truth = FakeStep::new("a");
    let undo = Arc::clone(&truth.truth);
    let then = Arc::new(move || *undo.lock().expect("not poisoned") = false);
    let mut fixture = start(&[FakeStep { then: Some(then), ..truth }], want(1, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Failed]).await;
    assert_eq!(step(&report, "a").message, "applied, but still not so: not yet");
}

#[tokio::test(start_paused = true)]
async fn an_agent_killed_in_the_middle_of_a_step_resumes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let simulation = crate::config::Simulation { delay: Duration::from_secs(30), ..Default::default() };
    let run = |board: Board, shutdown: CancellationToken| {
        let (desired, receiver) = watch::channel(want(1, Target::Member));
        let steps = simulated::steps(&simulation, dir.path());
        let converge = Converge::new(steps, receiver, board, Arc::new(simulated::NoJournal), shutdown);
        (desired, k8sctl_rpc::task::spawn("converge", converge.run()))
    };
    let first = Board::default();
    let (_desired, task) = run(first.clone(), CancellationToken::new());
    let mut report = first.subscribe();
    report
        .wait_for(|report| report.steps.get(1).is_some_and(|step| step.message.starts_with("simulating")))
        .await
        .expect("the board lives");
    task.abort();

    let second = Board::default();
    let (_desired, _task) = run(second.clone(), CancellationToken::new());
    let mut report = second.subscribe();
    let mut ran = std::collections::BTreeSet::new();
    let ended = report.wait_for(|report| {
        let running = report.steps.iter().filter(|step| step.state() == StepState::Running);
        ran.extend(running.map(|step| step.name.clone()));
        states(report).ends_with(&[StepState::Done])
    });
    ended.await.expect("the board lives");
    assert!(!ran.contains("host-os") && ran.contains("containerd"), "{ran:?}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_a_hanging_step() {
    let steps = [FakeStep { never_ends: true, ..FakeStep::new("a") }];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Running]).await;
    fixture.shutdown.cancel();
    // The loop's end drops the receiver.
    fixture.desired.closed().await;
}
