//! Small bundles and images for the tests: sound in form, with nothing in them that could run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use host_artifacts::bundle::write::{self, IndexEntry};
use host_artifacts::bundle::{Component, ImageEntry, Manifest, Role};
use host_artifacts::digest::sha256;

/// The release that all of them claim to be.
pub(crate) const VERSION: &str = "v1.29.0";
/// The id of [`image`].
pub(crate) const IMAGE: &str = "0123456789abcdef0123456789abcdef";
/// In the middle of [`bundle`]'s one layer.
const LAYER: &[u8] = b"a layer with words in the middle of it";

const PROGRAMS: [&str; 7] =
    ["containerd", "containerd-shim-runc-v2", "ctr", "kubeadm", "kubectl", "kubelet", "runc"];

/// Writes a sound bundle.
pub(crate) fn bundle(path: &Path) -> Result<()> {
    bundle_of(path, VERSION)
}

/// Writes a sound bundle of a release.
pub(crate) fn bundle_of(path: &Path, release: &str) -> Result<()> {
    let work = path.with_extension("parts");
    fs::create_dir_all(&work)?;
    let put = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = work.join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    };
    let (mut files, mut components) = (BTreeMap::new(), Vec::new());
    for program in PROGRAMS {
        let bytes = format!("program {program}").into_bytes();
        let path = format!("bin/{program}");
        files.insert(path.clone(), put(program, &bytes)?);
        let (sha256, size) = (sha256(&bytes), bytes.len() as u64);
        components.push(Component {
            name: program.to_owned(),
            version: release.to_owned(),
            path,
            sha256,
            size,
        });
    }
    let part = |bytes: &[u8]| serde_json::json!({"mediaType": "x", "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()});
    let image = serde_json::json!({"schemaVersion": 2, "config": part(b"{}"), "layers": [part(LAYER)]});
    let image = image.to_string().into_bytes();
    let mut blobs = BTreeMap::new();
    for bytes in [LAYER, b"{}", &image] {
        blobs.insert(sha256(bytes), put(&sha256(bytes), bytes)?);
    }
    let index = IndexEntry {
        name: "k8s/pause:1".to_owned(),
        media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
        sha256: sha256(&image),
        size: image.len() as u64,
    };
    let manifest = Manifest {
        format: 1,
        kubernetes: release.parse()?,
        arch: "x86_64".to_owned(),
        name: format!("kubernetes-{release}"),
        trial: false,
        source: "a test".to_owned(),
        created: None,
        components,
        images: vec![ImageEntry {
            name: "k8s/pause:1".to_owned(),
            role: Role::Pause,
            manifest: format!("sha256:{}", sha256(&image)),
            size: 40,
        }],
    };
    write::write(File::create(path)?, &manifest, &files, &[index], &blobs)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

/// A copy of a bundle in which `words` are other words of the same length.
pub(crate) fn changed(sound: &Path, target: &Path, words: &str) -> Result<()> {
    let mut bytes = fs::read(sound)?;
    let at = bytes.windows(words.len()).position(|window| window == words.as_bytes());
    let at = at.with_context(|| format!("{words:?} is not in {}", sound.display()))?;
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    Ok(fs::write(target, bytes)?)
}

/// A copy of a bundle of which the end is missing.
pub(crate) fn truncated(sound: &Path, target: &Path) -> Result<()> {
    let bytes = fs::read(sound)?;
    let at = bytes.windows(LAYER.len()).position(|window| window == LAYER).context("the layer")?;
    Ok(fs::write(target, &bytes[..at + 5])?)
}

/// Puts an image into a store. Its files hold nothing: the test driver boots nobody.
pub(crate) fn image(store: &Path) -> Result<()> {
    image_as(store, IMAGE)
}

/// Puts an image with this id into a store.
pub(crate) fn image_as(store: &Path, id: &str) -> Result<()> {
    let dir = store.join(id);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let mut files = String::new();
    for name in ["disk.qcow2", "vmlinuz", "initrd.img"] {
        let content = name.repeat(1000);
        let digest = host_artifacts::digest::sha256(content.as_bytes());
        files.push_str(&format!("[files.{name:?}]\nbytes = {}\nsha256 = {digest:?}\n", content.len()));
        fs::write(dir.join(name), content)?;
    }
    let description = format!(
        "id = \"{id}\"\nkubernetes = \"{VERSION}\"\nbundle = \"kubernetes-{VERSION}\"\nbundle_digest = \"\"\n\
         trial = false\nsuite = \"bookworm\"\nnode_agent_sha256 = \"\"\ndebug_unit = false\ncmdline = \"root=/dev/vda\"\n\
         [images]\nkube-apiserver = \"registry.k8s.io/kube-apiserver:{VERSION}\"\n{files}"
    );
    fs::write(dir.join("image.toml"), description)?;
    Ok(())
}

/// Nothing is in a directory but what is named.
pub(crate) fn holds_only(dir: &Path, names: &[&str]) -> Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        found.push(entry?.file_name().to_string_lossy().into_owned());
    }
    found.sort();
    ensure!(found == names, "{} holds {found:?}, expected {names:?}", dir.display());
    Ok(())
}
