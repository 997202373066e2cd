//! What is laid over the base system: units, configuration, masks, the node agent.
//!
//! [`plan_overlay`] is pure, so that a test can tell what a product image holds; `apply` is dumb.
//! Called by [`super::store`]. Programs and CNI plugins come from the bundle, see [`super::content`].

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use super::ImageError;
use crate::digest::sha256;

/// Where the node agent is in an image.
pub const NODE_AGENT: &str = "usr/lib/k8s-myhome/k8s-node-agent";

/// Something below the root of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A directory, made unless there.
    Dir {
        /// Relative to the root.
        path: &'static str,
        /// Permission bits.
        mode: u32,
    },
    /// A file, written anew.
    File {
        /// Relative to the root.
        path: &'static str,
        /// Permission bits.
        mode: u32,
        /// All of it.
        content: &'static str,
    },
    /// A symbolic link, made anew.
    Link {
        /// Relative to the root.
        path: String,
        /// Where it points.
        target: String,
    },
    /// A path that goes, with all below it.
    Removed {
        /// Relative to the root.
        path: &'static str,
    },
}

const UNITS: &str = "etc/systemd/system";

/// Units that a node has no use for; each costs time at boot, under emulation the more.
const MASKED: [&str; 40] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "motd-news.timer",
    "man-db.timer",
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "getty-static.service",
    "console-getty.service",
    "container-getty@.service",
    "systemd-networkd-wait-online.service",
    "systemd-network-generator.service",
    "systemd-pstore.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-user-sessions.service",
    "systemd-firstboot.service",
    "systemd-machine-id-commit.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "systemd-update-done.service",
    "systemd-binfmt.service",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-rfkill.socket",
    "proc-sys-fs-binfmt_misc.automount",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "modprobe@.service",
    "kmod-static-nodes.service",
    "systemd-modules-load.service",
    "systemd-random-seed.service",
    "systemd-remount-fs.service",
    "remote-fs.target",
];

/// Each is a process at every boot that finds nothing to generate.
const MASKED_GENERATORS: [&str; 12] = [
    "bless-boot",
    "cryptsetup",
    "fstab",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
    "system-update",
    "sysv",
    "veritysetup",
];

/// Started at boot: `(wanting unit, unit, directory of the unit)`.
const WANTED: [(&str, &str, &str); 8] = [
    ("multi-user.target.wants", "k8s-node-agent.service", "/etc/systemd/system"),
    ("multi-user.target.wants", "k8s-node-agent-guard.service", "/etc/systemd/system"),
    ("multi-user.target.wants", "k8s-grow-root.service", "/etc/systemd/system"),
    ("multi-user.target.wants", "k8s-power-button.timer", "/etc/systemd/system"),
    ("multi-user.target.wants", "k8s-resolv.path", "/etc/systemd/system"),
    ("multi-user.target.wants", "k8s-resolv.service", "/etc/systemd/system"),
    ("multi-user.target.wants", "systemd-networkd.service", "/lib/systemd/system"),
    ("sockets.target.wants", "systemd-networkd.socket", "/lib/systemd/system"),
];

macro_rules! file {
    ($path:expr, $mode:expr, $name:literal) => {
        Item::File { path: $path, mode: $mode, content: include_str!(concat!("files/", $name)) }
    };
}

/// Everything that is laid over the base system, in order. The debug unit is there only when asked for.
pub fn plan_overlay(debug_unit: bool) -> Vec<Item> {
    let text = |path, content| Item::File { path, mode: 0o644, content };
    let dir = |path, mode| Item::Dir { path, mode };
    let link = |path: String, target: &str| Item::Link { path, target: target.to_owned() };
    let mut items = vec![
        // Empty: every VM gets an id of its own at its first boot, without systemd's first-boot work.
        text("etc/machine-id", ""),
        text("etc/hostname", "localhost\n"),
        text("etc/hosts", "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"),
        // The initrd mounts the root read-write; there is nothing left to remount or check.
        Item::Removed { path: "etc/fstab" },
        link("etc/resolv.conf".to_owned(), "/run/resolv.conf"),
        // Newer than /usr: no unit with ConditionNeedsUpdate runs.
        text("etc/.updated", ""),
        text("var/.updated", ""),
        text("etc/crictl.yaml", "runtime-endpoint: unix:///run/containerd/containerd.sock\n"),
        dir("var/log/journal", 0o755),
        dir("etc/kubernetes/manifests", 0o755),
        dir("etc/containerd", 0o755),
        dir("etc/cni/net.d", 0o755),
        // As the kubelet would make it.
        dir("var/lib/kubelet", 0o750),
        file!("etc/systemd/system.conf.d/k8s-myhome.conf", 0o644, "system.conf"),
        file!("etc/systemd/journald.conf.d/k8s-myhome.conf", 0o644, "journald.conf"),
        file!("etc/systemd/networkd.conf.d/k8s-myhome.conf", 0o644, "networkd.conf"),
        file!("etc/systemd/network/10-nic.network", 0o644, "10-nic.network"),
        file!("etc/systemd/system/k8s-node-agent.service", 0o644, "k8s-node-agent.service"),
        file!("etc/systemd/system/k8s-node-agent-guard.service", 0o644, "k8s-node-agent-guard.service"),
        file!("etc/systemd/system/containerd.service", 0o644, "containerd.service"),
        file!("etc/systemd/system/kubelet.service", 0o644, "kubelet.service"),
        file!("etc/systemd/system/kubelet.service.d/10-kubeadm.conf", 0o644, "10-kubeadm.conf"),
        file!("etc/systemd/system/k8s-grow-root.service", 0o644, "k8s-grow-root.service"),
        file!("usr/lib/k8s-myhome/grow-root", 0o755, "grow-root"),
        file!("etc/systemd/system/k8s-modules.service", 0o644, "k8s-modules.service"),
        file!("etc/systemd/system/k8s-power-button.service", 0o644, "k8s-power-button.service"),
        file!("etc/systemd/system/k8s-power-button.timer", 0o644, "k8s-power-button.timer"),
        link(format!("{UNITS}/multi-user.target.wants/systemd-logind.service"), "/dev/null"),
        file!(
            "etc/systemd/system/systemd-udev-trigger.service.d/k8s-myhome.conf",
            0o644,
            "udev-trigger.conf"
        ),
        file!("etc/tmpfiles.d/static-nodes-k8s-myhome.conf", 0o644, "static-nodes.conf"),
        file!("etc/systemd/system/k8s-resolv.path", 0o644, "k8s-resolv.path"),
        file!("etc/systemd/system/k8s-resolv.service", 0o644, "k8s-resolv.service"),
        file!("usr/lib/k8s-myhome/write-resolv", 0o755, "write-resolv"),
        link(format!("{UNITS}/default.target"), "/lib/systemd/system/multi-user.target"),
    ];
    items.extend(MASKED.iter().map(|unit| link(format!("{UNITS}/{unit}"), "/dev/null")));
    items.extend(
        MASKED_GENERATORS
            .iter()
            .map(|name| link(format!("etc/systemd/system-generators/systemd-{name}-generator"), "/dev/null")),
    );
    items.extend(
        WANTED
            .iter()
            .map(|(wanting, unit, dir)| link(format!("{UNITS}/{wanting}/{unit}"), &format!("{dir}/{unit}"))),
    );
    if debug_unit {
        let device = r"dev-virtio\x2dports-org.k8sctl.debug.0.device.wants";
        items.extend([
            file!("etc/systemd/system/k8s-debug.service", 0o644, "k8s-debug.service"),
            file!("usr/lib/k8s-myhome/debug", 0o755, "debug"),
            link(format!("{UNITS}/{device}/k8s-debug.service"), "/etc/systemd/system/k8s-debug.service"),
        ]);
    }
    items
}

/// Changes whenever the overlay or the scripts around it do.
pub(super) fn fingerprint(debug_unit: bool) -> String {
    let scripts = [include_str!("files/init"), include_str!("files/import.sh")];
    sha256(format!("{:?}{scripts:?}", plan_overlay(debug_unit)).as_bytes())
}

/// Lays `items` and the node agent over the system in `root`.
pub(super) fn apply(root: &Path, items: &[Item], node_agent: &Path) -> Result<(), ImageError> {
    for item in items {
        let path = root.join(match item {
            Item::Dir { path, .. } | Item::File { path, .. } | Item::Removed { path } => path,
            Item::Link { path, .. } => path.as_str(),
        });
        let result = apply_item(item, &path);
        result.map_err(ImageError::io("write", &path))?;
    }
    let path = root.join(NODE_AGENT);
    fs::copy(node_agent, &path).map_err(ImageError::io("copy", node_agent))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(ImageError::io("write", &path))
}

fn apply_item(item: &Item, path: &Path) -> std::io::Result<()> {
    if let Item::Dir { mode, .. } = item {
        return make_dir(path, *mode);
    }
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o755)?;
    }
    match item {
        Item::File { mode, content, .. } => {
            let mut file = fs::File::options().write(true).create_new(true).mode(*mode).open(path)?;
            file.set_permissions(fs::Permissions::from_mode(*mode))?;
            file.write_all(content.as_bytes())
        }
        Item::Link { target, .. } => symlink(target, path),
        Item::Dir { .. } | Item::Removed { .. } => Ok(()),
    }
}

/// Makes a directory of this mode unless it is there, and 0755 what is missing above it, whatever the host agent's
/// umask: services of other users read what is in them.
pub(super) fn make_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_dir(parent, 0o755)?;
    }
    fs::create_dir(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn paths(debug_unit: bool) -> Vec<String> {
        plan_overlay(debug_unit)
            .into_iter()
            .map(|item| match item {
                Item::Dir { path, .. } | Item::File { path, .. } | Item::Removed { path } => path.to_owned(),
                Item::Link { path, .. } => path,
            })
            .collect()
    }

    #[test]
    fn product_images_have_no_debug_unit() {
        assert!(paths(true).iter().any(|path| path.contains("debug.service")));
        let product = format!("{:?}", plan_overlay(false));
        assert!(!product.contains("k8s-debug") && !product.contains("k8sctl.debug"), "{product}");
    }

    /// Every path below `dir` with its mode, but for symbolic links.
    fn modes(dir: &Path, found: &mut Vec<(String, u32)>) {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let data = fs::symlink_metadata(entry.path()).expect("it is there");
            if !data.is_symlink() {
                found.push((entry.path().display().to_string(), data.mode() & 0o7777));
            }
            if data.is_dir() {
                modes(&entry.path(), found);
            }
        }
    }

    #[test]
    fn services_of_other_users_can_read_what_they_are_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let (root, agent) = (dir.path().join("root"), dir.path().join("agent"));
        fs::create_dir(&root).expect("it is made");
        fs::write(&agent, "agent").expect("it is written");
        // The unit's own.
        let before = rustix::process::umask(rustix::fs::Mode::from(0o077));
        let applied = apply(&root, &plan_overlay(true), &agent);
        rustix::process::umask(before);
        applied.expect("it is laid over");

        let mut expected: std::collections::BTreeMap<String, u32> = plan_overlay(true)
            .into_iter()
            .filter_map(|item| match item {
                Item::Dir { path, mode } | Item::File { path, mode, .. } => Some((path.to_owned(), mode)),
                Item::Link { .. } | Item::Removed { .. } => None,
            })
            .collect();
        expected.insert(NODE_AGENT.to_owned(), 0o755);
        let mut found = Vec::new();
        modes(&root, &mut found);
        assert!(found.iter().any(|(path, _)| path.ends_with("etc/systemd/networkd.conf.d")), "{found:?}");
        for (path, mode) in found {
            let inside = path.strip_prefix(&format!("{}/", root.display())).expect("it is below the root");
            let wanted = expected.get(inside).copied().unwrap_or(0o755);
            assert_eq!(mode, wanted, "{inside}: {mode:o}");
        }
    }

    #[test]
    fn the_journal_is_kept_and_loses_no_line() {
        let items = plan_overlay(false);
        let is_conf = |item: &&Item| matches!(item, Item::File { path, .. } if *path == "etc/systemd/journald.conf.d/k8s-myhome.conf");
        let Some(Item::File { content, .. }) = items.iter().find(is_conf) else { panic!("it is not there") };
        for line in ["Storage=persistent", "SyncIntervalSec=1s", "RateLimitIntervalSec=0", "RateLimitBurst=0"]
        {
            assert!(content.lines().any(|it| it == line), "{line} is not in {content}");
        }
        assert!(items.contains(&Item::Dir { path: "var/log/journal", mode: 0o755 }));
    }

    #[test]
    fn no_path_leaves_the_root() {
        for path in paths(true) {
            assert!(!path.starts_with('/') && !path.contains(".."), "{path}");
        }
    }

    #[test]
    fn kubelet_and_containerd_wait_for_the_agent() {
        let wanted: Vec<_> = paths(true).into_iter().filter(|path| path.contains(".wants/")).collect();
        assert!(
            !wanted.iter().any(|path| path.contains("kubelet") || path.contains("containerd")),
            "{wanted:?}"
        );
    }
}
