//! The directory of images: one directory per id, made whole or not at all.
//!
//! One build at a time holds the directory's lock; what a killed build left is removed by the next.
//! Called by the host agent.

use std::collections::BTreeMap;
use std::fs::{self, File};
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

    /// Removes the image whose id is or begins with `id`, damaged or not, unless it is in `used`; returns its id.
    pub fn remove(&self, id: &str, used: &[String]) -> Result<String, Failure> {
        Ok(self.remove_impl(id, used)?)
    }

    fn remove_impl(&self, id: &str, used: &[String]) -> Result<String, ImageError> {
        let mut found = self.ids();
        found.retain(|name| !id.is_empty() && name.starts_with(id));
        let count = found.len();
        let (1, Some(found)) = (count, found.pop()) else {
            return Err(ImageError::Unknown { id: id.to_owned(), count });
        };
        if used.contains(&found) {
            return Err(ImageError::InUse { id: found });
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
        // A crash of the host must not leave an image whose disk is holes.
        let output_for_sync = output.clone();
        blocking::run(move || sync_all(&output_for_sync)).await?;
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

fn sync_all(dir: &Path) -> Result<(), ImageError> {
    for entry in fs::read_dir(dir).map_err(ImageError::io("read", dir))?.flatten() {
        let path = entry.path();
        File::open(&path).and_then(|file| file.sync_all()).map_err(ImageError::io("write", &path))?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;

    /// A store with images of these ids, as far as listing and removing go.
    fn store_with(ids: &[&str]) -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().expect("a directory");
        for id in ids {
            let image = dir.path().join(id);
            fs::create_dir(&image).expect("it is made");
            for name in ["disk.qcow2", "vmlinuz", "initrd.img"] {
                fs::write(image.join(name), "1234").expect("it is written");
            }
            let description = Description {
                id: (*id).to_owned(),
                inputs: id[..2].to_owned(),
                base: id[2..].to_owned(),
                kubernetes: "v1.30.0".parse().expect("a version"),
                bundle: "kubernetes-v1.30.0".to_owned(),
                bundle_digest: String::new(),
                trial: false,
                suite: "bookworm".to_owned(),
                node_agent_sha256: String::new(),
                debug_unit: false,
                images: BTreeMap::from([(Role::Pause, "k8s/pause:1".to_owned())]),
                cmdline: CMDLINE.to_owned(),
                files: FILES
                    .map(|name| (name.to_owned(), FileFacts { bytes: 4, sha256: sha256(b"1234") }))
                    .into(),
            };
            fs::write(image.join(DESCRIPTION), toml::to_string(&description).expect("toml"))
                .expect("it is written");
        }
        let store = ImageStore::new(dir.path());
        (dir, store)
    }

    #[test]
    fn whole_images_are_listed_and_halves_are_not() {
        let (dir, store) = store_with(&["aa11", "bb22"]);
        fs::remove_file(dir.path().join("bb22/vmlinuz")).expect("it is there");
        fs::create_dir(dir.path().join(".build-x")).expect("it is made");
        fs::write(dir.path().join("base-0.tar"), "").expect("it is written");
        let images = store.list().expect("it lists");
        assert_eq!(images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), ["aa11"]);
        assert_eq!(images[0].size, 12);
    }

    #[test]
    fn a_file_of_another_length_is_named() {
        let (dir, store) = store_with(&["aa11", "bb22"]);
        assert!(store.damaged().is_empty());
        fs::write(dir.path().join("bb22/disk.qcow2"), "12").expect("it is written");
        assert_eq!(store.list().expect("it lists").len(), 1);
        let damaged = store.damaged();
        let [one] = damaged.as_slice() else { panic!("{damaged:?}") };
        assert_eq!((one.id.as_str(), one.failure.id.as_str()), ("bb22", "IMAGE-DAMAGED"));
        assert_eq!(one.made_of.as_ref().map(|made| made.bundle.as_str()), Some("kubernetes-v1.30.0"));
        assert!(one.failure.reason.contains("disk.qcow2: got 2 bytes, expected 4"), "{}", one.failure.reason);
    }

    #[test]
    fn another_content_of_the_same_length_is_found_by_reading() {
        let (dir, store) = store_with(&["aa11", "bb22"]);
        store.verify("aa11").expect("it is as it was made");
        fs::write(dir.path().join("bb22/vmlinuz"), "1235").expect("it is written");
        assert_eq!(store.list().expect("it lists").len(), 2, "a look at the lengths sees nothing");
        let failure = store.verify("bb22").expect_err("it was changed");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("IMAGE-DAMAGED", "image bb22"));
        assert!(failure.reason.contains("bb22/vmlinuz: its sha256 is "), "{}", failure.reason);
        assert_eq!(store.list().expect("it lists").len(), 1, "from now on it counts as damaged");
        assert_eq!(store.damaged()[0].failure.reason, failure.reason);
    }

    #[test]
    fn removing_takes_a_prefix_and_spares_what_is_used() {
        let (dir, store) = store_with(&["aa11", "aa22", "bb33"]);
        let id = |result: Result<String, Failure>| result.map_err(|failure| failure.id);
        assert_eq!(id(store.remove("aa", &[])), Err("IMAGE-UNKNOWN".to_owned()));
        assert_eq!(id(store.remove("", &[])), Err("IMAGE-UNKNOWN".to_owned()));
        assert_eq!(id(store.remove("bb", &["bb33".to_owned()])), Err("IMAGE-IN-USE".to_owned()));
        assert_eq!(id(store.remove("aa1", &["bb33".to_owned()])), Ok("aa11".to_owned()));
        assert!(!dir.path().join("aa11").exists() && dir.path().join("bb33").exists());
    }

    #[test]
    fn what_is_damaged_is_named_and_can_be_removed() {
        let (dir, store) = store_with(&["aa11", "bb22", "cc33"]);
        fs::remove_file(dir.path().join("aa11/disk.qcow2")).expect("it is there");
        fs::write(dir.path().join("bb22").join(DESCRIPTION), "id = 7").expect("it is written");
        fs::remove_file(dir.path().join("cc33").join(DESCRIPTION)).expect("it is there");
        fs::create_dir(dir.path().join("lost+found")).expect("it is made");
        fs::write(dir.path().join("base-0.tar"), "").expect("it is written");
        let damaged = store.damaged();
        let found: Vec<_> = damaged.iter().map(|one| (one.id.as_str(), one.made_of.is_some())).collect();
        assert_eq!(found, [("aa11", true), ("bb22", false), ("cc33", false)]);
        assert!(damaged[1].failure.reason.contains("bb22/image.toml: it is no description"), "{damaged:?}");
        for id in ["aa11", "bb22", "cc33"] {
            assert_eq!(store.remove(id, &[id.to_owned()]).expect_err("it is used").id, "IMAGE-IN-USE");
            assert_eq!(store.remove(&id[..2], &[]).expect("it goes"), id);
        }
        assert!(store.damaged().is_empty() && dir.path().join("lost+found").exists());
    }

    #[test]
    fn what_is_asked_for_again_is_the_newest() {
        let (dir, store) = store_with(&["aa11", "bb22"]);
        let old = File::options().append(true).open(dir.path().join("aa11").join(DESCRIPTION));
        old.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("it is dated back");
        let built = |id: &str| store.load(id).expect("it is there").built;
        assert!(built("aa11") < built("bb22"));
        assert!(store.load_as_newest("aa11").expect("it is dated").is_some());
        assert!(built("aa11") >= built("bb22"));
        assert!(store.load_as_newest("cc33").expect("nothing to date").is_none());
    }

    #[test]
    fn the_same_inputs_are_the_image_of_the_newest_packages() {
        let (dir, store) = store_with(&["aa11", "aa22", "bb33"]);
        let old = File::options().append(true).open(dir.path().join("aa11").join(DESCRIPTION));
        old.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("it is dated back");
        let built = |inputs| store.load_built(inputs).expect("it is dated").map(|image| image.id);
        assert_eq!(built("aa").as_deref(), Some("aa22"));
        assert_eq!(built("cc"), None);
        // Built again, rather than going back to older packages.
        fs::remove_file(dir.path().join("aa22/vmlinuz")).expect("it is there");
        assert_eq!(built("aa"), None);
    }

    #[test]
    fn what_undoes_the_compression_of_modules_is_missed_at_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().to_str().expect("a path");
        for program in ["mmdebstrap", "mke2fs", "qemu-img", "tar", "unshare", "chroot", "gzip", "xz"] {
            fs::write(dir.path().join(program), "").expect("it is written");
        }
        let failure = Failure::from(check_tools([path].into_iter()).expect_err("there is no zstd"));
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("IMAGE-TOOL-MISSING", "program zstd"));
        fs::write(dir.path().join("zstd"), "").expect("it is written");
        check_tools([path].into_iter()).expect("all is there");
    }

    #[test]
    fn leftovers_of_killed_builds_go() {
        let (dir, store) = store_with(&["aa11"]);
        fs::create_dir_all(dir.path().join(".build-old/root/etc")).expect("it is made");
        store.sweep();
        assert!(!dir.path().join(".build-old").exists() && dir.path().join("aa11").exists());
    }

    #[test]
    fn ids_follow_the_inputs() {
        let dir = tempfile::tempdir().expect("a directory");
        let agent = dir.path().join("agent");
        let manifest = "format = 1\nkubernetes = \"v1.30.0\"\narch = \"x86_64\"\nname = \"x\"\ntrial = false\n\
            source = \"\"\nimage = []\ncomponent = []\n";
        let bundle = |digest: &str| crate::bundle::Bundle {
            path: PathBuf::new(),
            digest: digest.to_owned(),
            size: 0,
            manifest: toml::from_str(manifest).expect("a manifest"),
        };
        let inputs = |digest: &str, debug_unit| BuildInputs {
            bundle: bundle(digest),
            suite: "bookworm".to_owned(),
            node_agent: agent.clone(),
            debug_unit,
        };
        let id = |digest, debug_unit| identify(&inputs(digest, debug_unit)).expect("an id").0;
        fs::write(&agent, "one").expect("it is written");
        let first = id("d", false);
        assert_eq!((first.len(), id("d", false)), (32, first.clone()));
        let others = [id("e", false), id("d", true), {
            fs::write(&agent, "two").expect("it is written");
            id("d", false)
        }];
        assert!(!others.contains(&first), "{first} {others:?}");
        // Of the same inputs, another day's packages are another image.
        let of = |base| inputs::image_id(&first, base);
        assert_eq!((of("monday").len(), of("monday")), (32, of("monday")));
        assert!(of("monday") != of("tuesday") && of("monday") != inputs::image_id(&others[0], "monday"));
    }
}
