//! The documents that we write, as a whole, and read back.

use crate::accelerator::Accelerator;
use crate::adoption::{DhcpHost, DhcpRange};
use crate::observed::DomainState;
use crate::xml::domain::{DomainPlan, read_console_log, read_domain, read_join_channel};
use crate::xml::network::{NetworkPlan, read_network};
use crate::xml::owner::Owner;
use crate::xml::storage::{pool_xml, read_pool_path, read_volume_backing, volume_xml};

fn domain(accelerator: Accelerator) -> DomainPlan {
    DomainPlan {
        name: "k8s-worker-1".into(),
        uuid: "7c6bb1a4-9ff9-4c6e-9d66-0f3f1a0f5b11".into(),
        description: "node of the Kubernetes cluster <home> & garden".into(),
        owner: Owner {
            cluster_id: "c1".into(),
            node_id: "n1".into(),
            generation: 3,
            ip: "192.168.122.11".into(),
        },
        accelerator,
        vcpus: 2,
        memory_bytes: 4 << 30,
        disk: "/pool/c1-k8s-worker-1.qcow2".into(),
        kernel: "/pool/kernel-0123".into(),
        initrd: "/pool/initrd-0123".into(),
        cmdline: "root=/dev/vda console=ttyS0".into(),
        network: "default".into(),
        mac: "52:54:00:00:00:0b".into(),
        autostart: true,
    }
}

#[test]
fn domain_document() {
    let xml = domain(Accelerator::Tcg).to_xml("/log/k8s-worker-1.log".as_ref()).expect("it has a form");
    insta::assert_snapshot!(xml);
    let seen = read_domain(&xml, None, DomainState::Off, true).expect("we read what we write");
    assert_eq!(seen.ours, Some(domain(Accelerator::Tcg).owner));
    assert_eq!(seen.accelerator, Some(Accelerator::Tcg));
    assert_eq!((seen.vcpus, seen.memory_bytes), (2, 4 << 30));
    assert_eq!(seen.networks, ["default"]);
    assert_eq!(seen.disks, [std::path::Path::new("/pool/c1-k8s-worker-1.qcow2")]);
    assert_eq!(read_console_log(&xml).expect("it is XML"), Some("/log/k8s-worker-1.log".into()));
    assert_eq!(read_join_channel(&xml).expect("it is XML"), None, "it has none before it runs");
}

#[test]
fn kvm_passes_the_processor_through() {
    let xml = domain(Accelerator::Kvm).to_xml("/log/x.log".as_ref()).expect("it has a form");
    assert!(
        xml.contains("<domain type=\"kvm\">") && xml.contains("<cpu mode=\"host-passthrough\"/>"),
        "{xml}"
    );
}

#[test]
fn network_document() {
    let plan = NetworkPlan {
        name: "k8s".into(),
        bridge: "virbr-k8s0".into(),
        cidr: "192.168.122.0/24".parse().expect("it is one"),
        gateway: [192, 168, 122, 1].into(),
        ranges: vec![DhcpRange {
            start: [192, 168, 122, 200].into(),
            end: [192, 168, 122, 250].into(),
            lease: None,
        }],
        hosts: vec![DhcpHost {
            mac: Some("52:54:00:00:00:0b".into()),
            name: Some("k8s-worker-1".into()),
            ip: Some("192.168.122.11".into()),
        }],
        owner: Owner { cluster_id: "c1".into(), generation: 3, ..Owner::default() },
    };
    let xml = plan.to_xml().expect("it has a form");
    insta::assert_snapshot!(xml);
    let shown = xml.replace("</name>", "</name><uuid>u</uuid>");
    let seen = read_network(&shown, None, true).expect("we read what we write");
    assert_eq!((seen.ours, seen.cidr, seen.bridge), (Some(plan.owner), Some(plan.cidr), Some(plan.bridge)));
    assert_eq!((seen.ranges, seen.hosts), (plan.ranges, plan.hosts));
}

#[test]
fn a_network_of_anybody_is_read() {
    let xml = "<network connections='1'><name>default</name><uuid>u</uuid><forward mode='nat'><nat>\
               <port start='1024' end='65535'/></nat></forward><bridge name='virbr0' stp='on' delay='0'/>\
               <ip family='ipv6' address='fd00::1' prefix='64'><dhcp><range start='fd00::2' end='fd00::9'/></dhcp></ip>\
               <ip address='192.168.122.1' netmask='255.255.255.0'><dhcp><range start='192.168.122.2' \
               end='192.168.122.254'><lease expiry='2' unit='hours'/></range><host ip='192.168.122.5' name='nas'/>\
               </dhcp></ip></network>";
    let seen = read_network(xml, Some(xml), false).expect("it is libvirt's");
    insta::assert_json_snapshot!(seen);
}

#[test]
fn storage_documents() {
    let pool = pool_xml("k8s-myhome", "/pool".as_ref()).expect("it has a form");
    let volume = volume_xml("c1-n.qcow2", 30 << 30, "/pool/base-0123.qcow2".as_ref()).expect("it has a form");
    insta::assert_snapshot!(format!("{pool}{volume}"));
    assert_eq!(read_pool_path(&pool).expect("it is XML"), Some("/pool".into()));
    assert_eq!(read_volume_backing(&volume).expect("it is XML"), Some("/pool/base-0123.qcow2".into()));
}

#[test]
fn ends_of_a_running_vm_are_read_out_of_its_live_document() {
    let inactive = domain(Accelerator::Kvm).to_xml("/log/x.log".as_ref()).expect("it has a form");
    let live = inactive.replace(
        "<source network=\"default\"/>",
        "<source network='default' portid='p' bridge='virbr0'/><target dev='vnet3'/>",
    );
    assert_ne!(inactive, live);
    let taps = |live: Option<&str>| {
        let seen = read_domain(&inactive, live, DomainState::Running, true).expect("it is libvirt's");
        seen.taps.into_iter().map(|tap| (tap.device, tap.network, tap.master)).collect::<Vec<_>>()
    };
    assert_eq!(taps(Some(&live)), [("vnet3".to_owned(), "default".to_owned(), None)]);
    assert_eq!(taps(None), []);
}

/// It has a source for each direction.
#[test]
fn a_serial_port_over_udp_is_read() {
    let ours = domain(Accelerator::Kvm).to_xml("/log/x.log".as_ref()).expect("it has a form");
    let udp = "<serial type='udp'><source mode='bind' host='127.0.0.1' service='4555'/>\
               <source mode='connect' host='127.0.0.1' service='4556'/><target port='1'/></serial></devices>";
    let xml = ours.replace("</devices>", udp);
    let seen = read_domain(&xml, Some(&xml), DomainState::Running, true).expect("it is libvirt's");
    assert_eq!(seen.name, "k8s-worker-1");
}

/// `virsh net-edit`, which shows at the next start.
#[test]
fn a_running_network_is_on_the_bridge_that_it_was_started_with() {
    let xml =
        |bridge: &str| format!("<network><name>k8s</name><uuid>u</uuid><bridge name='{bridge}'/></network>");
    let bridge = |live: Option<&str>| {
        read_network(&xml("virbr-new"), live, true).expect("it is libvirt's").bridge.expect("it has one")
    };
    assert_eq!(bridge(Some(&xml("virbr-old"))), "virbr-old");
    assert_eq!(bridge(None), "virbr-new");
}
