//! Which versions go together: a table per Kubernetes minor.
//!
//! etcd, CoreDNS and pause are kubeadm's own (`cmd/kubeadm/app/constants`), and change within a minor:
//! the table has those of its first release, and [`super::assemble`] asks the fetched kubeadm itself,
//! which wins. containerd follows containerd's support matrix.

use k8sctl_types::version::KubernetesVersion;

/// What is fetched where nothing else is asked for.
pub const DEFAULT_RELEASE: &str = "v1.34.1";

/// [`DEFAULT_RELEASE`], parsed.
pub fn default_release() -> KubernetesVersion {
    DEFAULT_RELEASE.parse().expect("the constant is a version: a test parses it")
}

/// What goes with one Kubernetes minor.
#[derive(Clone, Copy, Debug)]
pub struct Companions {
    minor: u64,
    /// Image tag.
    pub etcd: &'static str,
    /// Image tag.
    pub coredns: &'static str,
    /// Image tag.
    pub pause: &'static str,
    /// Release, without `v`.
    pub containerd: &'static str,
    /// Release, without `v`.
    pub runc: &'static str,
    /// Release, without `v`.
    pub cni: &'static str,
    /// Release, without `v`.
    pub crictl: &'static str,
}

macro_rules! companions {
    ($($minor:literal $etcd:literal $coredns:literal $pause:literal $containerd:literal $runc:literal $cni:literal $crictl:literal;)*) => {
        [$(Companions {
            minor: $minor, etcd: $etcd, coredns: $coredns, pause: $pause, containerd: $containerd,
            runc: $runc, cni: $cni, crictl: $crictl,
        },)*]
    };
}

// minor, etcd, coredns, pause, containerd, runc, cni, crictl
const TABLE: [Companions; 7] = companions! {
    29 "3.5.10-0" "v1.11.1" "3.9" "1.7.27" "1.2.6" "1.6.2" "1.29.0";
    30 "3.5.12-0" "v1.11.1" "3.9" "1.7.27" "1.2.6" "1.6.2" "1.30.0";
    31 "3.5.15-0" "v1.11.1" "3.10" "1.7.27" "1.2.6" "1.6.2" "1.31.1";
    32 "3.5.16-0" "v1.11.3" "3.10" "2.0.5" "1.2.6" "1.6.2" "1.32.0";
    33 "3.5.21-0" "v1.12.0" "3.10" "2.1.4" "1.3.0" "1.7.1" "1.33.0";
    34 "3.6.4-0" "v1.12.1" "3.10.1" "2.1.4" "1.3.0" "1.7.1" "1.34.0";
    35 "3.6.6-0" "v1.13.1" "3.10.1" "2.1.4" "1.3.0" "1.7.1" "1.34.0";
};

/// What goes with this version; `None` means that nobody has written it down yet.
pub fn companions(version: &KubernetesVersion) -> Option<&'static Companions> {
    TABLE.iter().find(|row| row.minor == version.minor())
}

/// `v1.29 to v1.35`.
pub fn supported() -> String {
    let minor = |row: Option<&Companions>| row.map_or(0, |row| row.minor);
    format!("v1.{} to v1.{}", minor(TABLE.first()), minor(TABLE.last()))
}

/// The images by the table, for a kubeadm that cannot be asked.
pub fn plan_images(version: &KubernetesVersion, companions: &Companions) -> Vec<String> {
    let mut images: Vec<String> =
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"]
            .iter()
            .map(|name| format!("registry.k8s.io/{name}:{version}"))
            .collect();
    images.push(format!("registry.k8s.io/coredns/coredns:{}", companions.coredns));
    images.push(format!("registry.k8s.io/pause:{}", companions.pause));
    images.push(format!("registry.k8s.io/etcd:{}", companions.etcd));
    images
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_fetched() {
        let companions = companions(&default_release()).expect("it is in the table");
        assert!(
            plan_images(&default_release(), companions).contains(&"registry.k8s.io/etcd:3.6.4-0".to_owned())
        );
    }

    #[test]
    fn every_minor_from_the_users_own_is_there() {
        for minor in 29..=35 {
            let version = format!("v1.{minor}.0").parse().expect("a version");
            assert!(companions(&version).is_some(), "{minor}");
        }
        assert_eq!(supported(), "v1.29 to v1.35");
    }
}
