//! Runs plugin processes in their sandbox, checks what they plan against what the admin approved, and applies it.
//!
//! - [`PluginHost`]: what the host agent calls: list, offer, install, remove
//! - [`PluginDir`] and [`manifest`]: which plugins there are and what each may ask for
//! - `launch`: a sealed copy of the program, started in a sandbox with one socket and nothing else
//! - `conversation`: what is asked over that socket, and how long an answer may take
//! - `schema`: where a config breaks the plugin's schema, which is bounded before the validator sees it
//! - [`plan`]: pure: is every object covered by the manifest, and in what order are they applied
//! - `engine`: server-side apply, readiness, removal by UID
//! - `inventory`: what was applied, in the host agent's database ([`SCHEMA`])
//!
//! A plugin's plan is hostile input: nothing that it says reaches the cluster unchecked, and the process itself
//! can open no file, no socket and start no program.

mod conversation;
mod engine;
mod host;
mod inventory;
mod launch;
pub mod manifest;
pub mod plan;
mod schema;
mod status;

pub use conversation::{Description, Diagnostic};
pub use engine::Limits;
pub use host::{ClusterAccess, InstallError, Offer, PluginHost};
pub use inventory::SCHEMA;
pub use k8sctl_proto::plugin::v1::ClusterFacts;
pub use launch::Deadlines;
pub use manifest::PluginDir;
pub use status::{PluginState, PluginStatus};
