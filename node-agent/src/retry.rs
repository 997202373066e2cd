//! Named retry policies with jitter: the only place that decides how long to wait before another try.
//!
//! Called by bootstrap, session, converge, health and repair. It does not decide whether to try again.

use std::time::Duration;

/// How the pause between tries grows.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// For logs: what is tried again.
    pub name: &'static str,
    /// Pause after the first failure.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
    /// By how much of itself a pause is longer or shorter at most.
    pub jitter: f64,
}

/// Of what one node does alone.
const SLIGHT: f64 = 0.2;
/// Of what all nodes do at the same time after their host agent was away: it takes only so many of them a second.
const WIDE: f64 = 0.5;

/// Getting a secret and a certificate: quick at first, the host agent is usually there already.
pub const JOIN: Policy = Policy {
    name: "join",
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    jitter: SLIGHT,
};
/// Dialling the session again. A host that is back is to be found within 15 s, whatever came of the try before: that may
/// have its last packet on the way for 3 s more, and there is the handshake.
pub const DIAL: Policy =
    Policy { name: "dial", first: Duration::from_millis(200), longest: Duration::from_secs(5), jitter: WIDE };
/// Renewing the certificate, of which half the life is still left.
pub const RENEW: Policy =
    Policy { name: "renew", first: Duration::from_secs(1), longest: Duration::from_secs(60), jitter: SLIGHT };
/// A failed step.
pub const STEP: Policy =
    Policy { name: "step", first: Duration::from_secs(5), longest: Duration::from_secs(60), jitter: SLIGHT };
/// Repairing what the last repair did not.
pub const REPAIR: Policy = Policy {
    name: "repair",
    first: Duration::from_secs(5),
    longest: Duration::from_secs(60),
    jitter: SLIGHT,
};
/// Watching units when systemd does not answer.
pub const WATCH: Policy =
    Policy { name: "watch", first: Duration::from_secs(1), longest: Duration::from_secs(30), jitter: SLIGHT };

/// Counts failures of one thing under one policy.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: Policy,
    failures: u32,
}

impl Backoff {
    /// No failure so far.
    pub fn new(policy: Policy) -> Self {
        Self { policy, failures: 0 }
    }

    /// It worked: the next pause is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Notes a failure and says how long to pause.
    pub fn next_pause(&mut self) -> Duration {
        let factor = 2u32.saturating_pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let pause = self.policy.first.saturating_mul(factor).min(self.policy.longest);
        let jitter = self.policy.jitter;
        let pause = pause.mul_f64(rand::random_range(1.0 - jitter..=1.0 + jitter));
        tracing::debug!(retry.policy = self.policy.name, retry.failures = self.failures, ?pause, "retrying");
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(JOIN);
        let first = backoff.next_pause();
        assert!(first >= Duration::from_millis(80) && first <= Duration::from_millis(120), "{first:?}");
        let last = (0..40).map(|_| backoff.next_pause()).last().expect("forty");
        assert!(last >= Duration::from_secs(4) && last <= Duration::from_secs(6), "{last:?}");
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(120));
    }

    #[test]
    fn those_who_lost_their_host_at_the_same_time_do_not_come_back_at_the_same_time() {
        let pauses: Vec<Duration> = (0..1_000).map(|_| Backoff::new(DIAL).next_pause()).collect();
        let (least, most) = (pauses.iter().min().expect("some"), pauses.iter().max().expect("some"));
        assert!(*least >= DIAL.first / 2 && *most <= DIAL.first * 3 / 2, "{least:?} to {most:?}");
        assert!(*most - *least > DIAL.first / 2, "{least:?} to {most:?}");
    }
}
