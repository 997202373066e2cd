//! `k8sctl dashboard` where people look at it: in a real terminal (tmux) and in a real browser (headless Chromium),
//! against the fake host agent.
//!
//! - `in_tmux`, `in_chromium`: what is to be seen there
//! - `docs`: the pictures of `docs/dashboard.md`, taken there
//! - `tmux`, `chromium`: the terminal and the browser; `ansi`: what a terminal shows as a page
//!
//! Both programs are packages of the same names, which `tests/lab/deps lab` installs: without them the tests fail.

#![allow(clippy::unwrap_used)]

mod ansi;
mod chromium;
mod docs;
#[path = "../fake/mod.rs"]
mod fake;
#[path = "../harness/mod.rs"]
mod harness;
mod in_chromium;
mod in_tmux;
mod tmux;

use std::path::PathBuf;
use std::time::Duration;

/// Longest that something takes which takes a moment, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// The program of the package of this name.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is missing: install the package {name}, or all that tests need: tests/lab/deps lab")
    })
}
