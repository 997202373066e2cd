//! The repairs of this machine, numbered for as long as its disk lives, on that disk.
//!
//! Written by [`super::Repairs`] alone. Blocking: the file is small.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use k8sctl_proto::node::v1::{Repair, RepairOutcome};
use prost::Message;

use crate::{clock, durable};

/// How many are kept, and reported.
pub const KEPT: usize = 32;
/// Longest reason, action or message, in bytes.
const TEXT: usize = 512;

/// The file's content.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    /// Oldest first.
    #[prost(message, repeated, tag = "1")]
    repairs: Vec<Repair>,
    /// Number of the newest ever.
    #[prost(uint64, tag = "2")]
    last: u64,
    /// Number of the newest that does not count any more, since a person asked for everything anew.
    #[prost(uint64, tag = "3")]
    forgiven: u64,
    /// Tries that have begun, as they are listed where nobody lives to end them. Until then their number is that of the
    /// newest repair when they began.
    #[prost(message, repeated, tag = "4")]
    begun: Vec<Repair>,
    /// Of objects whose newest repair did not help and that are well all the same: its number.
    #[prost(btree_map = "string, uint64", tag = "5")]
    settled: BTreeMap<String, u64>,
    /// What a person asked for last, by its number.
    #[prost(uint64, optional, tag = "6")]
    asked: Option<u64>,
}

/// The list and where it is kept.
#[derive(Debug)]
pub struct Ledger {
    /// `None` means: not kept.
    file: Option<PathBuf>,
    kept: Kept,
}

impl Ledger {
    /// What the agent's state directory has of it. Tries in whose midst an agent before this one ended have failed.
    pub fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("repairs.pb");
        let kept = match std::fs::read(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(Kept::default()),
            Err(_) => None,
            Ok(bytes) => Kept::decode(bytes.as_slice()).ok(),
        };
        let kept = kept.unwrap_or_else(|| {
            tracing::warn!(path = %file.display(), "the list of repairs cannot be read, another one begins");
            // Above all numbers that there were: nobody repairs something every second.
            Kept { last: clock::now().seconds.unsigned_abs(), ..Kept::default() }
        });
        let mut ledger = Self { file: Some(file), kept };
        ledger.list_begun();
        ledger
    }

    /// A list that is kept nowhere.
    pub fn in_memory() -> Self {
        Self { file: None, kept: Kept::default() }
    }

    /// All that are kept, oldest first.
    pub fn repairs(&self) -> &[Repair] {
        &self.kept.repairs
    }

    /// Those that count, oldest first.
    pub fn counted(&self) -> &[Repair] {
        let forgiven = self.kept.repairs.partition_point(|repair| repair.number <= self.kept.forgiven);
        &self.kept.repairs[forgiven..]
    }

    /// An object's newest.
    pub fn newest(&self, object: &str) -> Option<&Repair> {
        self.kept.repairs.iter().rev().find(|repair| repair.object == object)
    }

    /// Whether an object's last repair did not help, and it was not well since.
    pub fn is_unsettled(&self, object: &str) -> bool {
        let settled = self.kept.settled.get(object).copied().unwrap_or_default();
        let did_not_help =
            |repair: &&Repair| repair.number > settled && repair.outcome() != RepairOutcome::Repaired;
        self.newest(object).filter(did_not_help).is_some()
    }

    /// An object is well. Written only where it was not settled.
    pub fn settle(&mut self, object: &str) {
        if self.is_unsettled(object)
            && let Some(number) = self.newest(object).map(|repair| repair.number)
        {
            self.kept.settled.insert(object.to_owned(), number);
            self.save();
        }
    }

    /// Notes the number of what a person asked for last. Where it is another one, those so far count no more; says whether
    /// it is.
    pub fn asked_for(&mut self, number: u64) -> bool {
        let before = self.kept.asked.replace(number);
        let is_anew = before.is_some_and(|before| before != number);
        if is_anew {
            self.kept.forgiven = self.kept.last;
        }
        if before != Some(number) {
            self.save();
        }
        is_anew
    }

    /// Writes down that a try begins. It is not listed before it ends.
    pub fn begin(&mut self, object: &str, reason: &str) {
        let message = "the agent ended in the midst of it".to_owned();
        let mut begun = entry(object, reason, "began to repair it", RepairOutcome::Failed, message);
        begun.number = self.kept.last;
        begun.time = Some(clock::timestamp(SystemTime::now()));
        begun.reason = cut(&begun.reason);
        self.kept.begun.push(begun);
        self.save();
    }

    /// Strikes out a try that has begun. Kept with the next [`Self::add`] or [`Self::save`].
    pub fn strike(&mut self, object: &str, reason: &str) {
        let reason = cut(reason);
        let is_it = |begun: &Repair| begun.object == object && begun.reason == reason;
        if let Some(place) = self.kept.begun.iter().position(is_it) {
            self.kept.begun.remove(place);
        }
    }

    /// Lists tries that nobody lived to end.
    fn list_begun(&mut self) {
        if self.kept.begun.is_empty() {
            return;
        }
        for begun in std::mem::take(&mut self.kept.begun) {
            let ended_it = |repair: &Repair| {
                repair.number > begun.number
                    && repair.object == begun.object
                    && repair.outcome() == RepairOutcome::GaveUp
            };
            // What is listed behind the beginning of a rest would end it.
            if !self.kept.repairs.iter().any(ended_it) {
                self.list(begun);
            }
        }
        self.save();
    }

    /// Adds one: its number and its time are set here.
    pub fn add(&mut self, mut repair: Repair) -> &Repair {
        repair.time = Some(clock::timestamp(SystemTime::now()));
        self.list(repair);
        self.save();
        &self.kept.repairs[self.kept.repairs.len() - 1]
    }

    /// As the newest, with the next number.
    fn list(&mut self, mut repair: Repair) {
        self.kept.last += 1;
        repair.number = self.kept.last;
        for text in [&mut repair.reason, &mut repair.action, &mut repair.message] {
            *text = cut(text);
        }
        tracing::warn!(
            repair.number = repair.number,
            repair.object,
            repair.reason,
            repair.action,
            repair.outcome = repair.outcome().as_str_name(),
            repair.message,
            "repair"
        );
        self.kept.repairs.push(repair);
        let surplus = self.kept.repairs.len().saturating_sub(KEPT);
        self.kept.repairs.drain(..surplus);
    }

    /// That it cannot be written matters only at the next start.
    pub fn save(&self) {
        let Some(file) = &self.file else { return };
        if let Err(error) = durable::write(file, &self.kept.encode_to_vec(), 0o600) {
            tracing::warn!(path = %file.display(), %error, "cannot keep the list of repairs");
        }
    }
}

/// As it is listed: one line of bounded length.
pub fn cut(text: &str) -> String {
    let mut line = match text.contains('\n') {
        true => text.lines().map(str::trim).collect::<Vec<_>>().join(" "),
        false => text.to_owned(),
    };
    if line.len() > TEXT {
        let end = (0..=TEXT).rev().find(|&end| line.is_char_boundary(end)).unwrap_or(0);
        line.truncate(end);
        line.push('…');
    }
    line
}

/// A repair without number and time.
pub fn entry(object: &str, reason: &str, action: &str, outcome: RepairOutcome, message: String) -> Repair {
    Repair {
        number: 0,
        time: None,
        object: object.to_owned(),
        reason: reason.to_owned(),
        action: action.to_owned(),
        outcome: outcome.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repaired(reason: &str) -> Repair {
        entry("cni", reason, "applied", RepairOutcome::Repaired, String::new())
    }

    #[test]
    fn numbers_go_on_after_a_restart_and_the_last_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for life in 0..3u64 {
            let mut ledger = Ledger::open(dir.path());
            assert_eq!(ledger.repairs().last().map_or(0, |repair| repair.number), life * 20);
            for number in 1..=20 {
                assert_eq!(ledger.add(repaired("r")).number, life * 20 + number);
            }
        }
        let ledger = Ledger::open(dir.path());
        let numbers: Vec<u64> = ledger.repairs().iter().map(|repair| repair.number).collect();
        assert_eq!(numbers, (29..=60).collect::<Vec<_>>());
    }

    #[test]
    fn after_a_list_that_cannot_be_read_numbers_still_rise() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Ledger::open(dir.path()).add(repaired("r"));
        std::fs::write(dir.path().join("repairs.pb"), [0xff; 40]).expect("written");
        assert!(Ledger::open(dir.path()).add(repaired("r")).number > 1_000_000);
    }

    #[test]
    fn texts_are_one_line_of_bounded_length() {
        let mut ledger = Ledger::in_memory();
        let repair = ledger.add(repaired(&format!("one\n  two\n{}", "ä".repeat(2000))));
        assert!(repair.reason.starts_with("one two ä") && repair.reason.ends_with('…'), "{}", repair.reason);
        assert!(repair.reason.len() <= TEXT + '…'.len_utf8());
    }
}
