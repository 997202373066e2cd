//! Steps of which nobody can say whether they are true.

use super::*;

#[tokio::test(start_paused = true)]
async fn that_nobody_can_say_is_no_failure_and_holds_up_nobody() {
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    *first.unknown.lock().expect("not poisoned") = true;
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    let waits = [StepState::Running, StepState::Done];
    let report = fixture.until(|report| states(report) == waits).await;
    assert_eq!((step(&report, "a").message.as_str(), first.applies()), ("the API server is away", 0));

    // Drift behind it wakes as ever, and is seen in time in any case.
    let begun = tokio::time::Instant::now();
    second.break_it();
    fixture.wake.notify_one();
    fixture.until(|report| report.repairs.len() == 1).await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
    second.break_it();
    fixture.until(|report| report.repairs.len() == 2).await;
    assert!(begun.elapsed() <= DRIFT_INTERVAL + UNKNOWN_PAUSE, "{:?}", begun.elapsed());

    tokio::time::sleep(UNKNOWN_PATIENCE - begun.elapsed() - Duration::from_secs(10)).await;
    let report = fixture.until(|_| true).await;
    assert_eq!((states(&report), step(&report, "a").attempts), (waits.to_vec(), 0));
    *first.unknown.lock().expect("not poisoned") = false;
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!((step(&report, "a").message.as_str(), report.repairs.len()), ("", 2));
    // Once it is done, that nobody can say undoes nothing.
    *first.unknown.lock().expect("not poisoned") = true;
    let report = fixture.until(|report| step(report, "a").message == "the API server is away").await;
    assert_eq!((states(&report), first.applies()), (vec![StepState::Done; 2], 1));
}

#[tokio::test(start_paused = true)]
async fn that_nobody_can_say_for_long_is_a_failure_and_holds_up_nobody() {
    let (first, second) = (FakeStep::new("a"), FakeStep::new("b"));
    *first.unknown.lock().expect("not poisoned") = true;
    let mut fixture = start(&[first.clone(), second.clone()], want(1, Target::Member));
    let begun = tokio::time::Instant::now();
    tokio::time::sleep(3 * UNKNOWN_PATIENCE - Duration::from_secs(60)).await;
    let report = fixture.until(|report| step(report, "a").attempts == 3).await;
    let waited = begun.elapsed();
    assert!(waited >= 3 * UNKNOWN_PATIENCE && waited < 3 * (UNKNOWN_PATIENCE + DRIFT_INTERVAL), "{waited:?}");
    let report = match states(&report)[0] {
        StepState::Failed => report,
        _ => fixture.until(|report| states(report)[0] == StepState::Failed).await,
    };
    let failed = step(&report, "a");
    assert_eq!(failed.message, "not done after 600s; at the end: the API server is away");
    let evidence = failed.evidence.as_ref().expect("evidence");
    assert_eq!((evidence.journal_tail.as_str(), first.applies()), ("journal of fake.service", 0));
    second.break_it();
    let report = fixture.until(|report| report.repairs.len() == 1).await;
    assert_eq!(states(&report)[0], StepState::Failed);
    *first.unknown.lock().expect("not poisoned") = false;
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!((step(&report, "a").attempts, step(&report, "a").message.as_str()), (0, ""));
}

#[tokio::test(start_paused = true)]
async fn an_apply_behind_which_nobody_can_say_has_not_failed() {
    let first = FakeStep::new("a");
    let unknown = Arc::clone(&first.unknown);
    let then = Arc::new(move || *unknown.lock().expect("not poisoned") = true);
    let (first, second) = (FakeStep { then: Some(then), ..first }, FakeStep::new("b"));
    let mut fixture = start(&[first.clone(), second], want(1, Target::Member));
    let report = fixture.until(|report| states(report) == [StepState::Running, StepState::Done]).await;
    assert_eq!((step(&report, "a").message.as_str(), first.applies()), ("the API server is away", 1));
    *first.unknown.lock().expect("not poisoned") = false;
    let report = fixture.until(|report| states(report) == [StepState::Done, StepState::Done]).await;
    assert_eq!((step(&report, "a").attempts, first.applies()), (0, 1));
}
