//! Whether AppArmor lets QEMU have its disks. libvirt gives each VM a profile of its own, made by `virt-aa-helper`,
//! which reads the disks to find what they are based on; where its own profile forbids that, QEMU may not open the
//! base image later.

use std::path::Path;

use k8sctl_proto::control::v1::Check;

use super::{Host, ok, warning};

const ID: &str = "HOST-APPARMOR";
const PROFILE: &str = "/etc/apparmor.d/usr.lib.libvirt.virt-aa-helper";
/// Site-specific rules, which a package's update leaves alone.
const LOCAL: &str = "/etc/apparmor.d/local/usr.lib.libvirt.virt-aa-helper";

/// The check.
pub fn examine_apparmor(host: &Host, pool: &Path) -> Check {
    let enabled = host.read("/sys/module/apparmor/parameters/enabled").is_some_and(|text| text.trim() == "Y");
    let profile = host.read(PROFILE).map(|text| text + &host.read(LOCAL).unwrap_or_default());
    decide_apparmor(enabled, profile.as_deref(), pool)
}

/// Whether the rules of `virt-aa-helper` let it read the pool.
pub fn decide_apparmor(enabled: bool, profile: Option<&str>, pool: &Path) -> Check {
    let Some(profile) = profile.filter(|_| enabled) else {
        return ok(ID, "AppArmor does not confine libvirt here");
    };
    let hidden_home = is_hidden_in_a_home(pool);
    if !hidden_home && profile.lines().any(|rule| covers(rule, pool)) {
        return ok(ID, format!("libvirt's AppArmor profile lets VMs have disks in {}", pool.display()));
    }
    let message = format!("libvirt's AppArmor profile does not let VMs have disks in {}", pool.display());
    let hint = if hidden_home {
        "set pool_dir to a directory that is not hidden below a home, such as /var/lib/libvirt/images/k8s-myhome".to_owned()
    } else {
        format!(
            "add `{}/** r,` to {LOCAL} and run `systemctl reload apparmor`, or set pool_dir below /var/lib/libvirt/images",
            pool.display()
        )
    };
    warning(ID, message, hint)
}

/// The profile denies these whatever else allows them.
fn is_hidden_in_a_home(pool: &Path) -> bool {
    let below = pool.strip_prefix("/root").ok().or_else(|| {
        let user = pool.strip_prefix("/home").ok()?;
        user.components().next().and_then(|name| user.strip_prefix(name).ok())
    });
    let first = below.and_then(|rest| rest.components().next());
    first.is_some_and(|name| name.as_os_str().to_string_lossy().starts_with('.'))
}

/// Whether a rule allows to read qcow2 files in the pool: by their suffix anywhere, or by a directory above.
fn covers(rule: &str, pool: &Path) -> bool {
    let mut words = rule.split_whitespace();
    let (Some(pattern), Some(modes)) = (words.next(), words.next()) else { return false };
    if !modes.trim_end_matches(',').contains('r') || !pattern.starts_with('/') {
        return false;
    }
    if pattern.starts_with("/**.qcow") {
        return true;
    }
    let Some(directory) = pattern.strip_suffix("/**") else { return false };
    alternatives(directory).iter().any(|directory| pool.starts_with(directory))
}

/// `/{mnt,srv}/x` is `/mnt/x` and `/srv/x`. Other patterns stay as they are and fit nothing.
fn alternatives(pattern: &str) -> Vec<String> {
    let parts = pattern.split_once('{').and_then(|(before, rest)| {
        let (inner, after) = rest.split_once('}')?;
        Some((before, inner, after))
    });
    match parts {
        None => vec![pattern.to_owned()],
        Some((before, inner, after)) => {
            inner.split(',').flat_map(|one| alternatives(&format!("{before}{one}{after}"))).collect()
        }
    }
}
