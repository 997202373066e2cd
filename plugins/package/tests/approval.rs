//! What people read before they approve the plugins of this tree, and one that asks for very much. The golden files are
//! written anew with `K8SCTL_GOLDEN=write cargo test`.

use std::fs;
use std::path::{Path, PathBuf};

use plugin_package::Manifest;

fn crate_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

fn approval(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let manifest = Manifest::parse(&text)
        .unwrap_or_else(|mistakes| panic!("{}: {}", file.display(), mistakes.join("\n")));
    let lines = manifest.approval().lines;
    lines.into_iter().map(|line| line + "\n").collect()
}

fn assert_golden(name: &str, file: &Path) {
    let golden = crate_dir().join("tests/approval").join(name).with_extension("txt");
    let lines = approval(file);
    if std::env::var_os("K8SCTL_GOLDEN").is_some_and(|value| value == "write") {
        fs::write(&golden, &lines).expect("written");
    }
    let expected = fs::read_to_string(&golden).unwrap_or_default();
    assert!(lines == expected, "{name} asks for something else than {}:\n{lines}", golden.display());
}

#[test]
fn the_plugins_of_the_tree_ask_for_what_their_projects_need() {
    for name in ["flannel", "local-path-storage", "metallb"] {
        assert_golden(name, &crate_dir().join("..").join(name).join("plugin.toml"));
    }
}

#[test]
fn the_manifest_of_the_page_for_other_languages_is_one() {
    let page = crate_dir().join("../../docs/plugins/protocol.md");
    let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let (_, begin) = text.split_once("```toml\n").expect("the page has one");
    let (manifest, _) = begin.split_once("```").expect("it has an end");
    let manifest = Manifest::parse(manifest).unwrap_or_else(|mistakes| panic!("{}", mistakes.join("\n")));
    assert_eq!(manifest.approval().lines.len(), 2);
}

#[test]
fn what_asks_for_everything_says_so_in_capitals() {
    let file = crate_dir().join("tests/manifests/argo-cd.toml");
    assert_golden("argo-cd", &file);
    let lines = approval(&file);
    for warning in ["EVERYTHING: ", "EVERY SECRET: "] {
        assert!(lines.lines().any(|line| line.starts_with(warning)), "{warning}");
    }
}
