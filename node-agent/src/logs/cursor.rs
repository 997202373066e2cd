//! Where to go on in the logs of one node: opaque to everybody else, kept by whoever reads, given back to go on.
//!
//! One digit for the version, then JSON. What is not in it has not been read at all, so that a container that came later
//! is read from its first line.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use k8sctl_rpc::limits::LOG_CURSOR_BYTES;
use serde::{Deserialize, Serialize};

use super::LogError;

const VERSION: char = '1';

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// `None` means: no line of the journal was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalPosition>,
    /// By directory of the container below the one of all pods: `NAMESPACE_POD_UID/CONTAINER`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub containers: BTreeMap<String, FilePosition>,
    /// First moment of the request by this machine's clock, in microseconds since 1970, as long as older lines than that
    /// may still be read. `None` means: all that is read passes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<i64>,
}

/// A place in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JournalPosition {
    /// Behind the entry with this cursor of journald's.
    Behind(String),
    /// At that entry.
    At(String),
    /// At the first entry of this moment or a later one, in microseconds since 1970: none was there yet.
    From(i64),
}

/// A place in the files of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64, u32, i64)", into = "(u64, u64, u64, u32, i64)")]
pub struct FilePosition {
    /// Of the file system.
    pub device: u64,
    /// Of the file; 0 means: before the first one.
    pub inode: u64,
    /// Byte at which reading goes on.
    pub offset: u64,
    /// Lines behind that byte that have been read already: they began before another one ended.
    pub done: u32,
    /// Time of the last line that was read, in nanoseconds since 1970: finds the place when the file is gone.
    pub nanos: i64,
}

impl From<(u64, u64, u64, u32, i64)> for FilePosition {
    fn from((device, inode, offset, done, nanos): (u64, u64, u64, u32, i64)) -> Self {
        Self { device, inode, offset, done, nanos }
    }
}

impl From<FilePosition> for (u64, u64, u64, u32, i64) {
    fn from(it: FilePosition) -> Self {
        (it.device, it.inode, it.offset, it.done, it.nanos)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{VERSION}{json}")
    }
}

impl FromStr for Cursor {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        let malformed = |reason: String| LogError::Cursor { reason };
        if text.len() > LOG_CURSOR_BYTES {
            return Err(malformed(format!("{} bytes, {LOG_CURSOR_BYTES} are allowed", text.len())));
        }
        let Some(json) = text.strip_prefix(VERSION) else {
            return Err(malformed("it is of another version of this agent".to_owned()));
        };
        let cursor: Self = serde_json::from_str(json).map_err(|error| malformed(error.to_string()))?;
        match &cursor.journal {
            // It becomes an argument of journalctl.
            Some(JournalPosition::Behind(at) | JournalPosition::At(at))
                if at.chars().any(|c| c.is_control() || c == ' ') =>
            {
                Err(malformed("the journal has no such cursors".to_owned()))
            }
            _ => Ok(cursor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let position = FilePosition { device: 1, inode: 2, offset: 3, done: 4, nanos: 5 };
        let behind = JournalPosition::Behind("s=1;i=2".to_owned());
        let at = JournalPosition::At("s=1;i=2".to_owned());
        for journal in [None, Some(behind), Some(at), Some(JournalPosition::From(-5))] {
            let containers = [("default_web_uid/app".to_owned(), position)].into();
            let cursor = Cursor { journal, containers, since: Some(7) };
            assert_eq!(cursor.to_string().parse::<Cursor>().expect("it is one"), cursor);
        }
        let short = Cursor { journal: Some(JournalPosition::Behind("s=1".into())), ..Cursor::default() };
        assert_eq!(short.to_string(), r#"1{"journal":{"behind":"s=1"}}"#);
    }

    #[test]
    fn malformed_ones_are_refused() {
        let long = format!("1{{\"journal\":{{\"behind\":\"{}\"}}}}", "x".repeat(LOG_CURSOR_BYTES));
        for text in ["", "1", "2{}", "{}", "1{\"more\":1}", "1{\"journal\":{\"behind\":\"a\\nb\"}}", &long] {
            let error = text.parse::<Cursor>().expect_err(text);
            assert!(error.to_string().starts_with("the position to go on from cannot be read: "), "{error}");
        }
    }
}
