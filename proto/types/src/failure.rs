//! What every program shows when something ended badly: a stable id, the object, the reason and the next step.

use std::fmt;

/// A failure as a person meets it. `id` is stable and explained in `docs/troubleshooting.md`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Failure {
    /// Stable id in capitals, `NODE-SILENT`.
    pub id: String,
    /// Kind and name, `node k8s-worker-1`.
    pub object: String,
    /// What happened, got and expected.
    pub reason: String,
    /// What to do next.
    pub next_step: String,
    /// Console tail, command output; may be empty.
    pub evidence: String,
}

impl Failure {
    /// A failure without evidence.
    pub fn new(
        id: &str,
        object: impl Into<String>,
        reason: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Self {
            id: id.to_owned(),
            object: object.into(),
            reason: reason.into(),
            next_step: next_step.into(),
            evidence: String::new(),
        }
    }

    /// The same failure with what was left behind.
    pub fn with_evidence(mut self, evidence: impl Into<String>) -> Self {
        self.evidence = evidence.into();
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.id, self.object, self.reason)
    }
}

impl std::error::Error for Failure {}
