//! What the host must provide, looked at now: programs, libvirt, directories, processor. Each finding says what
//! to do about it.

use std::path::Path;

use host_hypervisor::Hypervisor;
use k8sctl_proto::control::v1::{Check, CheckState};

use crate::cluster::desired::host_pool;
use crate::config::HostConfig;

/// Programs that we start, each with the Debian package that has it.
const PROGRAMS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("qemu-img", "qemu-utils"),
    ("mmdebstrap", "mmdebstrap"),
    ("mke2fs", "e2fsprogs"),
    ("dnsmasq", "dnsmasq-base"),
    ("ip", "iproute2"),
];

/// All checks, in the order in which one would mend them.
pub async fn check(config: &HostConfig, hypervisor: &dyn Hypervisor) -> Vec<Check> {
    let mut checks: Vec<Check> = PROGRAMS.iter().map(|(name, package)| program(name, package)).collect();
    let found = host_hypervisor::doctor::examine(hypervisor, &host_pool(config)).await;
    checks.extend(found.into_iter().map(from_hypervisor));
    checks.push(file("node-agent", &config.node_agent, "install it with `make build`, or set `node_agent`"));
    checks.push(file(
        "plugin-dir",
        &config.plugin_dir,
        "install the plugins with `make build`, or set `plugin_dir`",
    ));
    checks
}

fn from_hypervisor(finding: host_hypervisor::doctor::Check) -> Check {
    use host_hypervisor::doctor::State;
    let state = match finding.state {
        State::Ok => CheckState::Ok,
        State::Warning => CheckState::Warning,
        State::Failed => CheckState::Failed,
    };
    Check { id: finding.id, state: state.into(), message: finding.message, hint: finding.hint }
}

fn program(name: &str, package: &str) -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(Into::into);
    let found =
        std::env::split_paths(&path).chain(sbin).map(|dir| dir.join(name)).find(|file| file.is_file());
    let id = format!("program-{name}");
    match found {
        Some(found) => check_of(&id, CheckState::Ok, found.display().to_string(), String::new()),
        None => {
            let hint = format!("apt-get install {package}");
            check_of(&id, CheckState::Failed, format!("{name} is not installed"), hint)
        }
    }
}

fn file(id: &str, path: &Path, hint: &str) -> Check {
    if path.exists() {
        check_of(id, CheckState::Ok, path.display().to_string(), String::new())
    } else {
        check_of(id, CheckState::Failed, format!("{} does not exist", path.display()), hint.to_owned())
    }
}

fn check_of(id: &str, state: CheckState, message: String, hint: String) -> Check {
    Check { id: id.to_owned(), state: state.into(), message, hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_names_its_package() {
        let check = program("no-such-program", "some-package");
        assert_eq!(
            (check.state(), check.hint.as_str()),
            (CheckState::Failed, "apt-get install some-package")
        );
        assert_eq!(program("sh", "dash").state(), CheckState::Ok);
    }
}
