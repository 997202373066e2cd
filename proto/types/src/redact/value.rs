//! Where the value of a secret ends: in quotes, also in quotes that are themselves in quotes, a list, a table, a block of
//! YAML, a word, or a line.

/// Most of a list or table that does not end, such as one that was cut.
const UNENDED: usize = 16 << 10;
/// A text in quotes that is longer counts for none of that.
const LONG: usize = 4 << 10;
/// How Go prints a map and a pointer.
const GO: [&str; 2] = ["map[", "&{"];

/// Where a value stands.
#[derive(Debug)]
pub struct Place {
    /// Where its name begins, with the quote before it.
    pub name: usize,
    /// Where the value begins.
    pub begin: usize,
    /// Whether the name is in quotes, as in JSON: a word ends where an element of JSON does.
    pub is_quoted: bool,
    /// Whether all of the line belongs to it.
    pub is_header: bool,
}

/// What comes before the name.
enum Before {
    /// Nothing but so many spaces and dashes of this line.
    Column(usize),
    /// The same, in a text in which lines end by `\n` in two characters.
    Escaped,
    Other,
}

/// Where the value ends; where it begins if there is none.
pub fn end_of_value(text: &str, place: &Place) -> usize {
    let rest = &text[place.begin..];
    let before = before(text, place.name);
    if let Before::Column(column) = before
        && let Some(end) = end_of_block(rest, column)
    {
        return place.begin + end;
    }
    let quote = rest.find(|c| c != '\\').filter(|at| rest[*at..].starts_with(['"', '\'']));
    let length = match (quote, rest.bytes().next()) {
        (Some(at), _) => {
            let end = quoted(rest, at).unwrap_or_else(|open| open);
            // `"abc"def` of a shell.
            let goes_on = !place.is_quoted
                && rest[end..].starts_with(|c: char| c.is_alphanumeric() || "\"'$".contains(c));
            if goes_on { end + end_of_word(&rest[end..]) } else { end }
        }
        (None, Some(b'[' | b'{')) => end_of_nested(rest),
        (None, _) if GO.iter().any(|opens| rest.starts_with(opens)) => {
            let opens = rest.find(['[', '{']).unwrap_or(0);
            opens + end_of_nested(&rest[opens..])
        }
        (None, _) => end_of_plain(rest, place, &before),
    };
    place.begin + length
}

/// Whether what stands there is a name in any case: it begins its line, or is in quotes as in JSON.
pub fn is_name(text: &str, place: &Place) -> bool {
    place.is_quoted || !matches!(before(text, place.name), Before::Other)
}

fn before(text: &str, name: usize) -> Before {
    let text = &text[..name];
    let before = text.trim_end_matches([' ', '\t', '-']);
    if before.is_empty() || before.ends_with('\n') {
        Before::Column(name - before.len())
    } else if before.ends_with("\\n") {
        Before::Escaped
    } else {
        Before::Other
    }
}

/// Of a block behind a name that is alone in its line: lines that are further right, or elements of a list. `None` means
/// that there is none.
fn end_of_block(rest: &str, column: usize) -> Option<usize> {
    let first = rest.find('\n')?;
    let header = rest[..first].trim();
    let header = header.split('#').next().unwrap_or_default().trim_end();
    let kind = header.rsplit([' ', '\t']).next().unwrap_or_default();
    let is_scalar = kind.starts_with(['|', '>']);
    let is_tag = |word: &str| word.starts_with(['!', '&']);
    let words = header.split_ascii_whitespace().filter(|word| !is_tag(word)).count();
    if words > usize::from(is_scalar)
        || (is_scalar && !kind[1..].chars().all(|c| matches!(c, '0'..='9' | '+' | '-')))
    {
        return None;
    }
    let (mut end, mut at) = (None, first + 1);
    for line in rest[first + 1..].split_inclusive('\n') {
        let content = line.trim_start_matches([' ', '\t']);
        let indent = line.len() - content.len();
        let is_element =
            !is_scalar && indent == column && (content.starts_with("- ") || content.trim_end() == "-");
        if !content.trim().is_empty() {
            if indent <= column && !is_element {
                break;
            }
            end = Some(at + line.trim_end().len());
        }
        at += line.len();
    }
    end
}

/// Of a text in quotes, the first of which is at this place, behind as many backslashes: where it ends, or else where
/// its line does. Three quotes go over lines.
fn quoted(rest: &str, at: usize) -> Result<usize, usize> {
    let quote = &rest[at..=at];
    let three = quote.repeat(3);
    if at == 0 && rest.starts_with(&three) {
        return rest[3..].find(&three).map(|end| 3 + end + 3).ok_or(rest.len());
    }
    let bytes = rest.as_bytes();
    let (mut here, mut backslashes) = (at + 1, 0);
    while here < bytes.len() && bytes[here] != b'\n' {
        match bytes[here] {
            b'\\' => backslashes += 1,
            byte if byte == quote.as_bytes()[0] => {
                let is_doubled = at == 0 && quote == "'" && bytes.get(here + 1) == Some(&b'\'');
                // What is in quotes within has more backslashes.
                let ends = if at == 0 { backslashes % 2 == 0 } else { backslashes <= at };
                if is_doubled {
                    here += 1;
                } else if ends {
                    return Ok(here + 1);
                }
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        here += 1;
    }
    Err(here)
}

/// Of a list or a table, whatever is in it.
fn end_of_nested(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut here, mut depth, mut most) = (0, 0_usize, UNENDED);
    while here < bytes.len().min(most) {
        match bytes[here] {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b'"' | b'\'' => {
                let backslashes = bytes[..here].iter().rev().take_while(|byte| **byte == b'\\').count();
                // One that does not end is an apostrophe.
                if let Ok(end) = quoted(&rest[here - backslashes..], backslashes) {
                    here += end - backslashes;
                    if end > LONG {
                        most = most.max(here + LONG);
                    }
                    continue;
                }
            }
            _ => {}
        }
        here += 1;
        if depth == 0 {
            return here;
        }
    }
    end_of_line(rest, here)
}

/// A word, or a line where nothing else is in it. Only what takes the line looks for its end.
fn end_of_plain(rest: &str, place: &Place, before: &Before) -> usize {
    if place.is_quoted {
        return rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | '}' | ']')).unwrap_or(rest.len());
    }
    match before {
        Before::Escaped => end_of_escaped_line(rest),
        Before::Other if !place.is_header && !is_wrapped(rest) => end_of_word(rest),
        Before::Column(_) | Before::Other => end_of_line(rest, 0),
    }
}

/// `Some("…")`
fn is_wrapped(rest: &str) -> bool {
    let inner = rest.trim_start_matches(|c: char| c.is_alphanumeric() || "_:&(".contains(c));
    let is_quoted = inner.trim_start_matches('\\').starts_with(['"', '\'']);
    is_quoted && rest[..rest.len() - inner.len()].ends_with('(')
}

fn end_of_word(line: &str) -> usize {
    line.find(char::is_whitespace).unwrap_or(line.len())
}

/// Of a line in a text in quotes, with those behind it that are further right where nothing else is in it.
fn end_of_escaped_line(rest: &str) -> usize {
    let mut end = end_of_this_line(rest);
    let is_head = rest[..end].trim().is_empty() || rest[..end].trim_start().starts_with(['|', '>']);
    while is_head
        && let Some(next) = rest[end..].strip_prefix("\\n").filter(|next| next.starts_with([' ', '\t', '-']))
    {
        end += 2 + end_of_this_line(next);
    }
    end
}

fn end_of_this_line(rest: &str) -> usize {
    let mut before = '\0';
    for (at, c) in rest.char_indices() {
        match (before, c) {
            (_, '\n') => return at,
            ('\\', 'n') => return at - 1,
            (last, '"') if last != '\\' => return at,
            _ => before = c,
        }
    }
    rest.len()
}

/// Where the line ends that this place is in.
fn end_of_line(rest: &str, from: usize) -> usize {
    let bytes = &rest.as_bytes()[from..];
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    from + end - usize::from(bytes[..end].ends_with(b"\r"))
}
