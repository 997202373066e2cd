//! A real kube-apiserver on a real etcd, with the controllers that make and empty namespaces; all on loopback, in a
//! temporary folder, ended with the test. No nodes: nothing ever runs there.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use host_plugins::ClusterAccess;
use k8sctl_command::Program;
use kube::{Client, Config};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Longest time that a test may keep the servers.
const LIFETIME: Duration = Duration::from_secs(600);
const TOKEN: &str = "administrator-of-a-test";

pub struct Cluster {
    pub client: Client,
    _servers: JoinSet<()>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts the servers and waits until the API answers. `None`: the tests are told to do without
    /// (`K8S_MYHOME_NO_LAB=1`).
    pub async fn start() -> Option<Self> {
        if std::env::var_os("K8S_MYHOME_NO_LAB").is_some_and(|value| value == "1") {
            eprintln!("not tested: K8S_MYHOME_NO_LAB=1");
            return None;
        }
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (apiserver, etcd) = (kubernetes("kube-apiserver"), on_path("etcd"));
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        std::fs::write(at("tls.crt"), identity.cert.pem()).expect("written");
        std::fs::write(at("tls.key"), identity.signing_key.serialize_pem()).expect("written");
        std::fs::write(at("accounts.pub"), identity.signing_key.public_key_pem()).expect("written");
        std::fs::write(at("tokens"), format!("{TOKEN},admin,1,system:masters\n")).expect("written");

        let [etcd_port, peer_port, port] = free_ports();
        let etcd_url = format!("http://127.0.0.1:{etcd_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let url = format!("https://127.0.0.1:{port}");
        let mut servers = JoinSet::new();
        serve(
            &mut servers,
            Program::new(etcd, LIFETIME).args([
                "--data-dir".to_owned(),
                at("etcd"),
                "--listen-client-urls".to_owned(),
                etcd_url.clone(),
                "--advertise-client-urls".to_owned(),
                etcd_url.clone(),
                "--listen-peer-urls".to_owned(),
                peer_url.clone(),
                "--initial-advertise-peer-urls".to_owned(),
                peer_url.clone(),
                "--initial-cluster".to_owned(),
                format!("default={peer_url}"),
            ]),
        );
        serve(
            &mut servers,
            Program::new(apiserver, LIFETIME).args([
                format!("--etcd-servers={etcd_url}"),
                "--bind-address=127.0.0.1".to_owned(),
                "--advertise-address=127.0.0.1".to_owned(),
                "--endpoint-reconciler-type=none".to_owned(),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", at("tls.crt")),
                format!("--tls-private-key-file={}", at("tls.key")),
                format!("--token-auth-file={}", at("tokens")),
                "--authorization-mode=RBAC".to_owned(),
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                format!("--service-account-signing-key-file={}", at("tls.key")),
                format!("--service-account-key-file={}", at("accounts.pub")),
            ]),
        );
        let mut config = Config::new(url.parse().expect("a URL"));
        config.root_cert = Some(vec![identity.cert.der().to_vec()]);
        config.auth_info.token = Some(TOKEN.to_owned().into());
        let client = Client::try_from(config).expect("a client");
        wait_until_ready(&client, &mut servers).await;

        std::fs::write(at("kubeconfig"), kubeconfig(&url, &at("tls.crt"))).expect("written");
        let mut controllers = Program::new(kubernetes("kube-controller-manager"), LIFETIME).args([
            format!("--kubeconfig={}", at("kubeconfig")),
            "--controllers=namespace,serviceaccount,root-ca-cert-publisher".to_owned(),
            format!("--root-ca-file={}", at("tls.crt")),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        if kubernetes("kube-apiserver").to_string_lossy().contains("/v1.20.") {
            // Its other port, gone since 1.24, which two tests at once would fight for.
            controllers = controllers.arg("--port=0");
        }
        serve(&mut servers, controllers);
        Some(Self { client, _servers: servers, _folder: folder })
    }

    pub fn access(&self) -> ClusterAccess {
        ClusterAccess {
            cluster_id: "cluster-1".to_owned(),
            client: self.client.clone(),
            facts: super::facts(),
        }
    }
}

fn serve(servers: &mut JoinSet<()>, program: Program) {
    servers.spawn(async move {
        let (lines, mut said) = mpsc::channel(64);
        let drain = async { while said.recv().await.is_some() {} };
        // Ends only when the set is dropped, which ends the program, or when the program fails.
        let (result, ()) = tokio::join!(program.lines_to(lines).run(), drain);
        if let Err(error) = result {
            panic!("{error}\n{}", error.evidence().map(|e| e.output_tail.clone()).unwrap_or_default());
        }
    });
}

async fn wait_until_ready(client: &Client, servers: &mut JoinSet<()>) {
    let ready = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            // The namespace that everything needs is made after the API says that it is ready.
            let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client.clone());
            if client.request_text(request).await.is_ok() && namespaces.get("default").await.is_ok() {
                return;
            }
        }
    };
    tokio::select! {
        result = tokio::time::timeout(Duration::from_secs(120), ready) => {
            result.expect("the API server is ready in two minutes");
        }
        Some(ended) = servers.join_next() => panic!("a server ended at once: {ended:?}"),
    }
}

fn kubeconfig(url: &str, ca: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{url}', certificate-authority: '{ca}'}}}}]\n\
         users: [{{name: u, user: {{token: '{TOKEN}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    )
}

fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from("K8S_MYHOME_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("k8s-myhome")))
        .or_else(|| Some(from("HOME")?.join(".cache/k8s-myhome")))
        .expect("HOME is set")
}

/// A program of the Kubernetes that the lab builds.
fn kubernetes(program: &str) -> PathBuf {
    let built = cache().join("kubernetes");
    let versions =
        std::fs::read_dir(&built).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<_> =
        versions.map(|version| version.join("bin").join(program)).filter(|p| p.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!(
            "no {program} under {}: run `make test`, which builds it, or set K8S_MYHOME_NO_LAB=1",
            built.display()
        )
    })
}

fn on_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([cache().join("lab-bin"), Path::new("/usr/bin").to_owned()])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("no {program} on the PATH: run `make test`, which gets etcd-server, or set K8S_MYHOME_NO_LAB=1")
        })
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}
