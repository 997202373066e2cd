//! Node images: kernel, initrd and root disk, baked once per set of inputs.
//!
//! - [`inputs`]: what an image is made of, and the id that follows from it
//! - [`store`]: the directory of images, and the build in its order
//! - [`base`]: the operating system, by mmdebstrap from the host's own apt sources; kept between builds
//! - [`rootfs`]: what is laid over it: programs, units, configuration, masks
//! - [`content`]: container images, imported and unpacked by the bundle's own containerd
//! - [`boot`]: the kernel, and an initrd that does one thing
//! - [`disk`]: the root disk
//!
//! The host agent builds, lists and removes images here; it puts them into a libvirt pool elsewhere.

pub mod base;
pub mod boot;
pub mod content;
pub mod disk;
pub mod error;
pub mod inputs;
pub mod rootfs;
pub mod store;

pub use error::ImageError;
pub use inputs::{BuildInputs, Packages};
pub use store::{DamagedImage, Image, ImageStore};

use std::time::Duration;

use k8sctl_command::Program;
use tokio::sync::mpsc;

/// No step of a build takes longer, even on a slow mirror.
const STEP_DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Runs one program of a build; its failure names `step`.
async fn run(step: &'static str, program: Program) -> Result<String, ImageError> {
    program.run().await.map_err(|source| ImageError::Program { step, source })
}

/// A line for whoever watches. One that does not keep up misses lines.
fn say(progress: &mpsc::Sender<String>, line: impl Into<String>) {
    let _ = progress.try_send(line.into());
}
