//! Tells a service that hangs from one that is slow. Asks with a deadline that a busy machine stretches; judges, purely,
//! what came of it.
//!
//! A virtual machine may stand still for a while, or have far too much to do, and a healthy kubelet then needs seconds
//! for one word. So the deadline counts how often this agent itself was run while it waited, not time that has passed;
//! and one silence only convicts a process that did nothing at all meanwhile, or that a signal has stopped. Where nobody
//! listens, which is known at once, it is counted how often.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::process::Work;

/// The deadline in slices: this agent must have been run so often.
const SLICE: Duration = Duration::from_millis(500);
const SLICES: u32 = 16;
/// Slices after which a process that is stopped is waited for no longer.
const STOPPED_SLICES: u32 = 4;
/// How long a process may take to answer for the first time: on an emulated machine that boots, minutes.
const YOUNG: Duration = Duration::from_secs(4 * 60);
/// The same of one that has not listened yet: on a host that has far too much to do that comes late, and a start anew only
/// costs time.
const OPENS: Duration = Duration::from_secs(10 * 60);
/// Silences in a row that say that a service is not ready, although it works.
const NOT_READY: u32 = 2;
/// Silences in a row that say that it hangs, although it works: about a minute.
const HANGS: u32 = 6;
/// Times in a row that nobody listens that say the same. It is asked every second then: about a minute too.
const STAYS_AWAY: u32 = 60;

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is well.
    Well,
    /// It says that it is not.
    Unwell(String),
    /// Nobody listens where it should.
    Away(String),
    /// Nothing within the deadline.
    Silent,
}

/// An answer, and what its process did meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// The process that was asked.
    pub pid: u32,
    /// What it said.
    pub answer: Answer,
    /// It is stopped by a signal.
    pub is_stopped: bool,
    /// It used the processor while it was waited for; `true` too where that is not known.
    pub worked: bool,
    /// How long it has been there.
    pub age: Duration,
}

/// How a service is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers.
    Well,
    /// It cannot be said yet: what was known holds.
    Unclear,
    /// It does not, and may come to by itself.
    Unwell(String),
    /// It does not, and will not.
    Hung(String),
}

/// Waits for an answer as long as is fair.
pub async fn listen(
    pid: u32,
    answer: impl Future<Output = Answer>,
    look: impl Fn(u32) -> Option<Work>,
) -> Look {
    let mut answer = std::pin::pin!(answer);
    let before = look(pid);
    let mut stopped = 0;
    for _ in 0..SLICES {
        if let Ok(answer) = timeout(SLICE, &mut answer).await {
            // One that was stopped before it listens answers in no other way.
            let is_stopped = matches!(answer, Answer::Away(_)) && stays_stopped(pid, &look).await;
            let age = look(pid).map_or(Duration::ZERO, |work| work.age);
            return Look { pid, answer, is_stopped, worked: true, age };
        }
        stopped = if look(pid).is_some_and(|work| work.is_stopped) { stopped + 1 } else { 0 };
        if stopped >= STOPPED_SLICES {
            break;
        }
    }
    let after = look(pid);
    Look {
        pid,
        answer: Answer::Silent,
        is_stopped: stopped >= STOPPED_SLICES,
        worked: before.zip(after).is_none_or(|(before, after)| before.ticks != after.ticks),
        age: after.map_or(Duration::ZERO, |work| work.age),
    }
}

/// Whether a signal has stopped a process and nobody lets it go on.
async fn stays_stopped(pid: u32, look: &impl Fn(u32) -> Option<Work>) -> bool {
    for _ in 0..STOPPED_SLICES {
        let is_stopped = look(pid).is_some_and(|work| work.is_stopped);
        if !is_stopped {
            return false;
        }
        sleep(SLICE).await;
    }
    true
}

/// What is remembered of a service from look to look.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    pid: u32,
    has_answered: bool,
    silences: u32,
    /// How often nobody listened.
    away: u32,
}

impl Patience {
    /// Judges a look.
    pub fn judge(&mut self, look: &Look) -> Health {
        if look.pid != self.pid {
            *self = Self { pid: look.pid, ..Self::default() };
        }
        match &look.answer {
            Answer::Well => {
                self.has_answered = true;
                (self.silences, self.away) = (0, 0);
                return Health::Well;
            }
            Answer::Unwell(why) => {
                (self.silences, self.away) = (0, 0);
                return Health::Unwell(why.clone());
            }
            Answer::Away(_) => self.away += 1,
            Answer::Silent => self.silences += 1,
        }
        if look.is_stopped {
            return Health::Hung("a signal has stopped it".to_owned());
        }
        let is_younger = |age| !self.has_answered && look.age < age;
        if let Answer::Away(why) = &look.answer {
            if is_younger(OPENS) || self.away < STAYS_AWAY {
                return Health::Unwell(why.clone());
            }
            return Health::Hung(format!("nobody listens: {why}"));
        }
        if is_younger(YOUNG) {
            return Health::Unwell("it has not answered yet".to_owned());
        }
        let seconds = (SLICE * SLICES).as_secs();
        if !look.worked {
            return Health::Hung(format!("no answer for {seconds} s, and it did nothing meanwhile"));
        }
        match self.silences {
            HANGS.. => Health::Hung(format!("no answer to {HANGS} questions of {seconds} s each")),
            NOT_READY.. => Health::Unwell(format!("no answer for {seconds} s")),
            _ => Health::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    const OLD: Duration = Duration::from_secs(3600);

    fn silent(worked: bool) -> Look {
        Look { pid: 1, answer: Answer::Silent, is_stopped: false, worked, age: OLD }
    }

    fn well() -> Look {
        Look { answer: Answer::Well, ..silent(true) }
    }

    fn away() -> Look {
        Look { answer: Answer::Away("refused".into()), ..silent(true) }
    }

    fn hangs(health: &Health) -> bool {
        matches!(health, Health::Hung(_))
    }

    #[test]
    fn a_process_that_does_nothing_hangs_after_one_silence() {
        let mut patience = Patience::default();
        assert_eq!(patience.judge(&well()), Health::Well);
        assert!(hangs(&patience.judge(&silent(false))));
        assert!(hangs(&patience.judge(&Look { is_stopped: true, ..silent(true) })));
    }

    #[test]
    fn a_busy_one_is_given_a_minute_and_one_late_answer_forgives_all() {
        let mut patience = Patience::default();
        patience.judge(&well());
        for round in 0..2 {
            assert_eq!(patience.judge(&silent(true)), Health::Unclear, "{round}");
            for _ in 1..HANGS - 1 {
                assert!(matches!(patience.judge(&silent(true)), Health::Unwell(_)));
            }
            assert_eq!(patience.judge(&well()), Health::Well);
        }
        let last = (0..HANGS).map(|_| patience.judge(&silent(true))).last().expect("six");
        assert!(hangs(&last), "{last:?}");
    }

    #[test]
    fn a_young_one_may_take_its_time_unless_it_is_stopped() {
        let mut patience = Patience::default();
        let young = |look: Look| Look { age: Duration::from_secs(200), ..look };
        for _ in 0..20 {
            assert!(matches!(patience.judge(&young(silent(false))), Health::Unwell(_)));
        }
        assert!(hangs(&patience.judge(&young(Look { is_stopped: true, ..silent(false) }))));
        assert!(hangs(&patience.judge(&silent(false))), "it is not young any more");
        // Another process is young again.
        assert!(!hangs(&patience.judge(&Look { pid: 2, ..young(silent(false)) })));
    }

    #[test]
    fn one_that_does_not_listen_any_more_hangs_after_a_minute() {
        let mut patience = Patience::default();
        for _ in 0..2 {
            patience.judge(&well());
            for _ in 1..STAYS_AWAY {
                let health = patience.judge(&Look { age: Duration::ZERO, ..away() });
                assert_eq!(health, Health::Unwell("refused".into()));
            }
        }
        assert!(hangs(&patience.judge(&away())));
    }

    #[test]
    fn one_that_does_not_listen_yet_may_take_its_time_unless_it_is_stopped() {
        let mut patience = Patience::default();
        let young = || Look { age: Duration::from_secs(500), ..away() };
        for _ in 0..STAYS_AWAY * 3 {
            assert_eq!(patience.judge(&young()), Health::Unwell("refused".into()));
        }
        assert!(hangs(&patience.judge(&Look { is_stopped: true, ..young() })));
        assert!(hangs(&patience.judge(&away())), "it is not young any more");
        assert!(!hangs(&patience.judge(&Look { pid: 2, ..young() })), "another process is young again");
    }

    #[test]
    fn one_that_says_itself_that_it_is_unwell_never_hangs() {
        let mut patience = Patience::default();
        for _ in 0..STAYS_AWAY * 3 {
            let look = Look { answer: Answer::Unwell("healthz says 500".into()), ..silent(true) };
            assert_eq!(patience.judge(&look), Health::Unwell("healthz says 500".into()));
        }
    }

    fn work(is_stopped: bool, ticks: u64) -> Option<Work> {
        Some(Work { is_stopped, ticks, age: OLD })
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_is_eight_seconds_and_two_for_a_stopped_process() {
        let begun = tokio::time::Instant::now();
        let look = listen(1, std::future::pending(), |_| work(false, 7)).await;
        assert_eq!((look, begun.elapsed()), (silent(false), Duration::from_secs(8)));
        let begun = tokio::time::Instant::now();
        let look = listen(1, std::future::pending(), |_| work(true, 7)).await;
        assert_eq!((look.is_stopped, begun.elapsed()), (true, Duration::from_secs(2)));
        let ticks = Cell::new(0);
        let busy = |_| {
            ticks.set(ticks.get() + 1);
            work(false, ticks.get())
        };
        assert_eq!(listen(1, std::future::pending(), busy).await, silent(true));
        assert_eq!(listen(1, async { Answer::Well }, |_| None).await.answer, Answer::Well);
    }

    #[tokio::test(start_paused = true)]
    async fn where_nobody_listens_it_is_looked_whether_the_process_is_stopped() {
        let refused = || async { Answer::Away("refused".into()) };
        let begun = tokio::time::Instant::now();
        let look = listen(1, refused(), |_| work(false, 7)).await;
        assert_eq!((look, begun.elapsed()), (away(), Duration::ZERO));
        let look = listen(1, refused(), |_| work(true, 7)).await;
        assert_eq!((look.is_stopped, begun.elapsed()), (true, Duration::from_secs(2)));
        let looks = Cell::new(0);
        let let_go_on = |_| {
            looks.set(looks.get() + 1);
            work(looks.get() < 4, 7)
        };
        assert!(!listen(1, refused(), let_go_on).await.is_stopped);
    }

    /// The whole machine stands still for a minute: the agent is run once after it, as the service is.
    #[tokio::test(start_paused = true)]
    async fn a_machine_that_stood_still_is_no_service_that_hangs() {
        let frozen = async {
            tokio::time::advance(Duration::from_secs(60)).await;
            tokio::task::yield_now().await;
            Answer::Well
        };
        let look = listen(1, frozen, |_| work(false, 7)).await;
        assert_eq!(look.answer, Answer::Well);
    }
}
