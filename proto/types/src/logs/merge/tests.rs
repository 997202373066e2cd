//! Orders by hand, and whatever lines come whenever.

use proptest::prelude::*;

use super::*;

const WINDOW: Micros = 250_000;
const HOUR: Micros = 3_600_000_000;

fn merge(states: &[State]) -> Merge<&'static str> {
    let mut merge = Merge::new(Duration::from_micros(WINDOW as u64), Duration::ZERO);
    for state in states {
        merge.add(*state);
    }
    merge
}

fn line<T>(input: usize, item: T, late: bool) -> Next<T> {
    Next::Line { input, item, late }
}

#[test]
fn loading_inputs_are_waited_for_whatever_the_time() {
    let mut merge = merge(&[State::Loading, State::Loading]);
    merge.push(0, 0, [(10, "a"), (30, "c")]);
    assert_eq!(merge.next(Micros::MAX), Next::Wait);
    assert_eq!(merge.blocking().collect::<Vec<_>>(), [1]);
    merge.push(1, 0, [(20, "b")]);
    assert_eq!(merge.next(0), line(0, "a", false));
    assert_eq!(merge.next(0), line(1, "b", false));
    assert_eq!(merge.next(Micros::MAX), Next::Wait);
    merge.set(1, State::Ended);
    assert_eq!(merge.next(0), line(0, "c", false));
    assert_eq!((merge.next(0), merge.wants(0), merge.wants(1)), (Next::Wait, true, false));
    merge.set(0, State::Ended);
    assert_eq!(merge.next(0), Next::End);
}

#[test]
fn a_live_input_is_waited_for_as_long_as_the_window_is() {
    let mut merge = merge(&[State::Live, State::Live]);
    merge.push(0, 1_000, [(1_000, "second")]);
    assert_eq!(merge.next(1_000), Next::At(1_000 + WINDOW));
    // In time, though it arrives behind the other.
    merge.push(1, 200_000, [(900, "first")]);
    assert_eq!(merge.next(200_000), line(1, "first", false));
    assert_eq!(merge.next(1_000 + WINDOW), line(0, "second", false));
    // Too late: given out and marked.
    merge.push(1, 300_000, [(950, "third")]);
    assert_eq!(merge.next(300_000), line(1, "third", true));
}

#[test]
fn nobody_waits_for_one_alone_nor_for_those_away() {
    let mut merge = merge(&[State::Live, State::Away]);
    merge.push(0, 5, [(5, "a"), (6, "b")]);
    assert_eq!(merge.next(5), line(0, "a", false));
    merge.set(1, State::Live);
    assert_eq!(merge.next(6), Next::At(5 + WINDOW));
    merge.push(1, 7, [(7, "c")]);
    // Both have lines: what is first is known.
    assert_eq!(merge.next(7), line(0, "b", false));
}

#[test]
fn a_clock_that_is_ahead_holds_nothing_up_for_longer_than_the_window() {
    let mut merge = merge(&[State::Live, State::Live]);
    merge.push(0, 0, [(HOUR, "a")]);
    assert_eq!(merge.next(0), Next::At(WINDOW));
    assert_eq!(merge.next(WINDOW), line(0, "a", false));
    // Written a quarter of a second before it arrived, by the same clock: it was held up, and goes on at once.
    merge.push(0, REMEMBERED, [(HOUR + REMEMBERED - WINDOW, "b")]);
    assert_eq!(merge.next(REMEMBERED), line(0, "b", false));
}

#[test]
fn a_clock_that_is_set_right_is_waited_with_again() {
    let mut merge = merge(&[State::Live, State::Live]);
    merge.push(0, 0, [(HOUR, "ahead")]);
    assert_eq!(merge.next(WINDOW), line(0, "ahead", false));
    let later = 2 * WINDOW;
    merge.push(0, later, [(later, "right")]);
    assert_eq!(merge.next(later), Next::At(later + WINDOW));
    merge.push(1, later + 1, [(later - 1, "before it")]);
    assert_eq!(merge.next(later + 1), line(1, "before it", false));
}

#[test]
fn a_line_of_the_future_makes_no_other_late() {
    let mut merge = merge(&[State::Live, State::Live]);
    merge.push(0, WINDOW, [(HOUR, "future")]);
    assert_eq!(merge.next(2 * WINDOW), line(0, "future", false));
    let now = 3 * WINDOW;
    merge.push(0, now, [(now, "set right")]);
    merge.push(1, now, [(now, "other")]);
    assert_eq!(merge.next(now), line(0, "set right", false));
    assert_eq!(merge.next(now + WINDOW), line(1, "other", false));
    // What is late is told nevertheless.
    merge.push(1, now + WINDOW, [(now - 1, "late")]);
    assert_eq!(merge.next(now + 2 * WINDOW), line(1, "late", true));
}

#[test]
fn a_line_of_the_future_is_as_old_as_its_arrival() {
    let mut merge = Merge::new(Duration::from_micros(WINDOW as u64), Duration::from_millis(300));
    let inputs = [State::Live, State::Live].map(|state| merge.add(state));
    merge.push(inputs[0], 0, [(HOUR, "future")]);
    assert_eq!(merge.next(WINDOW), line(0, "future", false));
    // Written since, and read before the lag of the first one would be over.
    merge.push(inputs[1], WINDOW + 20_000, [(WINDOW + 10_000, "other")]);
    assert_eq!(merge.next(3 * WINDOW), line(1, "other", false));
}

#[test]
fn while_lines_lie_ready_they_are_merged() {
    let mut merge = merge(&[State::Live, State::Live]);
    let second = 1_000_000;
    merge.push(0, second, [(second, "a1")]);
    merge.push(1, 5 * second, [(5 * second, "b")]);
    // Whoever reads comes back.
    let now = 600 * second;
    assert_eq!(merge.next(now), line(0, "a1", false));
    assert_eq!(merge.next(now), Next::At(now + READY));
    merge.push(0, 2 * second, [(2 * second, "a2")]);
    assert_eq!(merge.next(now + 1), line(0, "a2", false));
    assert_eq!(merge.next(now + 1), Next::At(now + 1 + READY));
    merge.push(0, 6 * second, [(6 * second, "a3")]);
    assert_eq!(merge.next(now + 2), line(1, "b", false));
    // One that has no more is not waited for longer, and one that is in time not at all.
    assert_eq!(merge.next(now + 2), Next::At(now + 2 + READY));
    assert_eq!(merge.next(now + 2 + READY), line(0, "a3", false));
    let now = now + 3 * second;
    merge.push(0, now, [(now, "a4")]);
    assert_eq!(merge.next(now + WINDOW), line(0, "a4", false));
    merge.push(1, now + 1, [(now + 1, "b2")]);
    assert_eq!(merge.next(now + 1 + WINDOW), line(1, "b2", false));
}

#[test]
fn what_is_told_of_late_as_a_rule_may_lag_behind() {
    let mut merge = Merge::new(Duration::from_micros(250), Duration::from_micros(300));
    merge.add(State::Live);
    merge.add(State::Live);
    merge.push(0, 240, [(0, "a")]);
    assert_eq!(merge.next(240), Next::At(240 + 250));
    let mut slow = Merge::new(Duration::from_micros(250), Duration::from_micros(300));
    slow.add(State::Live);
    slow.add(State::Live);
    slow.push(0, 500, [(0, "a")]);
    assert_eq!(slow.next(500), Next::At(300 + 250));
}

/// A line of an input: its time, and how long it takes until it arrives.
fn lines() -> impl Strategy<Value = Vec<Vec<(Micros, Micros)>>> {
    let line = (0..2_000_000_i64, 0..WINDOW);
    prop::collection::vec(prop::collection::vec(line, 0..40), 1..5)
}

type Given = (Micros, usize, usize, bool);

/// Plays lines that arrive when they do; every line is its input and its place there.
fn play(state: State, inputs: &[Vec<(Micros, Micros)>], step: Micros) -> Vec<Given> {
    let mut merge = Merge::new(Duration::from_micros(WINDOW as u64), Duration::ZERO);
    let mut arrivals = Vec::new();
    for (input, lines) in inputs.iter().enumerate() {
        assert_eq!(merge.add(state), input);
        let mut arrived = 0;
        for (place, (time, delay)) in lines.iter().enumerate() {
            // In its order: what comes behind cannot overtake.
            arrived = arrived.max(time + delay);
            arrivals.push((arrived, input, place, *time));
        }
    }
    arrivals.sort_unstable();
    let mut given = Vec::new();
    let mut drain = |merge: &mut Merge<(Micros, usize)>, now: Micros| loop {
        match merge.next(now) {
            Next::Line { input, item: (time, place), late } => given.push((time, input, place, late)),
            other => return other,
        }
    };
    let mut now = 0;
    for (arrived, input, place, time) in arrivals {
        while now + step < arrived {
            now += step;
            drain(&mut merge, now);
        }
        merge.push(input, arrived, [(time, (time, place))]);
        drain(&mut merge, arrived);
    }
    for input in 0..inputs.len() {
        merge.set(input, State::Ended);
    }
    assert_eq!(drain(&mut merge, now), Next::End);
    given
}

fn sorted(mut inputs: Vec<Vec<(Micros, Micros)>>) -> Vec<Vec<(Micros, Micros)>> {
    inputs.iter_mut().for_each(|lines| lines.sort_unstable());
    inputs
}

/// Nothing lost or doubled, and no input out of its own order.
fn is_complete(given: &[Given], inputs: &[Vec<(Micros, Micros)>]) {
    for (input, lines) in inputs.iter().enumerate() {
        let places: Vec<usize> = given.iter().filter(|line| line.1 == input).map(|line| line.2).collect();
        assert_eq!(places, (0..lines.len()).collect::<Vec<_>>(), "input {input}");
    }
}

proptest! {
    #[test]
    fn every_line_comes_once_and_those_not_marked_are_in_order(inputs in lines(), step in 1_000..400_000_i64) {
        for state in [State::Loading, State::Live, State::Away] {
            let given = play(state, &inputs, step);
            is_complete(&given, &inputs);
            let mut newest = Micros::MIN;
            for (time, _, _, late) in given {
                prop_assert_eq!(late, time < newest);
                newest = newest.max(time);
            }
        }
    }

    #[test]
    fn loading_inputs_whose_lines_are_in_order_are_merged_exactly(inputs in lines(), step in 1_000..400_000_i64) {
        let inputs = sorted(inputs);
        let given = play(State::Loading, &inputs, step);
        is_complete(&given, &inputs);
        prop_assert!(given.iter().all(|line| !line.3));
        prop_assert!(given.is_sorted_by_key(|line| line.0));
    }

    /// What arrives within the window is in order: the waiting is long enough.
    #[test]
    fn live_lines_that_arrive_within_the_window_are_in_order(inputs in lines(), step in 1_000..400_000_i64) {
        let inputs = sorted(inputs);
        let given = play(State::Live, &inputs, step);
        is_complete(&given, &inputs);
        prop_assert!(given.is_sorted_by_key(|line| line.0));
        prop_assert!(given.iter().all(|line| !line.3));
    }
}
