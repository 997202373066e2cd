//! Sends to one target for a while: a few connections at a time, each kind of exchange in its turn.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::AddAssign;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::conversation::Heard;
use super::random::Random;

/// Connections at a time. A node may have eight, and so may an address without a certificate.
const LANES: usize = 4;
/// Whoever means no good has a machine of its own. Here it shares the processors with those who are measured, and is given
/// what they leave.
const NICE: i32 = 19;

/// What is sent, and what was heard.
type Act = Box<dyn Fn(&mut Random) -> io::Result<Heard> + Send + Sync>;

/// One kind of exchange, on a connection of its own.
pub struct Exchange {
    name: String,
    must_answer: bool,
    act: Act,
}

impl Exchange {
    /// One to which nothing may be said.
    pub fn new(
        name: impl Into<String>,
        act: impl Fn(&mut Random) -> io::Result<Heard> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), must_answer: false, act: Box::new(act) }
    }

    /// One of which some are sound enough to be answered: where none is, the test is wrong, or those are held up whom it
    /// does not measure.
    pub fn answered(self) -> Self {
        Self { must_answer: true, ..self }
    }
}

/// Who is sent to, and what.
pub struct Target {
    /// The socket, and as whom.
    pub name: &'static str,
    /// All kinds.
    pub exchanges: Vec<Exchange>,
}

/// What came of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    exchanges: usize,
    /// Those that could not be begun.
    refused: usize,
    heard: Heard,
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        self.exchanges += other.exchanges;
        self.refused += other.refused;
        self.heard += other.heard;
    }
}

/// What came of all kinds.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Sum>);

impl Told {
    /// Exchanges of all kinds.
    pub fn exchanges(&self) -> usize {
        self.0.values().map(|sum| sum.exchanges).sum()
    }

    /// With what came of another round.
    pub fn extend(&mut self, other: Self) {
        for (name, sum) in other.0 {
            *self.0.entry(name).or_default() += sum;
        }
    }

    /// Kinds that should have been answered at least once, and were not.
    pub fn unanswered(&self, target: &Target) -> Vec<String> {
        let should = target.exchanges.iter().filter(|exchange| exchange.must_answer);
        should
            .filter_map(|exchange| {
                let sum = self.0.get(&exchange.name)?;
                (sum.heard.ended == 0)
                    .then(|| format!("none of {} exchanges {} was answered", sum.exchanges, exchange.name))
            })
            .collect()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Sum { exchanges, refused, heard }) in &self.0 {
            let Heard { bytes, ended, reset, closed } = heard;
            writeln!(
                f,
                "    {name:<48} {exchanges:>6} exchanges, {refused} refused: {bytes} bytes heard, {ended} answers, \
                 {reset} resets, {closed} closed"
            )?;
        }
        Ok(())
    }
}

/// Sends for so long. The same seed sends the same again.
pub fn run(target: &Target, seed: u64, length: Duration) -> Result<Told> {
    let end = Instant::now() + length;
    let lanes: Vec<BTreeMap<String, Sum>> = thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..LANES).map(|lane| scope.spawn(move || run_lane(target, seed, lane, end))).collect();
        lanes
            .into_iter()
            .map(|lane| lane.join().map_err(|_| anyhow::anyhow!("a lane panicked"))?)
            .collect::<Result<_>>()
    })?;
    let mut told = Told::default();
    lanes.into_iter().for_each(|lane| told.extend(Told(lane)));
    Ok(told)
}

fn run_lane(target: &Target, seed: u64, lane: usize, end: Instant) -> Result<BTreeMap<String, Sum>> {
    // Of this thread alone.
    rustix::process::setpriority_process(None, NICE).context("cannot give way")?;
    let (mut sums, mut number) = (BTreeMap::<String, Sum>::new(), 0);
    while Instant::now() < end {
        // Each lane begins elsewhere, so that all kinds are there from the begin, and each meets each.
        let at = (number as usize * LANES + lane) % target.exchanges.len().max(1);
        let Some(exchange) = target.exchanges.get(at) else { break };
        let mut random = Random::of(seed, target.name, lane, number);
        number += 1;
        let sum = sums.entry(exchange.name.clone()).or_default();
        sum.exchanges += 1;
        match (exchange.act)(&mut random) {
            Ok(heard) => sum.heard += heard,
            Err(_) => sum.refused += 1,
        }
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kinds: &[(&str, usize)]) -> Told {
        let sum = |ended| Sum { exchanges: 1, refused: 0, heard: Heard { ended, ..Heard::default() } };
        Told(kinds.iter().map(|(name, ended)| ((*name).to_owned(), sum(*ended))).collect())
    }

    #[test]
    fn rounds_are_summed_up_and_what_none_of_them_had_answered_is_named() {
        let exchange = |name: &str| Exchange::new(name, |_| Ok(Heard::default()));
        let exchanges = vec![exchange("a").answered(), exchange("b").answered(), exchange("c")];
        let target = Target { name: "target", exchanges };
        let mut all = told(&[("a", 0), ("c", 0)]);
        assert_eq!(all.unanswered(&target), ["none of 1 exchanges a was answered"], "b was not begun");
        all.extend(told(&[("a", 2), ("b", 0)]));
        assert_eq!(all.unanswered(&target), ["none of 1 exchanges b was answered"]);
        assert_eq!(all.exchanges(), 4);
    }
}
