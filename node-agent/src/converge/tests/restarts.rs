//! What an agent that is started again still knows, and what a boot ends.

use super::*;

/// A life of an agent on a machine, whose disk and `/run` are below this directory.
struct Life {
    repairs: Repairs,
    report: watch::Receiver<StatusReport>,
    task: tokio::task::AbortHandle,
    _desired: watch::Sender<Option<DesiredState>>,
}

fn live(dir: &std::path::Path, steps: &[FakeStep], wanted: Option<DesiredState>) -> Life {
    let (board, shutdown) = (Board::default(), CancellationToken::new());
    let (desired, receiver) = watch::channel(wanted);
    let steps = steps.iter().map(|step| Box::new(step.clone()) as Box<dyn Step>).collect();
    let repairs = Repairs::open(dir, board.clone());
    let converge = Converge::new(steps, receiver, board.clone(), Arc::new(FakeJournal), shutdown)
        .with_repairs(repairs.clone())
        .keeping_done(dir.join("run/done"));
    let task = k8sctl_rpc::task::spawn("converge", converge.run());
    Life { repairs, report: board.subscribe(), task, _desired: desired }
}

impl Life {
    async fn until(&mut self, so: impl Fn(&StatusReport) -> bool) -> StatusReport {
        let waited = timeout(Duration::from_secs(3600), self.report.wait_for(|report| so(report))).await;
        let waited = waited.map(|report| report.expect("the board lives").clone());
        waited.unwrap_or_else(|_| panic!("{:#?}", self.report.borrow()))
    }
}

/// The machine boots: only its disk stays.
fn boot(dir: &std::path::Path) {
    std::fs::remove_dir_all(dir.join("run")).expect("removed");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_started_again_knows_drift_and_rests_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let steps = [FakeStep::new("a"), FakeStep::new("b"), FakeStep::new("c")];
    let all_but_the_first = |report: &StatusReport| states(report).ends_with(&[StepState::Done; 2]);
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    life.until(|report| states(report) == [StepState::Done; 3]).await;
    life.task.abort();

    // While nobody looked, one was undone, which was repaired too often before, and another one waits for others.
    steps[0].break_it();
    *steps[1].waits.lock().expect("not poisoned") = true;
    while life.repairs.leave("a", "broken").is_ok() {
        life.repairs.ended("a", "broken", "applied", Ok(()));
    }
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    let now = life.until(all_but_the_first).await;
    assert!(step(&now, "a").message.contains("repaired too often"), "{:?}", step(&now, "a"));
    assert_eq!(step(&now, "b").message, "the API server is away");
    assert_eq!(steps.each_ref().map(FakeStep::applies), [1; 3]);
    life.task.abort();
    *steps[1].waits.lock().expect("not poisoned") = false;

    // Neither a boot nor another desired state ends its rest.
    boot(dir.path());
    for wanted in [want(1, Target::Member), want_other(2)] {
        let mut life = live(dir.path(), &steps, wanted);
        let now = life.until(all_but_the_first).await;
        assert!(step(&now, "a").message.contains("repaired too often"), "{:?}", step(&now, "a"));
        assert_eq!(steps.each_ref().map(FakeStep::applies), [1; 3]);
        life.task.abort();
    }

    // A person who asks again does, though the machine boots before the agent that was told has taken that in.
    boot(dir.path());
    let again = want_other(3).map(|wanted| DesiredState { spec_generation: 1, ..wanted });
    let mut life = live(dir.path(), &steps, again);
    life.until(|report| states(report) == [StepState::Done; 3]).await;
    assert_eq!(steps.each_ref().map(FakeStep::applies), [2, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_help_is_given_up_after_a_boot_too() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let steps = [FakeStep::new("a"), FakeStep::new("b")];
    let given_up = |report: &StatusReport| {
        listed(report).into_iter().filter(|(_, outcome)| *outcome == RepairOutcome::GaveUp).count()
    };
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    life.until(|report| states(report) == [StepState::Done; 2]).await;
    steps[0].failures_left.store(u32::MAX, Ordering::SeqCst);
    steps[0].break_it();
    life.until(|report| given_up(report) == 1).await;
    life.task.abort();
    boot(dir.path());
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    // What was listed before is told on, and it rests first.
    assert_eq!(given_up(&life.report.borrow()), 1);
    life.until(|report| states(report) == [StepState::Failed, StepState::Done]).await;
    assert_eq!(steps[0].applies(), 4);
    life.until(|report| given_up(report) == 2).await;
    assert_eq!(steps[0].applies(), 7);
    steps[1].break_it();
    life.until(|report| report.repairs.last().is_some_and(|repair| repair.object == "b")).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_well_again_before_a_boot_is_set_up_as_after_any_boot() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let steps = [FakeStep::new("a")];
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    life.until(|report| states(report) == [StepState::Done]).await;
    steps[0].failures_left.store(u32::MAX, Ordering::SeqCst);
    steps[0].break_it();
    let gave_up = |report: &StatusReport| {
        report.repairs.last().is_some_and(|repair| repair.outcome() == RepairOutcome::GaveUp)
    };
    life.until(gave_up).await;
    // A person mends it, and the boot undoes it while the agent still rests.
    *steps[0].truth.lock().expect("not poisoned") = true;
    steps[0].failures_left.store(0, Ordering::SeqCst);
    life.until(|report| states(report) == [StepState::Done]).await;
    life.task.abort();
    boot(dir.path());
    steps[0].break_it();
    let begun = tokio::time::Instant::now();
    let mut life = live(dir.path(), &steps, want(1, Target::Member));
    let now = life.until(|report| states(report) == [StepState::Done]).await;
    assert_eq!((steps[0].applies(), begun.elapsed()), (5, Duration::ZERO));
    assert!(gave_up(&now), "{:?}", now.repairs.last());
}

#[tokio::test(start_paused = true)]
async fn neither_a_host_agent_that_starts_again_nor_another_desired_state_ends_a_rest() {
    // A host agent that was just started does not know yet how far the node was, and may want another agent to run.
    let agent = Some(AgentProgram { attempt: "one".to_owned(), ..AgentProgram::default() });
    let again = want(9, Target::Prepared).map(|wanted| DesiredState { agent, ..wanted });
    for next in [again, want_other(9)] {
        let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
        let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
        fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
        first.failures_left.store(u32::MAX, Ordering::SeqCst);
        first.break_it();
        fixture.until(|report| report.repairs.len() == 4).await;
        assert_eq!(first.applies(), 4);
        fixture.desired.send_replace(next);
        let rests = |report: &StatusReport| {
            report.observed_generation == 9 && states(report) == [StepState::Failed, StepState::Done]
        };
        fixture.until(rests).await;
        // The round goes on to its end.
        tokio::time::sleep(Duration::from_secs(1)).await;
        second.break_it();
        let report = fixture.until(|report| report.repairs.len() == 5).await;
        let failed = RepairOutcome::Failed;
        let outcomes: Vec<_> = listed(&report).into_iter().map(|(_, outcome)| outcome).collect();
        assert_eq!(outcomes, [failed, failed, failed, RepairOutcome::GaveUp, RepairOutcome::Repaired]);
        assert_eq!((report.repairs[4].object.as_str(), first.applies()), ("b", 4));
        let message = &step(&report, "a").message;
        assert!(message.contains("repaired too often"), "{message}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_drifted_while_the_host_agent_was_started_again_is_a_repair() {
    let steps = [FakeStep::new("a")];
    let mut fixture = start(&steps, want(1, Target::Member));
    fixture.until(|report| states(report) == [StepState::Done]).await;
    steps[0].break_it();
    fixture.desired.send_replace(want(9, Target::Member));
    let report = fixture.until(|report| !report.repairs.is_empty()).await;
    assert_eq!((report.observed_generation, listed(&report)), (9, vec![(1, RepairOutcome::Repaired)]));
}
