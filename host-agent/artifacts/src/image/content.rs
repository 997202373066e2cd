//! The bundle's content in the root file system: programs, CNI plugins, and container images that the
//! bundle's own containerd imported and unpacked, so that a VM has no pull and no unpack to do.
//!
//! Called by [`super::store`].

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use k8sctl_command::Program;
use tokio::sync::mpsc;

use super::rootfs::make_dir;
use super::{ImageError, STEP_DEADLINE, run};
use crate::bundle::archive::{self, Unpack};
use crate::bundle::{Bundle, BundleError, Role};

/// Where programs go, below the root of a node.
const BIN: &str = "usr/bin";
/// Where CNI plugins go.
const CNI: &str = "opt/cni/bin";

/// Unpacks the bundle: programs and plugins into `programs`, to be put in [`place`], the OCI layout into `images`.
/// Checks every digest on the way. Blocking.
pub(super) fn unpack(bundle: &Bundle, programs: &Path, images: &Path) -> Result<(), ImageError> {
    let path = &bundle.path;
    let file = File::open(path).map_err(|error| ImageError::Bundle(BundleError::io("open", path)(error)))?;
    let mut sink = Unpack { bin: programs.join(BIN), cni: programs.join(CNI), images: images.to_owned() };
    let head = archive::read(path, BufReader::with_capacity(1 << 20, file), &mut sink)
        .map_err(ImageError::Bundle)?;
    if head.digest == bundle.digest {
        Ok(())
    } else {
        let reason = "it was replaced while the image was being built";
        Err(ImageError::Bundle(BundleError::corrupt(path, reason)))
    }
}

/// Moves what [`unpack`] left in `programs` to the same places in `root`, over what the base system has of the name.
pub(super) fn place(programs: &Path, root: &Path) -> Result<(), ImageError> {
    for dir in [BIN, CNI] {
        let (from, to) = (programs.join(dir), root.join(dir));
        let Ok(entries) = fs::read_dir(&from) else { continue };
        make_dir(&to, 0o755).map_err(ImageError::io("make", &to))?;
        for entry in entries {
            let entry = entry.map_err(ImageError::io("read", &from))?;
            let target = to.join(entry.file_name());
            fs::rename(entry.path(), &target).map_err(ImageError::io("write", &target))?;
        }
    }
    Ok(())
}

/// Imports the OCI layout into the containerd of `root`.
pub(super) async fn import(
    bundle: &Bundle,
    root: &Path,
    images: &Path,
    progress: &mpsc::Sender<String>,
) -> Result<(), ImageError> {
    let pause = bundle.manifest.image(Role::Pause).map(|image| image.name.clone());
    let program = Program::new("unshare", STEP_DEADLINE)
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
        .args(["sh", "-c", include_str!("files/import.sh"), "import"])
        .args([root, images])
        .arg(pause.unwrap_or_default())
        .lines_to(progress.clone());
    run("import the container images", program).await.map(drop)
}
