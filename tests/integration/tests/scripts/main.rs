//! The scripts of `tests/lab`, each with stubs of what it calls.
//!
//! - `stage`: a folder with scripts and stubs; a mount namespace for what changes the host
//! - `common`: what must not depend on who calls, and the lock
//! - `deps`: what is installed, and in which order
//! - `builders`: what the builders take for whole, and what outlives them
//! - `packages`: packages of the tree's own plugins, and where what was built ends up
//! - `ensure_bundle`, `install_system`: what only `make up` runs
//! - `run`: a lab and its end
//! - `baseline`: what the bench measures against
//!
//! What a script does as root to a host's folders is a script of its own, beside these files.

#![expect(clippy::disallowed_methods, reason = "tests start the scripts themselves")]

mod baseline;
mod builders;
mod common;
mod deps;
mod ensure_bundle;
mod install_system;
mod packages;
#[path = "../integration/root.rs"]
mod root;
mod run;
mod stage;
