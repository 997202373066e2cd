//! What plugins need of this node, as the host says it: sysctls, kernel modules, and which registries containerd trusts.
//! The steps `host-os` and `containerd` keep it true; the pod network is `cni`'s.
//!
//! The list of what may be needed is closed, and the host's own check has the same one: what is not on it is refused here
//! too, whoever asks. What is needed no more is undone: files go, a sysctl gets back what it had before. Only a module stays
//! loaded until the next boot, since others may use it by then.

use std::collections::BTreeMap;

use k8sctl_proto::node::v1::{DesiredState, RegistryTrust};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::{OwnedFile, write_files, wrong_files};
use crate::converge::step::StepError;
use crate::durable::Root;

#[cfg(test)]
mod tests;

/// Sysctls that may be set, by how their keys begin.
const SYSCTL_PREFIXES: [&str; 4] = ["net.core.", "net.ipv4.", "net.ipv6.", "net.netfilter."];
/// And by their whole keys.
const SYSCTLS: [&str; 11] = [
    "vm.max_map_count",
    "vm.overcommit_memory",
    "vm.swappiness",
    "fs.inotify.max_user_watches",
    "fs.inotify.max_user_instances",
    "fs.file-max",
    "fs.aio-max-nr",
    "kernel.pid_max",
    "kernel.threads-max",
    "kernel.panic",
    "kernel.panic_on_oops",
];
/// Those that the agent itself keeps, whatever they begin with; one of them has two names.
const OWN_SYSCTLS: [&str; 3] = ["net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding", "net.bridge."];
/// Kernel modules that may be loaded.
const MODULES: [&str; 29] = [
    "vxlan",
    "geneve",
    "ipip",
    "sit",
    "wireguard",
    "tun",
    "nf_conntrack",
    "nf_tables",
    "ip_tables",
    "ip6_tables",
    "iptable_nat",
    "ip_vs",
    "ip_vs_rr",
    "ip_vs_wrr",
    "ip_vs_sh",
    "ip_set",
    "dummy",
    "macvlan",
    "ipvlan",
    "iscsi_tcp",
    "nfs",
    "nfsd",
    "nbd",
    "rbd",
    "ceph",
    "dm_crypt",
    "dm_thin_pool",
    "dm_snapshot",
    "fuse",
];
/// And by how their names begin.
const MODULE_PREFIXES: [&str; 1] = ["xt_"];
/// Longest value of a sysctl.
const VALUE_BYTES: usize = 40;
/// Longest certificates of a registry.
const CA_BYTES: usize = 64 * 1024;
/// Most mirrors of a registry.
const MIRRORS: usize = 16;

const SYSCTL_FILE: &str = "/etc/sysctl.d/91-k8s-myhome-plugins.conf";
const MODULE_FILE: &str = "/etc/modules-load.d/k8s-myhome-plugins.conf";
/// What sysctls were before a plugin needed them otherwise.
const BEFORE: &str = "/var/lib/k8s-node-agent/sysctl-before.json";
/// Where containerd looks how a registry is to be reached, at each pull.
const REGISTRIES: &str = "/etc/containerd/certs.d";
/// By this line a file there is ours.
const FIRST_LINE: &str = "# Written by k8s-node-agent, since a plugin needs it.";

/// What plugins need of this node, every part of it on the list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    sysctls: BTreeMap<String, String>,
    modules: Vec<String>,
    registries: Vec<RegistryTrust>,
}

/// What is to be done about sysctls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SysctlPlan {
    /// Values to be set, in order.
    pub write: Vec<(String, String)>,
    /// What is to be kept of before while they are set.
    during: BTreeMap<String, String>,
    /// And afterwards.
    after: BTreeMap<String, String>,
}

impl Needs {
    /// Reads them from the desired state. What no plugin may need is the host's mistake, and nothing of it is done.
    pub fn of(desired: &DesiredState) -> Result<Self, StepError> {
        let Some(wanted) = &desired.requirements else { return Ok(Self::default()) };
        let refused = |what: String| StepError::Desired(format!("{what}, which no plugin may need"));
        for (key, value) in &wanted.sysctls {
            if !may_set(key) {
                return Err(refused(format!("the sysctl {key:?}")));
            }
            if !is_value(value) {
                return Err(refused(format!("the value {value:?} of the sysctl {key}")));
            }
        }
        if let Some(module) = wanted.kernel_modules.iter().find(|module| !may_load(module)) {
            return Err(refused(format!("the kernel module {module:?}")));
        }
        for registry in &wanted.registries {
            mistake(registry).map_or(Ok(()), |what| Err(refused(what)))?;
        }
        let mut modules = wanted.kernel_modules.clone();
        modules.sort();
        modules.dedup();
        let mut registries = wanted.registries.clone();
        registries.sort_by(|one, other| one.host.cmp(&other.host));
        let sysctls = wanted.sysctls.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        Ok(Self { sysctls, modules, registries })
    }

    /// Names of the modules.
    pub fn modules(&self) -> &[String] {
        &self.modules
    }

    /// Paths of the files of `host-os` that are not as they should be, those that should not be there included.
    pub fn wrong_host_files(&self, root: &Root) -> Result<Vec<String>, StepError> {
        let files = self.host_files();
        let wrong = wrong_files(root, &files)?.into_iter().map(|file| file.path.clone());
        let stale = stale(&files).filter(|path| root.exists(path)).map(str::to_owned);
        Ok(wrong.chain(stale).collect())
    }

    /// Makes them so.
    pub fn write_host_files(&self, root: &Root) -> Result<(), StepError> {
        let files = self.host_files();
        for path in stale(&files) {
            root.remove(path).map_err(StepError::write(path))?;
        }
        write_files(root, &files).map(drop)
    }

    fn host_files(&self) -> Vec<OwnedFile> {
        let sysctls: String = self.sysctls.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let modules: String = self.modules.iter().map(|module| format!("{module}\n")).collect();
        let files = [(SYSCTL_FILE, sysctls), (MODULE_FILE, modules)];
        let needed = files.into_iter().filter(|(_, text)| !text.is_empty());
        needed.map(|(path, text)| OwnedFile::public(path, text)).collect()
    }

    /// What to do about sysctls; `live` says what the kernel has, nothing where it has no such key.
    pub fn plan_sysctls(
        &self,
        root: &Root,
        live: impl Fn(&str) -> Option<String>,
    ) -> Result<SysctlPlan, StepError> {
        Ok(plan_sysctls(&self.sysctls, &read_before(root)?, live))
    }

    /// Keys that the kernel has otherwise.
    pub fn wrong_sysctls(&self, live: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let differs = |(key, value): &(&String, &String)| live(key).is_none_or(|now| !is_same(&now, value));
        self.sysctls.iter().filter(differs).map(|(key, _)| key.clone()).collect()
    }

    /// Paths below containerd's registries that are not as they should be.
    pub fn wrong_registries(&self, root: &Root) -> Result<Vec<String>, StepError> {
        let files = self.registry_files();
        let wrong = wrong_files(root, &files)?.into_iter().map(|file| file.path.clone());
        Ok(wrong.chain(stale_registries(root, &files)?).collect())
    }

    /// Makes them so. containerd reads them at each pull.
    pub fn write_registries(&self, root: &Root) -> Result<(), StepError> {
        let files = self.registry_files();
        for path in stale_registries(root, &files)? {
            root.remove(&path).map_err(StepError::write(&path))?;
            if let Some((dir, _)) = path.rsplit_once('/') {
                // Fails while there is something else in it.
                let _ = std::fs::remove_dir(root.path(dir));
            }
        }
        write_files(root, &files).map(drop)
    }

    fn registry_files(&self) -> Vec<OwnedFile> {
        let mut files = Vec::new();
        for registry in &self.registries {
            let file = |name: &str| format!("{REGISTRIES}/{}/{name}", registry.host);
            // Certificates first: no file names what is not there.
            if !registry.ca_pem.is_empty() {
                files.push(OwnedFile::public(&file("ca.crt"), registry.ca_pem.as_bytes()));
            }
            files.push(OwnedFile::public(&file("hosts.toml"), hosts_toml(registry, &file("ca.crt"))));
        }
        files
    }
}

impl SysctlPlan {
    /// Carries it out: what was before is on the disk before it is lost.
    pub fn execute(
        &self,
        root: &Root,
        mut set: impl FnMut(&str, &str) -> Result<(), StepError>,
    ) -> Result<(), StepError> {
        let before = read_before(root)?;
        if before != self.during {
            write_before(root, &self.during)?;
        }
        for (key, value) in &self.write {
            set(key, value)?;
        }
        if self.after != self.during { write_before(root, &self.after) } else { Ok(()) }
    }

    /// What it would do, for a person.
    pub fn wrongs(&self) -> Vec<String> {
        let forgotten = self.during.keys().filter(|key| !self.after.contains_key(*key));
        let mut keys: Vec<&String> = self.write.iter().map(|(key, _)| key).chain(forgotten).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter().map(|key| format!("sysctl {key}")).collect()
    }
}

fn plan_sysctls(
    wanted: &BTreeMap<String, String>,
    before: &BTreeMap<String, String>,
    live: impl Fn(&str) -> Option<String>,
) -> SysctlPlan {
    let mut plan = SysctlPlan { during: before.clone(), ..SysctlPlan::default() };
    for (key, value) in wanted {
        let now = live(key);
        if let Some(now) = &now {
            plan.during.entry(key.clone()).or_insert_with(|| plain(now));
        }
        if now.is_none_or(|now| !is_same(&now, value)) {
            plan.write.push((key.clone(), value.clone()));
        }
    }
    plan.after = plan.during.clone();
    plan.after.retain(|key, _| wanted.contains_key(key));
    for (key, value) in before.iter().filter(|(key, _)| !wanted.contains_key(*key)) {
        // What the kernel has no more, as of a module that is not loaded, cannot be put back.
        if live(key).is_some_and(|now| !is_same(&now, value)) {
            plan.write.push((key.clone(), value.clone()));
        }
    }
    plan
}

/// Damaged, it is as if it were not there: what was before is not known then.
fn read_before(root: &Root) -> Result<BTreeMap<String, String>, StepError> {
    let text = root.read_text(BEFORE).map_err(StepError::read(BEFORE))?;
    let read: BTreeMap<String, String> = serde_json::from_str(&text).unwrap_or_default();
    // Whatever stands there is written into the kernel one day.
    Ok(read.into_iter().filter(|(key, value)| may_set(key) && is_kept(value)).collect())
}

fn write_before(root: &Root, before: &BTreeMap<String, String>) -> Result<(), StepError> {
    if before.is_empty() {
        return root.remove(BEFORE).map_err(StepError::write(BEFORE));
    }
    let text = serde_json::to_string(before).expect("a map of strings is JSON");
    root.write(BEFORE, text.as_bytes(), 0o600).map_err(StepError::write(BEFORE))
}

/// Numbers stand with tabs between them in `/proc`.
fn plain(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_same(live: &str, wanted: &str) -> bool {
    live.split_whitespace().eq(wanted.split_whitespace())
}

fn may_set(key: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let is_key = key.split('.').all(|part| !part.is_empty() && part.chars().all(is_plain));
    let is_own = OWN_SYSCTLS.iter().any(|own| key == *own || (own.ends_with('.') && key.starts_with(own)));
    let is_listed = SYSCTLS.contains(&key) || SYSCTL_PREFIXES.iter().any(|prefix| key.starts_with(prefix));
    is_key && is_listed && !is_own
}

fn is_value(value: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_digit() || c == ' ' || c == '-';
    (1..=VALUE_BYTES).contains(&value.len()) && value.chars().all(is_plain)
}

/// What a kernel may have said, which knows other values than a plugin may want.
fn is_kept(value: &str) -> bool {
    value.len() <= 4096 && value.chars().all(|c| c.is_ascii_graphic() || c == ' ')
}

fn may_load(module: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_listed = MODULES.contains(&module)
        || MODULE_PREFIXES.iter().any(|prefix| module.len() > prefix.len() && module.starts_with(prefix));
    is_listed && module.chars().all(is_plain)
}

/// What is wrong with a registry, if anything is.
fn mistake(registry: &RegistryTrust) -> Option<String> {
    let RegistryTrust { host, ca_pem, mirrors, .. } = registry;
    if !is_host(host) {
        return Some(format!("the registry {host:?}"));
    }
    if !ca_pem.is_empty() && !are_certificates(ca_pem) {
        return Some(format!("what is trusted for the registry {host}, not at most 64 KiB of certificates"));
    }
    if mirrors.len() > MIRRORS {
        return Some(format!("{} mirrors of the registry {host}", mirrors.len()));
    }
    let wrong = mirrors.iter().find(|mirror| !is_mirror(mirror))?;
    Some(format!("the mirror {wrong:?} of the registry {host}"))
}

/// `harbor.home.example:443`: also the name of its directory.
fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "443"));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let is_name = name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(is_plain);
    is_name && host.len() <= 255 && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// `https://192.168.122.100/v2/cache`
fn is_mirror(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some((host, path)) = rest.map(|rest| rest.split_once('/').unwrap_or((rest, ""))) else {
        return false;
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    is_host(host)
        && url.len() <= 1024
        && path.chars().all(is_plain)
        && !path.split('/').any(|part| part == "..")
}

fn are_certificates(pem: &str) -> bool {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).filter(Result::is_ok).count();
    // A key beside them would be passed over, and lie there for everybody to read.
    pem.len() <= CA_BYTES && certificates > 0 && pem.matches("-----BEGIN ").count() == certificates
}

/// containerd asks the hosts in their order, and the server last. The registry is a host of its own, since older ones see
/// no certificate beside `server`.
fn hosts_toml(registry: &RegistryTrust, ca: &str) -> String {
    let scheme = if registry.plain_http { "http" } else { "https" };
    let name: &str = if registry.host == "docker.io" { "registry-1.docker.io" } else { &registry.host };
    let server = format!("{scheme}://{name}");
    let mut text = format!("{FIRST_LINE}\nserver = \"{server}\"\n");
    for host in registry.mirrors.iter().chain([&server]) {
        text.push_str(&format!("\n[host.\"{host}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"));
        if !registry.ca_pem.is_empty() && host.starts_with("https://") {
            text.push_str(&format!("  ca = \"{ca}\"\n"));
        }
    }
    text
}

/// Files of `host-os` that nobody needs.
fn stale(files: &[OwnedFile]) -> impl Iterator<Item = &'static str> {
    let is_needed = |path: &&str| !files.iter().any(|file| file.path == *path);
    [SYSCTL_FILE, MODULE_FILE].into_iter().filter(is_needed)
}

/// Ours, and needed no more: certificates first, since a directory is known by the other file.
fn stale_registries(root: &Root, files: &[OwnedFile]) -> Result<Vec<String>, StepError> {
    let entries = match std::fs::read_dir(root.path(REGISTRIES)) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StepError::read(REGISTRIES))?,
    };
    let dirs = entries.flatten().filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = dirs.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let mut stale = Vec::new();
    for name in names {
        let [ca, hosts] = ["ca.crt", "hosts.toml"].map(|file| format!("{REGISTRIES}/{name}/{file}"));
        let text = root.read_text(&hosts).map_err(StepError::read(&hosts))?;
        if text.lines().next() != Some(FIRST_LINE) {
            continue;
        }
        let is_needed = |path: &String| files.iter().any(|file| file.path == *path);
        stale.extend([ca, hosts].into_iter().filter(|path| !is_needed(path) && root.exists(path)));
    }
    Ok(stale)
}
