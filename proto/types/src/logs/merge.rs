//! One stream of several, in the order of the times of their lines. Pure: whoever calls it reads, and tells the time.
//!
//! An input is one of four: *loading*, whose older lines are still on their way, so that nothing passes before its next
//! line is known; *live*, whose lines come as they are written, so that a line of another input waits for it only as
//! long as the window is; *away* and *ended*, which nobody waits for. While all inputs are loading the order is exact;
//! while they are live it is, as far as the window allows, and a line that comes too late is passed on and marked.
//!
//! What is kept is what was pushed: who pushes only to an input that [`wants`](Merge::wants) lines keeps one batch for
//! each.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Microseconds since 1970.
pub type Micros = i64;

/// How long it is remembered that a clock was so far ahead: it may have been set right.
const REMEMBERED: Micros = 10_000_000;
/// A line that is given out so long after its turn shows that lines wait: whoever reads is slow, or was.
const BEHIND: Micros = 500_000;
/// How long an input that has run empty by such a line is waited for: its next lines lie ready.
const READY: Micros = 100_000;
/// How much later than its arrival a line may be written though no clock is ahead: what is known of clocks is not exact.
const CLOCK_ERROR: Micros = 20_000;
/// Lines that show it to be ahead by so much less have been held up no more: it was set right.
const SET_RIGHT: Micros = 3_000_000;

/// What is waited for at an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its older lines are still on their way.
    Loading,
    /// Its lines come as they are written.
    Live,
    /// It cannot be read at the moment.
    Away,
    /// Nothing comes any more.
    Ended,
}

/// What the merged stream has next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// A line.
    Line {
        /// The input that it is of.
        input: usize,
        /// What was pushed.
        item: T,
        /// A younger line has been given out before it; one dated in the future counts as one of when it arrived.
        late: bool,
    },
    /// Nothing before this moment, unless an input gets lines first.
    At(Micros),
    /// Nothing before an input gets lines.
    Wait,
    /// All inputs have ended, and all of their lines were given out.
    End,
}

#[derive(Debug)]
struct Waiting<T> {
    time: Micros,
    arrived: Micros,
    item: T,
}

#[derive(Debug)]
struct Input<T> {
    state: State,
    queue: VecDeque<Waiting<T>>,
    /// How far its clock is ahead at least: a line cannot arrive before it is written.
    ahead: Micros,
    /// When a line last showed that.
    shown: Micros,
    /// Until when its next lines, which lie ready, are waited for.
    ready: Micros,
}

/// See the module.
#[derive(Debug)]
pub struct Merge<T> {
    window: Micros,
    lag: Micros,
    inputs: Vec<Input<T>>,
    /// Of every input that has lines, the time of the first: the least of them, and the others. As long as one input has
    /// the next line again and again, nothing is sorted.
    head: Option<(Micros, usize)>,
    others: BTreeSet<(Micros, usize)>,
    /// Inputs without lines that are loading, and that are live.
    loading: BTreeSet<usize>,
    live: BTreeSet<usize>,
    ended: usize,
    /// Time of the youngest line that was given out, none behind its arrival.
    newest: Micros,
    /// The latest until when an input's lines that lie ready are waited for.
    ready: Micros,
}

impl<T> Merge<T> {
    /// Without inputs. A line waits for live inputs until `window` has passed since it arrived; lines that come more
    /// than `lag` behind their time have used up a part of that.
    pub fn new(window: Duration, lag: Duration) -> Self {
        let micros = |duration: Duration| Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX / 4);
        Self {
            window: micros(window),
            lag: micros(lag),
            inputs: Vec::new(),
            head: None,
            others: BTreeSet::new(),
            loading: BTreeSet::new(),
            live: BTreeSet::new(),
            ended: 0,
            newest: Micros::MIN,
            ready: Micros::MIN,
        }
    }

    /// Adds an input; what is returned names it. They are counted from 0.
    pub fn add(&mut self, state: State) -> usize {
        let input = self.inputs.len();
        self.inputs.push(Input {
            state,
            queue: VecDeque::new(),
            ahead: 0,
            shown: Micros::MIN,
            ready: Micros::MIN,
        });
        self.ended += usize::from(state == State::Ended);
        self.sort_in(input);
        input
    }

    /// Changes what is waited for at an input. Its lines stay.
    pub fn set(&mut self, input: usize, state: State) {
        let was = std::mem::replace(&mut self.inputs[input].state, state);
        self.ended -= usize::from(was == State::Ended);
        self.ended += usize::from(state == State::Ended);
        self.sort_in(input);
    }

    /// What is waited for at an input.
    pub fn state(&self, input: usize) -> State {
        self.inputs[input].state
    }

    /// Adds lines of an input that arrived at this moment, in their order, each with its time.
    pub fn push(&mut self, input: usize, arrived: Micros, lines: impl IntoIterator<Item = (Micros, T)>) {
        let it = &mut self.inputs[input];
        let was_empty = it.queue.is_empty();
        let mut ahead: Micros = 0;
        for (time, item) in lines {
            ahead = ahead.max(time.saturating_sub(arrived));
            it.queue.push_back(Waiting { time, arrived, item });
        }
        let is_forgotten = arrived.saturating_sub(it.shown) > REMEMBERED || it.ahead - ahead > SET_RIGHT;
        if ahead >= it.ahead || is_forgotten {
            (it.ahead, it.shown) = (ahead, arrived);
        }
        if let (true, Some(first)) = (was_empty, it.queue.front()) {
            let new = (first.time, input);
            match self.head {
                Some(head) if head < new => {
                    self.others.insert(new);
                }
                head => {
                    self.others.extend(head);
                    self.head = Some(new);
                }
            }
            self.sort_in(input);
        }
    }

    /// Whether an input has no lines left and may get some.
    pub fn wants(&self, input: usize) -> bool {
        let it = &self.inputs[input];
        it.queue.is_empty() && it.state != State::Ended
    }

    /// The loading inputs without lines: nothing passes before they get some, or are loading no more.
    pub fn blocking(&self) -> impl Iterator<Item = usize> + '_ {
        self.loading.iter().copied()
    }

    /// Whether lines are waiting.
    pub fn has_lines(&self) -> bool {
        self.head.is_some()
    }

    /// The next line, if it is its turn at this moment.
    pub fn next(&mut self, now: Micros) -> Next<T> {
        let Some((time, input)) = self.head else {
            return if self.ended == self.inputs.len() { Next::End } else { Next::Wait };
        };
        if !self.loading.is_empty() {
            return Next::Wait;
        }
        let deadline = self.deadline(input);
        if !self.live.is_empty() {
            // Few are asked: only while lines wait has any run empty just now.
            let ready = || self.live.iter().map(|input| self.inputs[*input].ready).max();
            let ready = if now < self.ready { ready().unwrap_or(Micros::MIN) } else { Micros::MIN };
            let turn = deadline.max(ready);
            if now < turn {
                return Next::At(turn);
            }
        }
        let it = &mut self.inputs[input];
        let Some(line) = it.queue.pop_front() else { unreachable!("the input at the head has lines") };
        match it.queue.front().map(|next| (next.time, input)) {
            Some(next) if self.others.first().is_none_or(|other| next < *other) => self.head = Some(next),
            next => {
                self.others.extend(next);
                self.head = self.others.pop_first();
                if next.is_none() {
                    if now.saturating_sub(deadline) > BEHIND {
                        let ready = now.saturating_add(READY);
                        (self.inputs[input].ready, self.ready) = (ready, ready);
                    }
                    self.sort_in(input);
                }
            }
        }
        let late = time < self.newest;
        // A clock that is far ahead makes no other lines late.
        self.newest = self.newest.max(time.min(line.arrived.saturating_add(CLOCK_ERROR)));
        Next::Line { input, item: line.item, late }
    }

    /// When the first line of an input has waited long enough.
    fn deadline(&self, input: usize) -> Micros {
        let it = &self.inputs[input];
        let Some(first) = it.queue.front() else { return Micros::MIN };
        // By its own clock where it lags behind: else what was held up on its way would be held up again, and whoever
        // writes much would be read one batch a window.
        let expected = first.time.saturating_sub(it.ahead).saturating_add(self.lag);
        first.arrived.min(expected).saturating_add(self.window)
    }

    fn sort_in(&mut self, input: usize) {
        let it = &self.inputs[input];
        for (set, state) in [(&mut self.loading, State::Loading), (&mut self.live, State::Live)] {
            if it.queue.is_empty() && it.state == state {
                set.insert(input);
            } else {
                set.remove(&input);
            }
        }
    }
}
