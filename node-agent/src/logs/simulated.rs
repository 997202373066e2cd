//! Log lines of an agent without a machine of its own, for tests of the whole system: `simulated line 1` and so on.
//!
//! A line's number, time and text never change, also when the agent is started again, and where to go on is a number:
//! whoever reads can tell that none was lost or doubled. Each line is of one of the sources that are asked for, in turn.
//! It knows a few units, and one pod.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::{LogFrame, LogLine, LogSelector, LogUnknown, PodLogs, log_unknown};
use k8sctl_types::logs::merge::Micros;
use tokio::time::sleep;

use super::filter::{Filter, stamp};
use super::frames::{Batch, Frames};
use super::{LogError, LogSources, wanted};
use crate::config::SimulatedLog;
use crate::durable;

const VERSION: char = '1';
/// Of the moment at which the agent was started for the first time, in microseconds since 1970.
const FILE: &str = "simulated-log";
/// Units that it knows, besides those of sources.
const UNITS: [&str; 1] = ["systemd-networkd.service"];
/// The pod that it knows, and its container.
const POD: [&str; 3] = ["default", "simulated", "main"];
/// After so many lines others get their turn, also where none passes.
const YIELD: u64 = 4096;
/// Shortest sleep while following.
const REST: Duration = Duration::from_millis(1);
/// What lines are filled up with.
const FILLING: &str = "................................................................";

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct SimulatedLogs {
    began: Micros,
    log: SimulatedLog,
}

impl Default for SimulatedLogs {
    fn default() -> Self {
        Self::fresh(SimulatedLog::default())
    }
}

fn now() -> Micros {
    jiff::Timestamp::now().as_microsecond()
}

impl SimulatedLogs {
    /// A log that began at this moment.
    pub fn new(began: Micros, log: SimulatedLog) -> Self {
        Self { began, log: SimulatedLog { pause: log.pause.max(Duration::from_micros(1)), ..log } }
    }

    /// A log that begins now.
    pub fn fresh(log: SimulatedLog) -> Self {
        Self::new(now(), log)
    }

    /// A log that goes on where the agent is started again with the same directory.
    pub fn kept(dir: &Path, log: SimulatedLog) -> Self {
        let path = dir.join(FILE);
        let kept = std::fs::read_to_string(&path).ok().and_then(|text| text.parse().ok());
        let began = kept.unwrap_or_else(|| {
            let began = now();
            if let Err(error) = durable::write(&path, began.to_string().as_bytes(), 0o600) {
                tracing::warn!(%error, "the simulated log begins anew with every start");
            }
            began
        });
        Self::new(began, log)
    }

    fn pause(&self) -> Micros {
        Micros::try_from(self.log.pause.as_micros()).unwrap_or(Micros::MAX)
    }

    /// When a line is written.
    fn time(&self, number: u64) -> Micros {
        let place = Micros::try_from(number)
            .unwrap_or(Micros::MAX)
            .saturating_sub(Micros::try_from(self.log.before).unwrap_or(Micros::MAX));
        self.began.saturating_add(place.saturating_mul(self.pause()))
    }

    /// Number of the newest line.
    fn newest(&self) -> u64 {
        let passed = u64::try_from((now() - self.began) / self.pause()).unwrap_or_default();
        self.log.before.saturating_add(passed)
    }

    fn text(&self, number: u64) -> String {
        let line = format!("simulated line {number}");
        if line.len() >= self.log.bytes {
            return line;
        }
        let mut text = String::with_capacity(self.log.bytes);
        text.push_str(&line);
        text.push(' ');
        while text.len() < self.log.bytes {
            let missing = self.log.bytes - text.len();
            text.push_str(&FILLING[..missing.min(FILLING.len())]);
        }
        text
    }

    /// Number of the first line of this moment or a later one.
    fn first(&self, since: Micros) -> u64 {
        let (passed, pause) = (since.saturating_sub(self.began), self.pause());
        let place = passed.div_euclid(pause) + Micros::from(passed.rem_euclid(pause) > 0);
        let before = Micros::try_from(self.log.before).unwrap_or(Micros::MAX);
        u64::try_from(before.saturating_add(place)).unwrap_or_default().max(1)
    }
}

#[async_trait]
impl LogSources for SimulatedLogs {
    async fn read(&self, selector: LogSelector, frames: &mut Frames) -> Result<(), LogError> {
        let filter = Filter::of(&selector)?;
        let unknown = unknown(&selector);
        if !unknown.is_empty() && !frames.send(LogFrame { unknown, ..LogFrame::default() }).await {
            return Ok(());
        }
        let sources = sources(&selector);
        let mut newest = self.newest();
        let mut next = match (selector.after_cursor.as_str(), selector.tail) {
            ("", Some(tail)) => self.tail(&filter, newest, tail),
            ("", None) => filter.since.map_or(1, |since| self.first(since)),
            (cursor, _) => number(cursor)?.saturating_add(1),
        };
        if sources.is_empty() {
            next = newest + 1;
        }
        let mut batch = Batch::default();
        if !frames.send(LogFrame { cursor: cursor(next - 1), ..LogFrame::default() }).await {
            return Ok(());
        }
        loop {
            while next <= newest {
                let (time, text) = (self.time(next), self.text(next));
                let passes = filter.accepts(time, &text) && !sources.is_empty();
                let is_full = passes && {
                    let source = sources[next as usize % sources.len()].clone();
                    batch.push(LogLine { time: Some(stamp(time)), source, text })
                };
                if is_full && !frames.send(batch.take(cursor(next))).await {
                    return Ok(());
                }
                next += 1;
                if next.is_multiple_of(YIELD) {
                    tokio::task::yield_now().await;
                }
            }
            if !batch.is_empty() && !frames.send(batch.take(cursor(newest))).await {
                return Ok(());
            }
            if !selector.follow {
                return Ok(());
            }
            // Told once.
            let caught_up = LogFrame { caught_up: true, cursor: cursor(newest), ..LogFrame::default() };
            if !frames.is_live() && !frames.send(caught_up).await {
                return Ok(());
            }
            if filter.until.is_some_and(|until| self.time(next) > until) {
                return Ok(());
            }
            let rest = u64::try_from(self.time(next).saturating_sub(now())).unwrap_or_default();
            tokio::select! {
                // Cancel-safe: both only wait.
                () = sleep(Duration::from_micros(rest).max(REST)) => {}
                () = frames.closed() => return Ok(()),
            }
            newest = self.newest();
        }
    }
}

impl SimulatedLogs {
    /// Where the last so many lines that pass begin.
    fn tail(&self, filter: &Filter, newest: u64, lines: u64) -> u64 {
        let (mut first, mut left) = (newest + 1, lines);
        while left > 0 && first > 1 {
            first -= 1;
            left -= u64::from(filter.accepts(self.time(first), &self.text(first)));
        }
        first
    }
}

/// Behind a line.
fn cursor(number: u64) -> String {
    format!("{VERSION}{number}")
}

fn number(cursor: &str) -> Result<u64, LogError> {
    let number = cursor.strip_prefix(VERSION).and_then(|number| number.parse().ok());
    number.ok_or_else(|| LogError::Cursor { reason: format!("{cursor:?} is none") })
}

fn knows_unit(name: &str) -> bool {
    let unit = wanted::unit_name(name);
    wanted::source_of_unit(&unit) != unit || UNITS.contains(&unit.as_str())
}

fn knows_pod(pod: &PodLogs) -> bool {
    let [namespace, name, container] = POD;
    pod.namespace == namespace && pod.name == name && (pod.container.is_empty() || pod.container == container)
}

fn unknown(selector: &LogSelector) -> Vec<LogUnknown> {
    let place = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
    let units = selector.units.iter().enumerate().filter(|(_, name)| !knows_unit(name)).map(|(at, name)| {
        let message =
            format!("no unit {}: neither systemd nor the journal knows it", wanted::unit_name(name));
        LogUnknown { wanted: Some(log_unknown::Wanted::Unit(place(at))), message }
    });
    let pods = selector.pods.iter().enumerate().filter(|(_, pod)| !knows_pod(pod)).map(|(at, pod)| {
        let name = format!("pod {}/{}", pod.namespace, pod.name);
        let message = if [pod.namespace.as_str(), pod.name.as_str()] == POD[..2] {
            format!("{name} has no container {}; it has: {}", pod.container, POD[2])
        } else {
            format!("no {name} has logs here")
        };
        LogUnknown { wanted: Some(log_unknown::Wanted::Pod(place(at))), message }
    });
    units.chain(pods).collect()
}

/// What lines are said to be from; none where nothing of what is asked for is known.
fn sources(selector: &LogSelector) -> Vec<String> {
    let of_sources = selector.sources().filter_map(wanted::source_name).map(str::to_owned);
    let of_units = selector.units.iter().filter(|name| knows_unit(name));
    let of_units = of_units.map(|name| wanted::source_of_unit(&wanted::unit_name(name)).to_owned());
    let of_pods = selector.pods.iter().filter(|pod| knows_pod(pod)).map(|_| POD.join("/"));
    let sources: Vec<String> = of_sources.chain(of_units).chain(of_pods).collect();
    let asks = !(selector.sources.is_empty() && selector.units.is_empty() && selector.pods.is_empty());
    if asks { sources } else { vec!["kubelet".to_owned()] }
}

#[cfg(test)]
mod tests;
