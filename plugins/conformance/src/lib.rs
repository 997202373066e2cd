//! What every k8sctl plugin must do, tried on its package with real processes in the real sandbox, offline: the checks of
//! `k8sctl plugin test`, and of the tree's own plugins in CI. Changes nothing and knows no cluster.
//!
//! - [`run`]: all checks, one after the other; each gives a [`CheckResult`]; [`run_some`]: a few of them
//! - [`Subject`]: a package, and fixtures of its source folder
//! - `checks`: a file per family; `generate`: configs from a schema
//! - [`junit()`]: the results for a CI system
//!
//! A check that fails names what was wrong, and where. None of them stops the others.

mod checks;
mod context;
mod generate;
mod junit;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plugin_package::Package;
use serde::Serialize;
use serde_json::Value;

pub use junit::junit;

use checks::CHECKS;
use context::Context;

/// Lines of a check that are kept.
const DETAILS: usize = 20;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Subject {
    /// The package.
    pub package: Package,
    /// Configs that it takes, of `tests/valid`; none: `{}` is one.
    pub valid: Vec<Value>,
    /// Configs that it refuses, of `tests/invalid`, and the JSON pointer of what is wrong with each.
    pub invalid: Vec<(Value, String)>,
}

impl Subject {
    /// With the fixtures of a source folder: `tests/valid/*.json` are configs, `tests/invalid/*.json` have `config` and
    /// `path`. The error names the file.
    pub fn read(package: Package, source: &Path) -> Result<Self, String> {
        let mut subject = Self { package, valid: Vec::new(), invalid: Vec::new() };
        for (_, config) in fixtures(&source.join("tests/valid"))? {
            subject.valid.push(config);
        }
        for (file, fixture) in fixtures(&source.join("tests/invalid"))? {
            let path = fixture.get("path").and_then(Value::as_str);
            let (Some(config), Some(path)) = (fixture.get("config"), path) else {
                let expected = "expected {\"config\": …, \"path\": \"/pointer/of/what/is/wrong\"}";
                return Err(format!("{}: {expected}", file.display()));
            };
            subject.invalid.push((config.clone(), path.to_owned()));
        }
        Ok(subject)
    }
}

/// Every JSON file of a folder, by name; none without the folder.
fn fixtures(folder: &Path) -> Result<Vec<(PathBuf, Value)>, String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    let read = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        Ok((file, value))
    };
    files.into_iter().map(read).collect()
}

/// How hard it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Fresh processes that plan the same.
    pub plans: u32,
    /// Configs that one process is shown.
    pub configs: u32,
    /// What these configs are.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self { plans: 200, configs: 12_000, seed: 1 }
    }
}

/// What came of a check.
#[derive(Clone, Debug, Serialize)]
pub struct CheckResult {
    /// 1 and up; stable.
    pub number: u8,
    /// `determinism`; stable.
    pub name: &'static str,
    /// Nothing was wrong.
    pub passed: bool,
    /// What was; at most a screenful.
    pub details: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs all checks; `tell` hears of each when it is done.
pub async fn run(
    subject: &Subject,
    effort: &Effort,
    tell: &mut (dyn FnMut(&CheckResult) + Send),
) -> Vec<CheckResult> {
    run_some(subject, effort, |_| true, tell).await
}

/// Runs those whose names are wanted.
pub async fn run_some(
    subject: &Subject,
    effort: &Effort,
    is_wanted: impl Fn(&str) -> bool + Send,
    tell: &mut (dyn FnMut(&CheckResult) + Send),
) -> Vec<CheckResult> {
    let context = Context::new(subject, *effort).await;
    let mut results = Vec::new();
    for (place, &(name, check)) in CHECKS.iter().enumerate().filter(|(_, (name, _))| is_wanted(name)) {
        let began = Instant::now();
        let mut details = check(&context).await;
        let passed = details.is_empty();
        if details.len() > DETAILS {
            let more = details.len() - DETAILS;
            details.truncate(DETAILS);
            details.push(format!("and {more} more"));
        }
        let number = u8::try_from(place + 1).unwrap_or(u8::MAX);
        let result = CheckResult { number, name, passed, details, took: began.elapsed() };
        tell(&result);
        results.push(result);
    }
    results
}

/// Names of all checks, in the order in which they run.
pub fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name)
}
