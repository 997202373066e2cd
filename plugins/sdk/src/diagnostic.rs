//! What a plugin says about its user's config, with the place in it.

use k8sctl_proto::plugin::v1 as wire;
use serde::Serialize;

/// A mistake in the config, or a remark on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Stable name of this kind of mistake, `METALLB-POOL-OVERLAP`; empty: `PLUGIN-CONFIG`.
    pub code: String,
    /// JSON pointer into the config, `/replicas`; empty: the whole config.
    pub path: String,
    /// What is wrong, got and expected.
    pub message: String,
    /// What to write instead; may be empty.
    pub hint: String,
    /// Does not stop the installation.
    pub warning: bool,
}

impl Diagnostic {
    /// A mistake that stops the installation.
    pub fn error(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        let (path, message, hint) = (path.into(), message.into(), hint.into());
        Self { code: String::new(), path, message, hint, warning: false }
    }

    /// A remark that stops nothing.
    pub fn warning(path: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { warning: true, ..Self::error(path, message, hint) }
    }

    /// The same, with a stable name: capitals, digits and dashes, at most 60.
    pub fn code(self, code: &str) -> Self {
        Self { code: code.to_owned(), ..self }
    }
}

impl From<Diagnostic> for wire::Diagnostic {
    fn from(diagnostic: Diagnostic) -> Self {
        let Diagnostic { code, path, message, hint, warning } = diagnostic;
        Self { path, message, hint, warning, code }
    }
}
