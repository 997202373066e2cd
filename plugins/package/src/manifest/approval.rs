//! What a person approves of a plugin: one line for each thing that it asks for, and a digest of all of them. Lines are
//! stored as they are, so that a later version is asked about only for what is new in it.

use std::iter;

use sha2::{Digest, Sha256};

use super::Manifest;

const PRIVILEGED: &str = "pods that reach into the node: privileged, host namespaces or hostPath";

/// What a person approves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// One line for each thing that is asked for, as a person reads them.
    pub lines: Vec<String>,
    /// Of the plugin's name and all lines, not of its version. 64 hex digits.
    pub digest: String,
}

impl Approval {
    /// Lines that are not among these, in order; empty: nothing is new.
    pub fn beyond(&self, approved: &[String]) -> Vec<String> {
        self.lines.iter().filter(|line| !approved.contains(line)).cloned().collect()
    }
}

pub(super) fn of(manifest: &Manifest) -> Approval {
    let mut lines = Vec::new();
    lines.extend(manifest.privileged_pods.then(|| PRIVILEGED.to_owned()));
    lines.extend(manifest.permissions.iter().map(ToString::to_string));
    lines.extend(manifest.grants.iter().map(ToString::to_string));
    lines.extend(manifest.binds.iter().map(ToString::to_string));
    lines.extend(manifest.aggregates.iter().map(ToString::to_string));
    lines.extend(manifest.webhooks.iter().map(ToString::to_string));
    lines.extend(manifest.remotes.iter().map(ToString::to_string));
    lines.extend(manifest.node.lines());
    let mut hash = Sha256::new();
    for part in iter::once(&manifest.name).chain(&lines) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Approval { digest: hex::encode(hash.finalize()), lines }
}

#[cfg(test)]
mod tests {
    use super::super::tests::whole;

    #[test]
    fn each_thing_that_is_asked_for_is_a_line_that_people_understand() {
        assert_eq!(
            whole().approval().lines,
            [
                "pods that reach into the node: privileged, host namespaces or hostPath",
                "get,create,patch,delete Namespace named beispiel in the whole cluster: a namespace of its own",
                "get,create,patch,delete Deployment.apps named controller in namespace beispiel: the controller",
                "get,create,patch,delete ClusterRole.rbac.authorization.k8s.io named beispiel in the whole cluster: \
                 what the controller sees",
                "get,create,patch,delete RoleBinding.rbac.authorization.k8s.io named beispiel in namespace \
                 kube-system: to check who asks",
                "its service accounts may get,list,watch services,namespaces in the whole cluster: to see Services",
                "its service accounts may get,update configmaps,leases of core,coordination.k8s.io named \
                 beispiel-leader in namespace beispiel: one leader at a time",
                "its service accounts may get the URLs /metrics: to measure",
                "binds ClusterRole system:auth-delegator to its own service accounts: to check tokens",
                "binds Role extension-apiserver-authentication-reader to ServiceAccount kube-system/beispiel: to \
                 check certificates",
                "adds to the roles view,admin: who may look may see pools",
                "validates *.beispiel.example: checks pools",
                "MAY CHANGE: pods: adds a sidecar",
                "fetches manifests below https://raw.githubusercontent.com/beispiel/beispiel/: upstream's manifest",
                "takes over the pod network of all nodes",
                "sets the sysctl vm.max_map_count on all nodes",
                "loads the kernel module vxlan on all nodes",
                "trusts the registry harbor.home.example:443 on all nodes",
            ]
        );
    }

    #[test]
    fn a_wider_permission_changes_the_digest_and_a_version_does_not() {
        let manifest = whole();
        let mut newer = manifest.clone();
        newer.version.major = 9;
        assert_eq!(manifest.approval().digest, newer.approval().digest);
        newer.permissions[1].namespaces.push("another".to_owned());
        assert_ne!(manifest.approval().digest, newer.approval().digest);
    }

    #[test]
    fn only_what_is_new_is_asked_about() {
        let mut manifest = whole();
        let approved = manifest.approval().lines;
        assert_eq!(manifest.approval().beyond(&approved), Vec::<String>::new());
        manifest.grants.remove(0);
        manifest.node.modules = vec!["nbd".to_owned()];
        let new = "loads the kernel module nbd on all nodes";
        assert_eq!(manifest.approval().beyond(&approved), [new], "narrowing asks nothing");
        assert_eq!(manifest.approval().beyond(&[]).len(), approved.len() - 1);
    }
}
