//! Clusters: from a spec to nodes that are Ready, and back to nothing.
//!
//! - [`manager`]: all clusters; where control services come in
//! - [`shared`]: what services and tasks share
//! - [`planning`]: what `up` and `down` would do; `notices`: pure: what a person should know beside
//! - `consent`: pure: what an operation may destroy
//! - [`release`]: which bundle a version means, and what to say where bundle or image is missing
//! - [`task`]: the one owner of one cluster: reads desired and observed, acts, publishes
//! - [`desired`]: pure: what each VM and each node agent shall be; [`node_requirements`]: what plugins need of nodes
//! - [`plugins`]: the host of plugins, and what `up` would do to those of a spec
//! - [`progress`]: pure: how far a cluster is, whether its operation has ended
//! - `conditions`: pure: how the host itself judges nodes and the whole cluster
//! - [`status`]: pure: what `status` shows of it, and what of that is told as events
//! - [`fixed`]: pure: what of a cluster cannot change while it lives
//! - [`execute`]: dumb: carries out one change
//! - [`agents`]: gives nodes this host's node agent
//! - [`turns`]: one cluster after the other changes the host
//! - [`crash`]: points at which tests end the process

pub mod agents;
mod conditions;
pub(crate) use conditions::OF_HOST;
mod consent;
pub mod crash;
pub mod desired;
pub mod execute;
#[cfg(test)]
pub(crate) mod fake;
pub mod fixed;
pub mod manager;
pub mod node_requirements;
mod notices;
pub mod planning;
pub mod plugins;
pub mod progress;
pub mod release;
pub mod shared;
pub mod status;
pub mod task;
pub mod turns;
