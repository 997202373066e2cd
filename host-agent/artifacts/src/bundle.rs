//! The bundle: one file that holds a Kubernetes release, binaries and container images.
//!
//! - [`manifest`]: `bundle.toml`, typed and strict
//! - [`archive`]: reads a bundle entry by entry, checking every digest on the way
//! - [`mod@write`]: writes one, in the order that readers insist on
//! - [`store`]: the directory of installed bundles, with one writer at a time (`lock`)
//!
//! The format is described in `docs/bundles-and-images.md`. Nothing here touches a network.

pub mod archive;
pub mod error;
pub(crate) mod lock;
pub mod manifest;
pub mod store;
pub mod write;

pub use error::BundleError;
pub use manifest::{Component, ImageEntry, Manifest, Role};
pub use store::{Bundle, BundleStore, Listing};
