//! Which versions go together: a table per Kubernetes minor.
//!
//! etcd, CoreDNS and pause are kubeadm's own (`cmd/kubeadm/app/constants`, and Kubernetes' changelogs), and change
//! within a minor: the table has those of its first release, and [`super::assemble`] asks the fetched kubeadm itself,
//! which wins. Which line of containerd goes with a minor is in containerd's `RELEASES.md`. The patch releases of
//! containerd, runc, the CNI plugins and crictl are the last ones of their line that kubespray has published digests
//! of (`roles/kubespray_defaults/vars/main/checksums.yml`, August 2026); the default release is of
//! `kubernetes.io/releases` (September 2026).

use k8sctl_types::version::KubernetesVersion;

/// What is fetched where nothing else is asked for: the last patch of a minor that upstream supports (1.35 until
/// February 2027) and that is not its newest.
pub const DEFAULT_RELEASE: &str = "v1.35.9";

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
//
// runc before 1.2.8 and 1.3.3 lets a container out (CVE-2025-31133, CVE-2025-52565, CVE-2025-52881).
const TABLE: [Companions; 8] = companions! {
    29 "3.5.10-0" "v1.11.1" "3.9" "1.7.34" "1.2.9" "1.6.2" "1.29.0";
    30 "3.5.12-0" "v1.11.1" "3.9" "1.7.34" "1.2.9" "1.6.2" "1.30.0";
    31 "3.5.15-0" "v1.11.1" "3.10" "1.7.34" "1.2.9" "1.6.2" "1.31.1";
    32 "3.5.16-0" "v1.11.3" "3.10" "2.0.11" "1.2.9" "1.6.2" "1.32.0";
    33 "3.5.21-0" "v1.12.0" "3.10" "2.1.9" "1.3.6" "1.7.1" "1.33.0";
    34 "3.6.4-0" "v1.12.1" "3.10.1" "2.1.9" "1.3.6" "1.9.1" "1.34.0";
    35 "3.6.6-0" "v1.13.1" "3.10.1" "2.1.9" "1.3.6" "1.9.1" "1.35.0";
    36 "3.6.8-0" "v1.14.2" "3.10.2" "2.2.7" "1.3.6" "1.9.1" "1.36.0";
};

/// What goes with this version; `None` means that nobody has written it down yet.
pub fn companions(version: &KubernetesVersion) -> Option<&'static Companions> {
    TABLE.iter().find(|row| row.minor == version.minor())
}

/// `v1.29 to v1.36`.
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
            plan_images(&default_release(), companions).contains(&"registry.k8s.io/etcd:3.6.6-0".to_owned())
        );
    }

    #[test]
    fn every_minor_from_the_users_own_is_there() {
        for minor in 29..=36 {
            let version = format!("v1.{minor}.0").parse().expect("a version");
            assert!(companions(&version).is_some(), "{minor}");
        }
        assert_eq!(supported(), "v1.29 to v1.36");
    }

    /// CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881.
    #[test]
    fn no_row_has_a_runc_that_lets_a_container_out() {
        for row in &TABLE {
            let parts: Vec<u64> = row.runc.split('.').map(|part| part.parse().expect("a number")).collect();
            let mended = match parts[..] {
                [1, 2, patch] => patch >= 8,
                [1, 3, patch] => patch >= 3,
                [1, minor, _] => minor >= 4,
                _ => false,
            };
            assert!(mended, "1.{}: runc {}", row.minor, row.runc);
        }
    }

    /// What containerd's `RELEASES.md` says: the first of the line that a minor is tested with.
    #[test]
    fn each_minor_has_a_containerd_that_is_tested_with_it() {
        let least = [
            (29, "1.7.11"),
            (30, "1.7.13"),
            (31, "1.7.20"),
            (32, "2.0.1"),
            (33, "2.1.0"),
            (34, "2.1.3"),
            (35, "2.1.5"),
            (36, "2.2.0"),
        ];
        let parts =
            |text: &str| text.split('.').map(|part| part.parse().expect("a number")).collect::<Vec<u64>>();
        for (row, (minor, least)) in TABLE.iter().zip(least) {
            let (has, least) = (parts(row.containerd), parts(least));
            assert!(row.minor == minor && has[..2] == least[..2] && has >= least, "{minor}: {has:?}");
        }
    }
}
