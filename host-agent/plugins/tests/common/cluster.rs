//! A real kube-apiserver on a real etcd, with some of Kubernetes' controllers; all on loopback, in a temporary folder,
//! ended with the test. No nodes: nothing ever runs there, see [`super::kubelet`]. It is the lab's Kubernetes, or that of
//! the bundle that `LAB_BUNDLE` names.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use host_plugins::{ClusterAccess, ClusterFacts};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8sctl_command::Program;
use kube::api::{Patch, PatchParams};
use kube::client::{ClientBuilder, DynBody};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::bundle;
use super::faults::Faults;

/// Longest time that a test may keep the servers.
const LIFETIME: Duration = Duration::from_secs(1800);
/// Who the engine is, and who plays everybody else.
const ENGINE: (&str, &str) = ("token-of-the-engine", "engine");
const PEOPLE: (&str, &str) = ("token-of-people", "people");
/// What makes and empties namespaces, and deletes what belongs to others.
const CONTROLLERS: &str =
    "namespace,serviceaccount,root-ca-cert-publisher,garbagecollector,pvc-protection,pv-protection";
/// Services get addresses of the host itself, so that a webhook can be played without a network.
const SERVICES: &str = "127.96.0.0/16";

static MARKERS: AtomicUsize = AtomicUsize::new(1);

/// What of the audit log is wanted: who changed what.
const POLICY: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules:\n\
                      - level: Metadata\n  verbs: [create, update, patch, delete, deletecollection]\n\
                      - level: None\n";

pub struct Cluster {
    /// Of an administrator who is not the engine.
    pub people: Client,
    /// The engine's own.
    pub client: Client,
    /// `v1.20.2`
    pub version: String,
    config: Config,
    api: JoinSet<()>,
    api_program: PathBuf,
    api_args: Vec<String>,
    others: JoinSet<()>,
    folder: TempDir,
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
        let programs = Programs::found();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let identity = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let users = [ENGINE, PEOPLE].map(|(token, user)| format!("{token},{user},{user},system:masters\n"));
        for (name, text) in [
            ("tls.crt", identity.cert.pem()),
            ("tls.key", identity.signing_key.serialize_pem()),
            ("accounts.pub", identity.signing_key.public_key_pem()),
            ("tokens", users.concat()),
            ("policy.yaml", POLICY.to_owned()),
        ] {
            std::fs::write(at(name), text).expect("written");
        }

        let [etcd_port, peer_port, port] = free_ports();
        let [etcd_url, peer_url] = [etcd_port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        let url = format!("https://127.0.0.1:{port}");
        let mut others = JoinSet::new();
        let etcd_args = [
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls={etcd_url}"),
            format!("--advertise-client-urls={etcd_url}"),
            format!("--listen-peer-urls={peer_url}"),
            format!("--initial-advertise-peer-urls={peer_url}"),
            format!("--initial-cluster=default={peer_url}"),
        ];
        serve(&mut others, Program::new(&programs.etcd, LIFETIME).args(etcd_args));
        let api_args = vec![
            format!("--etcd-servers={etcd_url}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", at("tls.crt")),
            format!("--tls-private-key-file={}", at("tls.key")),
            format!("--token-auth-file={}", at("tokens")),
            format!("--audit-policy-file={}", at("policy.yaml")),
            format!("--audit-log-path={}", at("audit.log")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", at("tls.key")),
            format!("--service-account-key-file={}", at("accounts.pub")),
        ];
        let mut config = Config::new(url.parse().expect("a URL"));
        config.root_cert = Some(vec![identity.cert.der().to_vec()]);
        // What is tried again is tried again by the engine.
        config.default_retry = false;
        let client = |(token, _): (&str, &str)| {
            let mut config = config.clone();
            config.auth_info.token = Some(token.to_owned().into());
            (Client::try_from(config.clone()).expect("a client"), config)
        };
        let ((client, config), (people, _)) = (client(ENGINE), client(PEOPLE));
        let mut cluster = Self {
            people,
            client,
            version: String::new(),
            config,
            api: JoinSet::new(),
            api_program: programs.api_server,
            api_args,
            others,
            folder,
        };
        cluster.start_api().await;
        cluster.version = cluster.people.apiserver_version().await.expect("it has a version").git_version;

        let kubeconfig = cluster.file("kubeconfig");
        std::fs::write(&kubeconfig, config_text(&url, &cluster.file("tls.crt"))).expect("written");
        let mut controllers = Program::new(&programs.controllers, LIFETIME).args([
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--controllers={CONTROLLERS}"),
            format!("--root-ca-file={}", cluster.file("tls.crt").display()),
            "--leader-elect=false".to_owned(),
            "--secure-port=0".to_owned(),
        ]);
        if cluster.version.starts_with("v1.20.") {
            // Its other port, gone since 1.24, which two tests at once would fight for.
            controllers = controllers.arg("--port=0");
        }
        serve(&mut cluster.others, controllers);
        Some(cluster)
    }

    /// Starts the API server, on the port and the data that it had, and waits until it is ready.
    pub async fn start_api(&mut self) {
        let args = self.api_args.clone();
        serve(&mut self.api, Program::new(&self.api_program, LIFETIME).args(args));
        let ready = wait_until_ready(&self.people);
        tokio::select! {
            () = ready => {}
            Some(ended) = self.api.join_next() => panic!("the API server ended at once: {ended:?}"),
            Some(ended) = self.others.join_next() => panic!("a server ended at once: {ended:?}"),
        }
    }

    /// Kills the API server. What it has said is in etcd.
    pub async fn stop_api(&mut self) {
        self.api.abort_all();
        while self.api.join_next().await.is_some() {}
    }

    /// For programs, as people.
    pub fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// The engine's client with faults between it and the server.
    pub fn client_with(&self, faults: &Faults) -> Client {
        ClientBuilder::try_from(self.config.clone())
            .expect("a client")
            .with_layer(faults)
            .build::<Box<DynBody>>()
    }

    pub fn access(&self) -> ClusterAccess {
        ClusterAccess {
            cluster_id: super::CLUSTER.to_owned(),
            cluster_name: "home".to_owned(),
            client: self.client.clone(),
            facts: facts(&self.version),
        }
    }

    /// Whether this is the old server that most of what is upstream today was not written for.
    pub fn is_old(&self) -> bool {
        self.version.starts_with("v1.20.")
    }

    /// The changes that the engine made so far, `patch /api/v1/namespaces/a`: from the audit log, without what was a
    /// dry run or was refused.
    pub async fn writes(&self) -> Vec<String> {
        self.flush_log().await;
        let log = std::fs::read_to_string(self.file("audit.log")).unwrap_or_default();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let writes = events.filter(|event| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            let code = event["responseStatus"]["code"].as_u64().unwrap_or(500);
            event["user"]["username"] == ENGINE.1 && !uri.contains("dryRun=") && code < 300
        });
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        writes.map(|event| format!("{} {}", text(&event, "verb"), text(&event, "requestURI"))).collect()
    }

    /// Until the log has everything that happened before: it has what happens now.
    async fn flush_log(&self) {
        let maps: Api<ConfigMap> = Api::namespaced(self.people.clone(), "default");
        let marker = format!("marker-{}", MARKERS.fetch_add(1, Ordering::SeqCst));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": marker}});
        maps.patch(&marker, &PatchParams::apply("people"), &Patch::Apply(&map)).await.expect("it is written");
        for _ in 0..600 {
            let log = std::fs::read_to_string(self.file("audit.log")).unwrap_or_default();
            if log.contains(&format!("/{marker}?")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the audit log does not have {marker}");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

pub fn facts(kubernetes_version: &str) -> ClusterFacts {
    ClusterFacts {
        cluster_name: "home".to_owned(),
        kubernetes_version: kubernetes_version.to_owned(),
        pod_cidr: "10.244.0.0/16".to_owned(),
        service_cidr: "10.96.0.0/16".to_owned(),
        node_cidr: "192.168.122.0/24".to_owned(),
        load_balancer_first: "192.168.122.100".to_owned(),
        load_balancer_last: "192.168.122.150".to_owned(),
        node_names: vec!["k8s-worker-1".to_owned(), "k8s-worker-2".to_owned()],
        images: [("workload".to_owned(), "lab.k8s-myhome/busybox:1".to_owned())].into(),
        ..ClusterFacts::default()
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

async fn wait_until_ready(client: &Client) {
    let ready = async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        loop {
            tick.tick().await;
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            // The namespace that everything needs is made after the API says that it is ready.
            let namespaces: Api<Namespace> = Api::all(client.clone());
            if client.request_text(request).await.is_ok() && namespaces.get("default").await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), ready)
        .await
        .expect("the API server is ready in two minutes");
}

fn config_text(url: &str, ca: &Path) -> String {
    let (token, ca) = (PEOPLE.0, ca.display());
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: '{url}', certificate-authority: '{ca}'}}}}]\n\
         users: [{{name: u, user: {{token: '{token}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
    )
}

/// The servers' programs.
struct Programs {
    etcd: PathBuf,
    api_server: PathBuf,
    controllers: PathBuf,
}

impl Programs {
    fn found() -> Self {
        if let Some(bundle) = std::env::var_os("LAB_BUNDLE").filter(|path| !path.is_empty()) {
            let folder = bundle::programs(Path::new(&bundle));
            let at = |name: &str| folder.join(name);
            return Self {
                etcd: at("etcd"),
                api_server: at("kube-apiserver"),
                controllers: at("kube-controller-manager"),
            };
        }
        Self {
            etcd: on_path("etcd"),
            api_server: kubernetes("kube-apiserver"),
            controllers: kubernetes("kube-controller-manager"),
        }
    }
}

fn cache() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from);
    from("K8S_MYHOME_CACHE")
        .or_else(|| Some(from("XDG_CACHE_HOME")?.join("k8s-myhome")))
        .or_else(|| Some(from("HOME")?.join(".cache/k8s-myhome")))
        .expect("HOME is set")
}

/// A program of the Kubernetes that the lab builds.
pub fn kubernetes(program: &str) -> PathBuf {
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
