//! The real steps, in the order in which they run:
//! [`host_os`] → [`containerd`] → [`cni`] → [`files`] → [`kubeadm`] → [`kubelet`].
//!
//! Each decides from what is really there. Files are written below a [`Root`]; the live system (sysctls, routes,
//! units) is only touched when that is `/`. What plugins need of the node ([`requirements`]) is done by the first three.

pub mod cni;
pub mod containerd;
pub mod cri;
pub mod files;
pub mod host_os;
pub mod kubeadm;
pub mod kubelet;
pub mod network;
pub mod requirements;
pub mod rootfs;

use std::time::{Duration, Instant};

use k8sctl_command::{CommandError, Output, Program};

use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::service::Claims;

/// Pause between two looks at something that is about to become true.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Longest that a small program may run. Generous: emulated machines are slow.
const SHORT: Duration = Duration::from_secs(60);
/// Longest that starting a unit may take.
const UNIT_START: Duration = Duration::from_secs(11 * 60);

/// All real steps. Those that start and stop units claim them meanwhile.
pub fn real(root: &Root, claims: &Claims) -> Vec<Box<dyn Step>> {
    vec![
        Box::new(host_os::HostOs::new(root.clone())),
        Box::new(containerd::Containerd::new(root.clone(), claims.clone())),
        Box::new(cni::Cni::new(root.clone())),
        Box::new(files::Files::new(root.clone(), claims.clone())),
        Box::new(kubeadm::Kubeadm::new(root.clone(), claims.clone())),
        Box::new(kubelet::Kubelet::new(root.clone(), claims.clone())),
    ]
}

/// A file that a step keeps exactly so.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedFile {
    /// Absolute path, below the root.
    pub path: String,
    /// Whole content.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
}

impl OwnedFile {
    /// A world-readable file.
    pub fn public(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), content: content.into(), mode: 0o644 }
    }
}

/// Those that are not as they should be.
pub fn wrong_files<'a>(root: &Root, files: &'a [OwnedFile]) -> Result<Vec<&'a OwnedFile>, StepError> {
    let mut wrong = Vec::new();
    for file in files {
        if !root.is(&file.path, &file.content, file.mode).map_err(StepError::read(&file.path))? {
            wrong.push(file);
        }
    }
    Ok(wrong)
}

/// Writes those that are not as they should be, whichever of them cannot be written; says whether there were any.
pub fn write_files(root: &Root, files: &[OwnedFile]) -> Result<bool, StepError> {
    let wrong = wrong_files(root, files)?;
    all(wrong
        .iter()
        .map(|file| root.write(&file.path, &file.content, file.mode).map_err(StepError::write(&file.path))))?;
    Ok(!wrong.is_empty())
}

/// Does all of it, and tells the first that failed: what cannot be done holds up nothing else.
fn all(done: impl IntoIterator<Item = Result<(), StepError>>) -> Result<(), StepError> {
    let mut all = Ok(());
    for one in done {
        all = all.and(one);
    }
    all
}

async fn run(program: &str, args: &[&str]) -> Result<Output, CommandError> {
    Program::new(program, SHORT).args(args.iter().copied()).run().await
}

async fn systemctl(args: &[&str]) -> Result<Output, CommandError> {
    Program::new("systemctl", UNIT_START).args(args.iter().copied()).run().await
}

async fn unit_is_active(unit: &str) -> bool {
    run("systemctl", &["is-active", "--quiet", unit]).await.is_ok()
}

/// What starting a unit does for a service that does not answer as it should: something only where the unit neither runs
/// nor is about to. One that comes up or goes down takes its time, and one that runs and is not well is not made so by
/// that.
async fn whether_starting_helps(unit: &str, why: String) -> Check {
    let state = run("systemctl", &["show", "--property=ActiveState", "--value", unit]).await;
    judge_unit(&state.unwrap_or_default(), why)
}

fn judge_unit(active_state: &str, why: String) -> Check {
    match active_state.trim() {
        "active" | "activating" | "reloading" | "deactivating" => Check::Waits(why),
        _ => Check::False(why),
    }
}

/// Looks until it is so, at short intervals. `look` says `Err` with what it saw instead.
async fn wait_until<F>(
    what: &'static str,
    limit: Duration,
    mut look: impl FnMut() -> F,
) -> Result<(), StepError>
where
    F: Future<Output = Result<(), String>>,
{
    let begun = Instant::now();
    loop {
        let Err(last) = look().await else { return Ok(()) };
        let waited = begun.elapsed();
        if waited >= limit {
            return Err(StepError::Waited { what, waited, last });
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_that_does_not_run_is_to_be_started() {
        let judged = |state: &str| judge_unit(state, "refused".to_owned());
        for state in ["active\n", "activating", "reloading", "deactivating"] {
            assert_eq!(judged(state), Check::Waits("refused".to_owned()), "{state}");
        }
        for state in ["inactive\n", "failed", ""] {
            assert_eq!(judged(state), Check::False("refused".to_owned()), "{state}");
        }
    }
}
