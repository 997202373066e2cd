//! Components of a control plane that read their kubeconfig once, at their start: when the host has renewed it, their
//! static pods are started again.
//!
//! The manifest says with what its pod was started: an annotation with the kubeconfig's hash. To change it is to start
//! the pod anew, so that there is nothing to remember and no half of it to be killed in. kubeadm's manifest has none;
//! it was written after the kubeconfig that its pod reads, unless that one is newer.

use aws_lc_rs::digest;
use serde_json::Value;

use super::observe::manifest_path;
use crate::converge::step::StepError;
use crate::durable::Root;

/// Name and kubeconfig of each.
const COMPONENTS: [(&str, &str); 2] = [
    ("kube-controller-manager", "/etc/kubernetes/controller-manager.conf"),
    ("kube-scheduler", "/etc/kubernetes/scheduler.conf"),
];
const ANNOTATION: &str = "k8sctl.org/kubeconfig";

/// The components that run with a kubeconfig of before, and the manifests that start them anew.
pub fn plan(root: &Root) -> Result<Vec<(&'static str, Vec<u8>)>, StepError> {
    let mut stale = Vec::new();
    for (name, kubeconfig) in COMPONENTS {
        let path = manifest_path(name);
        let manifest = root.read(&path).map_err(StepError::read(&path))?;
        let content = root.read(kubeconfig).map_err(StepError::read(kubeconfig))?;
        let (Some(manifest), Some(content)) = (manifest, content) else { continue };
        let written = |path: &str| root.written(path).map_err(StepError::read(path));
        let is_newer = written(kubeconfig)? > written(&path)?;
        stale.extend(plan_manifest(&manifest, &content, is_newer).map(|manifest| (name, manifest)));
    }
    Ok(stale)
}

/// Writes the manifests; the kubelet sees to the rest.
pub fn execute(root: &Root, stale: &[(&'static str, Vec<u8>)]) -> Result<(), StepError> {
    for (name, manifest) in stale {
        tracing::info!(component = name, "kubeconfig renewed, the component starts again");
        let path = manifest_path(name);
        root.write(&path, manifest, 0o600).map_err(StepError::write(&path))?;
    }
    Ok(())
}

/// The manifest that starts the pod with this kubeconfig; `None` when it has it already.
fn plan_manifest(manifest: &[u8], kubeconfig: &[u8], is_newer: bool) -> Option<Vec<u8>> {
    let mut pod: Value = serde_yaml_ng::from_slice(manifest).ok()?;
    let hash = hex::encode(&digest::digest(&digest::SHA256, kubeconfig).as_ref()[..16]);
    let metadata = pod.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(serde_json::Map::new()));
    let annotations = annotations.as_object_mut()?;
    let has = annotations.get(ANNOTATION).and_then(Value::as_str);
    if has.map_or(!is_newer, |has| has == hash) {
        return None;
    }
    annotations.insert(ANNOTATION.to_owned(), hash.into());
    // JSON is YAML too, and leaves no doubt about what is a string.
    serde_json::to_vec_pretty(&pod).ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    const MANIFEST: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: kube-scheduler\nspec:\n  containers:\n  \
                            - command: [kube-scheduler, --leader-elect=false]\n    image: \"1.20\"\n";

    fn fixture() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        root.write(COMPONENTS[1].1, b"first", 0o600).expect("written");
        root.write(manifest_path("kube-scheduler"), MANIFEST.as_bytes(), 0o600).expect("written");
        age(&root, COMPONENTS[1].1, 100);
        age(&root, &manifest_path("kube-scheduler"), 50);
        (dir, root)
    }

    fn age(root: &Root, path: &str, seconds: u64) {
        let file = std::fs::File::options().write(true).open(root.path(path)).expect("opened");
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).expect("set");
    }

    fn annotation(root: &Root) -> Option<String> {
        let manifest = root.read(manifest_path("kube-scheduler")).expect("read").expect("there");
        let pod: Value = serde_yaml_ng::from_slice(&manifest).expect("YAML");
        assert_eq!(pod["spec"]["containers"][0]["image"], "1.20");
        Some(pod["metadata"]["annotations"][ANNOTATION].as_str()?.to_owned())
    }

    #[test]
    fn each_renewed_kubeconfig_starts_its_component_once() {
        let (_dir, root) = fixture();
        assert_eq!(plan(&root).expect("planned"), []);
        let mut seen = vec![annotation(&root)];
        for (content, seconds) in [(&b"second"[..], 20), (b"third", 200)] {
            root.write(COMPONENTS[1].1, content, 0o600).expect("written");
            // Once there is an annotation, it counts and no clock.
            age(&root, COMPONENTS[1].1, seconds);
            let stale = plan(&root).expect("planned");
            // An agent that is killed before it has written sees the same again.
            assert_eq!(plan(&root).expect("planned"), stale);
            assert_eq!(stale.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["kube-scheduler"]);
            execute(&root, &stale).expect("written");
            assert_eq!(plan(&root).expect("planned"), []);
            assert!(!seen.contains(&annotation(&root)));
            seen.push(annotation(&root));
        }
    }

    #[test]
    fn a_manifest_without_its_content_is_kubeadms_business() {
        let (_dir, root) = fixture();
        root.write(manifest_path("kube-scheduler"), b"", 0o600).expect("written");
        age(&root, COMPONENTS[1].1, 0);
        assert_eq!(plan(&root).expect("planned"), []);
    }
}
