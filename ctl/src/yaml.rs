//! YAML for everybody who reads it. kubectl and PyYAML read YAML 1.1, in which `no`, `1_000`, `1:20` and `=` are no
//! texts: as such they are written in quotes.

use serde::Serialize;
use serde_saphyr::{SerializeError, ser_options, to_string_with_options};

/// A document. A text of many lines, or a long one, stays on the line of its key.
pub fn to_string(value: &impl Serialize) -> Result<String, SerializeError> {
    to_string_with_options(value, ser_options! { prefer_block_scalars: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_no_text_is_quoted() {
        for text in [
            "",
            " ",
            "~",
            "null",
            "Null",
            "true",
            "TRUE",
            "no",
            "No",
            "on",
            "OFF",
            "y",
            "N",
            "yes",
            "=",
            "<<",
            "12",
            "-1",
            "+1",
            "0755",
            "0o7",
            "0x1f",
            "0b1",
            "1_000",
            "_1",
            "1e3",
            "1.5",
            ".5",
            ".inf",
            "-.Inf",
            ".nan",
            "1:20",
            "190:20:30.15",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "2026-1-1 1:2:3",
            "- a",
            "-",
            "? a",
            "a: b",
            "a:",
            "a #b",
            "#a",
            "[a",
            "{a",
            "*a",
            "&a",
            "!a",
            "|",
            ">",
            "%a",
            "@a",
            "`a",
            "'a",
            "\"a",
            " a",
            "a ",
            "---",
            "...",
            "a\nb",
            "a\tb",
            "a\u{2028}b",
            "a\u{85}b",
            "a\u{7f}b",
            "\u{feff}a",
        ] {
            let written = to_string(&serde_json::json!({ "key": text, "list": [text] })).expect("YAML");
            let quoted = |before: &str| {
                let line = written.lines().find_map(|line| line.strip_prefix(before)).unwrap_or_default();
                line.len() > 1 && ['"', '\''].iter().any(|q| line.starts_with(*q) && line.ends_with(*q))
            };
            assert!(quoted("key: ") && quoted("- "), "{text:?}: {written}");
            assert!(!written.contains(|c: char| c != '\n' && (c.is_control() || c > '~')), "{written:?}");
            let read: serde_json::Value = serde_yaml_ng::from_str(&written).expect("YAML");
            assert_eq!(read["key"], text, "{written}");
        }
        let keys = serde_json::json!({ "no": 1, "1_000": 2, "a b": { "=": [] }, "y": {} });
        let expected = "\"1_000\": 2\na b:\n  \"=\": []\n\"no\": 1\n\"y\": {}\n";
        assert_eq!(to_string(&keys).expect("YAML"), expected);
    }

    #[test]
    fn other_texts_and_values_are_plain() {
        let value = serde_json::json!({
            "long": "Q0VSVA".repeat(40),
            "none": null,
            "numbers": [1, -2, 1.5, true],
            "words": ["k8s-myhome-home", "v1.29.0", "https://192.168.122.10:6443", "a b", "nothing"],
        });
        let expected = format!(
            "long: {}\nnone: null\nnumbers:\n- 1\n- -2\n- 1.5\n- true\nwords:\n- k8s-myhome-home\n- v1.29.0\n\
             - https://192.168.122.10:6443\n- a b\n- nothing\n",
            "Q0VSVA".repeat(40)
        );
        assert_eq!(to_string(&value).expect("YAML"), expected);
    }
}
