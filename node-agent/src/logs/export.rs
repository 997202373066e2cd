//! Entries of `journalctl --output=export`, read as they come into bounded memory.
//!
//! A field is `NAME=text` on a line, or, where its value has line breaks or is no text, `NAME` on a line, its length in
//! eight bytes, and the value. An empty line ends an entry. Of a field only so much is kept as is shown.

/// Longest text of one line; the rest is cut.
pub const TEXT_LIMIT: usize = 32 * 1024;
/// Stands behind a text that was cut.
pub const CUT: &str = " … (the rest of this entry is left out)";
/// Stands for a message that the journal does not give.
const NO_MESSAGE: &str = "(an entry without a message)";
/// What is kept of every field but the message: cursors are the longest.
const FIELD_LIMIT: usize = 1024;
/// What is kept of a field's name.
const NAME_LIMIT: usize = 64;

/// What is kept of one entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// journald's name for this entry.
    pub cursor: String,
    /// When it was written, in microseconds since 1970.
    pub micros: i64,
    /// One line of at most [`TEXT_LIMIT`] bytes and a mark behind it.
    pub text: String,
    /// The unit that it comes from.
    pub unit: Option<String>,
    /// The unit that systemd says it of.
    pub about: Option<String>,
    /// It is of the kernel.
    pub kernel: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Cursor,
    Micros,
    Message,
    Unit,
    About,
    Transport,
}

#[derive(Debug, Default)]
enum State {
    /// Within a name, or at the beginning of a line.
    #[default]
    Name,
    /// Within a value up to the end of the line.
    Text(Option<Field>),
    /// Within a length, of which so many bytes are there.
    Length(Option<Field>, [u8; 8], usize),
    /// Within a value of which so many bytes are left.
    Bytes(Option<Field>, u64),
    /// At the end of the line behind such a value.
    Newline,
}

/// Makes entries of bytes, however they are cut into pieces.
#[derive(Debug, Default)]
pub struct Parser {
    state: State,
    name: Vec<u8>,
    cursor: Vec<u8>,
    micros: Vec<u8>,
    message: Option<Vec<u8>>,
    is_cut: bool,
    unit: Vec<u8>,
    about: Vec<u8>,
    transport: Vec<u8>,
}

impl Parser {
    /// Takes the next bytes and adds the entries that end in them.
    pub fn feed(&mut self, mut bytes: &[u8], entries: &mut Vec<Entry>) {
        while !bytes.is_empty() {
            bytes = match std::mem::take(&mut self.state) {
                State::Name => self.name(bytes, entries),
                State::Text(field) => {
                    let (value, rest) = split(bytes, memchr::memchr(b'\n', bytes));
                    self.keep(field, value);
                    if rest.is_none() {
                        self.state = State::Text(field);
                    }
                    rest.unwrap_or_default()
                }
                State::Length(field, mut length, mut have) => {
                    let (piece, rest) = bytes.split_at(bytes.len().min(8 - have));
                    length[have..have + piece.len()].copy_from_slice(piece);
                    have += piece.len();
                    self.state = if have < 8 {
                        State::Length(field, length, have)
                    } else {
                        State::Bytes(field, u64::from_le_bytes(length))
                    };
                    rest
                }
                State::Bytes(field, left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (value, rest) = bytes.split_at(here);
                    self.keep(field, value);
                    let left = left - here as u64;
                    self.state = if left > 0 { State::Bytes(field, left) } else { State::Newline };
                    rest
                }
                State::Newline => &bytes[1..],
            };
        }
    }

    fn name<'a>(&mut self, bytes: &'a [u8], entries: &mut Vec<Entry>) -> &'a [u8] {
        let (name, rest) = split(bytes, memchr::memchr2(b'=', b'\n', bytes));
        let room = NAME_LIMIT.saturating_sub(self.name.len());
        self.name.extend_from_slice(&name[..name.len().min(room)]);
        let Some(rest) = rest else { return &[] };
        let has_text = bytes[name.len()] == b'=';
        if !has_text && self.name.is_empty() {
            entries.extend(self.finish());
            return rest;
        }
        let field = match self.name.as_slice() {
            b"__CURSOR" => Some(Field::Cursor),
            b"__REALTIME_TIMESTAMP" => Some(Field::Micros),
            b"MESSAGE" => Some(Field::Message),
            b"_SYSTEMD_UNIT" => Some(Field::Unit),
            b"UNIT" => Some(Field::About),
            b"_TRANSPORT" => Some(Field::Transport),
            _ => None,
        };
        self.name.clear();
        if field == Some(Field::Message) {
            match &mut self.message {
                // It occurs twice.
                Some(message) => message.push(b' '),
                None => self.message = Some(Vec::new()),
            }
        }
        self.state = if has_text { State::Text(field) } else { State::Length(field, [0; 8], 0) };
        rest
    }

    fn keep(&mut self, field: Option<Field>, bytes: &[u8]) {
        let (value, limit) = match field {
            None => return,
            Some(Field::Message) => (self.message.get_or_insert_default(), TEXT_LIMIT),
            Some(Field::Cursor) => (&mut self.cursor, FIELD_LIMIT),
            Some(Field::Micros) => (&mut self.micros, FIELD_LIMIT),
            Some(Field::Unit) => (&mut self.unit, FIELD_LIMIT),
            Some(Field::About) => (&mut self.about, FIELD_LIMIT),
            Some(Field::Transport) => (&mut self.transport, FIELD_LIMIT),
        };
        let here = bytes.len().min(limit.saturating_sub(value.len()));
        value.extend_from_slice(&bytes[..here]);
        self.is_cut |= here < bytes.len() && field == Some(Field::Message);
    }

    /// What was gathered, as an entry. `None` means: no entry of the journal.
    fn finish(&mut self) -> Option<Entry> {
        let is_cut = std::mem::take(&mut self.is_cut);
        let message = self.message.take();
        let owned = |bytes: &mut Vec<u8>| {
            let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty()).map(str::to_owned);
            bytes.clear();
            text
        };
        let cursor = owned(&mut self.cursor);
        let micros: Option<i64> = std::str::from_utf8(&self.micros).ok().and_then(|text| text.parse().ok());
        self.micros.clear();
        let (unit, about) = (owned(&mut self.unit), owned(&mut self.about));
        let kernel = self.transport == b"kernel";
        self.transport.clear();
        let text = message.map_or_else(|| NO_MESSAGE.to_owned(), |message| one_line(message, is_cut));
        Some(Entry { cursor: cursor?, micros: micros?, text, unit, about, kernel })
    }
}

/// What is before the byte at that place, and what is behind it, if there is one.
fn split(bytes: &[u8], end: Option<usize>) -> (&[u8], Option<&[u8]>) {
    match end {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    }
}

/// Bytes of a program as one line of text: line breaks within become blanks, what is no text a mark, and what is too
/// long is cut.
pub fn one_line(mut bytes: Vec<u8>, mut is_cut: bool) -> String {
    if is_cut {
        // A character that breaks off is no text.
        let broken = bytes.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
        bytes.truncate(bytes.len() - broken.min(3));
    }
    let mut text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    };
    if text.len() > TEXT_LIMIT {
        let end = (0..=TEXT_LIMIT).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        is_cut = true;
    }
    if is_cut {
        text.push_str(CUT);
    }
    if text.contains('\n') { text.replace('\n', " ") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of these bytes, in pieces of so many.
    fn entries(bytes: &[u8], piece: usize) -> Vec<Entry> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            parser.feed(piece, &mut found);
        }
        found
    }

    fn binary(name: &str, value: &[u8]) -> Vec<u8> {
        let length = u64::try_from(value.len()).expect("it fits").to_le_bytes();
        [name.as_bytes(), b"\n", &length, value, b"\n"].concat()
    }

    /// An entry of the kubelet with these fields behind the usual ones.
    fn entry(fields: &[u8]) -> Vec<u8> {
        let head = "__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1700000000123456\n__MONOTONIC_TIMESTAMP=5\n\
                    _BOOT_ID=abc\n_SYSTEMD_UNIT=kubelet.service\n_TRANSPORT=stdout\n";
        [head.as_bytes(), fields, b"\n"].concat()
    }

    fn text(fields: &[u8]) -> String {
        let mut found = entries(&entry(fields), usize::MAX);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).text
    }

    #[test]
    fn entries_are_read_however_they_are_cut() {
        let mut bytes = entry(b"MESSAGE=one = 1\n");
        bytes.extend(entry(&binary("MESSAGE", b"two\nlines\n\n")));
        bytes.extend(b"__CURSOR=c\n__REALTIME_TIMESTAMP=7\nMESSAGE=\n_TRANSPORT=kernel\nUNIT=x.service\n\n");
        // Not whole: the program was ended.
        bytes.extend(b"__CURSOR=d\n__REALTIME_TIMESTAMP=8\nMESSAGE=lost");
        let whole = entries(&bytes, usize::MAX);
        let kubelet = Entry {
            cursor: "s=1;i=2".to_owned(),
            micros: 1_700_000_000_123_456,
            text: "one = 1".to_owned(),
            unit: Some("kubelet.service".to_owned()),
            about: None,
            kernel: false,
        };
        let second = Entry { text: "two lines  ".to_owned(), ..kubelet.clone() };
        let third = Entry {
            cursor: "c".to_owned(),
            micros: 7,
            about: Some("x.service".to_owned()),
            kernel: true,
            ..Entry::default()
        };
        assert_eq!(whole, [kubelet, second, third]);
        for piece in [1, 2, 3, 7, 64] {
            assert_eq!(entries(&bytes, piece), whole, "in pieces of {piece}");
        }
    }

    #[test]
    fn what_is_no_entry_is_left_out() {
        for bytes in
            ["-- No entries --\n\n", "MESSAGE=x\n__CURSOR=c\n\n", "__CURSOR=c\n__REALTIME_TIMESTAMP=x\n\n"]
        {
            assert_eq!(entries(bytes.as_bytes(), usize::MAX), []);
        }
        assert_eq!(text(b""), NO_MESSAGE);
        assert_eq!(text(b"MESSAGE=a\nMESSAGE=b\n"), "a b");
    }

    #[test]
    fn long_messages_are_cut_at_a_character_and_marked() {
        let long = "ä".repeat(TEXT_LIMIT);
        for fields in [format!("MESSAGE={long}\n").into_bytes(), binary("MESSAGE", long.as_bytes())] {
            let text = text(&fields);
            let kept = text.strip_suffix(CUT).expect("marked");
            assert!(kept.len() > TEXT_LIMIT - 4 && kept.chars().all(|c| c == 'ä'), "{}", kept.len());
        }
        let odd = format!("MESSAGE=x{long}\n");
        assert!(text(odd.as_bytes()).ends_with(&format!("ä{CUT}")), "no half of a character");
        let whole = "x".repeat(TEXT_LIMIT);
        assert_eq!(text(format!("MESSAGE={whole}\n").as_bytes()), whole);
    }

    #[test]
    fn what_is_no_text_is_marked_and_bounded() {
        assert_eq!(text(&binary("MESSAGE", b"a\xffb")), "a\u{fffd}b");
        let huge = text(&binary("MESSAGE", &vec![0xff; 4 * TEXT_LIMIT]));
        let kept = huge.strip_suffix(CUT).expect("marked");
        assert!(kept.len() > TEXT_LIMIT - 8 && kept.len() <= TEXT_LIMIT, "{}", kept.len());
        assert!(kept.chars().all(|c| c == '\u{fffd}'));
    }

    #[test]
    fn other_fields_of_any_size_are_passed_over() {
        let fields = [binary("COREDUMP", &vec![b'\n'; 1 << 20]), b"MESSAGE=behind it\n".to_vec()].concat();
        for piece in [1000, usize::MAX] {
            let found = entries(&entry(&fields), piece);
            assert_eq!(found.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>(), ["behind it"]);
        }
        let long_name = [vec![b'X'; 1 << 16], b"=1\nMESSAGE=a\n".to_vec()].concat();
        assert_eq!(text(&long_name), "a");
    }
}
