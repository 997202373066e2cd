//! What keeps plugins' processes in: Landlock and seccomp, without which none is started, and control groups.

use k8sctl_proto::control::v1::Check;

use super::{Host, failed, ok, warning};

const ID: &str = "HOST-SANDBOX";
/// The kernel's security modules that are switched on.
const MODULES: &str = "/sys/kernel/security/lsm";
/// What a seccomp filter can do.
const ACTIONS: &str = "/proc/sys/kernel/seccomp/actions_avail";
/// What ours do.
const OURS: [&str; 2] = ["kill_process", "errno"];

/// All checks of this file. `has_cgroups`: each process gets a control group of its own.
pub fn examine(host: &Host, has_cgroups: bool) -> Vec<Check> {
    let layers = decide_layers(host.read(MODULES).as_deref(), host.read(ACTIONS).as_deref());
    vec![layers, decide_cgroups(has_cgroups)]
}

/// Both layers are required.
pub fn decide_layers(modules: Option<&str>, actions: Option<&str>) -> Check {
    let can = |wanted: &&str| actions.unwrap_or_default().split_whitespace().any(|action| action == *wanted);
    if !OURS.iter().all(can) {
        return failed(
            ID,
            "this kernel has no seccomp filters: no plugin is started",
            "boot a kernel that has them (CONFIG_SECCOMP_FILTER)",
        );
    }
    let Some(modules) = modules.map(str::trim) else {
        return warning(
            ID,
            format!(
                "whether this kernel has Landlock, without which no plugin is started, cannot be seen: there is no \
                 {MODULES}"
            ),
            "mount -t securityfs securityfs /sys/kernel/security",
        );
    };
    if modules.split(',').any(|module| module == "landlock") {
        ok(ID, "plugins are kept in by Landlock and seccomp")
    } else {
        let hint = format!("boot with lsm=landlock,{modules} on the kernel's command line");
        failed(ID, "Landlock is not switched on: no plugin is started", hint)
    }
}

/// They bound memory, processes and processor time of a plugin together.
pub fn decide_cgroups(has_cgroups: bool) -> Check {
    if has_cgroups {
        return ok(ID, "each process of a plugin has a control group of its own");
    }
    warning(
        ID,
        "the host agent has no control group to itself: its plugins' processes have the limits of single processes only",
        "start it with systemd, and with Delegate=memory pids cpu, as host-agent/systemd/k8s-host-agent.service has it",
    )
}
