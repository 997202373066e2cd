//! Which container images may go when the disk is full: those that nothing uses and that the bundle did not bring.
//!
//! What the bundle brought is what containerd had before the node's first pod pulled anything: it is written down then,
//! once. A bundle's image cannot be pulled again where there is no network.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::durable;
use crate::steps::cri::{Container, Image};

/// The list of what the bundle brought, on the disk.
#[derive(Debug)]
pub struct Known(PathBuf);

impl Known {
    /// In the agent's state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self(state_dir.join("bundle-images"))
    }

    /// Ids and names; `None` means: not written down yet.
    pub fn load(&self) -> Option<HashSet<String>> {
        let text = std::fs::read_to_string(&self.0).ok()?;
        Some(text.lines().map(str::to_owned).collect())
    }

    /// Writes down what is there now.
    pub fn keep(&self, images: &[Image]) -> std::io::Result<()> {
        let mut text = String::new();
        for name in images.iter().flat_map(Image::names) {
            text.push_str(name);
            text.push('\n');
        }
        durable::write(&self.0, text.as_bytes(), 0o600)
    }
}

/// The images that may go, the largest first.
pub fn plan_removal(images: Vec<Image>, containers: &[Container], kept: &HashSet<String>) -> Vec<Image> {
    let used: HashSet<&str> = containers.iter().flat_map(Container::images).collect();
    let mut unused: Vec<Image> = images
        .into_iter()
        .filter(|image| !image.pinned)
        .filter(|image| !image.names().any(|name| used.contains(name) || kept.contains(name)))
        .collect();
    unused.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    unused
}

/// Image names in a static pod's manifest.
pub fn of_manifest(manifest: &[u8]) -> Vec<String> {
    let pod: serde_json::Value = serde_yaml_ng::from_slice(manifest).unwrap_or_default();
    let of = |kind: &str| pod["spec"][kind].as_array().cloned().unwrap_or_default();
    let containers = of("containers").into_iter().chain(of("initContainers"));
    containers.filter_map(|container| Some(container["image"].as_str()?.to_owned())).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn image(id: &str, name: &str, size: u64) -> Image {
        Image { id: id.into(), repo_tags: vec![name.into()], size, ..Image::default() }
    }

    #[test]
    fn only_what_nobody_uses_and_the_bundle_did_not_bring_goes() {
        let images = vec![
            image("sha256:1", "used-by-id", 9),
            image("sha256:2", "used-by-name", 9),
            image("sha256:3", "bundled-by-name", 9),
            image("sha256:4", "bundled-by-id", 9),
            Image { pinned: true, ..image("sha256:5", "pinned", 9) },
            Image { repo_digests: vec!["r@sha256:9".into()], ..image("sha256:6", "used-by-digest", 9) },
            image("sha256:7", "small", 1),
            image("sha256:8", "large", 5),
        ];
        let used = |image: &str, image_ref: &str| Container::example(image, image_ref);
        let containers = [used("sha256:1", ""), used("used-by-name", "sha256:other"), used("", "r@sha256:9")];
        let kept = HashSet::from(["bundled-by-name".to_owned(), "sha256:4".to_owned()]);
        let ids: Vec<String> =
            plan_removal(images, &containers, &kept).into_iter().map(|image| image.id).collect();
        assert_eq!(ids, ["sha256:8", "sha256:7"]);
    }

    #[test]
    fn what_was_there_first_is_kept_by_id_and_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let known = Known::new(dir.path());
        assert_eq!(known.load(), None);
        known.keep(&[image("sha256:1", "registry.k8s.io/etcd:3", 1)]).expect("written");
        let names = known.load().expect("there");
        assert!(names.contains("sha256:1") && names.contains("registry.k8s.io/etcd:3"), "{names:?}");
    }

    #[test]
    fn images_of_static_pods_are_read() {
        let manifest =
            b"kind: Pod\nspec:\n  containers:\n  - image: a:1\n  initContainers:\n  - image: b:2\n";
        assert_eq!(of_manifest(manifest), ["a:1", "b:2"]);
        assert!(of_manifest(b"{").is_empty());
    }
}
