//! Watches the node and keeps its conditions on the board: units by D-Bus signals, the rest by looking.
//!
//! `AgentReady`, `ContainerdReady`, `KubeletReady`, `DiskOK`, `MemoryOK` are kept here, `ClockOK` and
//! `CertificateValid` by session; `NodeReady` is the host's, who sees the Node object.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_proto::node::v1::ConditionStatus::{self, False, True, Unknown};
use tokio::time::sleep;

use crate::durable::Root;
use crate::machine;
use crate::retry::{self, Backoff};
use crate::status::Board;
use crate::steps::{containerd, cri, kubelet};
use crate::systemd::{Systemd, SystemdError, UnitState, Watched};

/// How often disk and memory are looked at.
const RESOURCES: Duration = Duration::from_secs(15);
/// How often a unit that is well is asked again; signals come in between.
const WELL: Duration = Duration::from_secs(15);
/// How often a unit that runs but is not well is asked again.
const UNWELL: Duration = Duration::from_secs(1);
/// Least free share of the root file system's bytes and inodes, in percent.
const DISK_FREE: u64 = 10;
const INODES_FREE: u64 = 5;
/// Share of ten seconds in which everything waited for memory, in percent.
const MEMORY_STALL: f64 = 10.0;

/// A watched service.
#[derive(Clone, Copy, Debug)]
enum Service {
    Containerd,
    Kubelet,
}

impl Service {
    fn condition(self) -> &'static str {
        match self {
            Self::Containerd => "ContainerdReady",
            Self::Kubelet => "KubeletReady",
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Self::Containerd => "containerd.service",
            Self::Kubelet => kubelet::UNIT,
        }
    }

    async fn answers(self) -> Result<(), String> {
        match self {
            Self::Containerd => match cri::version(Path::new(containerd::SOCKET)).await {
                Ok(_) => Ok(()),
                Err(error) => Err(k8sctl_rpc::chain(&error).to_string()),
            },
            Self::Kubelet => kubelet::health().await,
        }
    }
}

/// Starts the watchers; they end with the runtime. Simulated agents share a machine, so that only `AgentReady` is
/// theirs, and the services count as ready.
pub fn start(board: &Board, root: &Root, simulated: bool) {
    board.condition("AgentReady", True, "Running", format!("version {}", env!("CARGO_PKG_VERSION")));
    if simulated {
        for kind in ["ContainerdReady", "KubeletReady", "DiskOK", "MemoryOK"] {
            board.condition(kind, True, "Simulated", "");
        }
        return;
    }
    for service in [Service::Containerd, Service::Kubelet] {
        k8sctl_rpc::task::spawn(format!("watch-{}", service.unit()), watch_service(board.clone(), service));
    }
    k8sctl_rpc::task::spawn("watch-resources", watch_resources(board.clone(), root.path("/")));
}

async fn watch_service(board: Board, service: Service) {
    let mut backoff = Backoff::new(retry::WATCH);
    loop {
        let error = match connect(service).await {
            Ok(mut watched) => {
                backoff.reset();
                follow(&board, service, &mut watched).await
            }
            Err(error) => error,
        };
        let why = k8sctl_rpc::chain(&error).to_string();
        board.condition(service.condition(), Unknown, "SystemdSilent", why);
        sleep(backoff.next_pause()).await;
    }
}

async fn connect(service: Service) -> Result<Watched, SystemdError> {
    Systemd::connect().await?.watch(service.unit()).await
}

/// Until the connection ends.
async fn follow(board: &Board, service: Service, watched: &mut Watched) -> SystemdError {
    loop {
        let state = match watched.state().await {
            Ok(state) => state,
            Err(error) => return error,
        };
        let answers = if state.active == "active" { service.answers().await } else { Ok(()) };
        let (status, reason, message) = judge(&state, answers);
        board.condition(service.condition(), status, reason, message);
        let pause = if status == True || state.active != "active" { WELL } else { UNWELL };
        // Cancel-safe: a signal only wakes, the state is asked for anew.
        tokio::select! {
            open = watched.changed() => if !open {
                // The next question says why.
                sleep(UNWELL).await;
            },
            () = sleep(pause) => {}
        }
    }
}

fn judge(state: &UnitState, answers: Result<(), String>) -> (ConditionStatus, &'static str, String) {
    let words = format!("{} ({})", state.active, state.sub);
    match (state.active.as_str(), answers) {
        ("active", Ok(())) => (True, "Running", String::new()),
        ("active", Err(why)) => (False, "NotAnswering", why),
        ("activating" | "reloading", _) => (False, "Starting", words),
        ("failed", _) => (False, "Failed", words),
        _ => (False, "NotRunning", words),
    }
}

async fn watch_resources(board: Board, root: PathBuf) {
    loop {
        let (status, reason, message) = match rustix::fs::statvfs(&root) {
            Ok(stat) => {
                judge_disk((stat.f_bavail, stat.f_blocks), (stat.f_favail, stat.f_files), stat.f_frsize)
            }
            Err(error) => (Unknown, "Unreadable", error.to_string()),
        };
        board.condition("DiskOK", status, reason, message);
        let pressure = std::fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
        let (status, reason, message) =
            judge_memory(&pressure, machine::meminfo("MemAvailable"), machine::meminfo("MemTotal"));
        board.condition("MemoryOK", status, reason, message);
        sleep(RESOURCES).await;
    }
}

/// Each pair is free and all. Messages change only with the whole percent, so that they wake nobody for nothing.
fn judge_disk(
    blocks: (u64, u64),
    inodes: (u64, u64),
    block_size: u64,
) -> (ConditionStatus, &'static str, String) {
    let percent = |(free, all): (u64, u64)| (free * 100).checked_div(all).unwrap_or(100);
    let all = blocks.1 * block_size / (1 << 30);
    let message =
        format!("{} % of {all} GiB and {} % of the inodes are free", percent(blocks), percent(inodes));
    if percent(blocks) < DISK_FREE {
        (False, "DiskFull", message)
    } else if percent(inodes) < INODES_FREE {
        (False, "InodesUsedUp", message)
    } else {
        (True, "Free", message)
    }
}

/// `full avg10=0.00 …` of the kernel's pressure file; without one, by what is available.
fn judge_memory(pressure: &str, available: u64, all: u64) -> (ConditionStatus, &'static str, String) {
    let stall = pressure
        .lines()
        .find_map(|line| line.strip_prefix("full avg10="))
        .and_then(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    if let Some(stall) = stall.filter(|stall| *stall >= MEMORY_STALL) {
        return (False, "Pressure", format!("everything waited for memory {stall:.0} % of the last 10 s"));
    }
    if available * 100 < all * 3 {
        return (False, "Low", format!("{} MiB available", available / (1 << 20)));
    }
    (True, "Available", String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(active: &str) -> UnitState {
        UnitState { active: active.into(), sub: "x".into() }
    }

    #[test]
    fn a_unit_is_ready_when_it_runs_and_answers() {
        assert_eq!(judge(&unit("active"), Ok(())).0, True);
        assert_eq!(judge(&unit("active"), Err("refused".into())).1, "NotAnswering");
        assert_eq!(judge(&unit("failed"), Ok(())).1, "Failed");
        assert_eq!(judge(&unit("inactive"), Ok(())).1, "NotRunning");
    }

    #[test]
    fn little_disk_or_few_inodes_are_not_ok() {
        assert_eq!(judge_disk((50, 100), (50, 100), 4096).0, True);
        assert_eq!(judge_disk((9, 100), (50, 100), 4096).1, "DiskFull");
        assert_eq!(judge_disk((50, 100), (4, 100), 4096).1, "InodesUsedUp");
        assert_eq!(judge_disk((50, 100), (0, 0), 4096).0, True);
    }

    #[test]
    fn pressure_and_little_memory_are_not_ok() {
        let file = |full: &str| format!("some avg10=50.00 avg60=0\nfull avg10={full} avg60=0\n");
        assert_eq!(judge_memory(&file("0.00"), 50, 100).0, True);
        assert_eq!(judge_memory(&file("12.50"), 50, 100).1, "Pressure");
        assert_eq!(judge_memory("", 2, 100).1, "Low");
    }
}
