//! What may be needed, what is written for it, and what is left when it is needed no more.

use std::cell::RefCell;

use k8sctl_proto::node::v1::NodeRequirements;

use super::*;

fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = Root::new(dir.path());
    (dir, root)
}

fn wanting(requirements: NodeRequirements) -> DesiredState {
    DesiredState { requirements: Some(requirements), ..DesiredState::default() }
}

fn needs(requirements: NodeRequirements) -> Needs {
    Needs::of(&wanting(requirements)).expect("all of it is on the list")
}

fn sysctls(all: &[(&str, &str)]) -> NodeRequirements {
    let sysctls = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    NodeRequirements { sysctls, ..NodeRequirements::default() }
}

fn modules(all: &[&str]) -> NodeRequirements {
    let kernel_modules = all.iter().map(|module| (*module).to_owned()).collect();
    NodeRequirements { kernel_modules, ..NodeRequirements::default() }
}

fn registry(host: &str) -> RegistryTrust {
    RegistryTrust { host: host.to_owned(), ..RegistryTrust::default() }
}

fn registries(all: &[RegistryTrust]) -> NodeRequirements {
    NodeRequirements { registries: all.to_vec(), ..NodeRequirements::default() }
}

/// What is told of a wish that is refused; `None`: it is not.
fn refusal(requirements: NodeRequirements) -> Option<String> {
    match Needs::of(&wanting(requirements)) {
        Ok(_) => None,
        Err(error) => Some(error.to_string()),
    }
}

#[test]
fn only_what_is_on_the_list_may_be_needed() {
    for key in ["vm.max_map_count", "net.core.somaxconn", "net.ipv4.conf.all.rp_filter", "kernel.panic"] {
        assert_eq!(refusal(sysctls(&[(key, "1")])), None, "{key}");
    }
    for key in [
        "kernel.core_pattern",
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.forwarding",
        "net.bridge.bridge-nf-call-iptables",
        "net.ipv4",
        "net.ipv4.",
        "net.core.../../kernel/core_pattern",
        "vm.max_map_counts",
        "net.core.a b",
        "",
    ] {
        let told = refusal(sysctls(&[(key, "1")])).unwrap_or_else(|| panic!("{key:?} is taken"));
        assert!(told.contains("the sysctl") && told.contains("no plugin may need"), "{told}");
    }
    for value in ["", "one", "1;reboot", "1\n2", &"1".repeat(41)] {
        let told = refusal(sysctls(&[("vm.swappiness", value)]));
        assert!(told.is_some_and(|told| told.contains("of the sysctl vm.swappiness")), "{value:?}");
    }
    assert_eq!(refusal(sysctls(&[("net.ipv4.ping_group_range", "0 2147483647")])), None);
    assert_eq!(refusal(sysctls(&[("kernel.panic", "-1")])), None);

    assert_eq!(refusal(modules(&["vxlan", "xt_mark", "fuse"])), None);
    for module in ["loop", "xt_", "VXLAN", "xt_../x", "vxlan nbd", ""] {
        let told = refusal(modules(&[module])).unwrap_or_else(|| panic!("{module:?} is taken"));
        assert!(told.contains("the kernel module"), "{told}");
    }
}

#[test]
fn a_registry_is_a_host_with_certificates_and_mirrors_and_nothing_else() {
    let (certificate, key) = crate::certificate::example(3600);
    let of = |change: fn(&mut RegistryTrust)| {
        let mut one = registry("harbor.home.example:8443");
        change(&mut one);
        refusal(registries(&[one]))
    };
    assert_eq!(of(|_| ()), None);
    assert_eq!(of(|it| it.mirrors = vec!["https://192.168.122.100/v2/cache".to_owned()]), None);
    for host in ["", "..", ".hidden", "a/b", "a:b", "a:0", "a:99999", "[::1]", "a\"b"] {
        assert!(refusal(registries(&[registry(host)])).is_some(), "{host:?}");
    }
    for mirror in ["ftp://a", "https://", "https://a\"\n", "https://a/../b", "https://user@a", "a"] {
        let mut one = registry("a");
        one.mirrors = vec![mirror.to_owned()];
        assert!(refusal(registries(&[one])).is_some_and(|told| told.contains("the mirror")), "{mirror:?}");
    }
    assert!(of(|it| it.mirrors = vec!["https://a".to_owned(); 17]).is_some());
    let trusting = |pem: &str| {
        let mut one = registry("a");
        one.ca_pem = pem.to_owned();
        refusal(registries(&[one]))
    };
    assert_eq!(trusting(&certificate), None);
    for pem in ["x", &key, &format!("{certificate}{key}"), &certificate.repeat(200)] {
        assert!(trusting(pem).is_some_and(|told| told.contains("certificates")), "{}", pem.len());
    }
}

#[test]
fn files_are_written_whole_and_go_when_nobody_needs_them() {
    let (_dir, root) = root();
    let wanted = NodeRequirements {
        kernel_modules: vec!["vxlan".to_owned(), "nbd".to_owned(), "vxlan".to_owned()],
        ..sysctls(&[("vm.swappiness", "10"), ("net.core.somaxconn", "1024")])
    };
    let (some, none) = (needs(wanted), Needs::of(&DesiredState::default()).expect("nothing is needed"));
    let wrong = |needs: &Needs| needs.wrong_host_files(&root).expect("read");
    assert_eq!(wrong(&none), Vec::<String>::new());
    assert_eq!(wrong(&some), [SYSCTL_FILE, MODULE_FILE]);
    some.write_host_files(&root).expect("written");
    assert_eq!(wrong(&some), Vec::<String>::new());
    let text = |path: &str| root.read_text(path).expect("read");
    assert_eq!(text(SYSCTL_FILE), "net.core.somaxconn = 1024\nvm.swappiness = 10\n");
    assert_eq!(text(MODULE_FILE), "nbd\nvxlan\n");
    root.write(MODULE_FILE, b"loop\n", 0o644).expect("written");
    assert_eq!(wrong(&some), [MODULE_FILE]);
    assert_eq!(wrong(&none), [SYSCTL_FILE, MODULE_FILE]);
    none.write_host_files(&root).expect("removed");
    assert!(!root.exists(SYSCTL_FILE) && !root.exists(MODULE_FILE));
}

/// A kernel with some sysctls.
struct Kernel(RefCell<BTreeMap<String, String>>);

impl Kernel {
    fn with(all: &[(&str, &str)]) -> Self {
        let all = all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self(RefCell::new(all.collect()))
    }

    fn get(&self, key: &str) -> Option<String> {
        self.0.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &str) -> Result<(), StepError> {
        if !self.0.borrow().contains_key(key) {
            let gone = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(StepError::write(key)(gone));
        }
        self.0.borrow_mut().insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// What would be done, and does it.
    fn converge(&self, root: &Root, needs: &Needs) -> Vec<String> {
        let plan = needs.plan_sysctls(root, |key| self.get(key)).expect("planned");
        plan.execute(root, |key, value| self.set(key, value)).expect("done");
        plan.wrongs()
    }
}

const MAPS: &str = "vm.max_map_count";
const BUFFERS: &str = "net.ipv4.tcp_rmem";

#[test]
fn a_sysctl_gets_back_what_it_had_when_nobody_needs_it_any_more() {
    let (_dir, root) = root();
    let kernel = Kernel::with(&[(MAPS, "65530"), (BUFFERS, "4096\t131072\t6291456")]);
    let both = needs(sysctls(&[(MAPS, "262144"), (BUFFERS, "4096 131072 6291456")]));
    assert_eq!(kernel.converge(&root, &both), ["sysctl vm.max_map_count"], "the other is so already");
    assert_eq!(kernel.converge(&root, &both), Vec::<String>::new());
    // Somebody has changed it: it is put right, and what was before is not forgotten for that.
    kernel.set(MAPS, "1").expect("it is there");
    assert_eq!(both.wrong_sysctls(|key| kernel.get(key)), [MAPS]);
    assert_eq!(kernel.converge(&root, &both), ["sysctl vm.max_map_count"]);
    let one = needs(sysctls(&[(BUFFERS, "8192 131072 6291456")]));
    assert_eq!(kernel.converge(&root, &one), ["sysctl net.ipv4.tcp_rmem", "sysctl vm.max_map_count"]);
    assert_eq!(kernel.get(MAPS).as_deref(), Some("65530"));
    assert_eq!(kernel.converge(&root, &Needs::default()), ["sysctl net.ipv4.tcp_rmem"]);
    assert_eq!(kernel.get(BUFFERS).as_deref(), Some("4096 131072 6291456"));
    assert!(!root.exists(BEFORE));
    assert_eq!(kernel.converge(&root, &Needs::default()), Vec::<String>::new());
}

#[test]
fn what_was_before_is_kept_though_the_agent_is_ended_in_between() {
    let (_dir, root) = root();
    let kernel = Kernel::with(&[(MAPS, "65530")]);
    let wanted = needs(sysctls(&[(MAPS, "262144")]));
    let plan = wanted.plan_sysctls(&root, |key| kernel.get(key)).expect("planned");
    // It is ended behind the first write into the kernel.
    let ended = |key: &str, value: &str| {
        kernel.set(key, value)?;
        Err(StepError::Desired("ended".to_owned()))
    };
    plan.execute(&root, ended).expect_err("it is ended");
    assert_eq!(kernel.converge(&root, &wanted), Vec::<String>::new());
    assert_eq!(kernel.converge(&root, &Needs::default()), ["sysctl vm.max_map_count"]);
    assert_eq!(kernel.get(MAPS).as_deref(), Some("65530"));
}

#[test]
fn a_sysctl_that_the_kernel_has_not_is_told_and_not_put_back() {
    let (_dir, root) = root();
    let kernel = Kernel::with(&[]);
    let wanted = needs(sysctls(&[("net.netfilter.nf_conntrack_max", "1")]));
    let plan = wanted.plan_sysctls(&root, |key| kernel.get(key)).expect("planned");
    let error = plan.execute(&root, |key, value| kernel.set(key, value)).expect_err("it is not there");
    assert!(error.to_string().contains("nf_conntrack_max"), "{error}");
    root.write(BEFORE, br#"{"net.netfilter.nf_conntrack_max":"7","kernel.core_pattern":"x"}"#, 0o600)
        .expect("written");
    assert_eq!(
        kernel.converge(&root, &Needs::default()),
        ["sysctl net.netfilter.nf_conntrack_max"],
        "what may not be set is passed over"
    );
    assert!(!root.exists(BEFORE));
}

#[test]
fn containerd_is_told_of_each_registry_and_of_none_any_more() {
    let (_dir, root) = root();
    let (certificate, _) = crate::certificate::example(3600);
    let harbor = RegistryTrust {
        ca_pem: certificate.clone(),
        mirrors: vec!["https://192.168.122.100".to_owned(), "http://cache:5000".to_owned()],
        ..registry("harbor.home.example:8443")
    };
    let plain = RegistryTrust { plain_http: true, ..registry("192.168.122.1:5000") };
    let all = needs(registries(&[harbor.clone(), plain, registry("docker.io")]));
    assert_eq!(all.wrong_registries(&root).expect("read").len(), 4);
    all.write_registries(&root).expect("written");
    assert_eq!(all.wrong_registries(&root).expect("read"), Vec::<String>::new());
    let path = |rest: &str| format!("{REGISTRIES}/{rest}");
    let text = |rest: &str| root.read_text(path(rest)).expect("read");
    let ca = path("harbor.home.example:8443/ca.crt");
    let hosts = format!(
        "{FIRST_LINE}\nserver = \"https://harbor.home.example:8443\"\n\n\
         [host.\"https://192.168.122.100\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{ca}\"\n\n\
         [host.\"http://cache:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n\n\
         [host.\"https://harbor.home.example:8443\"]\n  capabilities = [\"pull\", \"resolve\"]\n  ca = \"{ca}\"\n"
    );
    assert_eq!(text("harbor.home.example:8443/hosts.toml"), hosts);
    assert_eq!(text("harbor.home.example:8443/ca.crt"), certificate);
    assert!(text("192.168.122.1:5000/hosts.toml").contains("server = \"http://192.168.122.1:5000\""));
    assert!(text("docker.io/hosts.toml").contains("server = \"https://registry-1.docker.io\""));

    // Somebody's own registry, and a file where a directory could be, are none of ours.
    root.write(path("mine/hosts.toml"), b"server = \"https://mine\"\n", 0o644).expect("written");
    root.write(path("README"), b"x", 0o644).expect("written");
    let fewer = needs(registries(&[RegistryTrust { ca_pem: String::new(), ..harbor }]));
    assert_eq!(
        fewer.wrong_registries(&root).expect("read").len(),
        4,
        "one is another, three files are not needed"
    );
    fewer.write_registries(&root).expect("written");
    assert_eq!(fewer.wrong_registries(&root).expect("read"), Vec::<String>::new());
    assert!(!root.exists(&ca) && !root.exists(path("docker.io")) && root.exists(path("mine/hosts.toml")));
    Needs::default().write_registries(&root).expect("removed");
    assert!(!root.exists(path("harbor.home.example:8443")) && root.exists(path("mine/hosts.toml")));
}

/// Quoted words in the brackets around one of them.
fn list_around<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    let at = text.find(&format!("\"{word}\"")).unwrap_or_else(|| panic!("no {word:?} in the host's list"));
    let begin = text[..at].rfind('[').expect("a list begins");
    let end = at + text[at..].find(']').expect("and ends");
    let mut words: Vec<_> = text[begin..end].split('"').skip(1).step_by(2).collect();
    words.sort_unstable();
    words
}

/// The host checks what a plugin asks for by a list of its own, in another program.
#[test]
fn the_hosts_list_is_the_same() {
    let host = include_str!("../../../../host-agent/plugin-plan/src/check/node.rs");
    let sorted = |all: &[&'static str]| {
        let mut all = all.to_vec();
        all.sort_unstable();
        all
    };
    assert_eq!(list_around(host, "vxlan"), sorted(&MODULES));
    assert_eq!(list_around(host, "vm.max_map_count"), sorted(&SYSCTLS));
    assert_eq!(list_around(host, "net.core."), sorted(&SYSCTL_PREFIXES));
    for own in OWN_SYSCTLS.iter().filter(|own| own.starts_with("net.ipv4.")) {
        assert!(host.contains(&format!("\"{own}\"")), "{own}");
    }
    assert!(host.contains("\"xt_"));
}
