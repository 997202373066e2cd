//! What a k8sctl plugin is made of. A plugin is a separate program that turns `config + what is known of the cluster`
//! into Kubernetes objects and touches nothing: no network, no file, no cluster.
//!
//! - [`Plugin`]: what the author writes; [`Context`]: what it is told; [`Plan`]: what it answers with
//! - [`main`]: what the program's `main` calls; serves `k8sctl.plugin.v1` on the inherited fd 3
//! - [`golden`]: compares a plan with a file, for the plugin's own tests
//! - [`RawPlugin`], [`OpenPlugin`]: for plugins whose schema is data, as `plugins/data`; [`Typed`] makes one of a [`Plugin`]
//!
//! The host agent starts the program, asks, and ends it: one process, one connection, one operation. Everything
//! that a plugin returns is checked and applied by the host agent (crate `host-plugins`), never by the plugin.
//! `docs/plugins/writing.md` is the tutorial, `docs/plugins/protocol.md` the wire for authors in other languages.

mod assess;
mod context;
mod diagnostic;
pub mod golden;
mod inherited;
mod plan;
mod plugin;
mod raw;
mod remote;
mod secret;
mod serve;
mod start;

pub use assess::assess_workloads;
pub use context::{Context, Dependency, Facts, NodeFact};
pub use diagnostic::Diagnostic;
pub use plan::{Drift, Handling, Node, NodeRequirement, Plan, PlannedObject, ReadinessRule, ReadyWhen};
pub use plugin::{Assessment, Description, Health, Plugin, nothing_older, schema};
pub use raw::{OpenPlugin, OwnedDescription, RawPlugin, Typed};
pub use remote::{Remote, Selector};
pub use schemars;
pub use secret::{Alphabet, GeneratedSecret, SecretRef};
pub use serde_json;
pub use serve::PROTOCOL_VERSIONS;
pub use start::{Ending, main, main_raw, serve, serve_raw};
