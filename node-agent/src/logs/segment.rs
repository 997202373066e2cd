//! One log file of a container: `N.log` for each start of the container, and, of those that were rotated away,
//! `N.log.TIME` and `N.log.TIME.gz`.
//!
//! What lies in the directory may have been put there by a pod that can write to `/var/log`: only plain files are
//! opened, and no link is followed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags};

use super::cri::{self, Joiner, Line};

/// Bytes that are read at once.
const READ_BYTES: usize = 64 * 1024;
/// Longest line of a file; a longer one is taken for several.
const LINE_BYTES: usize = 64 * 1024;

/// Where a file stands among those of its container: number of the start, whether it is the one written to, and when
/// it was rotated away.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 0.
    pub start: u64,
    /// It was not rotated away.
    pub is_current: bool,
    time: String,
}

/// A file.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it stands.
    pub place: Place,
    /// It is compressed.
    pub is_packed: bool,
    path: PathBuf,
}

impl Segment {
    fn of(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (start, rest) = name.split_once(".log")?;
        let start: u64 = start.parse().ok()?;
        let (rest, is_packed) = rest.strip_suffix(".gz").map_or((rest, false), |rest| (rest, true));
        let place = match rest.strip_prefix('.') {
            None if rest.is_empty() && !is_packed => Place { start, is_current: true, time: String::new() },
            // While it is being packed it has another ending.
            Some(time) if time.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
                Place { start, is_current: false, time: time.to_owned() }
            }
            _ => return None,
        };
        Some(Self { place, is_packed, path })
    }

    /// Opens it at its beginning.
    pub fn open(&self) -> io::Result<Open> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(&self.path, flags, Mode::empty())?);
        let data = file.metadata()?;
        if !data.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        let id = (data.dev(), data.ino());
        let reader =
            if self.is_packed { Reader::Packed(MultiGzDecoder::new(file)) } else { Reader::Plain(file) };
        Ok(Open { place: self.place.clone(), id, size: data.len(), reader, at: 0, carry: Vec::new() })
    }

    /// Time of its first line, in nanoseconds since 1970.
    pub fn first(&self) -> Option<i64> {
        let mut head = Vec::new();
        self.open().ok()?.reader.take(64).read_to_end(&mut head).ok()?;
        cri::nanos(head.split(|&byte| byte == b' ').next()?)
    }

    /// Whether something is in it.
    pub fn has_content(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|data| data.len() > 0)
    }

    /// Whether it is the file with these numbers of its file system and of itself.
    pub fn is(&self, id: (u64, u64)) -> bool {
        let data = std::fs::symlink_metadata(&self.path);
        !self.is_packed && data.is_ok_and(|data| (data.dev(), data.ino()) == id)
    }
}

/// All files of a container, oldest first.
pub fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            found.extend(Segment::of(entry.path()));
        }
    }
    // While a file is being packed it is there twice for a moment.
    found.sort_by(|a, b| (&a.place, a.is_packed).cmp(&(&b.place, b.is_packed)));
    found.dedup_by(|a, b| a.place == b.place);
    Ok(found)
}

#[derive(Debug)]
enum Reader {
    Plain(File),
    Packed(MultiGzDecoder<File>),
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            // What is damaged ends there.
            Self::Packed(decoder) => Ok(decoder.read(buffer).unwrap_or_default()),
        }
    }
}

/// A file that is being read.
#[derive(Debug)]
pub struct Open {
    /// Where it stood when it was opened.
    pub place: Place,
    /// Numbers of its file system and of itself.
    pub id: (u64, u64),
    /// When it was opened.
    pub size: u64,
    reader: Reader,
    /// Behind the last byte that was read.
    at: u64,
    /// The beginning of a line whose end is not there yet.
    carry: Vec<u8>,
}

impl Open {
    /// Goes on at this byte; only in one that is not packed.
    pub fn seek(&mut self, offset: u64) -> io::Result<()> {
        if let Reader::Plain(file) = &mut self.reader {
            file.seek(SeekFrom::Start(offset))?;
        }
        self.at = offset;
        self.carry.clear();
        Ok(())
    }

    /// Whether it became shorter than what was read of it: somebody has emptied it.
    pub fn is_emptied(&self) -> bool {
        match &self.reader {
            Reader::Plain(file) => file.metadata().is_ok_and(|data| data.len() < self.at),
            Reader::Packed(_) => false,
        }
    }

    /// Reads on; `false` means: nothing more for now.
    pub fn read(&mut self, joiner: &mut Joiner, lines: &mut Vec<Line>) -> io::Result<bool> {
        let kept = self.carry.len();
        self.carry.resize(kept + READ_BYTES, 0);
        let read = self.reader.read(&mut self.carry[kept..]);
        self.carry.truncate(kept + *read.as_ref().unwrap_or(&0));
        if read? == 0 {
            return Ok(false);
        }
        let mut end = self.at - kept as u64;
        self.at += (self.carry.len() - kept) as u64;
        let mut used = 0;
        while let Some(length) = memchr::memchr(b'\n', &self.carry[used..]) {
            end += length as u64 + 1;
            joiner.push(&self.carry[used..used + length], end, lines);
            used += length + 1;
        }
        self.carry.drain(..used);
        if self.carry.len() >= LINE_BYTES {
            self.flush(joiner, lines);
        }
        Ok(true)
    }

    /// Takes what has no line break behind it for a line.
    pub fn flush(&mut self, joiner: &mut Joiner, lines: &mut Vec<Line>) {
        if !self.carry.is_empty() {
            joiner.push(&self.carry, self.at, lines);
            self.carry.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_in_the_order_in_which_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in [
            "0.log",
            "10.log",
            "2.log",
            "2.log.20261124-100000",
            "2.log.20261124-090000.gz",
            // Being packed: of both the plain one is taken.
            "2.log.20261124-100000.gz",
            "2.log.20261124-110000.gz.tmp",
            "x.log",
            "2.txt",
        ] {
            std::fs::write(dir.path().join(name), "x").expect("written");
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("3.log")).expect("linked");
        std::fs::create_dir(dir.path().join("4.log")).expect("made");
        let found = segments(dir.path()).expect("read");
        let names: Vec<_> = found.iter().filter_map(|it| it.path.file_name()?.to_str()).collect();
        let expected = ["0.log", "2.log.20261124-090000.gz", "2.log.20261124-100000", "2.log", "10.log"];
        assert_eq!(names, expected);
        let link = Segment { path: dir.path().join("3.log"), ..found[0].clone() };
        link.open().expect_err("no link is followed");
    }

    #[test]
    fn a_line_without_end_is_taken_in_pieces() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("0.log");
        std::fs::write(&path, [vec![b'x'; 3 * LINE_BYTES], b"\nlast\n".to_vec()].concat()).expect("written");
        let mut open = Segment::of(path).expect("a segment").open().expect("opened");
        let (mut joiner, mut lines) = (Joiner::default(), Vec::new());
        while open.read(&mut joiner, &mut lines).expect("read") {
            assert!(open.carry.capacity() <= 4 * LINE_BYTES, "{}", open.carry.capacity());
        }
        assert_eq!(lines.last().expect("lines").text, "last");
        assert_eq!(lines.last().expect("lines").offset, 3 * LINE_BYTES as u64 + 6);
    }
}
