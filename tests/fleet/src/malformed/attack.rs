//! Sends to one target for a while: a few connections at a time, each kind of exchange in its turn.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

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

    /// One of which some are sound enough to be answered: where none is, it is the test that is wrong.
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

/// What came of all kinds.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<String, Sum>);

impl Told {
    /// Exchanges of all kinds.
    pub fn exchanges(&self) -> usize {
        self.0.values().map(|sum| sum.exchanges).sum()
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
    for (name, sum) in lanes.into_iter().flatten() {
        let all = told.0.entry(name).or_default();
        all.exchanges += sum.exchanges;
        all.refused += sum.refused;
        all.heard += sum.heard;
    }
    for exchange in target.exchanges.iter().filter(|exchange| exchange.must_answer) {
        let sum = told.0.get(&exchange.name).copied().unwrap_or_default();
        ensure!(
            sum.exchanges == 0 || sum.heard.ended > 0,
            "{}: none of {} exchanges {} was answered",
            target.name,
            sum.exchanges,
            exchange.name
        );
    }
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
