//! When a kubelet is restarted because its Node object is gone: it registers once, at its start. Pure.

use std::time::{Duration, Instant};

/// How long a Node that was there must have been away.
const GONE: Duration = Duration::from_secs(30);
/// How long one must be missing that this agent has never seen: a kubelet on a slow machine may be about to register.
const NEVER_CAME: Duration = Duration::from_secs(5 * 60);
/// Shortest time between two restarts.
const BETWEEN: Duration = Duration::from_secs(10 * 60);

/// What was seen of the Node object.
#[derive(Debug, Default)]
pub struct Absence {
    was_there: bool,
    since: Option<Instant>,
    restarted: Option<Instant>,
}

impl Absence {
    /// Takes in a look: whether the Node is there while its kubelet runs. `None` means: the API does not answer, or no
    /// kubelet runs. Says whether the kubelet shall be restarted.
    pub fn look(&mut self, is_there: Option<bool>, now: Instant) -> bool {
        match is_there {
            Some(false) => {
                let since = *self.since.get_or_insert(now);
                let limit = if self.was_there { GONE } else { NEVER_CAME };
                now.duration_since(since) >= limit
                    && self.restarted.is_none_or(|last| now.duration_since(last) >= BETWEEN)
            }
            Some(true) => {
                self.was_there = true;
                self.since = None;
                false
            }
            None => {
                self.since = None;
                false
            }
        }
    }

    /// The kubelet was restarted.
    pub fn restarted(&mut self, now: Instant) {
        self.restarted = Some(now);
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stays_away_has_its_kubelet_restarted_now_and_then() {
        let (mut absence, begun) = (Absence::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!absence.look(Some(true), at(0)));
        assert!(!absence.look(Some(false), at(10)));
        assert!(!absence.look(Some(false), at(39)));
        assert!(absence.look(Some(false), at(40)));
        absence.restarted(at(41));
        for second in 42..641 {
            assert!(!absence.look(Some(false), at(second)), "{second}");
        }
        assert!(absence.look(Some(false), at(641)));
    }

    #[test]
    fn silence_and_a_first_registration_are_no_absence() {
        let (mut absence, begun) = (Absence::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!absence.look(Some(false), at(0)));
        assert!(!absence.look(Some(false), at(299)));
        assert!(!absence.look(None, at(305)));
        assert!(!absence.look(Some(false), at(310)));
        assert!(absence.look(Some(false), at(610)));
        assert!(!absence.look(Some(true), at(611)));
    }
}
