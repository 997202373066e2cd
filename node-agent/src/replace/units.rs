//! What systemd does for a replacement, and the first look at a new program.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_command::{CommandError, Program};

use crate::systemd::{Systemd, SystemdError};

/// The agent's own unit.
const AGENT: &str = "k8s-node-agent.service";
/// The guard's; it runs the copy of the old program, and only while there is a trial.
const GUARD: &str = "k8s-node-agent-guard.service";
/// How long a program may take to say its version; under emulation the first start takes seconds.
const VERSION_DEADLINE: Duration = Duration::from_secs(60);

/// Starts things.
#[async_trait]
pub trait Units: Send + Sync {
    /// Sees to it that the guard runs.
    async fn start_guard(&self) -> Result<(), SystemdError>;
    /// Starts the agent anew: what has its place now.
    async fn restart_agent(&self) -> Result<(), SystemdError>;
    /// Whether a program can be started at all. It says its version.
    async fn try_out(&self, program: &Path) -> Result<String, CommandError>;
}

/// Longest that systemctl may take; it does not wait for what it has begun.
const SYSTEMCTL: Duration = Duration::from_secs(30);

/// Over D-Bus, or by systemctl where there is no bus, which a good program is not to be taken away for.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealUnits;

/// Does it by systemctl, which as root asks systemd itself, where D-Bus has not done it.
async fn or_by_systemctl(
    done: Result<(), SystemdError>,
    verb: &'static str,
    unit: &'static str,
) -> Result<(), SystemdError> {
    let Err(error) = done else { return Ok(()) };
    tracing::warn!(unit, error = %k8sctl_rpc::chain(&error), "D-Bus is of no use, systemctl is tried");
    match Program::new("systemctl", SYSTEMCTL).args(["--no-block", verb, unit]).run().await {
        Ok(_) => Ok(()),
        Err(other) => {
            tracing::warn!(unit, error = %k8sctl_rpc::chain(&other), "systemctl is of no use either");
            Err(error)
        }
    }
}

async fn start(unit: &'static str) -> Result<(), SystemdError> {
    Systemd::connect().await?.start(unit).await
}

async fn restart(unit: &'static str) -> Result<(), SystemdError> {
    Systemd::connect().await?.restart(unit).await
}

#[async_trait]
impl Units for RealUnits {
    async fn start_guard(&self) -> Result<(), SystemdError> {
        or_by_systemctl(start(GUARD).await, "start", GUARD).await
    }

    async fn restart_agent(&self) -> Result<(), SystemdError> {
        or_by_systemctl(restart(AGENT).await, "restart", AGENT).await
    }

    async fn try_out(&self, program: &Path) -> Result<String, CommandError> {
        Program::new(program, VERSION_DEADLINE).arg("--version").run().await
    }
}
