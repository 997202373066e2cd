//! The measured figures of what plugins apply: `make bench BENCH=apply`. Argo CD's manifest, 1.9 MB, onto a real API server
//! without nodes, against kubectl with the same objects on the same server in the same run. The engine also asks beforehand,
//! notes each object, and waits until all is ready, which is played; kubectl does none of that.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_figures::{Figure, Suite, median, pairs};
use common::Installation;
use common::cluster::{Cluster, kubernetes};
use common::kubelet::Kubelet;
use common::plans::{namespace, plan, remote};
use k8sctl_command::Program;
use plugin_plan::CheckedPlan;
use serde_json::{Value, json};

const FILE: &str = "argo-cd-install.yaml";
const OBJECTS: u32 = 59;
const NAMESPACE: &str = "argocd";
/// Longest that one application may take.
const DEADLINE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let ours = std::env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR for benches")?;
    let repo = PathBuf::from(ours).join("../..");
    bench_figures::run(Suite::Plugins, &repo, &(), |_| apply)
}

fn apply(_: &(), figures: &mut Vec<Figure>) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let [first, again] = runtime.block_on(measure())?;
    figures.push(first.figure("plugin-apply"));
    figures.push(again.figure("plugin-apply-again"));
    Ok(())
}

/// What was measured, in milliseconds: ours and kubectl's.
#[derive(Default)]
struct Measured {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Measured {
    fn figure(mut self, name: &'static str) -> Figure {
        Figure { name, value: median(&mut self.ours), unit: "ms", baseline: Some(median(&mut self.theirs)) }
    }
}

async fn measure() -> Result<[Measured; 2]> {
    let files = common::upstream::folder().context("there are no upstream manifests")?;
    let cluster = Cluster::start().await.context("there is no API server to measure against")?;
    let _kubelet = Kubelet::start(&cluster.people);
    let body = std::fs::read(files.join(FILE))?;
    let mut wanted = remote(&format!("https://example.org/{FILE}"), &body, OBJECTS);
    NAMESPACE.clone_into(&mut wanted.namespace);
    let plan = plan("argo-cd").object(namespace(NAMESPACE)).remote(wanted, &body).checked();
    let work = tempfile::tempdir()?;
    let file = work.path().join("objects.json");
    // With the protocols that the old server wants to be said, which upstream leaves out.
    let objects: Vec<&Value> = plan.objects.iter().map(|planned| &planned.object).collect();
    std::fs::write(&file, json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string())?;

    let (mut first, mut again) = (Measured::default(), Measured::default());
    for pair in 1..=pairs()? {
        for measured in [&mut first, &mut again] {
            measured.theirs.push(kubectl(&cluster, &["apply", "--server-side", "-f"], &file).await?);
        }
        kubectl(&cluster, &["delete", "--wait=true", "-f"], &file).await?;
        let ours = engine(&cluster, &plan).await?;
        first.ours.push(ours[0]);
        again.ours.push(ours[1]);
        let last = |times: &[f64]| times.last().copied().unwrap_or_default();
        println!(
            "  pair {pair}: kubectl {:.0} ms and {:.0} ms, ours {:.0} ms and {:.0} ms",
            last(&first.theirs),
            last(&again.theirs),
            ours[0],
            ours[1]
        );
    }
    Ok([first, again])
}

/// Applied and applied again, in milliseconds; and removed.
async fn engine(cluster: &Cluster, plan: &CheckedPlan) -> Result<[f64; 2]> {
    let installation = Installation::new(cluster, "argo-cd");
    let mut times = [0.0; 2];
    for (time, written) in times.iter_mut().zip([plan.objects.len(), 0]) {
        let begun = Instant::now();
        let applied = installation.apply(plan).await?;
        *time = begun.elapsed().as_secs_f64() * 1e3;
        ensure!(applied.written == written, "{} were written, expected {written}", applied.written);
    }
    let kept = installation.engine().remove(false).await?.kept;
    ensure!(kept.is_empty(), "{}", kept.join(", "));
    Ok(times)
}

/// Whole process, without what it keeps of earlier ones, in milliseconds.
async fn kubectl(cluster: &Cluster, arguments: &[&str], file: &Path) -> Result<f64> {
    let home = tempfile::tempdir()?;
    let begun = Instant::now();
    Program::new(kubernetes("kubectl"), DEADLINE)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .args(arguments.iter().copied())
        .arg(file)
        .env("HOME", home.path())
        .run()
        .await?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
