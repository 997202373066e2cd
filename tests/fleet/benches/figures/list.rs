//! How long `k8sctl plugin list` is as a whole process, on a host with many plugins: no program of theirs is started for it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bench_figures::{Figure, median};
use fleet_tests::host::{Host, Programs};
use fleet_tests::k8sctl;
use node_agent::config::SimulatedLog;
use plugin_package::{PLATFORM, Parts, assemble};
use serde_json::{Value, json};

/// Plugins in the host's plugin path.
const PLUGINS: usize = 50;
/// Runs of the command.
const RUNS: usize = 20;
const MINUTE: Duration = Duration::from_secs(60);
/// Each of them is one that nobody need vouch for to list it.
const LIST: [&str; 3] = ["plugin", "list", "--all"];

pub(super) fn bench(programs: &Programs, figures: &mut Vec<Figure>) -> Result<()> {
    let log = SimulatedLog { before: 10, pause: Duration::from_secs(1), bytes: 0 };
    let (host, _fleet, _cluster) = super::small(programs, &[log; 2])?;
    for number in 0..PLUGINS {
        package(&host.file("plugins"), &format!("service-{number}"))?;
    }
    let listed: Value = serde_json::from_str(&k8sctl::run(&host, &[&LIST[..], &["-o", "json"]].concat())?)?;
    let count = listed.as_array().context("a list")?.len();
    ensure!(count == PLUGINS, "{count} plugins are listed, expected {PLUGINS}");
    figures.push(Figure {
        name: "plugin-list-50",
        value: time(&host, &LIST)?,
        unit: "ms",
        baseline: Some(time(&host, &["version", "--client"])?),
    });
    Ok(())
}

/// Median of its runs, in milliseconds.
fn time(host: &Host, args: &[&str]) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..RUNS {
        times.push(k8sctl::time(host, args, MINUTE)?.as_secs_f64() * 1_000.0);
    }
    Ok(median(&mut times))
}

/// A package with what a small service asks for. Its program is none: starting it would fail.
fn package(path: &Path, name: &str) -> Result<()> {
    let source = tempfile::tempdir()?;
    let permission = |kind: &str, group: &str| {
        format!(
            "[[permission]]\ngroup = \"{group}\"\nkind = \"{kind}\"\nnamespaces = [\"{name}\"]\nnames = [\"{name}\"]\n\
             verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n"
        )
    };
    let manifest = format!(
        "format = 1\nname = \"{name}\"\nversion = \"1.0.0\"\nsummary = \"Serves\"\nprotocol = [1]\n\
         [program]\nname = \"nothing\"\n{}{}",
        permission("Deployment", "apps"),
        permission("Service", ""),
    );
    fs::write(source.path().join("plugin.toml"), manifest)?;
    fs::write(source.path().join("objects.yaml"), "{}\n")?;
    let program = source.path().join("target");
    fs::write(&program, "a program")?;
    let schema = json!({"type": "object", "additionalProperties": false});
    let programs = [(PLATFORM.to_owned(), program)];
    assemble(&Parts { source: source.path(), out: &path.join(name), programs: &programs, schema: &schema })?;
    Ok(())
}
