//! Plugins of clusters: which packages there are and whose they are, what each would do, bringing that onto a cluster,
//! keeping it so, and taking it away again.
//!
//! - [`PluginHost`]: what the host agent calls; one operation at a time per plugin and cluster
//! - [`Library`]: packages of the plugin path and of the store, and who is trusted
//! - [`Vault`]: secrets of plugins
//! - [`dag`]: pure: how plugins depend on each other
//! - [`engine`]: server-side apply, readiness, drift, removal by UID
//! - [`inventory`]: which objects a plugin made, and `records`: all else that is stored ([`SCHEMA`])
//! - [`remote`]: manifests of elsewhere, by digest
//! - `requirements`: pure: what plugins need of nodes, together
//!
//! ```text
//!  Wish, cluster file ──► PluginHost ──► plugin-process ──► what the plugin says
//!                             │                                   │
//!                          records ◄── CheckedPlan ◄── plugin-plan (may it be applied?)
//!                             │
//!                          Engine ──► Kubernetes API
//! ```
//!
//! A plugin's plan is hostile input: nothing that it says reaches the cluster unchecked, and the process itself can open
//! no file, no socket and start no program.

pub mod dag;
pub mod engine;
mod host;
pub mod inventory;
mod library;
mod records;
pub mod remote;
mod requirements;
mod status;
mod vault;

pub use engine::{Blocking, DiffAction, Limits, Points, Progress};
pub use host::{
    ClusterAccess, Converged, Ended, Follow, Gate, Given, Handover, HostSetup, NodeNeed, ObjectDiffView,
    Offer, PinnedPlugin, PluginEvent, PluginHost, ProposedAction, ProposedChange, Removal, SpecAsk,
    SpecProposal, WantedPlugin, Wish, WishError, WishKind,
};
pub use library::Library;
pub use plugin_package::{KeyRing, LockFile, Trust, TrustPolicy};
pub use plugin_plan::Diagnostic;
pub use plugin_process::{Ceilings, Cgroups, ClusterFacts, Deadlines, Runner};
pub use records::SCHEMA;
pub use remote::{FetchSetup, Manifests};
pub use status::{
    Found, PluginDetails, PluginRevision, PluginRun, PluginState, PluginStatus, Vendored, Verified,
};
pub use vault::Vault;
