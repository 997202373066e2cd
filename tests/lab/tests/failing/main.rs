//! What goes wrong is told well: a documented exit code, a stable id, the object, the reason and the next step; the
//! evidence stays, and after the cause is gone `k8sctl up` goes on to the end.
//!
//! - `bundles`: bundles and node images that are not what they should be
//! - `host`: libvirt, disks, networks and VMs of others
//! - `nodes`: what goes wrong inside of a VM, and deadlines
//! - `input`: what people type
//!
//! On libvirt's test driver with real node agents whose steps are simulated; only the test of addresses takes the real
//! network driver, and one VM.

mod bundles;
mod host;
mod input;
mod nodes;
mod parts;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab_tests::simulated::{Differences, SimulatedHost};
use lab_tests::{Lab, Printed, phase};
use serde_json::Value;

const MINUTE: Duration = Duration::from_secs(60);

/// A host with an image and a bundle store of its own, and the spec of the cluster of these tests.
struct Stage {
    lab: Lab,
    host: SimulatedHost,
    spec: String,
}

impl Stage {
    fn new(name: &str) -> Result<Self> {
        Self::with(name, Differences::default())
    }

    fn with(name: &str, mut differences: Differences<'_>) -> Result<Self> {
        let lab = Lab::here()?;
        let name = format!("failing-{name}");
        let dir = lab.file(&name);
        for (key, part) in [("image_dir", "images"), ("bundle_dir", "bundles")] {
            if !differences.keys.iter().any(|(differing, _)| *differing == key) {
                differences.keys.push((key, format!("{:?}", dir.join(part))));
            }
        }
        let host = SimulatedHost::with(&lab, &name, differences)?;
        parts::image(&host.file("images"))?;
        let spec = lab.repo("tests/lab/simulated.toml").to_string_lossy().into_owned();
        Ok(Self { lab, host, spec })
    }

    fn up(&mut self) -> Result<Printed> {
        let spec = self.spec.clone();
        self.host.powered_k8sctl(&["up", "-f", &spec, "--yes", "--no-kubeconfig"])
    }

    /// The cause is gone: the same command goes on to the end.
    fn up_succeeds(&mut self) -> Result<()> {
        let printed = self.up()?;
        ensure!(printed.status.success(), "{}\n{}\n{}", printed.status, printed.out, printed.err);
        let status = self.status()?;
        let nodes = status["nodes"].as_array().context("nodes")?;
        ensure!(!nodes.is_empty() && nodes.iter().all(|node| node["phase"] == "Ready"), "{status:#}");
        Ok(())
    }

    fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.host.k8sctl(&["status", "-o", "json"])?)?)
    }

    /// What failed last is kept, in `status` and in `events`.
    fn is_kept(&self, id: &str, said: &str) -> Result<()> {
        let status = self.status()?;
        let failure = &status["last_failure"];
        ensure!(failure["id"] == id && failure.to_string().contains(said), "{said:?}: {failure:#}");
        let shown = self.host.k8sctl(&["status"])?;
        ensure!(shown.contains(id), "{shown}");
        let events = self.host.k8sctl(&["events"])?;
        ensure!(events.contains("OperationFailed") && events.contains(id), "{events}");
        Ok(())
    }
}

/// What a person was told, checked for all that must be there.
fn told(lab: &Lab, printed: &Printed, exit: i32, id: &str, said: &[&str]) -> Result<()> {
    let text = &printed.err;
    phase(&format!("told {id}:\n{}", text.trim_end()));
    ensure!(
        printed.status.code() == Some(exit),
        "{}, expected {exit}:\n{}\n{text}",
        printed.status,
        printed.out
    );
    let head = format!("error {id}: ");
    let line =
        text.lines().find(|line| line.starts_with(&head)).with_context(|| format!("no {head:?}:\n{text}"))?;
    let rest = &line[head.len()..];
    ensure!(
        rest.split_once(": ").is_some_and(|(object, reason)| !object.is_empty() && !reason.is_empty()),
        "{line}"
    );
    let next = text.lines().find_map(|line| line.strip_prefix("next: "));
    ensure!(next.is_some_and(|next| !next.trim().is_empty()), "no next step:\n{text}");
    for words in said {
        ensure!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    is_documented(lab, id)
}

fn is_documented(lab: &Lab, id: &str) -> Result<()> {
    let page: PathBuf = lab.repo("docs/troubleshooting.md");
    let text = std::fs::read_to_string(&page)?;
    let listed = text.lines().filter(|line| line.starts_with('|')).any(|line| {
        let first = line.split('|').nth(1).unwrap_or_default();
        first.split(',').any(|cell| cell.trim().trim_matches('`') == id)
    });
    ensure!(listed, "{id} is not in {}", page.display());
    Ok(())
}
