//! Takes secrets out of texts that leave the machine: private keys, tokens, passwords, in whatever they stand.
//!
//! Called for every part of a support bundle, by who collects it and again by who writes it. It goes by form and by the
//! names that people give secrets, and rather takes too much: what it cannot know by either, as the values of plugins'
//! configuration, is left out by who collects it.
//!
//! No text takes longer than in proportion to its length, whoever wrote it.

mod value;

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use self::value::{Place, end_of_value, is_name};

/// What stands in a secret's place.
pub const MARK: &str = "(redacted)";

/// Names of secrets: words that may be parts of longer names, and short ones that must be words of them.
const NAME: &str = r"(?:[\w.-]*(?:pass(?:word|wd|phrase)|secret|token|(?:api|private|access|account|encryption|client|signing)[ _-]?key|key[_-]?data|certificate[_-]?key|credential)[\w.-]*|(?:\b|\\n)(?:[\w.-]*[_.-])?(?:pass|pwd|auth|psk)|(?:\b|\\n)tls\.key|\b[\w.-]*(?-i:[a-z](?:Pass|Pwd|Auth)))";

/// Headers whose value is all that follows.
const HEADER: &str = "(?:proxy-)?authorization|(?:set-)?cookie";

/// By form, before names are looked at: what goes over several lines.
static BLOCKS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        // A key that is cut short is one all the same.
        (
            false,
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)",
        ),
        // One whose beginning was cut off, in lines of a log or of its own.
        (
            false,
            r"(?m)(?:^[^\n]*[A-Za-z0-9+/]{60,}[^\w\n]*\n)+(?:^[^\n]*[A-Za-z0-9+/=]+[^\w\n]*\n)?[^\n]*-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
        ),
        (
            false,
            r"(?:[A-Za-z0-9+/=]{20,}(?:\s|\\+[nr])+)*(?:[A-Za-z0-9+/=]+(?:\s|\\+[nr])+)?-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----",
        ),
        // As Go prints a container: what it is run with.
        (true, r"(?s)(EnvVar\{Name:[^,{}]*,Value:).*?,ValueFrom:"),
        (true, r"(?s)(\bCommand:)\[.*?\],Args:\[.*?\],WorkingDir:"),
    ])
});

/// By form, of what no name told.
static FORMS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    rules(&[
        // A key in base64, as kubeconfigs have it.
        (false, r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]+"),
        (true, r"(?i)\b((?:bearer|basic)[ \t]+)[A-Za-z0-9._~+/=-]{16,}"),
        (false, r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"),
        // A key or a kubeconfig in base64 once more, as Secrets have them: in each of three places a word looks different.
        (
            false,
            r"[A-Za-z0-9+/]*(?:UFJJVkFURSBLRVktLS0tL|BSSVZBVEUgS0VZLS0tLS|QUklWQVRFIEtFWS0tLS0t|Y2xpZW50LWtleS1kYXRh|NsaWVudC1rZXktZGF0Y|jbGllbnQta2V5LWRhdG)[A-Za-z0-9+/=]*",
        ),
        // GitHub's and GitLab's tokens.
        (false, r"\b(?:gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}"),
        // What signs a URL.
        (true, r#"(?i)([?&](?:sig|signature|x-(?:amz|goog)-signature)=)[^&\s"'<>]+"#),
        // A line of a .netrc.
        (true, r"(?i)(\blogin[ \t]+\S+[ \t]+password[ \t]+)\S+"),
        // kubeadm's tokens.
        (false, r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b"),
        // What stands before the host in a URL; a password may have whatever in it.
        (true, r#"([a-zA-Z][a-zA-Z0-9+.-]*://)(?:[^\s/@:"'<>]*:[^\s"'<>]*|[^\s/@"'<>]+)@"#),
        // As kubeadm prints it.
        (true, r"(?i)(certificate key:(?:\s|\\n)*)[0-9a-f]{32,}"),
    ])
});

/// By name, in XML: an element's text.
static ELEMENTS: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    // Text that goes over lines needs an end: help texts have `<token>` where somebody is to put one.
    let text = r"(?:(?s:<!\[CDATA\[.*?(?:\]\]>|\z))|[^<\s][^<]*(?P<end></)|[^<\s][^<\n]*)";
    let element = format!(r"(?i)(<(?:[\w.-]+:)?(?:{NAME})(?:[ \t][^<>\n]*[^<>/\n])?>\s*){text}");
    rules(&[(true, &element)])
});

/// Where a secret begins, by its name. The group `header` is there where that is a header's.
static NAMED: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let separator = r"[ \t]*[:=]+>?[ \t]*";
    let named = format!(
        r#"(?i)(?P<opens>\\*["'])?(?P<name>(?P<header>\b(?:{HEADER}))|{NAME})(?P<closes>\\*["'])?{separator}"#
    );
    let pair = format!(
        r#"(?i)\bname\\*["']?\s*[:=]\s*\\*["']?(?:(?P<header>\b(?:{HEADER}))|{NAME})\\*["']?[,;\s]+(?P<opens>\\*["'])?(?P<name>value)(?P<closes>\\*["'])?\s*[:=][ \t]*"#
    );
    let option = format!(r#"(?im)(?:^|[\s"'\[,(=])--?(?P<name>{NAME})[ \t]+"#);
    [pair, named, option].iter().map(|pattern| regex(pattern)).collect()
});

/// That a Secret of Kubernetes is somewhere in a text.
static SECRET: LazyLock<Regex> = LazyLock::new(|| regex(r#"(?:\b|\\n)kind\\*["']?\s*:\s*\\*["']?Secret\b"#));
/// What Secrets keep their values in.
const SECRET_FIELDS: [&str; 2] = ["data", "stringData"];
/// The same in a text; of other objects beside them too.
static SECRET_DATA: LazyLock<Regex> = LazyLock::new(|| {
    let fields = SECRET_FIELDS.join("|");
    regex(&format!(r#"(?P<opens>\\*["'])?(?P<name>(?:\b|\\n)(?:{fields}))(?P<closes>\\*["'])?[ \t]*:[ \t]*"#))
});

/// A rule: what to look for, and whether the first group stays; one of the name `end` does in any case.
struct Rule {
    pattern: Regex,
    keeps_first: bool,
}

fn rules(all: &[(bool, &str)]) -> Vec<Rule> {
    all.iter()
        .map(|(keeps_first, pattern)| Rule { pattern: regex(pattern), keeps_first: *keeps_first })
        .collect()
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a fixed pattern")
}

/// The text without what looks like a secret. Whoever cuts a text cuts it behind this: a secret whose name was cut off is
/// not found.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for rule in BLOCKS.iter().chain(ELEMENTS.iter()) {
        apply(&mut clean, |text| by_form(text, rule));
    }
    if SECRET.is_match(&clean) {
        apply(&mut clean, |text| by_name(text, &SECRET_DATA));
    }
    for pattern in NAMED.iter() {
        apply(&mut clean, |text| by_name(text, pattern));
    }
    for rule in FORMS.iter() {
        apply(&mut clean, |text| by_form(text, rule));
    }
    clean
}

fn apply(text: &mut Cow<'_, str>, change: impl FnOnce(&str) -> Option<String>) {
    if let Some(changed) = change(text) {
        *text = Cow::Owned(changed);
    }
}

fn by_form(text: &str, rule: &Rule) -> Option<String> {
    let replace = |found: &Captures<'_>| {
        let kept = if rule.keeps_first { found.get(1).map_or("", |it| it.as_str()) } else { "" };
        let value = &found[0][kept.len()..];
        let end = found.name("end").map_or("", |it| it.as_str());
        if is_taken_out(value) { found[0].to_owned() } else { format!("{kept}{MARK}{end}") }
    };
    match rule.pattern.replace_all(text, replace) {
        Cow::Owned(changed) => Some(changed),
        Cow::Borrowed(_) => None,
    }
}

/// Puts the mark in the place of each value that has such a name.
fn by_name(text: &str, pattern: &Regex) -> Option<String> {
    let mut clean = String::new();
    let (mut kept, mut from) = (0, 0);
    while let Some(found) = pattern.captures_at(text, from) {
        let begin = found.get(0).map_or(text.len(), |it| it.end());
        let name = found.name("opens").or(found.name("name")).map_or(begin, |it| it.start());
        // The end of a line, where that is two characters.
        let name = if text[name..].starts_with("\\n") { name + 2 } else { name };
        let closes = found.name("closes").map_or("", |it| it.as_str());
        let is_quoted = found.name("opens").is_some() && !closes.is_empty();
        let place = Place { name, begin, is_quoted, is_header: found.name("header").is_some() };
        let whole = found.name("name").map_or("", |it| it.as_str());
        let separator = &text[found.name("name").map_or(begin, |it| it.end())..begin];
        let end = match () {
            () if is_taken_out(&text[begin..]) => begin + MARK.len(),
            () if is_prose(text, whole, separator, &place) || is_next_option(separator, &text[begin..]) => {
                begin
            }
            () => end_of_value(text, &place),
        };
        if end > begin && !is_taken_out(&text[begin..end]) && !is_switch(&text[begin..end]) {
            let quote = quote(closes, &text[begin..end]);
            clean.push_str(&text[kept..begin]);
            clean.extend([quote, MARK, quote]);
            kept = end;
        }
        // What matched is never empty.
        from = end.max(begin);
    }
    (kept > 0).then(|| {
        clean.push_str(&text[kept..]);
        clean
    })
}

/// Whether somebody tells what happened to a key, as in "parse private key: EOF": there only `=` makes it a name.
fn is_prose(text: &str, name: &str, separator: &str, place: &Place) -> bool {
    let may_be = name.contains(' ') || name.trim_start_matches("\\n").eq_ignore_ascii_case("tls.key");
    may_be && !separator.contains('=') && !is_name(text, place)
}

/// Behind an option without a value there is another one.
fn is_next_option(separator: &str, value: &str) -> bool {
    separator.trim().is_empty() && value.starts_with('-')
}

/// That something is on or off is no secret.
fn is_switch(value: &str) -> bool {
    let word = value.trim_matches(|c: char| "\\\"',;".contains(c));
    ["true", "false"].iter().any(|switch| word.eq_ignore_ascii_case(switch))
}

/// Whether this is the mark already, and no secret that begins like it.
fn is_taken_out(value: &str) -> bool {
    let behind = value.strip_prefix(MARK).map(|rest| rest.chars().next());
    behind.is_some_and(|next| next.is_none_or(|next| next.is_whitespace() || r#""'\,}])<"#.contains(next)))
}

/// What was quoted stays quoted, and what had a quoted name is quoted now, so that JSON stays JSON.
fn quote<'a>(closes: &'a str, value: &'a str) -> &'a str {
    let first = value.find(|c| c != '\\').unwrap_or(0);
    if value[first..].starts_with(['"', '\'']) { &value[..=first] } else { closes }
}

/// A document whose texts are without what looks like a secret. To be done before it becomes text itself: a secret on a
/// line of its own is one behind `\n` then.
pub fn redact_texts(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(text).into_owned()),
        Value::Array(all) => all.iter().map(redact_texts).collect(),
        Value::Object(map) => {
            let is_secret = map.get("kind").is_some_and(|kind| kind == "Secret");
            let clean = |key: &str, value| match is_secret && SECRET_FIELDS.contains(&key) {
                true => Value::String(MARK.to_owned()),
                false => redact_texts(value),
            };
            map.iter().map(|(key, value)| (key.clone(), clean(key, value))).collect()
        }
        other => other.clone(),
    }
}

/// A document in which every text is taken out and the rest stays: keys, numbers, what is switched on.
pub fn without_texts(value: &Value) -> Value {
    match value {
        Value::String(_) => Value::String(MARK.to_owned()),
        Value::Array(all) => all.iter().map(without_texts).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), without_texts(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
