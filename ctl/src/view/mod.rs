//! What is shown, as the documented shapes of `-o json` and `-o yaml`. Fields are snake_case, times RFC 3339 in UTC,
//! sizes in bytes; what is unknown is `null`. Fields are added, never renamed. Made of wire messages; nothing else
//! may print a wire message.
//!
//! - `cluster`: status, nodes, conditions, steps, repairs
//! - `health`: what is wrong with a cluster
//! - `operation`: plans, operations, diagnostics, failures
//! - `record`: events, log lines
//! - `artifact`: bundles, images, checks, versions
//! - `plugin`: plugins, offers, differences, runs of their programs
//! - `upkeep`: replaced agents, support bundles

mod artifact;
mod cluster;
mod health;
mod operation;
mod plugin;
mod record;
mod upkeep;

pub use artifact::{BundleView, CheckView, ImageView, ProgramView, VersionView};
pub use cluster::{ClusterView, ConditionView, EvidenceView, FactsView, NodeView, RepairView, StepView};
pub use health::{HealthView, ProblemView};
pub use operation::{
    ChangeView, DiagnosticView, FailureView, OperationView, PlanView, ProgressView, is_trial_notice,
};
pub use plugin::{
    BlockingView, ObjectDiffView, OfferView, OutputView, PluginDetailsView, PluginView, RevisionView,
    RunView, VendoredView, VerifiedView,
};
pub use record::{EventView, LogView};
pub use upkeep::{PartView, SupportBundleView, UpgradeView};

use prost_types::Timestamp;

/// RFC 3339; `None` for unset and impossible times.
pub fn time(stamp: Option<Timestamp>) -> Option<String> {
    moment(stamp).map(|moment| moment.to_string())
}

/// The moment itself.
pub fn moment(stamp: Option<Timestamp>) -> Option<jiff::Timestamp> {
    stamp.and_then(|stamp| jiff::Timestamp::new(stamp.seconds, stamp.nanos).ok())
}

/// Seconds from then to now; `None` where then is unknown.
pub fn seconds_since(then: Option<&str>) -> Option<i64> {
    let then: jiff::Timestamp = then?.parse().ok()?;
    Some(jiff::Timestamp::now().as_second() - then.as_second())
}

/// Seconds from one to the other; `None` where either is unknown.
pub fn seconds_between(from: Option<&str>, to: Option<&str>) -> Option<i64> {
    let (from, to): (jiff::Timestamp, jiff::Timestamp) = (from?.parse().ok()?, to?.parse().ok()?);
    Some(to.duration_since(from).as_secs())
}

fn text(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
