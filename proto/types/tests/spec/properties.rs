//! Whatever the text: no panic, and every diagnostic points at the line that it is about.

use k8sctl_types::spec;
use proptest::prelude::*;

use crate::{HOME, assert_points_home, diagnostics};

/// One small accident of an editor.
#[derive(Clone, Debug)]
enum Edit {
    Insert(usize, String),
    Remove(usize, usize),
    DropLine(usize),
    RepeatLine(usize),
    SwapLines(usize, usize),
    Uncomment(usize),
    Value(usize, String),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = 0..HOME.len();
    let line = 0..HOME.lines().count();
    let text = prop_oneof!["[\\PC\n\"'\\[\\]{}=.,#]{1,4}", "[a-z0-9]{1,3}", Just("\"\"\"".to_owned())];
    let value = prop_oneof![
        Just("\"\"".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("\"0.0.0.0/0\"".to_owned()),
        Just("\"255.255.255.255\"".to_owned()),
        Just("\"192.168.122.11\"".to_owned()),
        Just("\"192.168.122.1-255.255.255.255\"".to_owned()),
        Just("\"18446744073709551615TiB\"".to_owned()),
        Just("1000".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        "\"[a-z0-9./:=-]{0,20}\"",
    ];
    prop_oneof![
        (place.clone(), text).prop_map(|(at, text)| Edit::Insert(at, text)),
        (place, 1_usize..20).prop_map(|(at, length)| Edit::Remove(at, length)),
        line.clone().prop_map(Edit::DropLine),
        line.clone().prop_map(Edit::RepeatLine),
        (line.clone(), line.clone()).prop_map(|(a, b)| Edit::SwapLines(a, b)),
        line.clone().prop_map(Edit::Uncomment),
        (line, value).prop_map(|(line, value)| Edit::Value(line, value)),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let boundary =
        |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = lines.len().max(1);
    match edit {
        Edit::Insert(at, what) => {
            let at = boundary(*at);
            return format!("{}{what}{}", &text[..at], &text[at..]);
        }
        Edit::Remove(at, length) => {
            let (start, end) = (boundary(*at), boundary(at + length));
            return format!("{}{}", &text[..start], &text[end..]);
        }
        _ if lines.is_empty() => {}
        Edit::DropLine(line) => drop(lines.remove(line % count)),
        Edit::RepeatLine(line) => lines.insert(line % count, lines[line % count].clone()),
        Edit::SwapLines(a, b) => lines.swap(a % count, b % count),
        Edit::Uncomment(line) => {
            let line = &mut lines[line % count];
            *line = line.trim_start_matches("# ").to_owned();
        }
        Edit::Value(line, value) => {
            let line = &mut lines[line % count];
            if let Some((key, _)) = line.split_once('=') {
                *line = format!("{key}= {value}");
            }
        }
    }
    lines.join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "(?s).{0,200}") {
        if let Err(found) = spec::parse(&text) {
            prop_assert!(found.iter().any(|diagnostic| !diagnostic.warning));
        }
    }

    #[test]
    fn toml_like_text_is_survived(text in "([a-z]{1,3}|[\\[\\]{}=.,\"'#\n 0-9-]|name|node|network|\\[\\[node\\]\\]\n){0,60}") {
        let _ = spec::parse(&text);
    }

    #[test]
    fn an_edited_home_is_judged_where_it_was_edited(edits in prop::collection::vec(edit(), 1..6)) {
        let text = edits.iter().fold(HOME.to_owned(), |text, edit| apply(&text, edit));
        let result = spec::parse(&text);
        if let Err(found) = &result {
            prop_assert!(found.iter().any(|diagnostic| !diagnostic.warning));
            prop_assert!(found.is_sorted_by_key(|diagnostic| (diagnostic.line, diagnostic.column)));
        }
        for diagnostic in diagnostics(&text) {
            assert_points_home(&text, &diagnostic);
        }
        if let Ok(parsed) = result {
            let spec = parsed.spec;
            prop_assert!(spec.nodes.iter().all(|node| spec.network.cidr.contains(&node.ip)));
            prop_assert!(spec.nodes.is_sorted_by_key(|node| node.role));
            let json = serde_json::to_string(&spec).expect("a spec is JSON");
            prop_assert_eq!(serde_json::from_str::<spec::ClusterSpec>(&json).expect("and back"), spec);
        }
    }
}

#[test]
fn deep_nesting_is_survived() {
    let deep = format!("name = \"home\"\n[plugins.hello]\nx = {}1{}\n", "[".repeat(60), "]".repeat(60));
    assert!(diagnostics(&deep).iter().any(|found| found.id == "SPEC-PLUGIN-VALUE"));
    for text in ["[".repeat(100_000), "a.".repeat(100_000), format!("x = {}", "{a=".repeat(100_000))] {
        assert!(spec::parse(&text).is_err());
    }
}
