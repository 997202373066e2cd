//! `k8s-node-agent`: logging, settings, run until a signal, drain. Everything else is in the library.

use std::time::Duration;

use clap::Parser;
use node_agent::config::{Arguments, Config};
use node_agent::durable::Root;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Longest that ending may take.
const GRACE: Duration = Duration::from_secs(5);

// One thread is enough, and keeps the agent small.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    k8sctl_rpc::provider::install();
    k8sctl_rpc::telemetry::init("k8s-node-agent");
    let arguments = Arguments::parse();
    let is_guard = arguments.is_guard();
    let config = Config::from(arguments);
    if is_guard {
        // A signal ends it at once: whatever it has done, the next one goes on from there.
        return Ok(node_agent::replace::run_guard(&Root::new(&config.root), &config.state_dir).await?);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = CancellationToken::new();
    let run = node_agent::run(config, shutdown.clone());
    let mut run = std::pin::pin!(run);
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        tracing::debug!(%error, "nobody to notify");
    }
    // Cancel-safe: `run` is pinned outside and goes on below.
    tokio::select! {
        () = &mut run => return Ok(()),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("ending");
    shutdown.cancel();
    if tokio::time::timeout(GRACE, run).await.is_err() {
        tracing::warn!(?GRACE, "not drained in time");
    }
    Ok(())
}
