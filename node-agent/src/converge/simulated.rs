//! Steps that only take time, for tests of the whole system without a VM. Their truth is a file each, so that an
//! agent that is killed in the middle of one finds it not done; where a simulation is in memory, that it was done once.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use k8sctl_command::Evidence;
use k8sctl_proto::node::v1::DesiredState;

use super::step::{Check, Journal, Step, StepError};
use crate::config::Simulation;
use crate::durable;
use crate::status::Progress;

/// Names of the real steps, in their order, and whether they are for members only.
const STEPS: [(&str, bool); 6] = [
    ("host-os", false),
    ("containerd", false),
    ("cni", false),
    ("files", false),
    ("kubeadm", true),
    ("kubelet", true),
];

/// One of them.
pub struct SimulatedStep {
    name: &'static str,
    members_only: bool,
    dir: PathBuf,
    simulation: Simulation,
    /// Where it is in memory: what was put, and its text.
    put: Mutex<Vec<(&'static str, String)>>,
}

impl SimulatedStep {
    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    fn put(&self, what: &'static str, text: &str) -> Result<(), StepError> {
        if self.simulation.in_memory {
            let mut put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
            put.retain(|(known, _)| *known != what);
            put.push((what, text.to_owned()));
            return Ok(());
        }
        let path = self.file(what);
        durable::write(&path, text.as_bytes(), 0o600).map_err(StepError::write(path))
    }

    /// What was put last.
    fn get(&self, what: &'static str) -> Option<String> {
        if self.simulation.in_memory {
            let put = self.put.lock().unwrap_or_else(PoisonError::into_inner);
            return put.iter().find(|(known, _)| *known == what).map(|(_, text)| text.clone());
        }
        std::fs::read_to_string(self.file(what)).ok()
    }
}

/// All steps, simulated; their files lie in `dir`.
pub fn steps(simulation: &Simulation, dir: impl Into<PathBuf>) -> Vec<Box<dyn Step>> {
    let dir = dir.into();
    let step = |(name, members_only)| {
        let (dir, simulation) = (dir.clone(), simulation.clone());
        Box::new(SimulatedStep { name, members_only, dir, simulation, put: Mutex::default() })
            as Box<dyn Step>
    };
    STEPS.into_iter().map(step).collect()
}

#[async_trait]
impl Step for SimulatedStep {
    fn name(&self) -> &'static str {
        self.name
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        self.members_only
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        Ok(if self.get("done").as_ref() == Some(&desired.node_name) {
            Check::True
        } else {
            Check::False("simulated".to_owned())
        })
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        self.put("begun", "")?;
        progress.say(format!("simulating for {:?}", self.simulation.delay));
        tokio::time::sleep(self.simulation.delay).await;
        let fails = |names: &[String]| names.iter().any(|name| name == self.name);
        let first = self.get("failed").is_none();
        if fails(&self.simulation.fail_always) || (fails(&self.simulation.fail_once) && first) {
            self.put("failed", "")?;
            return Err(StepError::Simulated(Evidence {
                argv: vec!["simulate".to_owned(), self.name.to_owned()],
                exit_status: Some(1),
                output_tail: format!("[{0}] begins\n[{0}] error: simulated failure\n", self.name),
            }));
        }
        self.put("done", &desired.node_name)
    }
}

/// No journal.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoJournal;

#[async_trait]
impl Journal for NoJournal {
    async fn tail(&self, _unit: &str) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Board;

    #[tokio::test]
    async fn steps_in_memory_are_done_once_and_leave_no_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fail_once = vec!["containerd".to_owned()];
        let simulation = Simulation { in_memory: true, fail_once, ..Simulation::default() };
        let desired = DesiredState { node_name: "a".to_owned(), ..DesiredState::default() };
        for step in steps(&simulation, dir.path().join("simulated")) {
            let is_done = async || matches!(step.check(&desired).await, Ok(Check::True));
            assert!(!is_done().await, "{}", step.name());
            let progress = Progress::new(Board::default(), step.name());
            let first = step.apply(&desired, &progress).await;
            assert_eq!(first.is_err(), step.name() == "containerd");
            step.apply(&desired, &progress).await.expect("the second time it works");
            assert!(is_done().await, "{}", step.name());
        }
        assert!(!dir.path().join("simulated").exists());
    }
}
