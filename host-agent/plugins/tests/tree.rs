//! The tree's own plugins as they are shipped: their packages, their own plans, upstream's manifests from the store as
//! `k8sctl plugin vendor --from` puts them there, and a real API server. An older version of each is made of it, to be
//! upgraded from.

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
use host_plugins::engine::{Applied, Consent};
use host_plugins::{FetchSetup, Manifests};
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Service};
use k8sctl_command::Program;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Api, Client};
use plugin_package::{Manifest, Package, TrustPolicy};
use plugin_plan::{
    CheckContext, CheckedPlan, Handling, ManifestPatch, ObjectSelector, UncheckedObject, UncheckedPlan,
    check_plan,
};
use plugin_process::{Ceilings, Deadlines, PlanAnswer, PlanAsk, Runner};
use semver::Version;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A ConfigMap that versions before had, and those of the tree have not.
const GONE: &str = "of-before";
/// Where the first image of a workload stands.
const IMAGE: &str = "/spec/template/spec/containers/0/image";

/// A plugin as its version before might have been: with another image, and a ConfigMap more.
struct Older {
    plugin: &'static str,
    namespace: &'static str,
    kind: &'static str,
    workload: &'static str,
    image: &'static str,
}

const OLDER_FLANNEL: Older = Older {
    plugin: "flannel",
    namespace: "kube-flannel",
    kind: "DaemonSet",
    workload: "kube-flannel-ds",
    image: "ghcr.io/flannel-io/flannel:v0.28.8",
};
const OLDER_LOCAL_PATH: Older = Older {
    plugin: "local-path-storage",
    namespace: "local-path-storage",
    kind: "Deployment",
    workload: "local-path-provisioner",
    image: "docker.io/rancher/local-path-provisioner:v0.0.36",
};
const OLDER_METALLB: Older = Older {
    plugin: "metallb",
    namespace: "metallb-system",
    kind: "Deployment",
    workload: "controller",
    image: "quay.io/metallb/controller:v0.16.0",
};

impl Older {
    /// Asks for that ConfigMap, too.
    fn manifest(&self, tree: &Manifest) -> Manifest {
        let mut manifest = tree.clone();
        manifest.version = Version::new(0, 0, 9);
        assert!(manifest.version < tree.version, "{} has a version after its first", self.plugin);
        let maps = tree.permissions.iter().find(|permission| permission.kind == "ConfigMap");
        let mut more = maps.unwrap_or_else(|| panic!("{} writes a ConfigMap", self.plugin)).clone();
        more.names = vec![GONE.to_owned()];
        manifest.permissions.push(more);
        manifest
    }

    fn change(&self, plan: &mut UncheckedPlan) {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": GONE, "namespace": self.namespace},
            "data": {"of": "0.0.9"},
        });
        plan.objects.push(UncheckedObject { object, handling: Handling::default() });
        let target = ObjectSelector {
            kind: self.kind.to_owned(),
            name: self.workload.to_owned(),
            ..ObjectSelector::default()
        };
        let operations = json!([{"op": "replace", "path": IMAGE, "value": self.image}]);
        plan.remotes[0].patches.push(ManifestPatch { target, operations });
    }

    /// The image that a plan has.
    fn image_in(&self, plan: &CheckedPlan) -> String {
        let is_it = |kind: &str, name: &str| kind == self.kind && name == self.workload;
        let planned = plan.objects.iter().find(|planned| is_it(&planned.key.kind, &planned.key.name));
        let image = planned.and_then(|planned| planned.object.pointer(IMAGE)).and_then(Value::as_str);
        image.unwrap_or_else(|| panic!("{} has no image", self.plugin)).to_owned()
    }

    /// The image that the cluster has, and whether that ConfigMap is there.
    async fn seen(&self, client: &Client) -> (String, bool) {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", self.kind));
        let workloads: Api<DynamicObject> = Api::namespaced_with(client.clone(), self.namespace, &resource);
        let workload = workloads.get(self.workload).await.expect("its workload");
        let image = workload.data.pointer(IMAGE).and_then(Value::as_str).expect("an image").to_owned();
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), self.namespace);
        (image, maps.get_opt(GONE).await.expect("the API answers").is_some())
    }
}

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
        self.plan_of(name, config, None).await
    }

    /// The same, or what a version before it might have said.
    async fn plan_of(&self, name: &str, config: &Value, older: Option<&Older>) -> CheckedPlan {
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
        let PlanAnswer::Plan { mut plan, .. } = run.answer else { panic!("{name} does not take {config}") };
        let mut manifest = package.manifest.clone();
        if let Some(older) = older {
            older.change(&mut plan);
            manifest = older.manifest(&manifest);
        }
        let wanted: Vec<String> = plan.remotes.iter().map(|remote| remote.sha256.clone()).collect();
        let found = self.manifests.take_from(&self.files, &wanted).await.expect("they are read");
        assert_eq!(found.len(), wanted.len(), "{name}: upstream's files are other ones than it pins");
        let mut fetched = BTreeMap::new();
        for remote in &plan.remotes {
            let may_fetch = |url: &str| manifest.may_fetch(url);
            let body = self.manifests.get(name, remote, &may_fetch).await;
            fetched.insert(remote.sha256.clone(), body.unwrap_or_else(|failure| panic!("{name}: {failure}")));
        }
        let context = CheckContext {
            manifest: &manifest,
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

    /// An older version, upgraded to the tree's, and back.
    async fn upgrade(&self, older: &Older) {
        let (name, people) = (older.plugin, &self.cluster.people);
        let installation = Installation::new(&self.cluster, name);
        let before = self.plan_of(name, &json!({}), Some(older)).await;
        let now = self.plan(name, &json!({})).await;
        assert_eq!(before.version, "0.0.9", "{name}");
        let (old_image, image) = (older.image_in(&before), older.image_in(&now));
        assert_ne!(old_image, image, "{name}");
        let all = now.objects.len();
        assert_eq!(before.objects.len(), all + 1, "{name}");
        let apply = async |what: &str, plan: &CheckedPlan, keep_definitions: bool| {
            let consent = Consent { keep_definitions, ..Consent::default() };
            let applied = installation.apply_with(plan, consent).await;
            applied.unwrap_or_else(|failure| panic!("{name}, {what}: {failure}\n{}", failure.evidence))
        };

        let installed = apply("installed", &before, false).await;
        assert_eq!(installed, Applied { written: all + 1, unchanged: 0, pruned: 0 }, "{name}");
        assert_eq!(older.seen(people).await, (old_image.clone(), true), "{name}");

        // The one object that is another is written, and the one that is no more is deleted.
        let upgraded = apply("upgraded", &now, false).await;
        assert_eq!(upgraded, Applied { written: 1, unchanged: all - 1, pruned: 1 }, "{name}");
        assert_eq!(older.seen(people).await, (image, false), "{name}");
        let writes = self.cluster.writes().await;
        let again = apply("again", &now, false).await;
        assert_eq!(again, Applied { written: 0, unchanged: all, pruned: 0 }, "{name}");
        assert_eq!(self.cluster.writes().await, writes, "{name}: the second application writes nothing");

        let back = apply("rolled back", &before, true).await;
        assert_eq!(back, Applied { written: 2, unchanged: all - 1, pruned: 0 }, "{name}");
        assert_eq!(older.seen(people).await, (old_image, true), "{name}");
        let removed = installation.engine().remove(false).await;
        let removed = removed.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(removed.kept.is_empty(), "{name}: {:?}", removed.kept);
    }
}

async fn flannel(bench: &mut Bench) {
    bench.life("flannel", [&json!({}), &json!({"backend": "host-gw"})]).await;
}

async fn flannel_of_before(bench: &mut Bench) {
    bench.upgrade(&OLDER_FLANNEL).await;
}

async fn local_path_storage_of_before(bench: &mut Bench) {
    bench.upgrade(&OLDER_LOCAL_PATH).await;
}

async fn metallb_of_before(bench: &mut Bench) {
    let plays = plays_webhook(&bench.cluster.people);
    let lives = bench.upgrade(&OLDER_METALLB);
    tokio::select! {
        () = lives => {}
        never = plays => match never {},
    }
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
        let all = crate::scenarios![Bench:
            flannel,
            flannel_of_before,
            local_path_storage,
            local_path_storage_of_before,
            metallb,
            metallb_of_before,
        ];
        common::scenarios::run(&mut bench, &all).await;
    } else {
        eprintln!("metallb is not tested: its webhook's port needs root");
        let all = crate::scenarios![Bench:
            flannel,
            flannel_of_before,
            local_path_storage,
            local_path_storage_of_before,
        ];
        common::scenarios::run(&mut bench, &all).await;
    }
}
