//! Copies of the files that kubeadm wrote, so that one that was changed or removed afterwards comes back as it was:
//! the static pods' manifests and the kubelet's configuration.
//!
//! kubeadm itself would write them again only where they are gone altogether, and as it thinks of them by then. Copies
//! are made when kubeadm has written, and by an agent that finds none, each with its file's permission bits; those of
//! another Kubernetes version count for nothing.

use std::fs::File;

use k8sctl_proto::node::v1::NodeRole;

use super::super::all;
use super::observe::{self, KUBELET_CONFIG, KUBELET_FLAGS, MANIFESTS, manifest_path};
use crate::converge::step::StepError;
use crate::durable::Root;

/// Where they are kept, each at its own path below it.
const KEPT: &str = "/var/lib/k8s-myhome/kept";
/// The Kubernetes version whose kubeadm wrote them; the last file that is written.
const VERSION: &str = "/var/lib/k8s-myhome/kept/version";

/// A file of kubeadm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Of the static pod of this name.
    Manifest(&'static str),
    /// At this path.
    Kubelet(&'static str),
}

impl Written {
    fn all(role: NodeRole) -> impl Iterator<Item = Self> {
        let manifests = MANIFESTS.into_iter().filter(move |_| role == NodeRole::ControlPlane);
        manifests.map(Self::Manifest).chain([KUBELET_CONFIG, KUBELET_FLAGS].map(Self::Kubelet))
    }

    fn path(self) -> String {
        match self {
            Self::Manifest(name) => manifest_path(name),
            Self::Kubelet(path) => path.to_owned(),
        }
    }

    fn copy(self) -> String {
        format!("{KEPT}{}", self.path())
    }
}

/// Files that are not as kubeadm wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drifted {
    files: Vec<Written>,
    is_kubelets: bool,
}

impl Drifted {
    /// Whether all are as they were, or nothing is known of how they were.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Whether one of them has another content, or none, that the kubelet reads at its start only.
    pub fn is_kubelets(&self) -> bool {
        self.is_kubelets
    }

    /// Their paths, for a person.
    pub fn names(&self) -> String {
        self.files.iter().map(|file| file.path()).collect::<Vec<_>>().join(", ")
    }
}

/// Compares.
pub fn drifted(root: &Root, role: NodeRole, version: &str) -> Result<Drifted, StepError> {
    let mut drifted = Drifted::default();
    if !knows(root, version)? {
        return Ok(drifted);
    }
    for file in Written::all(role) {
        let (path, copy) = (file.path(), file.copy());
        let Some(kept) = root.read(&copy).map_err(StepError::read(&copy))? else { continue };
        let mode = root.mode(&copy).map_err(StepError::read(&copy))?;
        if root.is(&path, &kept, mode).map_err(StepError::read(&path))? {
            continue;
        }
        drifted.files.push(file);
        if let Written::Kubelet(_) = file {
            // Where that cannot be said, it may.
            let is_the_same = root.read(&path).is_ok_and(|content| content == Some(kept));
            drifted.is_kubelets |= !is_the_same;
        }
    }
    Ok(drifted)
}

/// Writes them as they were, and as old: by a manifest's age, `super::renewed` sees with which kubeconfig its pod runs.
pub fn restore(root: &Root, drifted: &Drifted) -> Result<(), StepError> {
    all(drifted.files.iter().map(|file| {
        let (path, copy) = (file.path(), file.copy());
        let Some(content) = root.read(&copy).map_err(StepError::read(&copy))? else { return Ok(()) };
        let mode = root.mode(&copy).map_err(StepError::read(&copy))?;
        let age = root.written(&copy).map_err(StepError::read(&copy))?;
        root.write(&path, &content, mode).map_err(StepError::write(&path))?;
        let aged = File::open(root.path(&path)).and_then(|file| file.set_modified(age));
        aged.map_err(StepError::write(&path))
    }))
}

/// Copies what kubeadm has just written, or what a step has changed in it. Files without their content are left out.
pub fn keep(root: &Root, role: NodeRole, version: &str) -> Result<(), StepError> {
    root.remove(VERSION).map_err(StepError::write(VERSION))?;
    for file in Written::all(role) {
        let (path, copy) = (file.path(), file.copy());
        let is_whole = match file {
            Written::Manifest(name) => observe::manifest_is_whole(root, name),
            Written::Kubelet(_) => observe::kubelet_config_is_whole(root),
        };
        let content = root.read(&path).map_err(StepError::read(&path))?.filter(|_| is_whole);
        let kept = match content {
            Some(content) => root.mode(&path).and_then(|mode| root.write(&copy, &content, mode)),
            None => root.remove(&copy),
        };
        kept.map_err(StepError::write(&copy))?;
    }
    root.write(VERSION, version.as_bytes(), 0o600).map_err(StepError::write(VERSION))
}

/// The same where nothing has been kept yet: by an agent of before, or by one that was killed in between.
pub fn keep_first(root: &Root, role: NodeRole, version: &str) -> Result<(), StepError> {
    if has_any(root) { Ok(()) } else { keep(root, role, version) }
}

/// Whether there are copies at all: kubeadm has run to its end here, be it one of another version.
pub fn has_any(root: &Root) -> bool {
    root.exists(VERSION)
}

fn knows(root: &Root, version: &str) -> Result<bool, StepError> {
    Ok(root.read_text(VERSION).map_err(StepError::read(VERSION))? == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: NodeRole = NodeRole::ControlPlane;

    fn kept() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        observe::write_kubelet_config(&root);
        for name in MANIFESTS {
            observe::write_manifest(&root, name);
        }
        keep(&root, ROLE, "v1.33.1").expect("kept");
        (dir, root)
    }

    #[test]
    fn each_file_that_was_changed_or_removed_comes_back_as_it_was() {
        let (_dir, root) = kept();
        let none = drifted(&root, ROLE, "v1.33.1").expect("compared");
        assert!(none.is_empty());
        for file in Written::all(ROLE) {
            let before = root.read(file.path()).expect("read").expect("there");
            let mode = root.mode(file.path()).expect("read");
            let mut changed = before.clone();
            changed.extend_from_slice(b"# changed\n");
            for content in [Some(changed), None] {
                match content {
                    Some(content) => root.write(file.path(), &content, 0o644).expect("written"),
                    None => root.remove(file.path()).expect("removed"),
                }
                let found = drifted(&root, ROLE, "v1.33.1").expect("compared");
                assert_eq!((&found.files, found.names()), (&vec![file], file.path()));
                assert_eq!(found.is_kubelets(), matches!(file, Written::Kubelet(_)));
                restore(&root, &found).expect("restored");
                assert!(root.is(file.path(), &before, mode).expect("read"));
                let age = |path| root.written(path).expect("read");
                assert_eq!(age(file.path()), age(file.copy()));
                assert!(drifted(&root, ROLE, "v1.33.1").expect("compared").is_empty());
            }
        }
    }

    #[test]
    fn other_permission_bits_and_a_link_come_back_too_and_are_nothing_to_the_kubelet() {
        let (dir, root) = kept();
        let elsewhere = dir.path().join("elsewhere");
        for file in Written::all(ROLE) {
            let before = root.read(file.path()).expect("read").expect("there");
            let mode = root.mode(file.path()).expect("read");
            for is_link in [false, true] {
                if is_link {
                    std::fs::rename(root.path(file.path()), &elsewhere).expect("moved");
                    std::os::unix::fs::symlink(&elsewhere, root.path(file.path())).expect("linked");
                } else {
                    root.write(file.path(), &before, 0o640).expect("written");
                }
                let found = drifted(&root, ROLE, "v1.33.1").expect("compared");
                assert_eq!((&found.files, found.is_kubelets()), (&vec![file], false));
                restore(&root, &found).expect("restored");
                assert!(root.is(file.path(), &before, mode).expect("read"));
            }
        }
    }

    #[test]
    fn copies_of_another_version_and_halves_count_for_nothing() {
        let (_dir, root) = kept();
        root.write(manifest_path("etcd"), b"torn", 0o600).expect("written");
        assert!(drifted(&root, ROLE, "v1.34.0").expect("compared").is_empty());
        keep_first(&root, ROLE, "v1.34.0").expect("left alone");
        assert_eq!(drifted(&root, ROLE, "v1.33.1").expect("compared").files, [Written::Manifest("etcd")]);
        // What is torn when kubeadm has run is no truth either.
        keep(&root, ROLE, "v1.33.1").expect("kept");
        assert!(drifted(&root, ROLE, "v1.33.1").expect("compared").is_empty());
    }

    #[test]
    fn a_worker_has_no_manifests_and_nothing_is_known_before_the_first_copy() {
        let (dir, root) = kept();
        std::fs::remove_dir_all(dir.path().join(KEPT.trim_start_matches('/'))).expect("removed");
        root.remove(KUBELET_FLAGS).expect("removed");
        assert!(drifted(&root, NodeRole::Worker, "v1.33.1").expect("compared").is_empty());
        observe::write_kubelet_config(&root);
        keep_first(&root, NodeRole::Worker, "v1.33.1").expect("kept");
        root.remove(manifest_path("etcd")).expect("removed");
        assert!(drifted(&root, NodeRole::Worker, "v1.33.1").expect("compared").is_empty());
        root.remove(KUBELET_FLAGS).expect("removed");
        assert!(drifted(&root, NodeRole::Worker, "v1.33.1").expect("compared").is_kubelets());
    }
}
