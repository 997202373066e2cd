//! What a k8sctl plugin is made of. A plugin is a separate program that turns `config + cluster facts` into
//! Kubernetes objects and touches nothing: no network, no file, no cluster.
//!
//! - [`Plugin`]: what the author writes
//! - [`main`]: what the program's `main` calls; serves `k8sctl.plugin.v1` on the inherited fd 3
//! - [`golden`]: compares a plan with a file, for the plugin's own tests
//!
//! The host agent starts the program, asks, and ends it: one process, one connection, one operation. Everything
//! that a plugin returns is checked and applied by the host agent (crate `host-plugins`), never by the plugin.
//! `docs/plugins/protocol.md` describes the wire for authors in other languages.

pub mod golden;
mod inherited;
mod plugin;
mod serve;

pub use plugin::{Assessment, Description, Diagnostic, Facts, Health, Plan, Plugin, ReadinessRule, schema};
pub use schemars;
pub use serde_json;
pub use serve::{PROTOCOL_VERSIONS, main, serve};
