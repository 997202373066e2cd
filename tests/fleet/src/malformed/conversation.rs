//! One HTTP/2 connection of somebody who means no good: what is said is up to the caller; what is heard is kept count of.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use super::frames::{self, Frame, PAYLOAD};
use super::line::{Door, Duplex};

/// Room that is given for answers, of each stream and of all together.
const ROOM: u32 = 4 << 20;
/// What may be sent before the other end says more: of each stream, and of all.
const CREDIT: i64 = 65_535;
/// How long it is heard what somebody says who takes no more.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What the host agent said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Bytes, of TLS where nothing else was heard.
    pub bytes: usize,
    /// Streams that it answered to their end.
    pub ended: usize,
    /// Streams that it reset.
    pub reset: usize,
    /// Connections that it closed, or said it would.
    pub closed: usize,
}

impl AddAssign for Heard {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.ended += other.ended;
        self.reset += other.reset;
        self.closed += other.closed;
    }
}

/// See the module.
pub struct Conversation {
    line: Box<dyn Duplex>,
    read: Vec<u8>,
    heard: Heard,
    over: HashSet<u32>,
    /// What may be sent yet, by stream, as far as the other end said more.
    credit: HashMap<u32, i64>,
    credit_of_all: i64,
}

impl Conversation {
    /// Opens a connection and says nothing.
    pub fn silent(door: &Door) -> io::Result<Self> {
        Ok(Self {
            line: door.open()?,
            read: Vec::new(),
            heard: Heard::default(),
            over: HashSet::new(),
            credit: HashMap::new(),
            credit_of_all: CREDIT,
        })
    }

    /// Opens one and begins as a sound client does.
    pub fn open(door: &Door) -> io::Result<Self> {
        let mut conversation = Self::silent(door)?;
        conversation.say(&Self::greeting(ROOM))?;
        Ok(conversation)
    }

    /// What a sound client says first, with so much room for each answer.
    pub fn greeting(room: u32) -> Vec<u8> {
        let settings = frames::frame(frames::SETTINGS, 0, 0, &frames::setting(4, room));
        [frames::PREFACE, &settings, &frames::window_update(0, ROOM)].concat()
    }

    /// Sends, as it is.
    pub fn say(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line.write_all(bytes)?;
        self.line.flush()
    }

    /// Sends in pieces, and hears what comes meanwhile, as long as the other end is there.
    pub fn say_all(&mut self, pieces: impl IntoIterator<Item = Vec<u8>>) -> io::Result<()> {
        let mut waiting = Vec::new();
        for piece in pieces {
            waiting.extend(piece);
            if waiting.len() >= PAYLOAD {
                self.say(&waiting)?;
                waiting.clear();
            }
        }
        self.say(&waiting)
    }

    /// Hears until so many streams are over, the connection is, or the time.
    pub fn hear(&mut self, streams: usize, patience: Duration) {
        let end = Instant::now() + patience;
        let mut bytes = [0; PAYLOAD];
        while self.over.len() < streams && self.heard.closed == 0 && Instant::now() < end {
            match self.line.read(&mut bytes) {
                Ok(0) => self.heard.closed = 1,
                Ok(count) => {
                    self.heard.bytes += count;
                    self.read.extend_from_slice(&bytes[..count]);
                    while let Some(frame) = frames::take(&mut self.read) {
                        if self.note(&frame).is_err() {
                            self.heard.closed = 1;
                        }
                    }
                }
                Err(error) if is_patience(&error) => {}
                Err(_) => self.heard.closed = 1,
            }
        }
    }

    fn note(&mut self, frame: &Frame) -> io::Result<()> {
        match frame.kind {
            frames::SETTINGS if frame.flags & frames::ACK == 0 => {
                self.say(&frames::frame(frames::SETTINGS, frames::ACK, 0, &[]))?;
            }
            frames::PING if frame.flags & frames::ACK == 0 => {
                self.say(&frames::frame(frames::PING, frames::ACK, 0, &frame.payload))?;
            }
            frames::DATA | frames::HEADERS if frame.flags & frames::END_STREAM != 0 => {
                self.heard.ended += usize::from(self.over.insert(frame.stream));
            }
            frames::RST_STREAM => self.heard.reset += usize::from(self.over.insert(frame.stream)),
            frames::GOAWAY => self.heard.closed = 1,
            frames::WINDOW_UPDATE => {
                let more = frame.payload.as_slice().try_into().map_or(0, u32::from_be_bytes);
                match frame.stream {
                    0 => self.credit_of_all += i64::from(more),
                    stream => *self.credit.entry(stream).or_insert(CREDIT) += i64::from(more),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Sends zeros on these streams, so many on each, as fast as the other end makes room, for so long at most.
    pub fn pour(&mut self, streams: &[u32], each: usize, patience: Duration) -> io::Result<()> {
        self.fill(streams, each, patience, |_, count| vec![0; count])
    }

    /// Sends all of this on one stream, in the same way.
    pub fn send(&mut self, stream: u32, bytes: &[u8], patience: Duration) -> io::Result<()> {
        self.fill(&[stream], bytes.len(), patience, |from, count| bytes[from..from + count].to_vec())
    }

    fn fill(
        &mut self,
        streams: &[u32],
        each: usize,
        patience: Duration,
        piece: impl Fn(usize, usize) -> Vec<u8>,
    ) -> io::Result<()> {
        let end = Instant::now() + patience;
        let mut sent: HashMap<u32, usize> = streams.iter().map(|stream| (*stream, 0)).collect();
        while Instant::now() < end && self.heard.closed == 0 && !sent.is_empty() {
            let mut frames = Vec::new();
            for stream in streams {
                let Some(from) = sent.get_mut(stream) else { continue };
                let credit = self.credit.entry(*stream).or_insert(CREDIT);
                let room = (*credit).min(self.credit_of_all).clamp(0, PAYLOAD as i64) as usize;
                let count = room.min(each - *from);
                if count > 0 {
                    frames.extend(frames::frame(frames::DATA, 0, *stream, &piece(*from, count)));
                }
                *credit -= count as i64;
                self.credit_of_all -= count as i64;
                *from += count;
                if *from == each || self.over.contains(stream) {
                    sent.remove(stream);
                }
            }
            self.say(&frames)?;
            self.hear(usize::MAX, Duration::from_millis(1));
        }
        Ok(())
    }

    /// What was heard, and what is said last: to somebody who has enough nothing more can be sent.
    pub fn end(mut self, said: io::Result<()>) -> Heard {
        if said.is_err() {
            self.hear(usize::MAX, LAST_WORDS);
            self.heard.closed = 1;
        }
        self.heard
    }
}

/// Whether there was only nothing to read yet.
pub fn is_patience(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
