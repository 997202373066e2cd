//! The directory of images: one directory per id, made whole or not at all.
//!
//! One build at a time holds the directory's lock; what a killed build left is removed by the next.
//! Called by the host agent.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use k8sctl_command::Program;
use k8sctl_types::failure::Failure;
use k8sctl_types::suite::Suite;
use k8sctl_types::version::KubernetesVersion;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::base;
use super::inputs::{self, BuildInputs, CMDLINE, Packages};
use super::{ImageError, STEP_DEADLINE, boot, content, disk, rootfs, run, say};
use crate::blocking;
use crate::bundle::{Manifest, Role};
use crate::digest::sha256_file;

#[cfg(test)]
mod tests;

const DESCRIPTION: &str = "image.toml";
/// Is there when reading the image showed that a file is not as it was made: which, and why, a line each.
const DAMAGED: &str = "damaged";
/// Root disk, kernel and initrd.
const FILES: [&str; 3] = ["disk.qcow2", "vmlinuz", "initrd.img"];

/// Programs that a build runs, and the Debian package of each.
const TOOLS: [(&str, &str); 6] = [
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("qemu-img", "qemu-utils"),
    ("tar", "tar"),
    ("unshare", "util-linux"),
    ("chroot", "coreutils"),
];

/// A built image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// 32 hexadecimal digits, from the inputs.
    pub id: String,
    /// Where it is.
    pub dir: PathBuf,
    /// Root disk, qcow2: the backing file of every node's own.
    pub disk: PathBuf,
    /// Kernel for direct boot.
    pub kernel: PathBuf,
    /// Initrd for direct boot.
    pub initrd: PathBuf,
    /// Kernel command line. The caller may append, `mitigations=off` under emulation.
    pub cmdline: String,
    /// The release in it.
    pub kubernetes: KubernetesVersion,
    /// The bundle's name.
    pub bundle: String,
    /// Whether the bundle is a lab's.
    pub trial: bool,
    /// Names of the container images inside, by role; of several for one role the first.
    pub images: BTreeMap<Role, String>,
    /// `bookworm`.
    pub suite: String,
    /// Whether it has the lab's debug unit.
    pub debug_unit: bool,
    /// Bytes on disk.
    pub size: u64,
    /// When it was last built, or asked for again.
    pub built: SystemTime,
}

/// `image.toml`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    id: String,
    /// What it was asked to be made of; images of other days have the same.
    #[serde(default)]
    inputs: String,
    /// What its packages and their versions are.
    #[serde(default)]
    base: String,
    kubernetes: KubernetesVersion,
    bundle: String,
    bundle_digest: String,
    trial: bool,
    suite: String,
    node_agent_sha256: String,
    debug_unit: bool,
    cmdline: String,
    images: BTreeMap<Role, String>,
    /// Each file, by name.
    #[serde(default)]
    files: BTreeMap<String, FileFacts>,
}

/// A file as it was made.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFacts {
    bytes: u64,
    sha256: String,
}

/// An image in the store that cannot be used.
#[derive(Clone, Debug)]
pub struct DamagedImage {
    /// Its id: the name of its directory.
    pub id: String,
    /// What its description says of it; `None` where that cannot be read.
    pub made_of: Option<MadeOf>,
    /// What is wrong with it.
    pub failure: Failure,
}

/// What an image was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeOf {
    /// The release.
    pub kubernetes: KubernetesVersion,
    /// The bundle's name.
    pub bundle: String,
    /// `bookworm`.
    pub suite: String,
    /// Whether the bundle is a lab's.
    pub trial: bool,
}

/// The images of this host.
#[derive(Clone, Debug)]
pub struct ImageStore {
    dir: PathBuf,
}

impl ImageStore {
    /// A store in `dir`, which is made when first needed.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Every image, by id.
    pub fn list(&self) -> Result<Vec<Image>, Failure> {
        Ok(self.ids().iter().filter_map(|name| self.load(name)).collect())
    }

    /// Names of the container images in an image by role, also of a damaged one whose description can be read.
    pub fn container_images(&self, id: &str) -> Option<BTreeMap<Role, String>> {
        self.describe(id).ok().map(|description| description.images)
    }

    /// The directories that are named like images, whole or not.
    fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let is_id = |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_hexdigit());
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(is_id)
            .collect();
        names.sort();
        names
    }

    /// Images with a file that is missing, has another length than it was made with, or failed [`Self::verify`], and
    /// those without a readable description. They are not listed, and [`Self::build`] makes them anew.
    pub fn damaged(&self) -> Vec<DamagedImage> {
        let damaged = |id: String| {
            let (made_of, error) = match self.describe(&id) {
                Ok(description) => {
                    let error = self.check(&description).err()?;
                    let Description { kubernetes, bundle, suite, trial, .. } = description;
                    (Some(MadeOf { kubernetes, bundle, suite, trial }), error)
                }
                Err(error) => (None, error),
            };
            let mut failure = Failure::from(error);
            if let Some(MadeOf { bundle, suite, .. }) = &made_of {
                failure.next_step = format!(
                    "build it again with `k8sctl image build --bundle {bundle} --suite {suite}`; running VMs keep what \
                     they have"
                );
            }
            Some(DamagedImage { id, made_of, failure })
        };
        self.ids().into_iter().filter_map(damaged).collect()
    }

    /// Removes the image whose id is or begins with `id`, damaged or not, unless it is in `used`, which has the
    /// names of the clusters on each; returns its id.
    pub fn remove(&self, id: &str, used: &BTreeMap<String, Vec<String>>) -> Result<String, Failure> {
        Ok(self.remove_impl(id, used)?)
    }

    fn remove_impl(&self, id: &str, used: &BTreeMap<String, Vec<String>>) -> Result<String, ImageError> {
        let mut found = self.ids();
        found.retain(|name| !id.is_empty() && name.starts_with(id));
        let count = found.len();
        let (1, Some(found)) = (count, found.pop()) else {
            return Err(ImageError::Unknown { id: id.to_owned(), count });
        };
        if let Some(clusters) = used.get(&found) {
            return Err(ImageError::InUse { id: found, clusters: clusters.clone() });
        }
        // Renamed first: a half-removed image is a leftover, never an image.
        let (dir, grave) = (self.dir.join(&found), self.dir.join(format!(".build-removed-{found}")));
        fs::rename(&dir, &grave).map_err(ImageError::io("remove", &dir))?;
        fs::remove_dir_all(&grave).map_err(ImageError::io("remove", &grave))?;
        Ok(found)
    }

    /// The image of these inputs, built now unless there is one with such packages. Lines of progress go to
    /// `progress`; one that does not keep up misses lines. Needs root. Dropping the future ends the build.
    pub async fn build(
        &self,
        inputs: BuildInputs,
        packages: Packages,
        progress: mpsc::Sender<String>,
    ) -> Result<Image, Failure> {
        Ok(self.build_impl(inputs, packages, &progress).await?)
    }

    async fn build_impl(
        &self,
        inputs: BuildInputs,
        packages: Packages,
        progress: &mpsc::Sender<String>,
    ) -> Result<Image, ImageError> {
        let identified = inputs.clone();
        let (inputs_id, suite, node_agent_sha256) = blocking::run(move || identify(&identified)).await?;
        let built = || match packages {
            Packages::AsBuilt => self.load_built(&inputs_id),
            Packages::Current => Ok(None),
        };
        if let Some(image) = built()? {
            return Ok(image);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        check_tools(path.split(':').chain(["/usr/sbin", "/sbin"]))?;
        fs::create_dir_all(&self.dir).map_err(ImageError::io("make", &self.dir))?;
        let dir = self.dir.clone();
        let _lock = blocking::run(move || lock(&dir)).await?;
        // Whoever held the lock may have built it.
        if let Some(image) = built()? {
            return Ok(image);
        }
        self.sweep();

        let work = tempfile::Builder::new()
            .prefix(".build-")
            .tempdir_in(&self.dir)
            .map_err(ImageError::io("write to", &self.dir))?;
        let [root, programs, images, output] =
            ["root", "programs", "images", "output"].map(|name| work.path().join(name));
        for path in [&root, &programs, &images, &output] {
            fs::create_dir(path).map_err(ImageError::io("make", path))?;
        }
        // First, for it is what may be broken, and the base system takes minutes.
        say(progress, format!("unpacking bundle {}", inputs.bundle.manifest.name));
        let (bundle, to_programs, to_images) = (inputs.bundle.clone(), programs.clone(), images.clone());
        blocking::run(move || content::unpack(&bundle, &to_programs, &to_images)).await?;
        let base = base::provide(&self.dir, suite, packages, progress).await?;
        let to_identify = base.clone();
        let base_id = blocking::run(move || base::identify(&to_identify)).await?;
        let id = inputs::image_id(&inputs_id, &base_id);
        if let Some(image) = self.load_as_newest(&id)? {
            say(progress, format!("no package is newer than in image {id}"));
            return Ok(image);
        }
        say(progress, "unpacking the base system");
        let tar = Program::new("tar", STEP_DEADLINE)
            .args(["--extract", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--file"])
            .arg(&base)
            .arg("--directory")
            .arg(&root);
        run("unpack the base system", tar).await?;
        content::place(&programs, &root)?;
        rootfs::apply(&root, &rootfs::plan_overlay(inputs.debug_unit), &inputs.node_agent)?;
        say(progress, "importing container images");
        content::import(&inputs.bundle, &root, &images, progress).await?;
        let _ = fs::remove_dir_all(&images);

        say(progress, "making kernel, initrd and disk");
        boot::make(&root, &output.join("vmlinuz"), &output.join("initrd.img")).await?;
        disk::make(&root, &work.path().join("disk.raw"), &output.join("disk.qcow2"), &id).await?;
        let description = Description {
            id: id.clone(),
            inputs: inputs_id,
            base: base_id,
            kubernetes: inputs.bundle.manifest.kubernetes.clone(),
            bundle: inputs.bundle.manifest.name.clone(),
            bundle_digest: inputs.bundle.digest.clone(),
            trial: inputs.bundle.manifest.trial,
            images: image_names(&inputs.bundle.manifest),
            suite: suite.name.to_owned(),
            node_agent_sha256,
            debug_unit: inputs.debug_unit,
            cmdline: CMDLINE.to_owned(),
            files: facts(&output).await?,
        };
        let path = output.join(DESCRIPTION);
        let text = toml::to_string(&description).unwrap_or_default();
        fs::write(&path, text).map_err(ImageError::io("write", &path))?;
        let to_finish = output.clone();
        blocking::run(move || finish(&to_finish)).await?;
        let target = self.dir.join(&id);
        let _ = fs::remove_dir_all(&target);
        fs::rename(&output, &target).map_err(ImageError::io("write", &target))?;
        say(progress, format!("image {id} is ready"));
        self.load(&id).ok_or_else(|| ImageError::Incomplete { what: "readable image.toml".to_owned() })
    }

    fn describe(&self, id: &str) -> Result<Description, ImageError> {
        let path = self.dir.join(id).join(DESCRIPTION);
        let damaged = |reason| ImageError::Damaged { id: id.to_owned(), path: path.clone(), reason };
        let text = fs::read_to_string(&path).map_err(|error| damaged(format!("cannot read it: {error}")))?;
        let description: Description = toml::from_str(&text)
            .map_err(|error| damaged(format!("it is no description of an image: {}", error.message())))?;
        if description.id != id {
            return Err(damaged(format!("it is the description of image {}", description.id)));
        }
        Ok(description)
    }

    /// Reads the files of an image, before VMs boot from them for the first time. An image that is not as it was
    /// made counts as damaged from now on.
    pub fn verify(&self, id: &str) -> Result<(), Failure> {
        let Ok(description) = self.describe(id) else { return Ok(()) };
        self.check(&description)?;
        let dir = self.dir.join(id);
        for (name, made) in &description.files {
            let path = dir.join(name);
            let got = sha256_file(&path).map_err(ImageError::io("read", &path))?;
            if got != made.sha256 {
                let reason = format!("its sha256 is {got}, it was made with {}", made.sha256);
                let mark = dir.join(DAMAGED);
                let text = format!("{name}\n{reason}\n");
                fs::write(&mark, text).map_err(ImageError::io("write", &mark))?;
                return Err(ImageError::Damaged { id: id.to_owned(), path, reason }.into());
            }
        }
        Ok(())
    }

    /// The length of all files, which must be there and as long as they were made.
    fn check(&self, description: &Description) -> Result<u64, ImageError> {
        let dir = self.dir.join(&description.id);
        if let Ok(mark) = fs::read_to_string(dir.join(DAMAGED)) {
            let (name, reason) = mark.trim_end().split_once('\n').unwrap_or((DAMAGED, ""));
            let (path, reason) = (dir.join(name), reason.to_owned());
            return Err(ImageError::Damaged { id: description.id.clone(), path, reason });
        }
        let mut size = 0;
        for name in FILES {
            let damaged =
                |reason| ImageError::Damaged { id: description.id.clone(), path: dir.join(name), reason };
            let got = fs::metadata(dir.join(name)).map_err(|error| damaged(error.to_string()))?.len();
            let expected = description.files.get(name).map_or(got, |made| made.bytes);
            if got != expected {
                return Err(damaged(format!("got {got} bytes, expected {expected}")));
            }
            size += got;
        }
        Ok(size)
    }

    fn load(&self, id: &str) -> Option<Image> {
        let dir = self.dir.join(id);
        let description = self.describe(id).ok()?;
        let size = self.check(&description).ok()?;
        let [disk, kernel, initrd] = FILES.map(|name| dir.join(name));
        Some(Image {
            id: description.id,
            disk,
            kernel,
            initrd,
            cmdline: description.cmdline,
            kubernetes: description.kubernetes,
            bundle: description.bundle,
            trial: description.trial,
            images: description.images,
            suite: description.suite,
            debug_unit: description.debug_unit,
            size,
            built: fs::metadata(dir.join(DESCRIPTION)).and_then(|data| data.modified()).ok()?,
            dir,
        })
    }

    /// The image of these inputs that was last built or asked for, if it can be used; from now on it counts as the
    /// newest. Where it is damaged, an older one with older packages is not taken instead.
    fn load_built(&self, inputs_id: &str) -> Result<Option<Image>, ImageError> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let same =
            names.filter(|name| self.describe(name).is_ok_and(|description| description.inputs == inputs_id));
        let age = |id: &String| {
            fs::metadata(self.dir.join(id).join(DESCRIPTION)).and_then(|data| data.modified()).ok()
        };
        same.max_by_key(age).map_or(Ok(None), |id| self.load_as_newest(&id))
    }

    /// The image of that id, if it is there; from now on it counts as the newest.
    fn load_as_newest(&self, id: &str) -> Result<Option<Image>, ImageError> {
        if self.load(id).is_none() {
            return Ok(None);
        }
        let path = self.dir.join(id).join(DESCRIPTION);
        let file = File::options().append(true).open(&path).map_err(ImageError::io("open", &path))?;
        file.set_modified(SystemTime::now()).map_err(ImageError::io("write to", &path))?;
        Ok(self.load(id))
    }

    /// Removes what killed builds left. Only with the lock held.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".build-")
                && let Err(error) = fs::remove_dir_all(entry.path())
            {
                tracing::warn!(path = %entry.path().display(), %error, "a killed build's leftover stays");
            }
        }
    }
}

/// The files of an image that was just made.
async fn facts(output: &Path) -> Result<BTreeMap<String, FileFacts>, ImageError> {
    let output = output.to_owned();
    let facts = move |name: &str| {
        let path = output.join(name);
        let failed = ImageError::io("read", &path);
        let bytes = fs::metadata(&path).and_then(|data| Ok((data.len(), sha256_file(&path)?)));
        let (bytes, sha256) = bytes.map_err(failed)?;
        Ok((name.to_owned(), FileFacts { bytes, sha256 }))
    };
    blocking::run(move || FILES.into_iter().map(facts).collect()).await
}

fn identify(inputs: &BuildInputs) -> Result<(String, &'static Suite, String), ImageError> {
    let suite = base::find(&inputs.suite)?;
    let agent = sha256_file(&inputs.node_agent).map_err(ImageError::io("read", &inputs.node_agent))?;
    Ok((inputs::inputs_id(inputs, suite, &agent), suite, agent))
}

/// Before anything is done: whether all programs of a build are in `dirs`.
fn check_tools<'a>(dirs: impl Iterator<Item = &'a str>) -> Result<(), ImageError> {
    let dirs: Vec<&Path> = dirs.map(Path::new).collect();
    let decompressors = boot::DECOMPRESSORS.map(|(_, program, package)| (program, package));
    for (program, package) in TOOLS.into_iter().chain(decompressors) {
        if !dirs.iter().any(|dir| dir.join(program).exists()) {
            return Err(ImageError::ToolMissing { program, package });
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, ImageError> {
    let path = dir.join(".lock");
    let file = File::create(&path).map_err(ImageError::io("open", &path))?;
    file.lock().map_err(ImageError::io("lock", &path))?;
    Ok(file)
}

/// QEMU's user reads the files, whatever our umask; a crash of the host must not leave an image whose disk is holes.
fn finish(dir: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).map_err(ImageError::io("read", dir))?.flatten() {
        let path = entry.path();
        let done = || {
            let file = File::open(&path)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()
        };
        done().map_err(ImageError::io("write", &path))?;
    }
    Ok(())
}

/// The container images' names by role, the first of each.
fn image_names(manifest: &Manifest) -> BTreeMap<Role, String> {
    let mut names = BTreeMap::new();
    for image in &manifest.images {
        names.entry(image.role).or_insert_with(|| image.name.clone());
    }
    names
}
