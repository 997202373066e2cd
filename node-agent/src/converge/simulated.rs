//! Steps that only take time, for tests of the whole system without a VM. Their truth is a file each, so that an
//! agent that is killed in the middle of one finds it not done.

use std::path::PathBuf;

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
}

impl SimulatedStep {
    fn file(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{}.{what}", self.name))
    }

    fn put(&self, what: &str, text: &str) -> Result<(), StepError> {
        let path = self.file(what);
        durable::write(&path, text.as_bytes(), 0o600).map_err(StepError::write(path))
    }
}

/// All steps, simulated; their files lie in `dir`.
pub fn steps(simulation: &Simulation, dir: impl Into<PathBuf>) -> Vec<Box<dyn Step>> {
    let dir = dir.into();
    let step = |(name, members_only)| {
        Box::new(SimulatedStep { name, members_only, dir: dir.clone(), simulation: simulation.clone() })
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
        let done = std::fs::read_to_string(self.file("done")).ok();
        Ok(if done.as_ref() == Some(&desired.node_name) {
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
        let first = !self.file("failed").exists();
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
