//! What a plan of a plugin may be. A plan is hostile input: here it becomes one that may be applied, or a refusal that
//! names everything that is wrong with it. Pure: no process, no cluster, no file; so the host agent, `k8sctl plugin test`
//! and the fuzzer ask the same questions.
//!
//! - [`unchecked`]: what a plugin said; [`checked`]: what of it may be applied, in the order in which it is
//! - [`check`]: the one door between them, [`check_plan`]; a file per rule
//! - [`remote`]: the objects of manifests that were fetched for a plan, patched
//! - [`object`], [`scope`], [`fill`], [`hash`], [`limits`]: names, namespaces, defaults, digests and sizes of objects
//! - [`readiness`]: is an object ready, by the rule of its kind
//! - [`compare`]: what differs between what was wanted and what is there, and as text
//! - [`immutable`]: which fields may be changed by making an object anew
//! - [`diagnostic`]: a mistake in a config, with its place
//!
//! Who may ask for what stands in `plugin.toml`, of the crate `plugin-package`.

pub mod check;
pub mod checked;
pub mod compare;
pub mod diagnostic;
pub mod fill;
pub mod hash;
pub mod immutable;
pub mod limits;
pub mod object;
pub mod readiness;
pub mod remote;
pub mod scope;
pub mod unchecked;

pub use check::{CheckContext, check_plan};
pub use checked::{CheckedPlan, Planned, Stage};
pub use diagnostic::Diagnostic;
pub use object::ObjectKey;
pub use readiness::{Readiness, ReadyContext};
pub use remote::FetchedManifest;
pub use unchecked::{
    Alphabet, Drift, GeneratedSecret, Handling, ManifestPatch, NodeRequirement, NodeWant, ObjectSelector,
    ReadinessRule, ReadyWhen, RemoteManifest, SecretRef, UncheckedObject, UncheckedPlan,
};
