//! Bytes of a manifest as objects: a stream of YAML documents as kubectl reads it, with the numbers and booleans of YAML
//! 1.1, or JSON. What grows while it is read is refused: aliases, deep nesting, more parts than any real manifest has.

use serde_json::Value;

use crate::limits::{ALL_OBJECT_BYTES, DEPTH, REMOTE_EVENTS};

/// Documents of a YAML stream or of JSON, empty ones left out. The error is a reason.
pub fn documents(body: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(body).map_err(|error| format!("it is no text: {error}"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // JSON is nearly all YAML: not its escapes.
    if text.trim_start().starts_with('{')
        && let Ok(documents) =
            serde_json::Deserializer::from_str(text).into_iter::<Value>().collect::<Result<_, _>>()
    {
        return Ok(documents);
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: REMOTE_EVENTS,
            max_nodes: REMOTE_EVENTS,
            max_depth: DEPTH,
            max_documents: crate::limits::OBJECTS,
            // Of one body. How much all of them are together is counted by whoever reads them.
            max_total_scalar_bytes: ALL_OBJECT_BYTES,
            // Each stands for a whole tree: a few make a file that is larger than any memory.
            max_aliases: 0,
        },
        emit_comments: false,
        legacy_octal_numbers: true,
        strict_booleans: false,
        with_snippet: false,
    };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)
        .map_err(|error| first_line(&error.to_string()))?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_are_those_that_kubectl_reads() {
        let text = "---\n# nothing\n---\nkind: A\nmode: 0644\nflag: yes\nquoted: \"yes\"\n---\n\n---\n- 1\n- x: {y: [z]}\n...\n";
        assert_eq!(
            documents(text.as_bytes()).expect("YAML"),
            [
                json!({"kind": "A", "mode": 0o644, "flag": true, "quoted": "yes"}),
                json!([1, {"x": {"y": ["z"]}}])
            ]
        );
        assert_eq!(documents(b"").expect("nothing"), Vec::<Value>::new());
        assert_eq!(documents(b"# nothing\n---\n").expect("nothing"), Vec::<Value>::new());
    }

    #[test]
    fn keys_are_texts_and_lines_are_kept() {
        let text = "data:\n  8080: web\n  script: |\n    #!/bin/sh\n    exit 0\n  folded: >-\n    a\n    b\n";
        let script = "#!/bin/sh\nexit 0\n";
        assert_eq!(
            documents(text.as_bytes()).expect("YAML"),
            [json!({"data": {"8080": "web", "script": script, "folded": "a b"}})]
        );
    }

    #[test]
    fn json_is_read_too() {
        let text = "\u{feff}{\"kind\": \"A\", \"text\": \"\\ud83d\\ude00\\/\"}\n{\"kind\": \"B\"}";
        assert_eq!(
            documents(text.as_bytes()).expect("JSON"),
            [json!({"kind": "A", "text": "\u{1f600}/"}), json!({"kind": "B"})]
        );
    }

    #[test]
    fn what_grows_or_is_none_is_refused() {
        let bomb = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nc: [*b, *b, *b, *b]\n";
        let deep = format!("{}x{}", "[".repeat(150), "]".repeat(150));
        let json = format!("{{\"a\": {}{}}}", "[".repeat(150), "]".repeat(150));
        let many = "---\na: 1\n".repeat(2100);
        for text in [bomb, &deep, &json, &many, "a: [", "a: b: c", "a: 1\na: 2"] {
            let why = documents(text.as_bytes()).expect_err(&text[..text.len().min(40)]);
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
        }
        documents(b"\xff\xfe").expect_err("no text");
    }

    #[test]
    fn each_body_may_have_texts_of_its_own() {
        let text = |bytes: usize| format!("a: {}\n", "x".repeat(bytes));
        for _ in 0..5 {
            let read = documents(text(15 << 20).as_bytes()).expect("YAML");
            assert_eq!(read[0]["a"].as_str().map(str::len), Some(15 << 20));
        }
        let why = documents(text(ALL_OBJECT_BYTES + 1).as_bytes()).expect_err("a text that is too long");
        assert!(!why.is_empty() && why.len() < 1000, "{}", why.len());
    }

    #[test]
    fn includes_read_no_file() {
        if let Ok(documents) = documents(b"a: !include /etc/passwd\n") {
            assert!(!format!("{documents:?}").contains("root:"), "{documents:?}");
        }
    }
}
