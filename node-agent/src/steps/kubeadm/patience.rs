//! How long the step waits, and how often it does the same again, before it says that this leads nowhere. Pure.

use std::time::{Duration, Instant};

use super::plan::Next;
use crate::converge::step::StepError;

/// Longest wait for the API server or the Node object while nothing else can be done.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How often a kubelet is started that ends again.
const STARTS: u32 = 10;

/// How often files are written as kubeadm did that somebody changes again meanwhile.
const RESTORES: u32 = 5;

/// What the step has borne since it last got on.
#[derive(Debug, Default)]
pub struct Patience {
    waiting: Option<(&'static str, Instant)>,
    /// Since when what the Node lacks cannot be written into it.
    annotating: Option<Instant>,
    first_start: Option<Instant>,
    starts: u32,
    restores: u32,
}

impl Patience {
    /// Takes in what comes next. An error means that it has come too often, or for too long.
    pub fn bear(&mut self, next: &Next, now: Instant) -> Result<(), StepError> {
        match next {
            Next::Wait { doing, last } => {
                let since = match self.waiting {
                    Some((what, since)) if what == *doing => since,
                    _ => now,
                };
                self.waiting = Some((doing, since));
                let waited = now.duration_since(since);
                if waited >= PATIENCE {
                    return Err(StepError::Waited { what: doing, waited, last: last.clone() });
                }
            }
            // No way on by itself: a kubelet that crashes is started again and again, between waits.
            Next::StartKubelet => {
                let since = *self.first_start.get_or_insert(now);
                if self.starts >= STARTS {
                    return Err(StepError::Waited {
                        what: "the kubelet keeps running",
                        waited: now.duration_since(since),
                        last: format!("it was started {STARTS} times and ended each time"),
                    });
                }
                self.starts += 1;
            }
            // No way on by itself either.
            Next::Restore(drifted) => {
                if self.restores >= RESTORES {
                    return Err(StepError::Waited {
                        what: "files stay as kubeadm wrote them",
                        waited: Duration::ZERO,
                        last: format!("written {RESTORES} times, and changed again: {}", drifted.names()),
                    });
                }
                self.restores += 1;
            }
            Next::RestartKubelet => {}
            // Whether that helps is told by `not_annotated`.
            Next::Annotate => *self = Self { annotating: self.annotating, ..Self::default() },
            _ => *self = Self::default(),
        }
        Ok(())
    }

    /// Takes in that the Node could not be annotated, and why: the API may be away just then. An error means that it has
    /// been so for too long.
    pub fn not_annotated(&mut self, last: String, now: Instant) -> Result<(), StepError> {
        let waited = now.duration_since(*self.annotating.get_or_insert(now));
        if waited >= PATIENCE {
            return Err(StepError::Waited { what: "the Node is annotated", waited, last });
        }
        Ok(())
    }

    /// Whether the kubelet was started before, so that the next start may wait.
    pub fn starts_again(&self) -> bool {
        self.starts > 1
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::Drifted;
    use super::*;

    fn wait(doing: &'static str) -> Next {
        Next::Wait { doing, last: "refused".to_owned() }
    }

    #[test]
    fn a_kubelet_that_crashes_does_not_make_the_wait_longer() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        for round in 0..9 {
            patience.bear(&wait("a"), at(round * 60)).expect("borne");
            patience.bear(&Next::StartKubelet, at(round * 60 + 1)).expect("borne");
        }
        let error = patience.bear(&wait("a"), at(600)).expect_err("too long");
        assert_eq!(error.to_string(), "a not after 600s: refused");
    }

    #[test]
    fn a_kubelet_that_crashes_at_once_is_started_ten_times() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        for second in 0..10 {
            patience.bear(&Next::StartKubelet, begun + Duration::from_secs(second)).expect("borne");
            patience.bear(&wait("a"), begun + Duration::from_secs(second)).expect("borne");
        }
        let error =
            patience.bear(&Next::StartKubelet, begun + Duration::from_secs(20)).expect_err("too often");
        let says = "the kubelet keeps running not after 20s: it was started 10 times and ended each time";
        assert_eq!(error.to_string(), says);
    }

    #[test]
    fn an_api_that_is_away_just_when_the_node_is_annotated_is_waited_for() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        for second in (0..600).step_by(20) {
            let at = begun + Duration::from_secs(second);
            patience.bear(&wait("a"), at).expect("borne");
            patience.bear(&Next::Annotate, at).expect("borne");
            patience.not_annotated("no answer".to_owned(), at).expect("borne");
        }
        let late = begun + Duration::from_secs(600);
        let error = patience.not_annotated("no answer".to_owned(), late).expect_err("too long");
        assert_eq!(error.to_string(), "the Node is annotated not after 600s: no answer");
        // Whatever gets on in between, it is another wait.
        patience.bear(&Next::Join, late).expect("borne");
        patience.not_annotated("no answer".to_owned(), late).expect("borne");
    }

    #[test]
    fn files_that_others_keep_changing_are_not_written_for_ever() {
        let mut patience = Patience::default();
        let restore = || Next::Restore(Drifted::default());
        (0..5).for_each(|_| patience.bear(&restore(), Instant::now()).expect("borne"));
        let error = patience.bear(&restore(), Instant::now()).expect_err("too often");
        assert!(error.to_string().starts_with("files stay as kubeadm wrote them not after"), "{error}");
    }

    #[test]
    fn getting_on_and_another_wait_begin_anew() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        patience.bear(&wait("a"), at(0)).expect("borne");
        patience.bear(&wait("b"), at(599)).expect("borne");
        patience.bear(&wait("b"), at(1198)).expect("borne");
        patience.bear(&Next::Join, at(1200)).expect("borne");
        patience.bear(&wait("b"), at(1300)).expect("borne");
    }
}
