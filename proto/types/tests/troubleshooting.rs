//! `docs/troubleshooting.md` has every error id that the code can print, and none that it cannot.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// First words of ids. `SPEC-` has a page and a test of its own.
const KINDS: [&str; 15] = [
    "AUTH",
    "BUNDLE",
    "CLUSTER",
    "HOST",
    "IMAGE",
    "JOIN",
    "KUBEADM",
    "KUBERNETES",
    "LIBVIRT",
    "NODE",
    "OPERATION",
    "PLAN",
    "PLUGIN",
    "VM",
    "PKI",
];
/// Folders with programs; tests beside them speak of ids that are not printed.
const FOLDERS: [&str; 6] =
    ["host-agent", "node-agent", "ctl/src", "proto/rpc/src", "proto/types/src", "proto/command/src"];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if entry.is_dir() {
            if !entry.ends_with("tests") && !entry.ends_with("examples") {
                sources(&entry, found);
            }
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

fn is_id(text: &str) -> bool {
    let mut words = text.split('-');
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_uppercase());
    words.next().is_some_and(|kind| KINDS.contains(&kind)) && text.contains('-') && words.all(is_word)
}

/// All code but its tests.
fn code(root: &Path) -> String {
    let mut files = Vec::new();
    for folder in FOLDERS {
        sources(&root.join(folder), &mut files);
    }
    let read = |file: &PathBuf| fs::read_to_string(file).expect("a source file");
    let code = |text: String| text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
    files.iter().map(read).map(code).collect::<Vec<_>>().join("\n")
}

fn ids_in_page(root: &Path) -> BTreeSet<String> {
    let page = fs::read_to_string(root.join("docs/troubleshooting.md")).expect("the page");
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|line| line.split('|').next());
    rows.flat_map(|cell| cell.split(',')).map(|id| id.trim().to_owned()).filter(|id| is_id(id)).collect()
}

#[test]
fn every_id_has_its_row_and_every_row_its_id() {
    // Not the directory at build time: clones share cargo's target directory.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs tests");
    let root = Path::new(&here).join("../..");
    let (code, page) = (code(&root), ids_in_page(&root));
    // Literals that are ids and nothing else.
    let ids: BTreeSet<String> = code.split('"').filter(|part| is_id(part)).map(str::to_owned).collect();
    assert!(ids.len() > 80, "the search finds ids: {ids:?}");
    let missing: Vec<_> = ids.difference(&page).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md lacks {missing:?}");
    let stale: Vec<_> = page.iter().filter(|id| !code.contains(id.as_str())).collect();
    assert!(stale.is_empty(), "docs/troubleshooting.md has ids that nothing prints: {stale:?}");
}
