//! Digests of the packages that were built with this host agent, as its build took them down (`build.rs`).

use std::collections::BTreeSet;

const TREE: &str = include_str!(concat!(env!("OUT_DIR"), "/tree-plugins"));

pub(super) fn digests() -> BTreeSet<String> {
    TREE.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_lowercase).collect()
}
