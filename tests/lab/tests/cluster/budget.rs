//! What of the test there is time for. All of it takes some 25 minutes on a usual machine, and hours on a slow one, on
//! which whoever waits for it would learn nothing: so what proves faults that are rare is left out there, and that is said.

use std::time::{Duration, Instant};

use lab_tests::Lab;

use super::{ALL, MINUTE};

/// For the whole test, what is never left out included.
const WHOLE: Duration = MINUTE.saturating_mul(40);
/// What comes before any that may be left out, on a usual machine.
const BEFORE: Duration = MINUTE.saturating_mul(5);

/// One or more phases that may be left out.
#[derive(Clone, Copy, Debug)]
pub struct Optional {
    pub name: &'static str,
    /// How long it takes on a usual machine.
    pub usual: Duration,
    /// How long what comes after it takes there that is never left out.
    pub after: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Budget {
    began: Instant,
    slower: f64,
    all: bool,
    left_out: Vec<&'static str>,
}

impl Budget {
    /// Of a test that began then; what it took up to here tells how much slower than usual it is.
    pub fn new(lab: &Lab, began: Instant) -> Self {
        let slower = (began.elapsed().as_secs_f64() / BEFORE.as_secs_f64()).max(1.0);
        println!("lab: up to here it took {slower:.1} times as long as is usual");
        Self { began, slower, all: lab.phases() == ALL, left_out: Vec::new() }
    }

    /// Whether there is time for it.
    pub fn has(&mut self, phases: Optional) -> bool {
        let took = self.began.elapsed();
        let has = self.all || took + (phases.usual + phases.after).mul_f64(self.slower) <= WHOLE;
        if !has {
            println!(
                "lab: LEFT OUT, for there is no time for it on this machine after {} minutes: {}",
                took.as_secs() / 60,
                phases.name
            );
            self.left_out.push(phases.name);
        }
        has
    }

    /// The same at the end, where it is read.
    pub fn tell(&self) {
        if !self.left_out.is_empty() {
            println!("lab: LEFT OUT: {}. LAB_PHASES=all asks for it", self.left_out.join(", "));
        }
    }
}
