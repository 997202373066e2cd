//! The log files of one container, read as one, with a place to go on behind every line.
//!
//! Everything here blocks; [`super::pods`] calls it where that is allowed.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::cri::{Joiner, Line};
use super::cursor::FilePosition;
use super::segment::{Open, Segment, segments};

/// How long a line that has begun waits for its next part.
const PATIENCE: Duration = Duration::from_secs(2);
/// A file that has a successor is read so often to its end before that: the runtime opens the new one a moment before
/// it leaves the old.
const LAST_LOOKS: u32 = 2;
/// So often the end is looked for again where a file is rotated away or packed meanwhile.
const TAIL_TRIES: u32 = 3;

/// A line that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// When it was begun, in nanoseconds since 1970.
    pub nanos: i64,
    /// The line.
    pub text: String,
    /// Behind it.
    pub position: FilePosition,
}

/// For what a container is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// All that is there: a line whose end is missing ends with it.
    Whole,
    /// All that is there, before it is followed: such a line is left for then.
    BeforeFollowing,
    /// What comes: the end of such a line is waited for, and so is a runtime that is about to leave a file.
    Following,
}

/// See the module.
#[derive(Debug)]
pub struct Container {
    dir: PathBuf,
    open: Option<Open>,
    joiner: Joiner,
    position: FilePosition,
    /// Lines up to this time were read before.
    read_until: Option<i64>,
    /// So many of the next lines were read before.
    left_out: u32,
    /// Behind which part of it a line waits for its next one, and since when.
    waiting: Option<(u64, Instant)>,
    looks: u32,
}

impl Container {
    /// From its first line on.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            open: None,
            joiner: Joiner::default(),
            position: FilePosition::default(),
            read_until: None,
            left_out: 0,
            waiting: None,
            looks: 0,
        }
    }

    /// From behind a line of before.
    pub fn resume(dir: PathBuf, position: FilePosition) -> io::Result<Self> {
        let mut it = Self { position, ..Self::new(dir) };
        if position.inode == 0 {
            return Ok(it);
        }
        let all = segments(&it.dir)?;
        let is_it = |segment: &&Segment| segment.is((position.device, position.inode));
        if let Some(segment) = all.iter().find(is_it)
            && let Ok(mut open) = segment.open()
            // Numbers of files are used again: another file begins later than what was read.
            && open.size >= position.offset
            && (position.offset == 0 || segment.first().is_none_or(|first| first <= position.nanos))
        {
            open.seek(position.offset)?;
            it.joiner = Joiner::at(position.offset, position.nanos);
            it.left_out = position.done;
            it.open = Some(open);
            return Ok(it);
        }
        // Packed or gone: the times tell.
        it.read_until = Some(position.nanos);
        Ok(it)
    }

    /// So that at least the last `lines` that pass are read, and as many more as come before them in their file; with
    /// the number of those that pass.
    pub fn tail(dir: PathBuf, lines: u64, passes: impl Fn(&Read) -> bool) -> io::Result<(Self, u64)> {
        for _ in 1..TAIL_TRIES {
            match Self::tail_once(dir.clone(), lines, &passes) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && dir.is_dir() => {}
                found => return found,
            }
        }
        Self::tail_once(dir, lines, &passes)
    }

    fn tail_once(dir: PathBuf, lines: u64, passes: &impl Fn(&Read) -> bool) -> io::Result<(Self, u64)> {
        let all = segments(&dir)?;
        // From the newest file back; what an older one ends with may go on in a newer one.
        for (first, segment) in all.iter().enumerate().rev() {
            let kept = Self::from_segment(dir.clone(), segment)?;
            let mut counted = Self::from_segment(dir.clone(), segment)?;
            let id = |it: &Self| it.open.as_ref().map(|open| open.id);
            if id(&kept) != id(&counted) {
                return Err(io::Error::new(io::ErrorKind::NotFound, "it was rotated away"));
            }
            let (mut count, mut read) = (0, Vec::new());
            while counted.read(Pass::Whole, &mut read)? {
                count += read.drain(..).filter(passes).count() as u64;
            }
            if count >= lines || first == 0 {
                return Ok((kept, count));
            }
        }
        Ok((Self::new(dir), 0))
    }

    fn from_segment(dir: PathBuf, segment: &Segment) -> io::Result<Self> {
        let mut it = Self::new(dir);
        it.switch(segment.open()?);
        Ok(it)
    }

    /// Behind the last line that was read.
    pub fn position(&self) -> FilePosition {
        self.position
    }

    /// Adds the next lines; `false` means: nothing more for now.
    pub fn read(&mut self, pass: Pass, lines: &mut Vec<Read>) -> io::Result<bool> {
        let mut fresh = Vec::new();
        let any = self.read_on(pass == Pass::Following, &mut fresh)?;
        if let Some(behind) = self.joiner.waits_behind() {
            let known = self.waiting.filter(|(known, _)| *known == behind);
            let (_, since) = *self.waiting.insert(known.unwrap_or_else(|| (behind, Instant::now())));
            let mut last = Vec::new();
            match pass {
                Pass::Whole if !any => self.joiner.finish(&mut last),
                // Whatever else comes meanwhile: others are not held up for it.
                Pass::Following if since.elapsed() > PATIENCE => self.joiner.finish_first(&mut last),
                _ => {}
            }
            self.place(last, &mut fresh);
        } else {
            self.waiting = None;
        }
        let any = any || !fresh.is_empty();
        lines.extend(fresh.into_iter().filter(|line| !self.was_read(line)));
        Ok(any)
    }

    fn was_read(&mut self, line: &Read) -> bool {
        if self.read_until.is_some_and(|until| line.nanos <= until) {
            return true;
        }
        self.read_until = None;
        let was_read = self.left_out > 0;
        self.left_out -= u32::from(was_read);
        was_read
    }

    /// Gives lines of the open file their place.
    fn place(&mut self, lines: Vec<Line>, placed: &mut Vec<Read>) {
        for Line { nanos, text, offset, done } in lines {
            let nanos_read = self.position.nanos.max(nanos);
            self.position = FilePosition { offset, done, nanos: nanos_read, ..self.position };
            placed.push(Read { nanos, text, position: self.position });
        }
    }

    fn read_on(&mut self, live: bool, placed: &mut Vec<Read>) -> io::Result<bool> {
        let Some(open) = &mut self.open else {
            let Some(first) = segments(&self.dir)?.into_iter().next() else { return Ok(false) };
            return match first.open() {
                Ok(first) => {
                    self.switch(first);
                    Ok(true)
                }
                Err(error) => Ok(is_moved(&error)),
            };
        };
        let mut lines = Vec::new();
        let any = open.read(&mut self.joiner, &mut lines)?;
        let is_emptied = !any && open.is_emptied();
        self.place(lines, placed);
        if any {
            self.looks = 0;
            return Ok(true);
        }
        if is_emptied {
            self.leave(placed);
            self.position = FilePosition { offset: 0, done: 0, ..self.position };
            if let Some(open) = &mut self.open {
                open.seek(0)?;
            }
            return Ok(true);
        }
        let Some(next) = self.successor()? else { return Ok(false) };
        self.looks += 1;
        if live && self.looks <= LAST_LOOKS {
            return Ok(false);
        }
        let next = match next.open() {
            Ok(next) => next,
            Err(error) => return Ok(is_moved(&error)),
        };
        self.leave(placed);
        self.switch(next);
        Ok(true)
    }

    /// The file that is to be read behind the one that is open, once something is in it. A container that ended without a
    /// word leaves one in which nothing is.
    fn successor(&self) -> io::Result<Option<Segment>> {
        let Some(open) = &self.open else { return Ok(None) };
        let all = segments(&self.dir)?;
        let at = all.iter().position(|segment| segment.is(open.id));
        let mut all = all.into_iter();
        let next = match at {
            Some(at) => all.skip(at + 1).find(Segment::has_content),
            // Rotated away under a name that is not known, and packed or gone.
            None if open.place.is_current => all.find(|segment| {
                segment.place.start >= open.place.start
                    && segment.first().is_some_and(|first| first > self.position.nanos)
            }),
            None => all.find(|segment| segment.place > open.place && segment.has_content()),
        };
        Ok(next)
    }

    /// Takes what is left of the open file: its lines end with it.
    fn leave(&mut self, placed: &mut Vec<Read>) {
        let mut lines = Vec::new();
        if let Some(open) = &mut self.open {
            open.flush(&mut self.joiner, &mut lines);
        }
        self.joiner.finish(&mut lines);
        self.place(lines, placed);
        self.joiner = Joiner::at(0, self.position.nanos);
    }

    fn switch(&mut self, next: Open) {
        (self.looks, self.waiting) = (0, None);
        let (device, inode) = next.id;
        self.position = FilePosition { device, inode, offset: 0, done: 0, nanos: self.position.nanos };
        self.open = Some(next);
    }
}

/// A file that was listed a moment ago and is not there was rotated away, packed or removed: the next look finds it
/// under its new name, or another. What cannot be opened for another reason is nothing to wait for.
fn is_moved(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

#[cfg(test)]
mod tests;
