//! libvirt as the host agent sees it: what a host shall have, what it has, the changes between the
//! two as data, and the one side effect that each change is.
//!
//! The way of a convergence, all of it driven by the host agent's cluster controller:
//!
//! 1. [`Hypervisor::observe`] reads [`observed::ObservedHost`] from libvirt, the one source of truth.
//! 2. [`plan::plan_host`] and [`plan::plan_teardown`] are pure: desired and observed in, a
//!    [`change::HostPlan`] out, which also holds the [`adoption::Adoption`] that must be stored
//!    before its first change is executed. [`plan::plan_starts`] is for when nobody has asked for a
//!    change.
//! 3. [`Hypervisor::execute`] does one [`change::HostOp`]: "ensure", safe to repeat at any time.
//! 4. [`Hypervisor::changes`] counts up on every libvirt event and reconnect; time to observe again. What an event alone
//!    tells, that a VM was rebooted, is observed with its VM.
//!
//! - [`desired`], [`observed`], [`change`], [`adoption`]: the data
//! - [`plan`]: the deciding
//! - [`xml`]: libvirt's documents as typed structs, and our ownership element
//! - [`real`]: [`RealHypervisor`], libvirt through the `virt` crate
//! - [`fake`]: [`FakeHypervisor`], a host in memory that fails or dies where a test wants it to
//! - [`accelerator`], [`address`], [`doctor`], [`documents`]: what else a host can be asked
//!
//! Nothing that is not provably ours is changed or deleted; adopted networks are the one exception,
//! and what was changed there is recorded and undone.

pub mod accelerator;
pub mod address;
pub mod adoption;
pub mod change;
mod counter;
pub mod desired;
pub mod doctor;
pub mod documents;
pub mod fake;
pub mod hypervisor;
pub mod observed;
pub mod plan;
pub mod real;
pub mod xml;

pub use documents::Documents;
pub use fake::FakeHypervisor;
pub use hypervisor::Hypervisor;
pub use real::RealHypervisor;
