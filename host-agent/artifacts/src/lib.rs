//! Kubernetes bundles and node images: the files that a cluster is made of.
//!
//! ```text
//!  upstream ──fetch──► bundle (one tar) ──┐
//!  a file   ──import─► in the store       ├─ image ─► kernel, initrd, qcow2
//!  node agent, Debian or Ubuntu suite ────┘
//! ```
//!
//! - [`bundle`]: the file format, checked reading, and the [`bundle::BundleStore`]
//! - [`fetch`]: makes a bundle from upstream's releases and image registry
//! - [`image`]: bakes a node image from bundle, suite and node agent, once per set of inputs
//!
//! The host agent calls all three. Nothing here knows a cluster, libvirt or the store.

mod blocking;
pub mod bundle;
pub mod digest;
pub mod fetch;
pub mod image;
