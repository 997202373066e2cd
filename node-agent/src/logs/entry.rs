//! Entries of `journalctl --output=json`: one line each, read into bounded memory and made a log line.
//!
//! A field may be hundreds of megabytes long. Of a line that is longer than [`HEAD_LIMIT`] its head is kept, which has
//! more of the message than is shown, and its end, which has the fields that came behind the message.

use k8sctl_proto::node::v1::LogLine;
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

use super::journal::UNITS;

/// Longest text of one line; the rest is cut.
const TEXT_LIMIT: usize = 32 * 1024;
/// What is kept of the beginning of an entry. A byte of a message takes at most six characters here.
const HEAD_LIMIT: usize = 6 * TEXT_LIMIT + 16 * 1024;
/// What is kept of its end.
const END_LIMIT: usize = 4 * 1024;
/// Stands behind a text that was cut.
const CUT: &str = " … (the rest of this entry is left out)";
/// Stands for a message that the journal does not give.
const NO_MESSAGE: &str = "(an entry without a message)";

/// What is kept of one line.
#[derive(Debug, Default)]
pub struct RawEntry {
    head: Vec<u8>,
    /// The bytes behind the head; of more than [`END_LIMIT`] the last.
    end: Vec<u8>,
}

impl RawEntry {
    /// Reads the next line in place of this one; `false` at the end. Not cancel-safe: what was read is lost.
    pub async fn read(&mut self, reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<bool> {
        self.head.clear();
        self.end.clear();
        let mut any = false;
        loop {
            let available = reader.fill_buf().await?;
            if available.is_empty() {
                return Ok(any);
            }
            any = true;
            let newline = available.iter().position(|&byte| byte == b'\n');
            let (used, line) = match newline {
                Some(at) => (at + 1, &available[..at]),
                None => (available.len(), available),
            };
            self.push(line);
            reader.consume(used);
            if newline.is_some() {
                return Ok(true);
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(HEAD_LIMIT - self.head.len()));
        self.head.extend_from_slice(head);
        self.end.extend_from_slice(&rest[rest.len().saturating_sub(END_LIMIT)..]);
        let surplus = self.end.len().saturating_sub(END_LIMIT);
        self.end.drain(..surplus);
    }

    /// The entry as a log line. `None` means: no entry of the journal.
    pub fn parse(&self) -> Option<LogLine> {
        if self.end.is_empty() {
            return log_line(serde_json::from_slice(&self.head).ok()?, false);
        }
        let (whole, is_cut) = completed(&self.head);
        let mut entry: Entry = serde_json::from_slice(&whole).unwrap_or_default();
        // With what is before it: a field may stand across the border.
        let before = &self.head[HEAD_LIMIT - END_LIMIT..];
        let behind = [before, &self.end].concat();
        for (field, name) in [
            (&mut entry.micros, "__REALTIME_TIMESTAMP"),
            (&mut entry.unit, "_SYSTEMD_UNIT"),
            (&mut entry.about, "UNIT"),
        ] {
            if field.is_null() {
                *field = field_of(&behind, name).map_or(Value::Null, Value::from);
            }
        }
        log_line(entry, is_cut)
    }
}

/// A flat JSON object that breaks off: within the message, which then ends there, or within another field, which is
/// left out. Says whether it was the message.
fn completed(head: &[u8]) -> (Vec<u8>, bool) {
    let (mut in_string, mut in_list, mut escape, mut comma) = (false, false, None, 0);
    for (at, byte) in head.iter().enumerate() {
        match (byte, escape) {
            // Behind a backslash: a `u` and four digits, or one other character.
            (_, Some(begun)) if (at == begun + 1 && *byte != b'u') || at == begun + 5 => escape = None,
            (_, Some(_)) => {}
            (b'\\', None) if in_string => escape = Some(at),
            (b'"', None) => in_string = !in_string,
            (b'[', None) if !in_string => in_list = true,
            (b']', None) if !in_string => in_list = false,
            (b',', None) if !in_string && !in_list => comma = at,
            _ => {}
        }
    }
    let is_message = head[(comma + 1).min(head.len())..].trim_ascii_start().starts_with(b"\"MESSAGE\"");
    if !is_message {
        return ([&head[..comma], b"}"].concat(), false);
    }
    let mut whole = head[..escape.unwrap_or(head.len())].to_vec();
    if in_string {
        // A character that breaks off is no text.
        let broken = whole.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        whole.truncate(whole.len() - broken);
        whole.push(b'"');
    } else if in_list && let Some(comma) = whole.iter().rposition(|&byte| byte == b',') {
        whole.truncate(comma);
    }
    whole.extend_from_slice(if in_list { b"]}" } else { b"}" });
    (whole, true)
}

/// The text of a field that stands whole in the end of an entry. What a message says of itself has its quotes escaped,
/// so that it is not taken for one.
fn field_of(end: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(end);
    let (_, rest) = text.rsplit_once(&format!("\"{name}\":\""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

/// Values as they come: a field that occurs twice is a list, one that is not text is a list of bytes.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    #[serde(rename = "__REALTIME_TIMESTAMP")]
    micros: Value,
    #[serde(rename = "MESSAGE")]
    message: Value,
    #[serde(rename = "_SYSTEMD_UNIT")]
    unit: Value,
    #[serde(rename = "UNIT")]
    about: Value,
}

fn log_line(entry: Entry, mut is_cut: bool) -> Option<LogLine> {
    let micros: i64 = entry.micros.as_str()?.parse().ok()?;
    let mut text = text_of(&entry.message).unwrap_or_else(|| NO_MESSAGE.to_owned());
    if text.len() > TEXT_LIMIT {
        let end = (0..=TEXT_LIMIT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        is_cut = true;
    }
    if is_cut {
        text.push_str(CUT);
    }
    let named = |unit: &Value| {
        UNITS.iter().find(|(_, _, known)| unit.as_str() == Some(known)).map(|(_, name, _)| *name)
    };
    Some(LogLine {
        time: Some(Timestamp { seconds: micros / 1_000_000, nanos: (micros % 1_000_000) as i32 * 1000 }),
        source: named(&entry.unit).or_else(|| named(&entry.about)).unwrap_or("kernel").to_owned(),
        // One line: what a program wrote with line breaks in it stays one entry.
        text: text.replace('\n', " "),
    })
}

/// `None` means: there is no message, or journalctl gives none.
fn text_of(message: &Value) -> Option<String> {
    match message {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if items.iter().all(Value::is_number) => {
            let bytes: Vec<u8> = items.iter().filter_map(|item| u8::try_from(item.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(items) => Some(items.iter().filter_map(text_of).collect::<Vec<_>>().join(" "))
            .filter(|text| !text.is_empty()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::BufReader;

    use super::*;

    /// What is read of a pipe with this in it.
    async fn lines(input: Vec<u8>) -> Vec<Option<LogLine>> {
        let (mut writer, reader) = tokio::io::duplex(1024);
        let write = async move {
            tokio::io::AsyncWriteExt::write_all(&mut writer, &input).await.expect("written");
        };
        let read = async {
            let (mut reader, mut entry, mut lines) =
                (BufReader::new(reader), RawEntry::default(), Vec::new());
            while entry.read(&mut reader).await.expect("read") {
                assert!(entry.head.capacity() <= 2 * HEAD_LIMIT && entry.end.capacity() <= 8 * END_LIMIT);
                lines.push(entry.parse());
            }
            lines
        };
        tokio::join!(write, read).1
    }

    async fn one(input: impl Into<Vec<u8>>) -> LogLine {
        let mut input = input.into();
        input.extend_from_slice(b"\n{\"__REALTIME_TIMESTAMP\":\"7\",\"MESSAGE\":\"next\"}\n");
        let mut lines = lines(input).await;
        assert_eq!(lines.pop().flatten().expect("the next line is whole").text, "next");
        assert_eq!(lines.len(), 1);
        lines.remove(0).expect("a line")
    }

    /// An entry as journald gives it, the message before or behind what tells where it is from.
    fn entry(message: &str, first: bool) -> String {
        let rest = r#""__REALTIME_TIMESTAMP":"1700000000000005","_SYSTEMD_UNIT":"kubelet.service""#;
        match first {
            true => format!("{{\"MESSAGE\":{message},{rest}}}"),
            false => format!("{{{rest},\"MESSAGE\":{message}}}"),
        }
    }

    #[tokio::test]
    async fn entries_become_lines() {
        let line = one(entry(r#""hello\nworld""#, true)).await;
        assert_eq!((line.source.as_str(), line.text.as_str()), ("kubelet", "hello world"));
        assert_eq!(line.time, Some(Timestamp { seconds: 1_700_000_000, nanos: 5_000 }));
        let bytes =
            one(r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":[104,105,255],"UNIT":"containerd.service"}"#).await;
        assert_eq!((bytes.source.as_str(), bytes.text.as_str()), ("containerd", "hi\u{fffd}"));
        assert_eq!(lines(b"-- No entries --\n".to_vec()).await, [None]);
    }

    #[tokio::test]
    async fn what_has_no_message_is_marked_and_two_messages_are_one_line() {
        assert_eq!(one(r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}"#).await.text, NO_MESSAGE);
        assert_eq!(one(r#"{"__REALTIME_TIMESTAMP":"1"}"#).await.text, NO_MESSAGE);
        assert_eq!(one(r#"{"__REALTIME_TIMESTAMP":"1","MESSAGE":["a",[98],null]}"#).await.text, "a b");
    }

    #[tokio::test]
    async fn a_long_message_is_whole_up_to_the_limit() {
        let message = "x".repeat(10 * 1024);
        assert_eq!(one(entry(&format!("\"{message}\""), false)).await.text, message);
    }

    #[tokio::test]
    async fn a_huge_message_is_cut_and_keeps_its_time_and_source() {
        // Escapes and characters of several bytes, so that the cut falls everywhere within them.
        for (piece, shown) in
            [("x", "x"), ("ä€", "ä€"), (r"\u001b", "\u{1b}"), (r#"\"_SYSTEMD_UNIT\":\"no\"\\"#, "\"")]
        {
            for shift in 0..7 {
                for first in [true, false] {
                    let message =
                        format!("\"{}{}\"", "y".repeat(shift), piece.repeat(1024 * 1024 / piece.len()));
                    let line = one(entry(&message, first)).await;
                    let text = line.text.strip_suffix(CUT).expect("marked");
                    assert!(text.len() <= TEXT_LIMIT && text.len() > TEXT_LIMIT - 8, "{}", text.len());
                    assert!(text.starts_with(&format!("{}{shown}", "y".repeat(shift))), "{}", &text[..32]);
                    assert_eq!(line.source, "kubelet");
                    assert_eq!(line.time.expect("a time").seconds, 1_700_000_000);
                }
            }
        }
    }

    #[tokio::test]
    async fn an_entry_that_breaks_off_behind_its_message_keeps_its_source() {
        for shift in 0..200 {
            let message = "x".repeat(HEAD_LIMIT - shift);
            let line = one(entry(&format!("\"{message}\""), true)).await;
            assert_eq!(
                (line.source.as_str(), line.time.expect("a time").seconds),
                ("kubelet", 1_700_000_000)
            );
            assert!(line.text.ends_with(CUT));
        }
    }

    #[tokio::test]
    async fn a_huge_binary_message_is_cut_too() {
        for first in [true, false] {
            let bytes = vec!["255"; 1024 * 1024].join(", ");
            let line = one(entry(&format!("[ {bytes} ]"), first)).await;
            let text = line.text.strip_suffix(CUT).expect("marked");
            assert!(text.len() > TEXT_LIMIT - 8 && text.chars().all(|each| each == '\u{fffd}'));
            assert_eq!(line.source, "kubelet");
        }
    }
}
