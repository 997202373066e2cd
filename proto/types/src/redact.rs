//! Takes secrets out of texts that leave the machine: private keys, tokens, passwords, in whatever they stand.
//!
//! Called for every part of a support bundle, by who collects it and again by who writes it. It goes by form and by the
//! names that people give secrets, and rather takes too much: what it cannot know by either, as the values of plugins'
//! configuration, is left out by who collects it.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in a secret's place.
pub const MARK: &str = "(redacted)";

/// Names of secrets, as parts of longer names.
const NAMES: &str = "pass(?:word|wd|phrase)|secret|token|api[_-]?key|private[_-]?key|key[_-]?data|\
                     certificate[_-]?key|credential";

/// What stands behind such a name: in quotes, in quotes that are themselves in quotes, in quotes that do not end, a list,
/// a table, or a word.
const VALUE: &str = r#"(?:"(?:[^"\\\n]|\\.)*"|\\"(?:[^"\\\n]|\\\\(?:\\.|[^\\])|\\[^"\\])*\\"|'[^'\n]*'|\\*["'][^\n]*|\[[^\]]*\]|\[[^\n]*|\{[^{}]*\}|[^\s,;}\]&]+)"#;

/// A rule: what to look for, and whether the first group stays.
struct Rule {
    pattern: Regex,
    keeps_first: bool,
}

static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let rules = [
        // A key that is cut short is one all the same.
        (
            false,
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)"
                .to_owned(),
        ),
        (false, r"(?:[A-Za-z0-9+/=]{20,}\s+)*-----END [A-Z0-9 ]*PRIVATE KEY-----".to_owned()),
        // The same in base64, as kubeconfigs have it.
        (false, r"LS0tLS1CRUdJTi[A-Za-z0-9+/=]+".to_owned()),
        (true, r#"(?i)((?:authorization|cookie)\\?["']?[ \t]*[:=][ \t]*\\?["']?)[^\n"'\\]+"#.to_owned()),
        (true, r"(?i)\b((?:bearer|basic)[ \t]+)[A-Za-z0-9._~+/=-]{16,}".to_owned()),
        (false, r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*".to_owned()),
        // kubeadm's tokens.
        (false, r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b".to_owned()),
        (true, r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^\s/@]+@".to_owned()),
        // As kubeadm prints it.
        (true, r"(?i)(certificate key:(?:\s|\\n)*)[0-9a-f]{32,}".to_owned()),
        // An element of XML.
        (true, format!(r"(?i)(<[\w:.-]*(?:{NAMES})[\w:.-]*(?:[ \t][^<>\n]*[^<>/\n])?>)[^<\s][^<\n]*")),
        // A block of YAML.
        (
            true,
            format!(
                r"(?im)^([ \t-]*[\w.-]*(?:{NAMES})[\w.-]*[ \t]*:[ \t]*[|>][+-]?[ \t]*\n)(?:[ \t]+[^\n]*\n?)+"
            ),
        ),
        (true, format!(r#"(?i)(\\?["']?[\w.-]*(?:{NAMES})[\w.-]*\\?["']?[ \t]*[:=][ \t]*){VALUE}"#)),
        (true, format!(r"(?i)(--?[\w-]*(?:{NAMES})[\w-]*[ \t]+){VALUE}")),
    ];
    rules.map(|(keeps_first, pattern)| rule(keeps_first, &pattern)).into()
});

fn rule(keeps_first: bool, pattern: &str) -> Rule {
    Rule { pattern: Regex::new(pattern).expect("a fixed pattern"), keeps_first }
}

/// The text without what looks like a secret. Whoever cuts a text cuts it behind this: a secret whose name was cut off is
/// not found.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut clean = Cow::Borrowed(text);
    for Rule { pattern, keeps_first } in RULES.iter() {
        let replace = |found: &Captures<'_>| {
            let kept = if *keeps_first { found.get(1).map_or("", |it| it.as_str()) } else { "" };
            let value = &found[0][kept.len()..];
            // Where it is taken out already; what ends the text around it stays then.
            if value.starts_with(MARK) {
                return found[0].to_owned();
            }
            let quote = quote(kept, value);
            format!("{kept}{quote}{MARK}{quote}")
        };
        let changed = match pattern.replace_all(&clean, replace) {
            Cow::Owned(changed) => Some(changed),
            Cow::Borrowed(_) => None,
        };
        if let Some(changed) = changed {
            clean = Cow::Owned(changed);
        }
    }
    clean
}

/// What was quoted stays quoted, and what had a quoted name is quoted now, so that JSON stays JSON.
fn quote<'a>(name: &'a str, value: &'a str) -> &'a str {
    let first = value.find(|c| c != '\\').unwrap_or(0);
    if value[first..].starts_with(['"', '\'']) {
        return &value[..=first];
    }
    let name = name.trim_end_matches([' ', '\t', ':', '=']);
    ["\\\"", "\""].into_iter().find(|quote| name.ends_with(quote)).unwrap_or("")
}

/// A document whose texts are without what looks like a secret. To be done before it becomes text itself: a secret on a
/// line of its own is one behind `\n` then.
pub fn redact_texts(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(redact(text).into_owned()),
        Value::Array(all) => all.iter().map(redact_texts).collect(),
        Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), redact_texts(value))).collect(),
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CANARY: &str = "kanarienvogel0123456789";

    #[test]
    fn no_canary_gets_through_in_whatever_it_stands() {
        let texts = [
            format!("-----BEGIN EC PRIVATE KEY-----\n{CANARY}\n-----END EC PRIVATE KEY-----\n"),
            format!("-----BEGIN PRIVATE KEY-----\\n{CANARY}\\n"),
            format!("    client-key-data: {CANARY}\n"),
            format!("users:\n- user:\n    token: {CANARY}\n"),
            format!(r#"{{"password": "{CANARY}", "a": 1}}"#),
            format!(r#"{{"password": "with \" in it {CANARY}"}}"#),
            format!(r#"{{"line": "{{\"adminToken\":\"{CANARY}\"}}"}}"#),
            format!("admin_password = '{CANARY} and more'"),
            format!("DB_PASSWORD={CANARY}"),
            format!("kubeadm join --token {CANARY} --x"),
            format!("kubeadm init --certificate-key={CANARY}"),
            format!("GET https://x/?access_token={CANARY}&a=b"),
            format!("http_proxy=http://user:{CANARY}@proxy:3128/"),
            format!("https://{CANARY}@github.com/x"),
            format!("Authorization: Bearer {CANARY}"),
            format!("sent bearer {CANARY}"),
            format!("eyJhbGciOiJIUzI1NiJ9.{CANARY}.sig{CANARY}"),
            format!("LS0tLS1CRUdJTi{CANARY}"),
            format!("Authorization: Basic {CANARY}"),
            format!("tokens = [\"a\", \"{CANARY}\"]"),
            format!("{{\"secrets\": [\n  \"a\",\n  \"{CANARY}\"\n]}}"),
            format!("secret: {{a: b, c: {CANARY}}}"),
            format!("  adminPassword: |\n    {CANARY}\n    {CANARY}\n"),
            format!("password: \"not ended {CANARY}\nnext"),
            format!("{}{CANARY}\n-----END RSA PRIVATE KEY-----", "A".repeat(40)),
            format!("<graphics><password>{CANARY}</password></graphics>"),
            format!("<auth-token kind='a'>{CANARY}</auth-token>"),
        ];
        for text in texts {
            let clean = redact(&text);
            assert!(!clean.contains(CANARY) && clean.contains(MARK), "{text}\n{clean}");
        }
        assert!(!redact("token abcdef.0123456789abcdef").contains("0123456789abcdef"));
        let key = "0123456789abcdef".repeat(4);
        assert!(!redact(&format!("[upload-certs] Using certificate key:\n{key}\n")).contains(&key));
    }

    #[test]
    fn what_is_no_secret_stays() {
        let texts = [
            "2026-11-24T04:11:50Z node k8s-worker-1: kubeadm: exit status 1",
            "https://registry.k8s.io/v2/pause:3.9",
            "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----",
            "<mac address='52:54:00:00:00:01'/>",
            "<secret type='ceph' usage='pool'/>\n<a>b</a>",
        ];
        for text in texts {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn json_stays_json() {
        let text = serde_json::json!({
            "a": [{"password": CANARY}, {"inner": format!("{{\"token\":\"{CANARY}\"}}")}],
            "secret": "with \"quotes\" and \\ in it",
            "n": 1,
        });
        let clean = redact(&text.to_string()).into_owned();
        let read: Value = serde_json::from_str(&clean).unwrap_or_else(|error| panic!("{error}: {clean}"));
        assert!(!clean.contains(CANARY), "{clean}");
        assert_eq!(
            (&read["n"], &read["a"][0]["password"]),
            (&serde_json::json!(1), &serde_json::json!(MARK))
        );
    }

    #[test]
    fn a_document_can_be_gone_through_again() {
        let document = serde_json::json!({ "evidence": format!("token: {CANARY}"), "n": 1 });
        let clean = format!("{:#}", redact_texts(&document));
        assert_eq!(redact(&clean), clean);
    }

    #[test]
    fn in_a_document_lines_are_lines() {
        let output = format!("values:\n  adminPassword: |\n    {CANARY}\nend\n");
        let clean = redact_texts(&serde_json::json!({ "evidence": [output], "n": 1 }));
        assert!(!clean.to_string().contains(CANARY), "{clean}");
        assert!(clean["evidence"][0].as_str().is_some_and(|text| text.ends_with("end\n")), "{clean}");
        assert_eq!(clean["n"], 1);
    }

    #[test]
    fn of_a_document_without_texts_the_shape_stays() {
        let config =
            serde_json::json!({"motd": CANARY, "list": [CANARY, 2], "on": true, "deep": {"x": CANARY}});
        let clean = without_texts(&config);
        assert!(!clean.to_string().contains(CANARY));
        assert_eq!((&clean["on"], &clean["list"][1]), (&serde_json::json!(true), &serde_json::json!(2)));
    }

    proptest! {
        #[test]
        fn a_canary_behind_a_secrets_name_never_gets_through(
            before in "[ -~\n]{0,40}",
            prefix in "[a-zA-Z_]{0,8}",
            name in "(password|secret|token|apiKey|private-key)",
            between in "( = |: |=|\":\"|: ')",
            after in "[ -~\n]{0,40}",
        ) {
            let text = format!("{before}\n{prefix}{name}{between}{CANARY}{after}");
            prop_assert!(!redact(&text).contains(CANARY), "{}", redact(&text));
        }
    }
}
