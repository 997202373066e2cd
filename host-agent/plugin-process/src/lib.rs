//! Starts plugin programs in their sandbox and asks them: one process, one socket, one conversation, one operation. A
//! process can open no file, make no network socket and start no program, and what it answers is bounded and still
//! unchecked: whether a plan is allowed is for `plugin-plan` to say.
//!
//! - [`Runner`]: describe, plan, migrate, assess
//! - [`Run`], [`RunError`]: what came of it, and as what a person meets a failure
//! - `launch`: a sealed copy of the program, started in a sandbox with one socket, watched until it is gone
//! - `conversation`: what is asked over that socket, and what is taken for an answer; [`PlanReader`] is its pure part
//! - [`schema`]: what a plugin's schema says of a config, and what it lacks itself
//! - [`quarantine`]: pure: when a program is not started any more
//!
//! ```text
//!  Package ──► Runner ──► seal ──► fork, sandbox, exec ──► process
//!                │                                            │ fd 3
//!                └────────── Handshake, Describe, … ──────────┘
//! ```

mod conversation;
mod launch;
pub mod quarantine;
mod run;
mod runner;
pub mod schema;

pub use conversation::{
    AssessAsk, Assessment, ConversationError, Dependency, Description, Health, MigrateAnswer, PlanAnswer,
    PlanAsk, PlanReader, Talk, connect,
};
pub use k8sctl_proto::plugin::v1::ClusterFacts;
pub use launch::{Ceilings, Cgroups, Deadlines, Started};
pub use run::{Run, RunError, RunErrorKind};
pub use runner::{Runner, difference};
