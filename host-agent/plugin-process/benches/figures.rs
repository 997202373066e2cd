//! What starting a plugin costs: `make bench BENCH=spawn`. Needs no root, no cluster and no lab.
//!
//! - `plugin-spawn`: from nothing to a handshake that is done, the program read, hashed and sealed anew each time
//! - `plugin-resident`: the most that its process has had in memory when it has planned

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bench_figures::{Figure, Suite, median};
use k8sctl_proto::plugin::v1::HandshakeRequest;
use plugin_package::{PROTOCOL_VERSIONS, Package};
use plugin_process::{Ceilings, Deadlines, Runner, connect};
use serde_json::json;

/// Starts that are measured; the first one, which also fetches the program from the disk, is not.
const STARTS: usize = 21;
const MIB: f64 = 1_048_576.0;

fn main() -> Result<()> {
    let repo = common::workspace();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    bench_figures::run(Suite::Spawn, &repo, &runtime, |_| bench)
}

fn bench(runtime: &tokio::runtime::Runtime, figures: &mut Vec<Figure>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let package = runtime.block_on(common::hello(folder.path(), |manifest| manifest));
    let mut starts = Vec::new();
    for _ in 0..=STARTS {
        starts.push(runtime.block_on(start(&package))?.as_secs_f64() * 1_000.0);
    }
    let spawn = median(&mut starts[1..]);
    figures.push(Figure { name: "plugin-spawn", value: spawn, unit: "ms", baseline: None });
    let resident = runtime.block_on(resident(&package))? as f64 / MIB;
    figures.push(Figure { name: "plugin-resident", value: resident, unit: "MiB", baseline: None });
    Ok(())
}

/// A runner that has kept nothing, and one process of it until it has shaken hands.
async fn start(package: &Package) -> Result<Duration> {
    let runner = Runner::new(Deadlines::default(), Ceilings::default());
    let began = Instant::now();
    let greeted = runner.bare(package, |started| async move {
        let mut client = connect(started.stream).await?;
        let request =
            HandshakeRequest { versions: PROTOCOL_VERSIONS.to_vec(), ..HandshakeRequest::default() };
        let answered = client.handshake(request).await.is_ok();
        Ok((answered, began.elapsed()))
    });
    let (answered, took) = greeted.await?.answer;
    answered.then_some(took).context("it did not shake hands")
}

async fn resident(package: &Package) -> Result<u64> {
    let runner = Runner::new(Deadlines::default(), Ceilings::default());
    let ask = common::ask(&json!({}));
    let ask = &ask;
    let asked = runner.converse(package, |mut talk| async move {
        talk.plan(ask).await?;
        Ok(peak(talk.pid))
    });
    asked.await?.answer.context("its memory")
}

/// In bytes.
fn peak(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}
