//! Fetches everything that a bundle holds and installs the bundle.
//!
//! Called by the host agent. Nothing is installed unless every digest was right; a second run goes
//! on where the first stopped, and two at once are one after the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flate2::read::GzDecoder;
use futures::{StreamExt, TryStreamExt};
use k8sctl_command::Program;
use k8sctl_types::failure::Failure;
use k8sctl_types::version::KubernetesVersion;
use tokio::sync::mpsc;

use super::download::Downloader;
use super::registry::{PulledManifest, Registry};
use super::releases::{self, Companions};
use super::{FetchError, FetchSources, reach};
use crate::blocking;
use crate::bundle::lock::{StoreLock, WAITING};
use crate::bundle::write::{self, IndexEntry};
use crate::bundle::{Bundle, BundleError, BundleStore, Component, ImageEntry, Manifest, Role, store};
use crate::digest::{self, Hashing};

#[cfg(test)]
mod tests;

/// Downloads at the same time.
const PARALLEL: usize = 4;
/// `nobody` on Debian and Ubuntu.
const NOBODY: &str = "65534";
/// What a broken-off fetch left goes after so long when another version is fetched.
const PARTIAL_AGE: Duration = Duration::from_secs(28 * 24 * 3600);

/// Fetches Kubernetes `version` from `sources` and installs it as a bundle in `store`. An installed
/// bundle of that version is fetched again and replaced, unless another fetch that this one had to wait
/// for has just done so. Lines of progress go to `progress`.
pub async fn fetch(
    store: &BundleStore,
    version: &KubernetesVersion,
    sources: &FetchSources,
    progress: mpsc::Sender<String>,
) -> Result<Bundle, Failure> {
    Ok(fetch_impl(store, version, sources, progress).await?)
}

async fn fetch_impl(
    store: &BundleStore,
    version: &KubernetesVersion,
    sources: &FetchSources,
    progress: mpsc::Sender<String>,
) -> Result<Bundle, FetchError> {
    let companions = releases::companions(version)
        .ok_or_else(|| FetchError::Unsupported { version: version.to_string() })?;
    let lock = match enter(store, version, &progress).await? {
        Entered::Found(bundle) => return Ok(bundle),
        Entered::Locked(lock) => lock,
    };
    let downloader = Downloader::new(sources, store.dir().join("partial"), progress.clone())?;
    match gather(store, version, companions, sources, &downloader, &progress, lock).await {
        Ok(bundle) => Ok(bundle),
        Err(error) => Err(reach::explain(error, &downloader, sources).await),
    }
}

enum Entered {
    /// The store is ours to write to.
    Locked(StoreLock),
    /// Whoever had the lock has installed what was wanted.
    Found(Bundle),
}

/// Waits until nobody else writes to the store.
async fn enter(
    store: &BundleStore,
    version: &KubernetesVersion,
    progress: &mpsc::Sender<String>,
) -> Result<Entered, BundleError> {
    let (dir, path) = (store.dir().to_owned(), store.path_of(&name_of(version)));
    let progress = progress.clone();
    blocking::run(move || {
        let stamp = || fs::metadata(&path).ok().and_then(|data| Some((data.ino(), data.modified().ok()?)));
        let (before, mut waited) = (stamp(), false);
        let lock = StoreLock::take(&dir, || {
            waited = true;
            let _ = progress.try_send(WAITING.to_owned());
        })?;
        if waited && stamp() != before && path.exists() {
            return store::inspect_impl(&path).map(Entered::Found);
        }
        Ok(Entered::Locked(lock))
    })
    .await
}

/// The name of the bundle that a fetch of this version makes.
fn name_of(version: &KubernetesVersion) -> String {
    format!("kubernetes-{version}")
}

/// Downloads everything, and installs the bundle of it.
async fn gather(
    store: &BundleStore,
    version: &KubernetesVersion,
    companions: &Companions,
    sources: &FetchSources,
    downloader: &Downloader,
    progress: &mpsc::Sender<String>,
    lock: StoreLock,
) -> Result<Bundle, FetchError> {
    let assets = plan_assets(version, companions, sources);
    let files: Vec<Download> = futures::stream::iter(assets)
        .map(|asset| async move {
            let sums = downloader.text(&asset.checksum_url).await?;
            let sha256 = find_sum(&sums, asset.file_name()).ok_or_else(|| FetchError::Upstream {
                url: asset.checksum_url.clone(),
                reason: format!("has no sha256 of {}", asset.file_name()),
            })?;
            let path = downloader.file(&asset.url, &sha256, None).await?;
            Ok::<_, FetchError>(Download { asset, sha256, path })
        })
        .buffered(PARALLEL)
        .try_collect()
        .await?;

    let (dir, held) = (store.dir().to_owned(), lock.clone());
    let (work, files, components) = blocking::run(move || {
        let _held = held;
        let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(&dir);
        let work = work.map_err(BundleError::io("write to", &dir))?;
        let components = unpack(&files, work.path())?;
        Ok::<_, BundleError>((work, files, components))
    })
    .await?;
    let names = image_names(version, companions, &components, progress).await;
    let registry = Registry::new(&sources.registry, downloader);
    let pulled: Vec<Pulled> =
        futures::stream::iter(names).map(|name| pull(&registry, name)).buffered(2).try_collect().await?;

    let _ = progress.try_send("writing the bundle".to_owned());
    let source = format!("{} and {}", reach::host_of(&sources.kubernetes), reach::host_of(&sources.registry));
    let (store, version, partial) = (store.clone(), version.clone(), downloader.partial().to_owned());
    let bundle = blocking::run(move || {
        // Until the work directory is gone, too.
        let _held = lock;
        let bundle = install(&store, &version, source, work.path(), &components, &pulled)?;
        for path in files.iter().map(|file| &file.path).chain(pulled.iter().flat_map(|image| &image.blobs)) {
            // Shared layers are there once and named twice.
            let _ = fs::remove_file(path);
        }
        // What is left is of other versions.
        remove_older(&partial, PARTIAL_AGE);
        drop(work);
        Ok::<_, BundleError>(bundle)
    });
    Ok(bundle.await?)
}

/// Removes the files in `dir` that nothing was written to for `age`.
fn remove_older(dir: &Path, age: Duration) {
    let limit = SystemTime::now().checked_sub(age);
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|data| data.modified()).ok();
        if modified.is_some() && modified < limit {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// A file to download, and what to take out of it.
#[derive(Clone, Debug)]
struct Asset {
    url: String,
    checksum_url: String,
    version: String,
    take: Take,
}

#[derive(Clone, Debug)]
enum Take {
    /// The file itself, as `bin/NAME`.
    Whole(&'static str),
    /// These programs of an archive, as `bin/NAME`.
    Programs(&'static [&'static str]),
    /// Every program of an archive, as `cni/NAME`.
    CniPlugins,
}

impl Asset {
    fn file_name(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }
}

fn plan_assets(version: &KubernetesVersion, with: &Companions, sources: &FetchSources) -> Vec<Asset> {
    let mut assets = Vec::new();
    for name in ["kubeadm", "kubectl", "kubelet"] {
        let url = format!("{}/release/{version}/bin/linux/amd64/{name}", sources.kubernetes);
        let checksum_url = format!("{url}.sha256");
        assets.push(Asset { url, checksum_url, version: version.to_string(), take: Take::Whole(name) });
    }
    let mut github = |project: &str, version: &str, file: String, sums: String, take: Take| {
        let base = format!("{}/{project}/releases/download/v{version}", sources.github);
        let (url, checksum_url) = (format!("{base}/{file}"), format!("{base}/{sums}"));
        assets.push(Asset { url, checksum_url, version: format!("v{version}"), take });
    };
    let file = format!("containerd-{}-linux-amd64.tar.gz", with.containerd);
    let take = Take::Programs(&["containerd", "containerd-shim-runc-v2", "ctr"]);
    github("containerd/containerd", with.containerd, file.clone(), format!("{file}.sha256sum"), take);
    let take = Take::Whole("runc");
    github("opencontainers/runc", with.runc, "runc.amd64".to_owned(), "runc.sha256sum".to_owned(), take);
    let file = format!("cni-plugins-linux-amd64-v{}.tgz", with.cni);
    github("containernetworking/plugins", with.cni, file.clone(), format!("{file}.sha256"), Take::CniPlugins);
    let file = format!("crictl-v{}-linux-amd64.tar.gz", with.crictl);
    let take = Take::Programs(&["crictl"]);
    github("kubernetes-sigs/cri-tools", with.crictl, file.clone(), format!("{file}.sha256"), take);
    assets
}

/// The digest of `name` in a checksum file: a lone digest, or a line `digest  name`.
fn find_sum(text: &str, name: &str) -> Option<String> {
    let mut lone = None;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(sum) = words.next().filter(|word| digest::is_sha256(word)) else { continue };
        match words.next() {
            Some(file) if file.trim_start_matches('*').rsplit('/').next() == Some(name) => {
                return Some(sum.to_owned());
            }
            Some(_) => {}
            None => lone = Some(sum.to_owned()),
        }
    }
    lone
}

/// An asset, as it was downloaded.
#[derive(Debug)]
struct Download {
    asset: Asset,
    /// Hexadecimal, as upstream published it.
    sha256: String,
    path: PathBuf,
}

/// A file for `bin/` or `cni/`.
#[derive(Debug)]
struct Part {
    file: PathBuf,
    version: String,
    /// Upstream's where the file was downloaded as it is; else that of what was taken out of a checked archive.
    sha256: String,
    size: u64,
}

/// By path in the bundle.
type Components = BTreeMap<String, Part>;

/// Takes the components out of what was downloaded. Blocking.
fn unpack(files: &[Download], work: &Path) -> Result<Components, BundleError> {
    let mut components = Components::new();
    for Download { asset, sha256, path } in files {
        let corrupt =
            |error: io::Error| BundleError::corrupt(path, format!("{}: {error}", asset.file_name()));
        let version = asset.version.clone();
        if let Take::Whole(name) = asset.take {
            let size = fs::metadata(path).map_err(BundleError::io("read", path))?.len();
            let part = Part { file: path.clone(), version, sha256: sha256.clone(), size };
            components.insert(format!("bin/{name}"), part);
            continue;
        }
        let file = File::open(path).map_err(BundleError::io("open", path))?;
        let mut archive = tar::Archive::new(GzDecoder::new(file));
        for entry in archive.entries().map_err(corrupt)? {
            let mut entry = entry.map_err(corrupt)?;
            let inner = entry.path().map_err(corrupt)?.into_owned();
            let Some(name) = inner.file_name().and_then(|name| name.to_str()) else { continue };
            let target = match &asset.take {
                Take::Programs(names) if names.contains(&name) => format!("bin/{name}"),
                Take::CniPlugins if entry.header().mode().unwrap_or(0) & 0o111 != 0 => format!("cni/{name}"),
                _ => continue,
            };
            if !entry.header().entry_type().is_file() {
                continue;
            }
            // The name is a single path component: nothing is written outside of the work directory.
            let to = work.join(target.replace('/', "-"));
            let written = File::create(&to).and_then(|file| {
                let mut file = Hashing::new(file);
                io::copy(&mut entry, &mut file)?;
                Ok(file.finish())
            });
            let (sha256, size) = written.map_err(BundleError::io("write", &to))?;
            components.insert(target, Part { file: to, version: version.clone(), sha256, size });
        }
    }
    Ok(components)
}

/// The images that this kubeadm wants, by its own word; by the table where it cannot be asked.
async fn image_names(
    version: &KubernetesVersion,
    companions: &Companions,
    components: &Components,
    progress: &mpsc::Sender<String>,
) -> Vec<String> {
    match ask_kubeadm(version, components).await {
        Ok(names) => names,
        Err(reason) => {
            tracing::warn!(reason, "kubeadm cannot be asked for its images, using the table");
            let _ = progress
                .try_send(format!("kubeadm cannot be asked for its images ({reason}), using a table"));
            releases::plan_images(version, companions)
        }
    }
}

/// Runs the fetched, digest-checked kubeadm as nobody, from a directory that nobody may read.
async fn ask_kubeadm(version: &KubernetesVersion, components: &Components) -> Result<Vec<String>, String> {
    let kubeadm = components.get("bin/kubeadm").ok_or("there is none")?.file.clone();
    let prepare = move || -> io::Result<_> {
        let dir = tempfile::tempdir()?;
        let copy = dir.path().join("kubeadm");
        fs::copy(kubeadm, &copy)?;
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok((dir, copy))
    };
    let (_dir, copy) = blocking::run(prepare).await.map_err(|error| error.to_string())?;
    let deadline = Duration::from_secs(60);
    let program = if rustix::process::geteuid().is_root() {
        let ids = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        let program = Program::new("setpriv", deadline).args(ids);
        // Not our environment either: a proxy's password may be in it.
        program.args(["--clear-groups", "--no-new-privs", "--reset-env"]).arg(copy.as_os_str())
    } else {
        Program::new(&copy, deadline)
    };
    let version = version.to_string();
    let program = program.args(["config", "images", "list", "--kubernetes-version", version.as_str()]);
    let output = program.env("HOME", "/nonexistent").run().await.map_err(|error| error.to_string())?;
    let names: Vec<String> = output
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("registry.k8s.io/"))
        .map(str::to_owned)
        .collect();
    if names.iter().any(|name| name.contains("/kube-apiserver:")) {
        Ok(names)
    } else {
        Err("it lists none".to_owned())
    }
}

/// An image, as it was downloaded.
#[derive(Debug)]
struct Pulled {
    name: String,
    manifest: PulledManifest,
    /// Files of config and layers, in the manifest's order.
    blobs: Vec<PathBuf>,
}

async fn pull(registry: &Registry<'_>, name: String) -> Result<Pulled, FetchError> {
    let (repository, tag) = split_name(&name)
        .ok_or_else(|| FetchError::Upstream { url: name.clone(), reason: "is no image name".to_owned() })?;
    let manifest = registry.manifest(repository, tag).await?;
    let mut blobs = Vec::new();
    for (sha256, _) in &manifest.blobs {
        blobs.push(registry.blob(repository, sha256, &manifest).await?);
    }
    Ok(Pulled { name, manifest, blobs })
}

/// `registry.k8s.io/coredns/coredns:v1` is `coredns/coredns` and `v1`.
fn split_name(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').and_then(|(_, rest)| rest.rsplit_once(':'))
}

fn role_of(name: &str) -> Role {
    match split_name(name).map(|(repository, _)| repository).unwrap_or_default() {
        "kube-apiserver" => Role::KubeApiserver,
        "kube-controller-manager" => Role::KubeControllerManager,
        "kube-scheduler" => Role::KubeScheduler,
        "kube-proxy" => Role::KubeProxy,
        "etcd" => Role::Etcd,
        "pause" => Role::Pause,
        "coredns/coredns" => Role::Coredns,
        _ => Role::Workload,
    }
}

/// Writes the bundle, reads it as a stranger's would be and gives it its name. Blocking.
fn install(
    store: &BundleStore,
    version: &KubernetesVersion,
    source: String,
    work: &Path,
    components: &Components,
    pulled: &[Pulled],
) -> Result<Bundle, BundleError> {
    let mut manifest = Manifest {
        format: crate::bundle::manifest::FORMAT,
        kubernetes: version.clone(),
        arch: "x86_64".to_owned(),
        name: name_of(version),
        trial: false,
        source,
        created: None,
        components: Vec::new(),
        images: Vec::new(),
    };
    for (path, part) in components {
        manifest.components.push(Component {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            version: part.version.clone(),
            path: path.clone(),
            sha256: part.sha256.clone(),
            size: part.size,
        });
    }
    let (mut index, mut blobs) = (Vec::new(), BTreeMap::new());
    for Pulled { name, manifest: image, blobs: paths } in pulled {
        let size = image.bytes.len() as u64;
        manifest.images.push(ImageEntry {
            name: name.clone(),
            role: role_of(name),
            manifest: format!("sha256:{}", image.sha256),
            size: size + image.blobs.iter().map(|(_, size)| size).sum::<u64>(),
        });
        let media_type = image.media_type.clone();
        index.push(IndexEntry { name: name.clone(), media_type, sha256: image.sha256.clone(), size });
        let path = work.join(format!("manifest-{}", image.sha256));
        fs::write(&path, &image.bytes).map_err(BundleError::io("write", &path))?;
        blobs.insert(image.sha256.clone(), path);
        blobs.extend(image.blobs.iter().map(|(sha256, _)| sha256.clone()).zip(paths.iter().cloned()));
    }
    let files = components.iter().map(|(path, part)| (path.clone(), part.file.clone())).collect();
    let temp = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempfile_in(store.dir())
        .map_err(BundleError::io("write to", store.dir()))?;
    write::write(BufWriter::new(temp.as_file()), &manifest, &files, &index, &blobs)
        .map_err(BundleError::io("write", temp.path()))?;
    // What was just written is read as a stranger's, once: the store holds whole bundles only.
    store::verify_impl(temp.path())?;
    store.adopt(temp, &manifest.name)
}
