//! What a step is, and how it fails. Implemented below `crate::steps`, run by [`super::Converge`].

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use k8sctl_command::{CommandError, Program};
use k8sctl_proto::node::v1::{DesiredState, Evidence};

use crate::status::{Progress, wire_evidence};

/// Whether what a step stands for is so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// Nothing to do.
    True,
    /// It is not, and why, in one line.
    False(String),
    /// It may not be, but nothing on this node can be done about it, and why: it waits for others.
    Waits(String),
    /// Nobody can say, and why: what knows of it does not answer, and there is nothing left to do here. No apply waits for
    /// that: where it was not done before, it is looked at again soon.
    Unknown(String),
}

impl Check {
    /// `True` when there is nothing that is not so.
    pub fn from_missing(missing: Vec<String>) -> Self {
        if missing.is_empty() { Self::True } else { Self::False(missing.join(", ")) }
    }
}

/// One thing that a node shall be. `apply` may be ended anywhere and must be resumable by another `apply`.
#[async_trait]
pub trait Step: Send + Sync {
    /// Stable name, as it appears in status.
    fn name(&self) -> &'static str;
    /// The unit whose journal explains a failure.
    fn unit(&self) -> Option<&'static str>;
    /// Whether it waits for the host to raise the target to `MEMBER`.
    fn members_only(&self) -> bool;
    /// Looks at the truth, changes nothing.
    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError>;
    /// Makes it so. What is left for others to do it may leave to a check that says [`Check::Waits`], and to the next apply,
    /// which waits for it; or to one that says [`Check::Unknown`], for which none waits.
    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError>;
}

/// A step could not be made true.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A program failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host wants something impossible.
    #[error("the desired state is unusable: {0}")]
    Desired(String),
    /// Something did not become true in time.
    #[error("{what} not after {waited:?}: {last}")]
    Waited {
        /// "the API server answers"
        what: &'static str,
        /// How long.
        waited: Duration,
        /// What was seen last.
        last: String,
    },
    /// The whole step took too long.
    #[error("not done after {deadline:?}; at the end: {last}")]
    Deadline {
        /// The deadline.
        deadline: Duration,
        /// What it was doing.
        last: String,
    },
    /// Apply ended well but the check does not agree.
    #[error("applied, but still not so: {why}")]
    NotTrueAfterApply {
        /// The check's reason.
        why: String,
    },
    /// A simulated failure.
    #[error("simulated failure")]
    Simulated(k8sctl_command::Evidence),
}

impl StepError {
    /// A function that turns an I/O error on this path into a read error.
    pub fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    /// A function that turns an I/O error on this path into a write error.
    pub fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }

    /// What the failed program left, empty when it was none.
    pub fn evidence(&self) -> Evidence {
        match self {
            Self::Command(error) => error.evidence().map(wire_evidence).unwrap_or_default(),
            Self::Simulated(evidence) => wire_evidence(evidence),
            _ => Evidence::default(),
        }
    }
}

/// The end of a unit's journal, for evidence.
#[async_trait]
pub trait Journal: Send + Sync {
    /// At most 8 KiB; empty when there is none.
    async fn tail(&self, unit: &str) -> String;
}

/// journald's.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealJournal;

/// How much of a journal is kept, in bytes.
const JOURNAL_LIMIT: usize = 8 * 1024;

#[async_trait]
impl Journal for RealJournal {
    async fn tail(&self, unit: &str) -> String {
        let program = Program::new("journalctl", Duration::from_secs(20))
            .args(["--no-pager", "--quiet", "--lines=60", "--output=short-iso", "--unit"])
            .arg(unit);
        match program.run().await {
            Ok(text) => {
                let start = text.len().saturating_sub(JOURNAL_LIMIT);
                let start = (start..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(0);
                text[start..].to_owned()
            }
            Err(error) => format!("(no journal: {error})"),
        }
    }
}
