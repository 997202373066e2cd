//! Typed values that more than one program shares: names, ids, sizes, versions and the validated cluster spec.
//!
//! - [`spec`][]: the validated [`spec::ClusterSpec`] and how a `cluster.toml` becomes one
//! - [`version`][]: [`version::KubernetesVersion`]
//! - [`suite`][]: [`suite::SUITES`], what node images can be made of
//! - [`node_label`][]: who gives a node its labels: its kubelet, or an administrator
//! - [`event`][]: [`event::EventType`], everything that is told as an event
//! - [`logs`][]: the order of log lines from several places, and the regular expressions that select them
//! - [`protocol`][]: which versions of host agent and node agent understand each other
//! - [`redact`][]: takes secrets out of texts that leave the machine
//! - [`failure`][]: [`failure::Failure`], what every program shows when something ended badly
//! - [`config_file`][]: a program's own configuration, with all mistakes in it
//!
//! Nothing here does I/O.

pub mod config_file;
pub mod event;
pub mod failure;
pub mod logs;
pub mod node_label;
pub mod protocol;
pub mod redact;
pub mod spec;
pub mod suite;
pub mod version;
