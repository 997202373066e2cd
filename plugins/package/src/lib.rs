//! What a plugin package is, for everybody who has to do with one: `k8sctl plugin build|package|sign|verify`, the host
//! agent that installs it, and the tests. Starts no process and knows no cluster.
//!
//! - [`manifest`]: `plugin.toml`: what a plugin is and what it may ask for, and the lines that a person approves
//! - [`folder`]: a package on disk: opened, verified, read; `plain`: as one reads what a stranger can change meanwhile
//! - [`mod@assemble`]: makes a package of a source folder, its programs and its schema
//! - [`archive`]: a package as one `.tar.zst`, the same bytes each time, and the bounded way back
//! - [`signature`]: who vouches for a package: the build, a key, or nobody
//! - [`lock`]: `k8sctl.lock`, the packages of a cluster file, exactly
//! - [`error`]: what can go wrong with all that, as failures with a next step
//!
//! A package may come from a stranger: every size, path, link and digest is checked before anything of it is used.

pub mod archive;
pub mod assemble;
pub mod error;
pub mod folder;
pub mod lock;
pub mod manifest;
mod plain;
pub mod signature;

pub use archive::{pack, unpack};
pub use assemble::{Parts, assemble};
pub use error::PackageError;
pub use folder::Package;
pub use lock::{LockFile, LockedPlugin};
pub use manifest::approval::Approval;
pub use manifest::asks::{Aggregate, Bind, Grant, NodeAsks, Permission, Remote, Webhook, WebhookKind};
pub use manifest::{
    Binary, FileEntry, ImageName, Manifest, PinnedManifest, ProgramName, Requirement, SYSTEM_NAMESPACES,
};
pub use signature::{KeyRing, Trust, TrustPolicy, new_key, sign};

/// Versions of `k8sctl.plugin` that hosts of this release speak, ascending.
pub const PROTOCOL_VERSIONS: [u32; 1] = [1];

/// This machine, as packages name it.
pub const PLATFORM: &str = "x86_64-linux";
