//! The tree's own plugins as they are shipped: their packages, their own plans, upstream's manifests from the store as
//! `k8sctl plugin vendor --from` puts them there, and a real API server.

#[path = "common/mod.rs"]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use common::cluster::{Cluster, facts};
use common::kubelet::Kubelet;
use common::scenarios::wait_for;
use common::upstream::folder;
use common::webhook::Place;
use common::{Installation, workspace};
use host_plugins::{FetchSetup, Manifests};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8sctl_command::Program;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use plugin_package::{Package, TrustPolicy};
use plugin_plan::{CheckContext, CheckedPlan, check_plan};
use plugin_process::{Ceilings, Deadlines, PlanAnswer, PlanAsk, Runner};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Bench {
    cluster: Cluster,
    _kubelet: Kubelet,
    runner: Runner,
    manifests: Manifests,
    files: PathBuf,
    packages: PathBuf,
    _folder: TempDir,
}

/// The packages, by the script that `make build` calls: nothing to do after that.
async fn packages() -> PathBuf {
    // Among the test programs of cargo lies the folder that it builds into.
    let test = std::env::current_exe().expect("this test has a path");
    let target = test.ancestors().nth(3).expect("TARGET/PROFILE/deps/TEST").to_owned();
    Program::new(workspace().join("tests/lab/cargo-build"), Duration::from_secs(1800))
        .arg("--locked")
        .env("CARGO_TARGET_DIR", &target)
        .run()
        .await
        .expect("the plugins build");
    target.join("release/plugins")
}

impl Bench {
    /// A plugin's own plan with this config, checked against its own manifest.
    async fn plan(&self, name: &str, config: &Value) -> CheckedPlan {
        let package = Package::open(&self.packages.join(name), &TrustPolicy::default(), true);
        let package = package.unwrap_or_else(|error| panic!("{}", error.failure(name)));
        let ask = PlanAsk {
            config_json: config.to_string(),
            facts: facts(&self.cluster.version),
            dependencies: Vec::new(),
            secrets: Vec::new(),
        };
        let run = self.runner.plan(&package, &ask).await;
        let run = run.unwrap_or_else(|error| panic!("{name}: {}\n{}", error.failure, error.stderr));
        let PlanAnswer::Plan { plan, .. } = run.answer else { panic!("{name} does not take {config}") };
        let wanted: Vec<String> = plan.remotes.iter().map(|remote| remote.sha256.clone()).collect();
        let found = self.manifests.take_from(&self.files, &wanted).await.expect("they are read");
        assert_eq!(found.len(), wanted.len(), "{name}: upstream's files are other ones than it pins");
        let mut fetched = BTreeMap::new();
        for remote in &plan.remotes {
            let may_fetch = |url: &str| package.manifest.may_fetch(url);
            let body = self.manifests.get(name, remote, &may_fetch).await;
            fetched.insert(remote.sha256.clone(), body.unwrap_or_else(|failure| panic!("{name}: {failure}")));
        }
        let context = CheckContext {
            manifest: &package.manifest,
            fetched: &fetched,
            without_bodies: false,
            secrets: &BTreeSet::new(),
            accounts: &BTreeSet::new(),
        };
        check_plan(plan, &context).unwrap_or_else(|failure| panic!("{failure}\n{}", failure.evidence))
    }

    /// Installed, again, another config, away.
    async fn life(&self, name: &str, configs: [&Value; 2]) {
        let installation = Installation::new(&self.cluster, name);
        let first = self.plan(name, configs[0]).await;
        let applied = installation.apply(&first).await;
        let applied = applied.unwrap_or_else(|failure| panic!("{name}: {failure}\n{}", failure.evidence));
        assert_eq!(applied.written, first.objects.len(), "{name}");
        let writes = self.cluster.writes().await;
        assert_eq!(installation.apply(&first).await.expect("again").written, 0, "{name}");
        assert_eq!(self.cluster.writes().await, writes, "{name}");
        assert_eq!(
            installation.engine().look(&first).await.expect("it is looked at").worst(),
            None,
            "{name}"
        );

        let second = self.plan(name, configs[1]).await;
        let changed = installation.apply(&second).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(changed.written >= 1 && changed.written < first.objects.len(), "{name}: {changed:?}");
        let removed = installation.engine().remove(false).await;
        let removed = removed.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(removed.kept.is_empty(), "{name}: {:?}", removed.kept);
    }
}

async fn flannel(bench: &mut Bench) {
    bench.life("flannel", [&json!({}), &json!({"backend": "host-gw"})]).await;
}

async fn local_path_storage(bench: &mut Bench) {
    // Of a class the server changes no such field: it is made anew.
    bench
        .life("local-path-storage", [&json!({}), &json!({"path": "/srv/volumes", "reclaim": "Retain"})])
        .await;
}

/// Its controller, which has a webhook, is played: on the address of its Service, whose port is root's.
async fn metallb(bench: &mut Bench) {
    let (first, second) = (json!({}), json!({"auto_assign": false}));
    let plays = plays_webhook(&bench.cluster.people);
    let lives = bench.life("metallb", [&first, &second]);
    tokio::select! {
        () = lives => {}
        never = plays => match never {},
    }
}

/// Puts an authority into the configuration as often as it lacks one, and answers. Never ends.
async fn plays_webhook(client: &Client) -> std::convert::Infallible {
    let (namespace, name) = ("metallb-system", "metallb-webhook-service");
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let address = wait_for("the webhook's Service", async || {
        let service = services.get_opt(name).await.ok().flatten()?;
        let ip: std::net::IpAddr = service.spec?.cluster_ip?.parse().ok()?;
        Some(SocketAddr::new(ip, 443))
    })
    .await;
    let place = Place::new(namespace, name, &address.to_string());
    let _webhook = place.open().await;
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), namespace);
    let there = Patch::Apply(place.endpoints());
    endpoints.patch(name, &PatchParams::apply("people").force(), &there).await.expect("they are made");
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    loop {
        if let Ok(Some(configuration)) = configurations.get_opt("metallb-webhook-configuration").await {
            let mut webhooks = serde_json::to_value(configuration.webhooks).expect("JSON");
            let all = webhooks.as_array_mut().into_iter().flatten();
            let mut lacking = all.filter(|webhook| webhook["clientConfig"]["caBundle"].is_null()).peekable();
            if lacking.peek().is_some() {
                lacking.for_each(|webhook| webhook["clientConfig"]["caBundle"] = json!(place.ca_bundle()));
                let change = Patch::Merge(json!({"webhooks": webhooks}));
                let _ = configurations
                    .patch("metallb-webhook-configuration", &PatchParams::default(), &change)
                    .await;
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn the_trees_own_plugins_come_change_and_go() {
    let Some(files) = folder() else { return };
    // Built before servers run, whose time is bounded.
    let packages = packages().await;
    let Some(cluster) = Cluster::start().await else { return };
    if !packages.join("flannel/plugin.toml").is_file() {
        // The script has said why: this kernel has no sandbox in which a plugin could be asked.
        assert!(
            std::env::var_os("CI").is_none_or(|value| value != "true"),
            "no packages in {}",
            packages.display()
        );
        return;
    }
    let kubelet = Kubelet::start(&cluster.people);
    let store = tempfile::tempdir().expect("a folder");
    let manifests = Manifests::new(FetchSetup::new(store.path().join("manifests"))).expect("a client");
    let runner = Runner::new(Deadlines::default(), Ceilings::default());
    let mut bench = Bench { cluster, _kubelet: kubelet, runner, manifests, files, packages, _folder: store };
    if std::net::TcpListener::bind("127.96.0.1:443").is_ok() {
        let all = crate::scenarios![Bench: flannel, local_path_storage, metallb];
        common::scenarios::run(&mut bench, &all).await;
    } else {
        eprintln!("metallb is not tested: its webhook's port needs root");
        let all = crate::scenarios![Bench: flannel, local_path_storage];
        common::scenarios::run(&mut bench, &all).await;
    }
}
