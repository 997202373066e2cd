//! What a plan wants of nodes.

use super::super::node::{is_mirror, is_module, is_registry_host, is_sysctl, is_sysctl_value};
use super::Fixture;
use crate::unchecked::NodeWant;

fn sysctl(key: &str, value: &str) -> NodeWant {
    NodeWant::Sysctl { key: key.to_owned(), value: value.to_owned() }
}

fn registry(host: &str, ca_pem: &str, mirrors: &[&str]) -> NodeWant {
    NodeWant::Registry {
        host: host.to_owned(),
        ca_pem: ca_pem.to_owned(),
        mirrors: mirrors.iter().map(|mirror| (*mirror).to_owned()).collect(),
        plain_http: false,
    }
}

fn cni(file: &str) -> NodeWant {
    NodeWant::Cni { config_file: file.to_owned() }
}

const NODE: &str = "[node]\nexternal_cni = true\nsysctls = [\"vm.max_map_count\", \"kernel.core_pattern\"]\n\
                    modules = [\"vxlan\", \"evil\"]\nregistries = [\"harbor.home.example:443\"]";

#[test]
fn what_is_asked_for_and_on_the_list_is_fine() {
    let checked = Fixture::shop()
        .asking(NODE)
        .node(cni("10-flannel.conflist"))
        .node(sysctl("vm.max_map_count", "262144"))
        .node(NodeWant::Module("vxlan".to_owned()))
        .node(registry("harbor.home.example:443", "", &["https://192.168.122.100", "http://cache:5000/v2/x"]))
        .checked();
    assert_eq!(checked.node.len(), 4, "a plan of requirements alone is one");
}

#[test]
fn what_nobody_approved_is_refused() {
    for want in [
        cni("10-flannel.conflist"),
        sysctl("vm.max_map_count", "262144"),
        NodeWant::Module("vxlan".to_owned()),
        registry("harbor.home.example:443", "", &[]),
    ] {
        Fixture::shop().node(want).is_refused_for("[node] of plugin.toml does not ask for it");
    }
}

#[test]
fn what_is_not_on_the_list_is_refused_whoever_approved_it() {
    let shop = || Fixture::shop().asking(NODE);
    shop()
        .node(sysctl("kernel.core_pattern", "1"))
        .is_refused_for("sysctl \"kernel.core_pattern\": no plugin may ask");
    shop().node(sysctl("vm.max_map_count", "|/bin/sh")).is_refused_for("expected numbers");
    shop()
        .node(NodeWant::Module("evil".to_owned()))
        .is_refused_for("kernel module \"evil\": no plugin may ask");
    for file in ["../x.conf", ".x.conf", "x.sh", "", "a/b.conflist"] {
        shop().node(cni(file)).is_refused_for("expected a name like 10-flannel.conflist");
    }
    shop().node(cni("10-k8s-myhome.conflist")).is_refused_for("which is the built-in network's");
    shop()
        .node(cni("a.conf"))
        .node(cni("b.conf"))
        .is_refused_for("another pod network: there are two of them");
    let twice = shop().node(sysctl("vm.max_map_count", "1")).node(sysctl("vm.max_map_count", "2"));
    twice.is_refused_for("there are two of them");
}

#[test]
fn a_registry_is_trusted_with_certificates_and_nothing_else() {
    let shop = |ca: &str, mirrors: &[&str]| {
        Fixture::shop().asking(NODE).node(registry("harbor.home.example:443", ca, mirrors))
    };
    let certificate = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n";
    shop(certificate, &[]).checked();
    shop(&certificate.repeat(2), &[]).checked();
    let key = certificate.replace("CERTIFICATE", "PRIVATE KEY");
    let (empty, cut) = (certificate.replace("TUlJ\n", ""), certificate.replace("TUlJ", "TUlJA"));
    for ca in ["text", " ", key.as_str(), &certificate[..40], &certificate.repeat(2000), &empty, &cut] {
        shop(ca, &[]).is_refused_for("its ca_pem is not certificates");
    }
    shop("", &["ftp://x"]).is_refused_for("its mirror \"ftp://x\" is no URL of a host");
    shop("", &["https://a"; 17]).is_refused_for("it has more than 16 mirrors");
}

#[test]
fn a_reason_is_a_line_of_text() {
    let mut fixture = Fixture::shop().asking(NODE).node(sysctl("vm.max_map_count", "1"));
    fixture.plan.node[0].why = "a\u{1b}[2J".to_owned();
    fixture.is_refused_for("its reason is no line of text");
}

#[test]
fn the_lists_are_closed() {
    for key in [
        "net.core.somaxconn",
        "net.ipv4.conf.all.rp_filter",
        "vm.swappiness",
        "net.netfilter.nf_conntrack_max",
    ] {
        assert!(is_sysctl(key), "{key}");
    }
    for key in [
        "net.ipv4.ip_forward",
        "net.ipv4.conf.all.forwarding",
        "net.bridge.bridge-nf-call-iptables",
        "kernel.core_pattern",
        "kernel.modprobe",
        "vm.max_map_count.x",
        "net.core.",
        "net.core../x",
        "net.core.x/y",
        "",
    ] {
        assert!(!is_sysctl(key), "{key}");
    }
    assert!(is_sysctl_value("4096 87380 6291456") && is_sysctl_value("-1"));
    assert!(!is_sysctl_value("") && !is_sysctl_value("1\n2") && !is_sysctl_value(&"1".repeat(41)));
    assert!(is_module("vxlan") && is_module("xt_comment") && is_module("wireguard"));
    assert!(
        !is_module("xt_")
            && !is_module("xt_a/b")
            && !is_module("vxlan2")
            && !is_module("kvm")
            && !is_module("")
    );
}

#[test]
fn a_registry_is_named_by_its_host() {
    for host in ["harbor.home.example", "harbor.home.example:443", "192.168.122.100:5000", "docker.io"] {
        assert!(is_registry_host(host), "{host}");
    }
    for host in
        ["", ":443", "a/b", "a:0", "a:x", "a:+1", "a:99999", "..", "a..b", "-a", "Harbor", "a b", "../etc"]
    {
        assert!(!is_registry_host(host), "{host}");
    }
    assert!(is_mirror("https://192.168.122.100/v2/cache") && is_mirror("http://cache:5000"));
    for mirror in ["cache", "https://", "https://a/../b", "https://a?b", "https://u@a", "file:///etc"] {
        assert!(!is_mirror(mirror), "{mirror}");
    }
}
