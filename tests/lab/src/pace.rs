//! How fast this machine is now, by a clean boot of a worker that the same run has measured.
//!
//! What is promised holds on a machine that is not starved of processor. Emulated VMs on a shared one are: where a
//! promise is about work that a node does, it has so many times as long here. What the node could see at once (a signal
//! of the kernel's or of systemd's) has no such excuse, and is judged as it is promised.

use std::time::Duration;

use anyhow::{Result, ensure};

/// A worker's boot, from power-on until all is well, on a machine of which `docs/reliability.md` speaks.
const USUAL: Duration = Duration::from_secs(30);
/// A machine that is slower than this has a fault of its own.
const MOST: f64 = 12.0;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    boot: Duration,
}

impl Pace {
    /// Of a machine on which a worker's boot took so long.
    pub fn of_boot(boot: Duration) -> Self {
        Self { boot }
    }

    /// How much slower this machine is; never less than 1.
    pub fn factor(self) -> f64 {
        (self.boot.as_secs_f64() / USUAL.as_secs_f64()).clamp(1.0, MOST)
    }

    /// How long something may take here that is promised within so long.
    pub fn allow(self, promised: Duration) -> Duration {
        promised.mul_f64(self.factor())
    }

    /// The same machine where other work may come between: so many times as slow.
    pub fn times(self, factor: f64) -> Self {
        Self { boot: self.boot.max(USUAL).mul_f64(factor) }
    }

    /// The boot that was measured.
    pub fn boot(self) -> Duration {
        self.boot
    }
}

/// Prints how long something took, which must be within what it is allowed.
pub fn within(what: &str, took: Duration, allowed: Duration) -> Result<()> {
    let (took, allowed) = (took.as_secs_f64(), allowed.as_secs_f64());
    println!("lab: {what}: {took:.1} s, at most {allowed:.1} s");
    ensure!(took <= allowed, "{what}: took {took:.1} s, at most {allowed:.1} s are allowed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_is_given_more_time_and_a_fast_one_not_less() {
        let pace = |seconds| Pace::of_boot(Duration::from_secs(seconds));
        assert_eq!(pace(75).allow(Duration::from_secs(10)), Duration::from_secs(25));
        assert_eq!(pace(8).allow(Duration::from_secs(10)), Duration::from_secs(10));
        assert_eq!(pace(100_000).allow(Duration::from_secs(10)), Duration::from_secs(120));
        assert_eq!(pace(75).boot(), Duration::from_secs(75));
        assert_eq!(pace(75).times(2.0).allow(Duration::from_secs(10)), Duration::from_secs(50));
        assert_eq!(pace(8).times(2.0).allow(Duration::from_secs(10)), Duration::from_secs(20));
    }
}
