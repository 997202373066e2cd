//! `docs/configuration.md` documents exactly the keys and ids that the code has.

use std::collections::BTreeSet;

use k8sctl_types::spec::{IDS, KEYS};

use crate::diagnostics;

const DOCS: &str = include_str!("../../../../docs/configuration.md");

/// Ids of a cluster file that are given out by who reads it and by who knows the cluster.
const FROM_ELSEWHERE: [(&str, &str); 2] = [
    ("SPEC-FIXED", "something that cannot change while the cluster lives; told by the host agent"),
    ("SPEC-UNREADABLE", "the file is not there, is a directory, or is no text"),
];

/// Table rows whose first cell is code, as they stand in the page.
fn rows(columns: usize) -> BTreeSet<&'static str> {
    DOCS.lines().filter(|line| line.starts_with("| `") && line.matches(" |").count() == columns).collect()
}

#[test]
fn every_key_has_its_row_and_every_row_its_key() {
    let expected: Vec<_> = KEYS
        .iter()
        .map(|key| format!("| `{}` | {} | {} | {} |", key.path(), key.kind, key.default, key.limits))
        .collect();
    let expected: BTreeSet<_> = expected.iter().map(String::as_str).collect();
    let documented: BTreeSet<_> = rows(4).into_iter().collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_id_has_its_row_and_every_row_its_id() {
    let all = IDS.iter().chain(&FROM_ELSEWHERE);
    let expected: Vec<_> = all.map(|(id, meaning)| format!("| `{id}` | {meaning} |")).collect();
    let expected: BTreeSet<_> = expected.iter().map(String::as_str).collect();
    assert_eq!(rows(2), expected);
}

#[test]
fn every_key_of_the_table_is_read() {
    // A value of a type that no key has is refused by whoever reads the key.
    for key in KEYS.iter().filter(|key| key.section != "plugins") {
        let text = match key.section {
            "" => format!("{} = 1979-05-27\n", key.name),
            "node" | "worker_pool" => format!("[[{}]]\n{} = 1979-05-27\n", key.section, key.name),
            section => format!("[{section}]\n{} = 1979-05-27\n", key.name),
        };
        let found = diagnostics(&text);
        assert!(
            found.iter().any(|d| d.id == "SPEC-TYPE" && d.field.ends_with(key.name)),
            "{} is not read: {found:#?}",
            key.path()
        );
    }
}

#[test]
fn the_pages_examples_parse() {
    let shortest = DOCS.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(diagnostics(shortest.expect("the page has an example")), []);
}

#[test]
fn the_list_of_ids_is_sorted_and_has_none_twice() {
    assert!(IDS.is_sorted_by(|a, b| a.0 < b.0));
}
