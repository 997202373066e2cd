//! The Kubernetes PKI: its structure, its stability, and what `openssl` and `kubeadm` say to it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host_pki::kubernetes::{ControlPlane, KubernetesPki, LEAF_LIFETIME};
use jiff::{SignedDuration, Timestamp};
use k8sctl_command::Program;
use k8sctl_proto::node::v1::ManagedFile;
use k8sctl_types::version::KubernetesVersion;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const NODE: &str = "k8s-control-plane-1";
const ENDPOINT: &str = "192.168.122.10:6443";
const WORKER_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 122, 11);

struct Room {
    dir: tempfile::TempDir,
    pki: KubernetesPki,
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let pki = KubernetesPki::open(&dir.path().join("kubernetes.json")).expect("a PKI");
        Self { dir, pki }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("kubernetes.json")
    }
}

fn version(text: &str) -> KubernetesVersion {
    text.parse().expect("a version")
}

fn files_at(pki: &KubernetesPki, release: &str, now: Timestamp) -> Vec<ManagedFile> {
    let version = version(release);
    let wanted = ControlPlane {
        node_name: NODE,
        node_ip: Ipv4Addr::new(192, 168, 122, 10),
        service_cidr: "10.96.0.0/12".parse().expect("a network"),
        endpoint: ENDPOINT,
        version: &version,
    };
    pki.control_plane_files_at(&wanted, now).expect("files")
}

fn files(pki: &KubernetesPki, release: &str) -> Vec<ManagedFile> {
    files_at(pki, release, Timestamp::now())
}

fn by_path(files: &[ManagedFile]) -> BTreeMap<&str, &[u8]> {
    files.iter().map(|file| (file.path.as_str(), file.content.as_slice())).collect()
}

/// "CN|O|names|usages" of a PEM certificate.
fn describe(pem: &[u8]) -> String {
    let der = CertificateDer::from_pem_slice(pem).expect("PEM");
    let (_, certificate) = X509Certificate::from_der(&der).expect("a certificate");
    let subject = certificate.subject();
    let text = |attributes: Vec<&str>| attributes.join(",");
    let names = certificate.subject_alternative_name().expect("well-formed").map_or_else(Vec::new, |names| {
        names
            .value
            .general_names
            .iter()
            .map(|name| match name {
                GeneralName::DNSName(name) => (*name).to_owned(),
                GeneralName::IPAddress(bytes) if bytes.len() == 4 => {
                    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(".")
                }
                GeneralName::IPAddress(bytes) => format!("v6:{}", bytes[15]),
                other => format!("{other:?}"),
            })
            .collect()
    });
    let usage = certificate.extended_key_usage().expect("well-formed").map_or("none", |usage| {
        match (usage.value.server_auth, usage.value.client_auth) {
            (true, true) => "both",
            (true, false) => "server",
            (false, true) => "client",
            (false, false) => "none",
        }
    });
    format!(
        "{}|{}|{}|{}{}",
        text(subject.iter_common_name().filter_map(|cn| cn.as_str().ok()).collect()),
        text(subject.iter_organization().filter_map(|o| o.as_str().ok()).collect()),
        names.join(" "),
        usage,
        if certificate.is_ca() { "|CA" } else { "" }
    )
}

/// The certificate in a kubeconfig, and what else stands in it.
fn describe_kubeconfig(text: &[u8], ca: &[u8]) -> String {
    use base64::Engine as _;
    let decode = |value: &serde_json::Value| {
        base64::engine::general_purpose::STANDARD.decode(value.as_str().expect("a text")).expect("base64")
    };
    let config: serde_json::Value = serde_json::from_slice(text).expect("JSON");
    let cluster = &config["clusters"][0]["cluster"];
    assert_eq!(decode(&cluster["certificate-authority-data"]), ca, "kubeadm compares the bytes");
    let user = &config["users"][0]["user"];
    assert!(decode(&user["client-key-data"]).starts_with(b"-----BEGIN PRIVATE KEY-----"));
    format!(
        "{} {} {}",
        config["current-context"].as_str().expect("a text"),
        cluster["server"].as_str().expect("a text"),
        describe(&decode(&user["client-certificate-data"]))
    )
}

#[test]
fn the_structure_is_kubeadms() {
    let room = Room::new();
    let files = files(&room.pki, "v1.20.2");
    let map = by_path(&files);
    let ca = map["/etc/kubernetes/pki/ca.crt"];
    let mut shape = String::new();
    for file in &files {
        let what = match file.path.rsplit('.').next() {
            Some("crt") => describe(&file.content),
            Some("conf") => describe_kubeconfig(&file.content, ca),
            _ => String::from_utf8_lossy(&file.content).lines().next().unwrap_or_default().to_owned(),
        };
        shape.push_str(&format!(
            "{:o} {} {what}\n",
            file.mode,
            file.path.trim_start_matches("/etc/kubernetes/")
        ));
    }
    let expected = "\
644 pki/ca.crt kubernetes|||none|CA
600 pki/ca.key -----BEGIN PRIVATE KEY-----
644 pki/front-proxy-ca.crt front-proxy-ca|||none|CA
600 pki/front-proxy-ca.key -----BEGIN PRIVATE KEY-----
644 pki/etcd/ca.crt etcd-ca|||none|CA
600 pki/etcd/ca.key -----BEGIN PRIVATE KEY-----
600 pki/sa.key -----BEGIN PRIVATE KEY-----
644 pki/sa.pub -----BEGIN PUBLIC KEY-----
644 pki/apiserver.crt kube-apiserver||k8s-control-plane-1 kubernetes kubernetes.default kubernetes.default.svc kubernetes.default.svc.cluster.local 10.96.0.1 192.168.122.10|server
600 pki/apiserver.key -----BEGIN PRIVATE KEY-----
644 pki/apiserver-kubelet-client.crt kube-apiserver-kubelet-client|system:masters||client
600 pki/apiserver-kubelet-client.key -----BEGIN PRIVATE KEY-----
644 pki/front-proxy-client.crt front-proxy-client|||client
600 pki/front-proxy-client.key -----BEGIN PRIVATE KEY-----
644 pki/etcd/server.crt k8s-control-plane-1||k8s-control-plane-1 localhost 192.168.122.10 127.0.0.1 v6:1|both
600 pki/etcd/server.key -----BEGIN PRIVATE KEY-----
644 pki/etcd/peer.crt k8s-control-plane-1||k8s-control-plane-1 localhost 192.168.122.10 127.0.0.1 v6:1|both
600 pki/etcd/peer.key -----BEGIN PRIVATE KEY-----
644 pki/etcd/healthcheck-client.crt kube-etcd-healthcheck-client|||client
600 pki/etcd/healthcheck-client.key -----BEGIN PRIVATE KEY-----
644 pki/apiserver-etcd-client.crt kube-apiserver-etcd-client|||client
600 pki/apiserver-etcd-client.key -----BEGIN PRIVATE KEY-----
644 pki/controller-manager/server.crt kube-controller-manager||k8s-control-plane-1 localhost 192.168.122.10 127.0.0.1|server
600 pki/controller-manager/server.key -----BEGIN PRIVATE KEY-----
644 pki/scheduler/server.crt kube-scheduler||k8s-control-plane-1 localhost 192.168.122.10 127.0.0.1|server
600 pki/scheduler/server.key -----BEGIN PRIVATE KEY-----
644 /var/lib/kubelet/pki/kubelet.crt system:node:k8s-control-plane-1|system:nodes|k8s-control-plane-1 192.168.122.10|server
600 /var/lib/kubelet/pki/kubelet.key -----BEGIN PRIVATE KEY-----
600 admin.conf kubernetes-admin@kubernetes https://192.168.122.10:6443 kubernetes-admin|system:masters||client
600 controller-manager.conf system:kube-controller-manager@kubernetes https://192.168.122.10:6443 system:kube-controller-manager|||client
600 scheduler.conf system:kube-scheduler@kubernetes https://192.168.122.10:6443 system:kube-scheduler|||client
600 kubelet.conf system:node:k8s-control-plane-1@kubernetes https://192.168.122.10:6443 system:node:k8s-control-plane-1|system:nodes||client
";
    assert_eq!(shape, expected);
}

#[test]
fn a_worker_has_what_its_kubelet_needs_and_no_key_of_the_cluster() {
    let room = Room::new();
    let files = room.pki.worker_files("k8s-worker-1", WORKER_IP, ENDPOINT).expect("files");
    let map = by_path(&files);
    let paths: Vec<&str> = map.keys().copied().collect();
    let expected = [
        "/etc/kubernetes/kubelet.conf",
        "/etc/kubernetes/pki/ca.crt",
        "/var/lib/kubelet/pki/kubelet.crt",
        "/var/lib/kubelet/pki/kubelet.key",
    ];
    assert_eq!(paths, expected);
    assert_eq!(
        describe(map["/var/lib/kubelet/pki/kubelet.crt"]),
        "system:node:k8s-worker-1|system:nodes|k8s-worker-1 192.168.122.11|server"
    );
    let elsewhere = room.pki.worker_files("k8s-worker-1", Ipv4Addr::new(192, 168, 122, 12), ENDPOINT);
    let elsewhere = elsewhere.expect("files");
    assert!(describe(by_path(&elsewhere)["/var/lib/kubelet/pki/kubelet.crt"]).contains("192.168.122.12"));
}

#[test]
fn from_1_29_on_administrators_are_bound_by_rbac() {
    let room = Room::new();
    let files = files(&room.pki, "v1.31.4");
    let map = by_path(&files);
    let ca = map["/etc/kubernetes/pki/ca.crt"];
    assert!(describe_kubeconfig(map["/etc/kubernetes/admin.conf"], ca).contains("|kubeadm:cluster-admins|"));
    assert!(
        describe_kubeconfig(map["/etc/kubernetes/super-admin.conf"], ca)
            .contains("kubernetes-super-admin|system:masters|")
    );
    assert!(
        describe(map["/etc/kubernetes/pki/apiserver-kubelet-client.crt"])
            .contains("|kubeadm:cluster-admins|")
    );
}

#[test]
fn files_stay_the_same_until_half_of_their_life() {
    let room = Room::new();
    let now = Timestamp::now();
    let first = files_at(&room.pki, "v1.20.2", now);
    let worker = room.pki.worker_files("k8s-worker-1", WORKER_IP, ENDPOINT).expect("files");
    assert_eq!(files_at(&room.pki, "v1.20.2", now), first);
    let again = KubernetesPki::open(&room.path()).expect("opens again");
    assert_eq!(files_at(&again, "v1.20.2", now), first);
    assert_eq!(again.worker_files("k8s-worker-1", WORKER_IP, ENDPOINT).expect("files"), worker);

    let half = SignedDuration::from_secs(LEAF_LIFETIME.as_secs() / 2);
    let before = files_at(&again, "v1.20.2", now + half - SignedDuration::from_hours(24));
    assert_eq!(before, first);
    let after = files_at(&again, "v1.20.2", now + half + SignedDuration::from_hours(24));
    for (old, new) in first.iter().zip(&after) {
        let kept = ["/ca.", "/front-proxy-ca.", "/sa."].iter().any(|part| old.path.contains(part));
        assert_eq!(old.content == new.content, kept, "{}", old.path);
    }
    again.forget_node(NODE).expect("forgets");
    assert_ne!(
        by_path(&files_at(&again, "v1.20.2", now))["/etc/kubernetes/admin.conf"],
        by_path(&first)["/etc/kubernetes/admin.conf"]
    );
}

#[test]
fn what_is_kept_is_for_its_owner_alone_and_damage_is_named() {
    let room = Room::new();
    files(&room.pki, "v1.20.2");
    let mode = std::fs::metadata(room.path()).expect("exists").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    std::fs::write(room.path(), "{}").expect("writes");
    let error = KubernetesPki::open(&room.path()).expect_err("is damaged");
    assert!(error.to_string().contains("restore it from a backup"), "{error}");
}

#[test]
fn an_administrators_kubeconfig_is_short_lived_and_named_after_the_cluster() {
    let room = Room::new();
    let ttl = SignedDuration::from_hours(8);
    let one = room.pki.admin_kubeconfig(ENDPOINT, "home", ttl).expect("a kubeconfig");
    let text = describe_kubeconfig(one.as_bytes(), room.pki.ca_pem().as_bytes());
    assert_eq!(text, "home-admin@home https://192.168.122.10:6443 k8sctl-admin|system:masters||client");
    assert_ne!(one, room.pki.admin_kubeconfig(ENDPOINT, "home", ttl).expect("a kubeconfig"));
}

/// Writes the files below a directory and gives it.
fn lay_out(files: &[ManagedFile], root: &Path) {
    for file in files {
        let path = root.join(file.path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("has one")).expect("makes a directory");
        std::fs::write(path, &file.content).expect("writes");
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

#[tokio::test]
async fn openssl_verifies_every_chain() {
    if !is_installed("openssl") {
        eprintln!("openssl is not installed: chains are checked by the other tests alone");
        return;
    }
    let room = Room::new();
    let root = room.dir.path().join("root");
    lay_out(&files(&room.pki, "v1.20.2"), &root);
    let pki = root.join("etc/kubernetes/pki");
    let cases = [
        ("ca.crt", "sslserver", "apiserver.crt"),
        ("ca.crt", "sslclient", "apiserver-kubelet-client.crt"),
        ("ca.crt", "sslserver", "controller-manager/server.crt"),
        ("ca.crt", "sslserver", "scheduler/server.crt"),
        ("ca.crt", "sslserver", "../../../var/lib/kubelet/pki/kubelet.crt"),
        ("front-proxy-ca.crt", "sslclient", "front-proxy-client.crt"),
        ("etcd/ca.crt", "sslserver", "etcd/server.crt"),
        ("etcd/ca.crt", "sslclient", "etcd/server.crt"),
        ("etcd/ca.crt", "sslserver", "etcd/peer.crt"),
        ("etcd/ca.crt", "sslclient", "etcd/healthcheck-client.crt"),
        ("etcd/ca.crt", "sslclient", "apiserver-etcd-client.crt"),
    ];
    for (ca, purpose, leaf) in cases {
        let verify = Program::new("openssl", Duration::from_secs(30))
            .args(["verify", "-x509_strict", "-purpose", purpose, "-CAfile"])
            .arg(pki.join(ca))
            .arg(pki.join(leaf));
        verify.run().await.unwrap_or_else(|error| panic!("{leaf}: {error}"));
    }
    let wrong = Program::new("openssl", Duration::from_secs(30))
        .args(["verify", "-CAfile"])
        .arg(pki.join("etcd/ca.crt"))
        .arg(pki.join("apiserver.crt"));
    wrong.run().await.expect_err("another CA");
}

/// kubeadm's own word on it: it reuses every file and changes none.
#[tokio::test]
async fn kubeadm_reuses_every_file() {
    if !is_installed("kubeadm") {
        eprintln!("kubeadm is not installed: the structure is checked by the other tests alone");
        return;
    }
    let kubeadm = || Program::new("kubeadm", Duration::from_secs(60));
    let release = kubeadm().args(["version", "-o", "short"]).run().await.expect("tells its version");
    let release = version(release.trim());
    let room = Room::new();
    let root = room.dir.path().join("root");
    let before = files(&room.pki, &release.to_string());
    lay_out(&before, &root);
    let kubernetes = root.join("etc/kubernetes");
    let config = room.dir.path().join("kubeadm.yaml");
    let form = match release.minor() {
        ..22 => "v1beta2",
        22..31 => "v1beta3",
        _ => "v1beta4",
    };
    let text = format!(
        "apiVersion: kubeadm.k8s.io/{form}\nkind: InitConfiguration\n\
         localAPIEndpoint: {{advertiseAddress: 192.168.122.10}}\n\
         nodeRegistration: {{name: {NODE}, criSocket: \"unix:///run/containerd/containerd.sock\"}}\n---\n\
         apiVersion: kubeadm.k8s.io/{form}\nkind: ClusterConfiguration\nkubernetesVersion: {release}\n\
         controlPlaneEndpoint: \"{ENDPOINT}\"\ncertificatesDir: {}\n\
         networking: {{serviceSubnet: 10.96.0.0/12}}\n",
        kubernetes.join("pki").display()
    );
    std::fs::write(&config, text).expect("writes");
    let run = |phase: &str| kubeadm().args(["init", "phase", phase, "all", "--config"]).arg(config.clone());
    let mut said = run("certs").run().await.expect("accepts the certificates");
    let kubeconfigs = run("kubeconfig").arg("--kubeconfig-dir").arg(kubernetes.clone());
    said.push_str(&kubeconfigs.run().await.expect("accepts the kubeconfigs"));
    assert!(!said.contains("Generat") && !said.contains("Writing"), "{said}");
    for file in &before {
        let path = root.join(file.path.trim_start_matches('/'));
        assert_eq!(std::fs::read(&path).expect("is there"), file.content, "{}", file.path);
    }
}
