//! How often something may be repaired before the agent rests. Pure: it is told the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often one object may be repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tries for the same reason within [`Self::within`], whether they helped or not.
    pub tries: usize,
    /// The same for whatever reason.
    pub in_all: usize,
    /// Tries in a row that did not help.
    pub failures: usize,
    /// Tries longer ago than this do not count.
    pub within: Duration,
    /// How long the agent rests then.
    pub rest: Duration,
}

/// Why the agent rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It was repaired, and broke in the same way, too often.
    Tries,
    /// It was repaired, and broke in one way or another, too often.
    InAll,
    /// Repairing did not help.
    Failures,
}

/// Whether there may be another try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Yes; it counts from now.
    Go,
    /// No.
    Rest {
        /// Time until there may be another.
        left: Duration,
        /// Set where the rest begins with this answer: the one time to tell of it.
        begins: Option<Why>,
    },
}

/// The tries of one object.
#[derive(Clone, Debug)]
pub struct Limiter {
    limit: Limit,
    /// When, and for which reason.
    tried: VecDeque<(Instant, String)>,
    failures: usize,
    /// When the last try ended: a long one may have begun so long ago that it is no more among those that count.
    last_end: Option<Instant>,
    rests_until: Option<Instant>,
}

impl Limiter {
    /// No try so far.
    pub fn new(limit: Limit) -> Self {
        Self { limit, tried: VecDeque::new(), failures: 0, last_end: None, rests_until: None }
    }

    /// Asks for another try, for a reason that is the same whenever the same has happened. Times must not run backwards from
    /// call to call.
    pub fn ask(&mut self, reason: &str, now: Instant) -> Leave {
        if let Some(until) = self.rests_until {
            let left = until.saturating_duration_since(now);
            if !left.is_zero() {
                return Leave::Rest { left, begins: None };
            }
            self.clear();
        }
        let within = self.limit.within;
        self.tried.retain(|(tried, _)| now.saturating_duration_since(*tried) < within);
        let is_long_ago = |end: Instant| now.saturating_duration_since(end) >= within;
        if self.tried.is_empty() && self.last_end.is_none_or(is_long_ago) {
            self.failures = 0;
        }
        let for_that = self.tried.iter().filter(|(_, tried_for)| tried_for == reason).count();
        let why = if self.failures >= self.limit.failures {
            Why::Failures
        } else if for_that >= self.limit.tries {
            Why::Tries
        } else if self.tried.len() >= self.limit.in_all {
            Why::InAll
        } else {
            self.tried.push_back((now, reason.to_owned()));
            return Leave::Go;
        };
        self.rests_until = Some(now + self.limit.rest);
        Leave::Rest { left: self.limit.rest, begins: Some(why) }
    }

    /// How the last try ended, and when.
    pub fn ended(&mut self, repaired: bool, now: Instant) {
        self.last_end = Some(now);
        self.failures = if repaired { 0 } else { self.failures.saturating_add(1) };
    }

    /// Forgets all tries and ends a rest.
    pub fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Takes in a try of an earlier life of the agent. From the oldest to the newest.
    pub fn recall_try(&mut self, reason: &str, at: Instant, repaired: bool) {
        // Whoever tries does not rest any more.
        self.rests_until = None;
        self.tried.push_back((at, reason.to_owned()));
        self.ended(repaired, at);
    }

    /// Takes in that an earlier life of the agent began to rest then.
    pub fn recall_rest(&mut self, at: Instant) {
        self.clear();
        self.rests_until = Some(at + self.limit.rest);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Limit = Limit {
        tries: 5,
        in_all: 20,
        failures: 3,
        within: Duration::from_secs(600),
        rest: Duration::from_secs(900),
    };

    fn go(limiter: &mut Limiter, at: Instant, repaired: bool) {
        assert_eq!(limiter.ask("", at), Leave::Go);
        limiter.ended(repaired, at);
    }

    #[test]
    fn the_sixth_try_within_ten_minutes_is_none_and_that_is_told_once() {
        let (mut limiter, begun) = (Limiter::new(LIMIT), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        (0..5).for_each(|second| go(&mut limiter, at(second), true));
        let rest = LIMIT.rest;
        assert_eq!(limiter.ask("", at(5)), Leave::Rest { left: rest, begins: Some(Why::Tries) });
        let left = rest - Duration::from_secs(1);
        assert_eq!(limiter.ask("", at(6)), Leave::Rest { left, begins: None });
        assert_eq!(limiter.ask("", at(905)), Leave::Go);
    }

    #[test]
    fn what_breaks_in_many_ways_is_repaired_more_often_than_what_breaks_in_one() {
        let (mut limiter, begun) = (Limiter::new(LIMIT), Instant::now());
        let ways = ["a sysctl", "a module", "a file", "a name", "another file"];
        for way in ways.iter().cycle().take(LIMIT.in_all) {
            assert_eq!(limiter.ask(way, begun), Leave::Go, "{way}");
            limiter.ended(true, begun);
        }
        let rest = LIMIT.rest;
        assert_eq!(limiter.ask("something new", begun), Leave::Rest { left: rest, begins: Some(Why::InAll) });
    }

    #[test]
    fn the_fourth_try_in_a_row_that_would_not_help_is_none() {
        let (mut limiter, begun) = (Limiter::new(LIMIT), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for (second, repaired) in [(0, false), (1, false), (2, true), (3, false), (4, false)] {
            go(&mut limiter, at(second), repaired);
        }
        // All of that is long ago.
        (700..703).for_each(|second| go(&mut limiter, at(second), false));
        assert!(matches!(limiter.ask("", at(703)), Leave::Rest { begins: Some(Why::Failures), .. }));
    }

    #[test]
    fn tries_that_take_long_are_failures_in_a_row_all_the_same() {
        let (mut limiter, begun) = (Limiter::new(LIMIT), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for round in 0..3 {
            assert_eq!(limiter.ask("", at(round * 650)), Leave::Go);
            limiter.ended(false, at(round * 650 + 640));
        }
        assert!(matches!(limiter.ask("", at(3 * 650)), Leave::Rest { begins: Some(Why::Failures), .. }));
    }

    #[test]
    fn another_life_of_the_agent_goes_on_where_the_last_one_was() {
        let begun = Instant::now() + Duration::from_secs(10_000);
        let ago = |seconds| begun - Duration::from_secs(seconds);
        let mut limiter = Limiter::new(LIMIT);
        (1..=3).rev().for_each(|second| limiter.recall_try("", ago(second), false));
        assert!(matches!(limiter.ask("", begun), Leave::Rest { begins: Some(Why::Failures), .. }));
        let mut limiter = Limiter::new(LIMIT);
        limiter.recall_rest(ago(100));
        let left = LIMIT.rest - Duration::from_secs(100);
        assert_eq!(limiter.ask("", begun), Leave::Rest { left, begins: None });
        limiter.clear();
        assert_eq!(limiter.ask("", begun), Leave::Go);
        // Tries after a rest count, whether it was over by then or a person ended it.
        for rested in [LIMIT.rest.as_secs() + 100, 100] {
            let mut limiter = Limiter::new(LIMIT);
            limiter.recall_rest(ago(rested));
            (1..=3).rev().for_each(|second| limiter.recall_try("", ago(second), false));
            assert!(matches!(limiter.ask("", begun), Leave::Rest { begins: Some(Why::Failures), .. }));
        }
    }

    proptest! {
        /// Whatever happens when: never more tries than allowed in any stretch of time, no try in a rest, each rest
        /// told once, and after each rest there is another try.
        #[test]
        fn there_is_never_a_repair_loop(
            steps in proptest::collection::vec((0u64..400, any::<bool>(), 0usize..3), 1..300),
            tries in 1usize..8,
            in_all in 1usize..16,
            failures in 1usize..8,
            within in 1u64..1000,
            rest in 1u64..2000,
        ) {
            let seconds = Duration::from_secs;
            let limit = Limit { tries, in_all, failures, within: seconds(within), rest: seconds(rest) };
            let (mut limiter, mut now) = (Limiter::new(limit), Instant::now());
            let mut tried: Vec<(Instant, usize)> = Vec::new();
            let (mut in_a_row, mut rests_until) = (0, None::<Instant>);
            for (pause, repaired, reason) in steps {
                now += seconds(pause);
                match limiter.ask(["a", "b", "c"][reason], now) {
                    Leave::Go => {
                        prop_assert!(rests_until.is_none_or(|until| now >= until), "a try in a rest");
                        if rests_until.take().is_some()
                            || tried.last().is_none_or(|(last, _)| now - *last >= limit.within)
                        {
                            in_a_row = 0;
                        }
                        tried.push((now, reason));
                        let recent = || tried.iter().filter(|(tried, _)| now - *tried < limit.within);
                        // A rest may be shorter than the stretch; tries before it are forgiven.
                        if limit.rest >= limit.within {
                            prop_assert!(recent().filter(|(_, for_it)| *for_it == reason).count() <= tries);
                            prop_assert!(recent().count() <= in_all);
                        }
                        limiter.ended(repaired, now);
                        in_a_row = if repaired { 0 } else { in_a_row + 1 };
                        prop_assert!(in_a_row <= failures);
                    }
                    Leave::Rest { left, begins } => {
                        prop_assert!(!left.is_zero() && left <= limit.rest);
                        prop_assert_eq!(begins.is_some(), rests_until.is_none(), "told once");
                        let until = *rests_until.get_or_insert(now + left);
                        prop_assert_eq!(now + left, until);
                    }
                }
            }
            prop_assert_eq!(limiter.clone().ask("a", now + limit.rest.max(limit.within)), Leave::Go);
        }
    }
}
