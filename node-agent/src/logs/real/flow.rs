//! The lines of one stream: read from journal and files, merged, sent.

use std::time::Duration;

use k8sctl_proto::node::v1::{LogFrame, LogLine, LogUnknown, log_unknown};
use k8sctl_types::logs::merge::{Merge, Micros, Next, State};
use prost_types::Timestamp;
use tokio::time::{Instant, MissedTickBehavior, sleep_until};

use super::super::container::{Pass, Read};
use super::super::cursor::{Cursor, FilePosition, JournalPosition};
use super::super::export::Entry;
use super::super::filter::{Filter, stamp};
use super::super::frames::{Batch, Frames};
use super::super::journal::{self, Journalctl, Query, Reading, Start};
use super::super::pods::{Begin, Pods};
use super::super::wanted::{Containers, Wanted};
use super::{LogError, now};

/// journald tells of what was written up to a quarter of a second later.
const WINDOW: Duration = Duration::from_millis(300);
/// How often files are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// After so many of these, new containers are looked for.
const LOOKS_FOR_NEW: u32 = 10;
/// How long lines wait for others to go with them while older ones are read.
const FLUSH: Duration = Duration::from_millis(100);
/// How long after the last moment lines of that moment may still come.
const AFTER_UNTIL: Duration = Duration::from_secs(1);
/// Longest wait that is asked for.
const FAR: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where a line is from, and where to go on behind it.
#[derive(Debug)]
enum Place {
    Journal(String),
    File(FilePosition),
}

#[derive(Debug)]
struct Item {
    line: LogLine,
    place: Place,
}

/// An input of the merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    Journal,
    /// By its place among the members of the pods.
    Container(usize),
}

/// What woke a stream that follows.
enum Wake {
    Entries(Option<Vec<Entry>>),
    Look,
    Time,
    Until,
    Closed,
}

/// See the module.
pub struct Flow<'a> {
    journalctl: Journalctl,
    wanted: Wanted,
    filter: Filter,
    /// Entries of the journal before this moment do not pass: nothing else says where to go on.
    journal_since: Option<Micros>,
    pods: Pods,
    reading: Option<Reading>,
    /// The last entry that was read, whether it passed or not.
    last: Option<String>,
    frames: &'a mut Frames,
    merge: Merge<Item>,
    inputs: Vec<Input>,
    cursor: Cursor,
    batch: Batch,
    flushed: Instant,
    /// Lines that are left out before the first that is sent.
    skip: u64,
    /// Lines that are sent at most.
    left: Option<u64>,
    /// The place before the first line has been told.
    is_begun: bool,
    /// That place in the journal is that of the first line: journalctl was asked for the last ones.
    is_last: bool,
    began: (Micros, Instant),
}

impl<'a> Flow<'a> {
    /// Nothing is read yet.
    pub fn open(
        journalctl: Journalctl,
        wanted: Wanted,
        filter: Filter,
        pods: Pods,
        frames: &'a mut Frames,
    ) -> Self {
        let cursor = Cursor { since: filter.since, ..Cursor::default() };
        Self {
            journalctl,
            wanted,
            filter,
            journal_since: None,
            pods,
            reading: None,
            last: None,
            frames,
            merge: Merge::new(WINDOW, Duration::ZERO),
            inputs: Vec::new(),
            cursor,
            batch: Batch::default(),
            flushed: Instant::now(),
            skip: 0,
            left: None,
            is_begun: false,
            is_last: false,
            began: (now(), Instant::now()),
        }
    }

    /// This machine's clock as it goes on from the beginning of the stream, even when it is set meanwhile.
    fn now(&self) -> Micros {
        let passed = Micros::try_from(self.began.1.elapsed().as_micros()).unwrap_or(Micros::MAX);
        self.began.0.saturating_add(passed)
    }

    /// Says what this node knows nothing of. `false` means: nobody receives.
    pub async fn tell_unknown(&mut self, mut unknown: Vec<LogUnknown>) -> Result<bool, LogError> {
        let pods: Vec<Containers> =
            self.wanted.containers.iter().filter(|it| it.source.is_none()).cloned().collect();
        let messages = self.blocking(move |it| pods.iter().map(|pod| it.unknown(pod)).collect());
        let messages: Vec<Option<String>> = messages.await?;
        for (place, message) in messages.into_iter().enumerate() {
            let wanted = Some(log_unknown::Wanted::Pod(u32::try_from(place).unwrap_or(u32::MAX)));
            unknown.extend(message.map(|message| LogUnknown { wanted, message }));
        }
        Ok(unknown.is_empty() || self.frames.send(LogFrame { unknown, ..LogFrame::default() }).await)
    }

    /// Finds where to begin.
    pub async fn begin(&mut self, cursor: Option<Cursor>, tail: Option<u64>) -> Result<(), LogError> {
        let tail = tail.filter(|_| cursor.is_none());
        let mut found = 0;
        if self.wanted.has_journal() {
            let (start, lines) = self.journal_start(cursor.as_ref(), tail).await?;
            found += lines;
            self.cursor.journal = Some(match &start {
                Start::Behind(at) => JournalPosition::Behind(at.clone()),
                Start::At(at) => JournalPosition::At(at.clone()),
                Start::Time(since) => JournalPosition::From(since.unwrap_or_default()),
                Start::Last(_) => JournalPosition::From(self.filter.since.unwrap_or_default()),
            });
            self.is_last = matches!(start, Start::Last(_));
            let query = Query { start, until: self.filter.until, follow: false, reverse: false };
            self.reading = Some(Reading::start(&self.journalctl, &query, &self.wanted.matches())?);
            self.add(Input::Journal, State::Loading);
        }
        let filter = self.filter.clone();
        let opened = move |pods: &mut Pods| {
            let begin = match (&cursor, tail) {
                (Some(cursor), _) => Begin::Behind(&cursor.containers),
                (None, Some(tail)) => Begin::Last(tail),
                (None, None) => Begin::First,
            };
            pods.open(begin, |line| filter.accepts(micros(line), &line.text))
        };
        found += self.blocking(opened).await?;
        self.add_members(State::Loading);
        self.skip = tail.map_or(0, |tail| found.saturating_sub(tail));
        Ok(())
    }

    /// Where to begin in the journal, and how many lines of it pass from there on, as far as that matters.
    async fn journal_start(
        &mut self,
        cursor: Option<&Cursor>,
        tail: Option<u64>,
    ) -> Result<(Start, u64), LogError> {
        if let Some(cursor) = cursor {
            let Some(position) = &cursor.journal else {
                let reason = "it is of a request without the journal".to_owned();
                return Err(LogError::Cursor { reason });
            };
            if let JournalPosition::From(since) = position {
                self.journal_since = Some(*since);
            }
            return Ok((position.into(), 0));
        }
        let Some(tail) = tail else { return Ok((Start::Time(self.filter.since), 0)) };
        let is_plain = self.wanted.containers.is_empty() && tail > 0 && self.filter.passes_to_the_end();
        if is_plain {
            return Ok((Start::Last(tail), 0));
        }
        let found = journal::tail(&self.journalctl, &self.wanted.matches(), &self.filter, tail).await?;
        Ok((found.start, found.lines))
    }

    /// Sends what there is, in exact order; at most so many lines. `false` means: nobody receives.
    pub async fn history(&mut self, most: Option<u64>, pass: Pass) -> Result<bool, LogError> {
        self.left = most;
        while self.left != Some(0) {
            match self.merge.next(Micros::MAX) {
                Next::Line { input, item, .. } => {
                    if !self.give(input, item).await {
                        return Ok(false);
                    }
                }
                Next::End => break,
                Next::Wait | Next::At(_) => {
                    if self.flushed.elapsed() > FLUSH && !self.flush().await {
                        return Ok(false);
                    }
                    let waiting: Vec<usize> = self.merge.blocking().collect();
                    for input in waiting {
                        self.load(input, pass).await?;
                    }
                }
            }
        }
        Ok(self.flush().await)
    }

    async fn load(&mut self, input: usize, pass: Pass) -> Result<(), LogError> {
        match self.inputs[input] {
            Input::Journal => self.load_entries(input).await?,
            Input::Container(member) => {
                let read = self.blocking(move |pods| {
                    let mut lines = Vec::new();
                    let any = pods.read(member, pass, &mut lines)?;
                    Ok((any, lines))
                });
                let (any, lines) = read.await?;
                self.take_lines(input, lines);
                if !any {
                    self.merge.set(input, State::Ended);
                }
            }
        }
        Ok(())
    }

    async fn load_entries(&mut self, input: usize) -> Result<(), LogError> {
        let Some(reading) = &mut self.reading else {
            self.merge.set(input, State::Ended);
            return Ok(());
        };
        let entries = reading.next().await?;
        let missed = reading.missed();
        if let Some(moment) = missed.as_deref().and_then(journal::moment_of) {
            return self.begin_later(moment);
        }
        match entries {
            Some(entries) => self.take_entries(input, entries),
            None => {
                self.reading = None;
                self.merge.set(input, State::Ended);
            }
        }
        Ok(())
    }

    /// The journal has lost the entry of this moment, behind which reading should begin. A VM without power loses its
    /// last ones, and gives their numbers to the next ones: only by their time are these younger.
    fn begin_later(&mut self, moment: Micros) -> Result<(), LogError> {
        if self.filter.until.is_some_and(|until| moment > until) {
            // It is not lost: journalctl passes none behind the last moment, and none behind this one are wanted.
            self.reading = None;
            return Ok(());
        }
        let later = moment.saturating_add(1);
        tracing::info!("the journal has lost the entry to go on behind; it is read on by time");
        self.journal_since = Some(later);
        self.cursor.journal = Some(JournalPosition::From(later));
        let start = Start::Time(Some(later));
        let query = Query { start, until: self.filter.until, follow: false, reverse: false };
        self.reading = Some(Reading::start(&self.journalctl, &query, &self.wanted.matches())?);
        Ok(())
    }

    /// Sends what comes until nobody receives, or until the last moment has passed.
    pub async fn live(&mut self) -> Result<(), LogError> {
        // Older lines than that have all been read, whatever becomes of the clock, and where fewer were found than counted.
        self.skip = 0;
        self.filter.since = None;
        self.cursor.since = None;
        // All that was read has been sent; what did not pass is behind too.
        if let Some(last) = self.last.take() {
            self.cursor.journal = Some(JournalPosition::Behind(last));
        }
        for (place, member) in self.pods.members.iter().enumerate() {
            debug_assert!(self.inputs.contains(&Input::Container(place)));
            self.cursor.containers.insert(member.key.clone(), member.container.position());
        }
        for input in 0..self.inputs.len() {
            self.merge.set(input, State::Live);
        }
        self.is_begun = true;
        let cursor = self.cursor.to_string();
        if !self.frames.send(LogFrame { cursor, caught_up: true, ..LogFrame::default() }).await {
            return Ok(());
        }
        if let Some(position) = &self.cursor.journal {
            let query = Query { start: position.into(), until: None, follow: true, reverse: false };
            self.reading = Some(Reading::start(&self.journalctl, &query, &self.wanted.matches())?);
        }
        let until = self.filter.until.map(|until| {
            let left = u64::try_from(until.saturating_sub(self.now())).unwrap_or_default();
            Instant::now() + Duration::from_micros(left).min(FAR) + AFTER_UNTIL
        });
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = 0_u32;
        loop {
            let Some(next) = self.drain().await else { return Ok(()) };
            let journal = self.inputs.iter().position(|input| *input == Input::Journal);
            let wants_journal = journal.is_some_and(|input| self.merge.wants(input));
            let has_pods = !self.wanted.containers.is_empty();
            let wake = tokio::select! {
                // Cancel-safe: what is half read stays in `reading`, a tick that was not returned comes again, and
                // waiting for a time or for the end loses nothing.
                entries = next_entries(&mut self.reading), if wants_journal => Wake::Entries(entries?),
                _ = looks.tick(), if has_pods => Wake::Look,
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => Wake::Time,
                () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => Wake::Until,
                () = self.frames.closed() => Wake::Closed,
            };
            match (wake, journal) {
                (Wake::Entries(Some(entries)), Some(input)) => self.take_entries(input, entries),
                (Wake::Entries(_), _) => return Err(LogError::Ended),
                (Wake::Look, _) => {
                    looked += 1;
                    if self.look(looked.is_multiple_of(LOOKS_FOR_NEW)).await? {
                        looks.reset_immediately();
                    }
                }
                (Wake::Time, _) => {}
                (Wake::Closed, _) => return Ok(()),
                (Wake::Until, _) => return self.rest().await,
            }
        }
    }

    /// Sends all that is left up to the last moment: where the host was slow, much may lie unread in the journal and the
    /// files, and containers may have come that no look has found yet.
    async fn rest(&mut self) -> Result<(), LogError> {
        // What was read and waits in the merge is not read again.
        let behind = self.last.take().map(JournalPosition::Behind);
        if let Some(position) = behind.as_ref().or(self.cursor.journal.as_ref()) {
            let start = position.into();
            let query = Query { start, until: self.filter.until, follow: false, reverse: false };
            self.reading = Some(Reading::start(&self.journalctl, &query, &self.wanted.matches())?);
        }
        self.blocking(Pods::look).await?;
        self.add_members(State::Loading);
        for input in 0..self.inputs.len() {
            self.merge.set(input, State::Loading);
        }
        self.history(None, Pass::Whole).await?;
        Ok(())
    }

    /// Looks at the files of all containers that have nothing waiting; `true` means: there is more.
    async fn look(&mut self, for_new: bool) -> Result<bool, LogError> {
        let wants = |input: &usize| self.merge.wants(*input);
        let members: Vec<(usize, usize)> = (0..self.inputs.len())
            .filter(wants)
            .filter_map(|input| match self.inputs[input] {
                Input::Container(member) => Some((input, member)),
                Input::Journal => None,
            })
            .collect();
        let looked = self.blocking(move |pods| {
            let mut all = Vec::new();
            let mut more = false;
            for (input, member) in members {
                let mut lines = Vec::new();
                more |= pods.read(member, Pass::Following, &mut lines)?;
                all.push((input, lines));
            }
            if for_new {
                pods.look()?;
            }
            Ok((all, more))
        });
        let (all, more) = looked.await?;
        for (input, lines) in all {
            self.take_lines(input, lines);
        }
        self.add_members(State::Live);
        Ok(more)
    }

    fn add(&mut self, input: Input, state: State) {
        let place = self.merge.add(state);
        debug_assert_eq!(place, self.inputs.len());
        self.inputs.push(input);
    }

    /// Adds the containers that are not inputs yet.
    fn add_members(&mut self, state: State) {
        let known = self.inputs.iter().filter(|input| **input != Input::Journal).count();
        for member in known..self.pods.members.len() {
            let it = &self.pods.members[member];
            self.cursor.containers.insert(it.key.clone(), it.container.position());
            self.add(Input::Container(member), state);
        }
    }

    fn take_entries(&mut self, input: usize, entries: Vec<Entry>) {
        if let Some(last) = entries.last() {
            self.last = Some(last.cursor.clone());
        }
        let arrived = self.now();
        let (filter, wanted, since) = (&self.filter, &self.wanted, self.journal_since);
        let items = entries.into_iter().filter_map(|entry| {
            let passes =
                since.is_none_or(|since| entry.micros >= since) && filter.accepts(entry.micros, &entry.text);
            passes.then(|| {
                let source = wanted.source_of(&entry);
                let line = LogLine { time: Some(stamp(entry.micros)), source, text: entry.text };
                (entry.micros, Item { line, place: Place::Journal(entry.cursor) })
            })
        });
        self.merge.push(input, arrived, items);
    }

    fn take_lines(&mut self, input: usize, lines: Vec<Read>) {
        let Input::Container(member) = self.inputs[input] else { return };
        let arrived = self.now();
        let (filter, source) = (&self.filter, &self.pods.members[member].source);
        let items = lines.into_iter().filter_map(|read| {
            let time = micros(&read);
            filter.accepts(time, &read.text).then(|| {
                let nanos = i32::try_from(read.nanos.rem_euclid(1_000_000_000)).unwrap_or_default();
                let stamp = Timestamp { seconds: read.nanos.div_euclid(1_000_000_000), nanos };
                let line = LogLine { time: Some(stamp), source: source.clone(), text: read.text };
                (time, Item { line, place: Place::File(read.position) })
            })
        });
        self.merge.push(input, arrived, items);
    }

    /// Sends all lines whose turn it is; until when the next one waits. `None` means: nobody receives.
    async fn drain(&mut self) -> Option<Option<Instant>> {
        loop {
            let next = match self.merge.next(self.now()) {
                Next::Line { input, item, .. } => {
                    if !self.give(input, item).await {
                        return None;
                    }
                    continue;
                }
                Next::At(time) => {
                    let left = u64::try_from(time.saturating_sub(self.now())).unwrap_or_default();
                    Some(Instant::now() + Duration::from_micros(left).min(FAR))
                }
                Next::Wait | Next::End => None,
            };
            return self.flush().await.then_some(next);
        }
    }

    async fn give(&mut self, input: usize, item: Item) -> bool {
        if self.skip == 0 && !std::mem::replace(&mut self.is_begun, true) {
            if let (Place::Journal(at), true) = (&item.place, self.is_last) {
                self.cursor.journal = Some(JournalPosition::At(at.clone()));
            }
            let cursor = self.cursor.to_string();
            if !self.frames.send(LogFrame { cursor, ..LogFrame::default() }).await {
                return false;
            }
        }
        match (item.place, self.inputs[input]) {
            (Place::Journal(at), _) => self.cursor.journal = Some(JournalPosition::Behind(at)),
            (Place::File(position), Input::Container(member)) => {
                if let Some(known) = self.cursor.containers.get_mut(&self.pods.members[member].key) {
                    *known = position;
                }
            }
            (Place::File(_), Input::Journal) => {}
        }
        if self.skip > 0 {
            self.skip -= 1;
            return true;
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        !self.batch.push(item.line) || self.flush().await
    }

    async fn flush(&mut self) -> bool {
        self.flushed = Instant::now();
        if self.batch.is_empty() {
            return true;
        }
        let frame = self.batch.take(self.cursor.to_string());
        self.frames.send(frame).await
    }

    /// Does work on the files where it may block.
    async fn blocking<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Pods) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let mut pods = std::mem::take(&mut self.pods);
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut pods);
            (pods, result)
        });
        let failed = |error: tokio::task::JoinError| LogError::Read {
            what: "the files of containers".to_owned(),
            source: std::io::Error::other(error),
        };
        let (pods, result) = done.await.map_err(failed)?;
        self.pods = pods;
        result
    }
}

async fn next_entries(reading: &mut Option<Reading>) -> Result<Option<Vec<Entry>>, LogError> {
    match reading {
        Some(reading) => reading.next().await,
        None => std::future::pending().await,
    }
}

/// The time of a line of a container.
fn micros(line: &Read) -> Micros {
    line.nanos.div_euclid(1_000)
}
