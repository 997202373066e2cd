//! The real manifests of upstream projects, from an https server through the store onto a real API server, and away again.
//! On the lab's old Kubernetes some are refused, before anything is written; on a newer one (`LAB_BUNDLE`) none may be. What
//! every server refuses is the one file that is no manifest: a fragment, of which its own tool makes a whole object.

#[path = "common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::time::Instant;

use common::Installation;
use common::cluster::Cluster;
use common::kubelet::Kubelet;
use common::plans::{Plan, namespace, plan, remote};
use common::upstream::{Serving, Upstream, folder};
use host_plugins::{FetchSetup, Manifests};
use kube::api::{DynamicObject, ListParams};
use kube::{Api, Client, Discovery};
use plugin_plan::{CheckedPlan, ObjectSelector, RemoteManifest};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Bench {
    cluster: Cluster,
    _kubelet: Kubelet,
    upstream: Upstream,
    manifests: Manifests,
    files: PathBuf,
    _folder: TempDir,
}

/// One project.
struct Project {
    name: &'static str,
    file: &'static str,
    objects: u32,
    /// Of objects that name none; the plan makes it.
    namespace: &'static str,
    /// What its next version has for what this one has.
    next: (&'static str, &'static str),
    /// What its next version does without.
    without: (&'static str, &'static str),
}

const FLANNEL: Project = Project {
    name: "flannel",
    file: "flannel.yaml",
    objects: 6,
    namespace: "",
    next: ("flannel:v0.28.9", "flannel:v0.28.10"),
    without: ("ConfigMap", "kube-flannel-cfg"),
};
const LOCAL_PATH: Project = Project {
    name: "local-path",
    file: "local-path-storage.yaml",
    objects: 9,
    namespace: "",
    next: ("local-path-provisioner:v0.0.37", "local-path-provisioner:v0.0.38"),
    without: ("ConfigMap", "local-path-config"),
};
const ARGO_CD: Project = Project {
    name: "argo-cd",
    file: "argo-cd-install.yaml",
    objects: 59,
    namespace: "argocd",
    next: ("argocd:v3.5.1", "argocd:v3.5.2"),
    without: ("NetworkPolicy", "argocd-server-network-policy"),
};
const INGRESS_NGINX: Project = Project {
    name: "ingress-nginx",
    file: "ingress-nginx.yaml",
    objects: 19,
    namespace: "",
    next: ("controller:v1.15.1@", "controller:v1.15.2@"),
    without: ("IngressClass", "nginx"),
};
const METALLB: Project = Project {
    name: "metallb",
    file: "metallb-native.yaml",
    objects: 26,
    namespace: "",
    next: ("controller:v0.16.1", "controller:v0.16.2"),
    without: ("ConfigMap", "metallb-excludel2"),
};

/// Rules in a schema, and fields to select by: the old server knows neither.
const RULES: &str = "x-kubernetes-validations";
const SELECTABLE: &str = "selectableFields";

/// Which objects the old server does not take, and for which field of each.
type Refused = &'static [(&'static str, &'static str)];

const METALLB_AS_SHIPPED: Refused = &[
    ("bgpadvertisements.metallb.io", RULES),
    ("bgppeers.metallb.io", RULES),
    ("servicebgpstatuses.metallb.io", RULES),
    ("servicel2statuses.metallb.io", RULES),
];

/// Definitions alone: the project, how its files begin, what of them is refused.
const NEWER: [(&str, &str, Refused); 3] = [
    (
        "external-secrets",
        "external-secrets-crds",
        &[
            ("clusterpushsecrets.external-secrets.io", RULES),
            ("clustersecretstores.external-secrets.io", RULES),
            ("externalsecrets.external-secrets.io", SELECTABLE),
            ("pushsecrets.external-secrets.io", RULES),
            ("secretstores.external-secrets.io", RULES),
        ],
    ),
    (
        "cert-manager",
        "cert-manager-crd-",
        &[
            ("certificaterequests.cert-manager.io", SELECTABLE),
            ("certificates.cert-manager.io", SELECTABLE),
            ("challenges.acme.cert-manager.io", SELECTABLE),
            ("clusterissuers.cert-manager.io", RULES),
            ("issuers.cert-manager.io", RULES),
            ("orders.acme.cert-manager.io", SELECTABLE),
        ],
    ),
    (
        "gateway-api",
        "gateway-api-",
        &[
            ("gatewayclasses.gateway.networking.k8s.io", RULES),
            ("gateways.gateway.networking.k8s.io", RULES),
            ("grpcroutes.gateway.networking.k8s.io", RULES),
            ("httproutes.gateway.networking.k8s.io", RULES),
        ],
    ),
];

/// A Deployment without a selector, which kustomize fills in.
const FRAGMENT: &str = "metrics-server-deployment.yaml";

impl Bench {
    fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.files.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// Serves a body and fetches it, as the host does before it checks a plan.
    async fn fetched(&self, file: &str, body: Vec<u8>, objects: u32) -> (RemoteManifest, Vec<u8>) {
        let url = self.upstream.serve(&format!("/projects/{file}"), Serving::Whole(body.clone()));
        let wanted = remote(&url, &body, objects);
        let prefix = format!("{}/projects/", self.upstream.base);
        let got = self.manifests.get("upstream", &wanted, &move |url: &str| url.starts_with(&prefix)).await;
        let got = got.unwrap_or_else(|failure| panic!("{file}: {failure}"));
        assert_eq!(got, body);
        (wanted, got)
    }

    /// What the old server takes of MetalLB: without rules that it does not know.
    fn body(&self, project: &Project) -> Vec<u8> {
        let body = self.read(project.file);
        if project.name != METALLB.name || !self.cluster.is_old() {
            return body;
        }
        let whole = remote("https://example.org/all.yaml", &body, project.objects);
        let mut objects = plugin_plan::remote::objects_of(&whole, &body, &[]).expect("it is a manifest");
        objects.iter_mut().for_each(strip);
        json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string().into_bytes()
    }

    async fn plan_of(
        &self,
        project: &Project,
        body: Vec<u8>,
        without: Option<ObjectSelector>,
    ) -> CheckedPlan {
        let objects = if without.is_some() { 0 } else { project.objects };
        let (mut wanted, body) = self.fetched(project.file, body, objects).await;
        project.namespace.clone_into(&mut wanted.namespace);
        wanted.exclude.extend(without);
        let mut plan = plan(project.name).remote(wanted, &body);
        if !project.namespace.is_empty() {
            plan = plan.object(namespace(project.namespace));
        }
        plan.checked()
    }

    async fn life(&self, project: &Project) {
        let name = project.name;
        let installation = Installation::new(&self.cluster, name);
        let body = self.body(project);
        let first = self.plan_of(project, body.clone(), None).await;
        let count = first.objects.len();
        let own = usize::from(!project.namespace.is_empty());
        assert_eq!(count, project.objects as usize + own, "{name}");

        let begun = Instant::now();
        let applied = installation.apply(&first).await;
        let applied = applied.unwrap_or_else(|failure| panic!("{name}: {failure}\n{}", failure.evidence));
        println!("{name}: installed in {:.1?}", begun.elapsed());
        assert_eq!((applied.written, applied.pruned), (count, 0), "{name}");
        let entries = installation.inventory().entries().await.expect("they are read");
        assert!(entries.len() == count && entries.iter().all(|entry| entry.uid.is_some()), "{name}");

        let (begun, writes) = (Instant::now(), self.cluster.writes().await);
        let again = installation.apply(&first).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        println!("{name}: again in {:.1?}", begun.elapsed());
        assert_eq!((again.written, again.unchanged), (0, count), "{name}");
        assert_eq!(self.cluster.writes().await, writes, "{name}: the second application writes nothing");

        let text = String::from_utf8(body).expect("text");
        let (from, to) = project.next;
        assert!(text.contains(from), "{name} has no {from}");
        let (kind, without) = project.without;
        let selector =
            ObjectSelector { kind: kind.to_owned(), name: without.to_owned(), ..Default::default() };
        let second = self.plan_of(project, text.replace(from, to).into_bytes(), Some(selector)).await;
        let upgraded = installation.apply(&second).await;
        let upgraded = upgraded.unwrap_or_else(|failure| panic!("{name}: {failure}\n{}", failure.evidence));
        assert!(upgraded.written >= 1 && upgraded.written < count / 2, "{name}: {upgraded:?}");
        assert_eq!(upgraded.pruned, 1, "{name}: {kind} {without}");

        let engine = installation.engine();
        let removed = engine.remove(false).await.unwrap_or_else(|failure| panic!("{name}: {failure}"));
        assert!(removed.kept.is_empty(), "{name}: {:?}", removed.kept);
        assert_eq!(
            left_of(&self.cluster.people, name).await,
            Vec::<String>::new(),
            "{name}: something is left"
        );
        assert!(installation.inventory().entries().await.expect("they are read").is_empty(), "{name}");
    }

    /// Applies a plan of whole manifests that only an old server does not take: for each of these definitions one line has
    /// its kind and name, the path of the field, and the server's version.
    async fn is_refused_by_the_old(&self, name: &str, plan: &CheckedPlan, expected: Refused) {
        assert!(self.cluster.is_old(), "{name}: a newer server takes every manifest of whole objects");
        let key = |definition: &str| format!("CustomResourceDefinition {definition}");
        let expected: Vec<_> = expected.iter().map(|(definition, field)| (key(definition), *field)).collect();
        self.is_refused(name, plan, &expected).await;
    }

    /// Nothing of it is written, and each object is named with its field, in one line.
    async fn is_refused(&self, name: &str, plan: &CheckedPlan, expected: &[(String, &str)]) {
        let installation = Installation::new(&self.cluster, name);
        let writes = self.cluster.writes().await;
        let Err(refused) = installation.apply(plan).await else { panic!("{name} is taken") };
        assert_eq!(refused.id, "PLUGIN-OBJECT-INVALID", "{name}: {refused}");
        assert_eq!(self.cluster.writes().await, writes, "{name}: nothing is written");
        let version = &self.cluster.version;
        for (object, field) in expected {
            let says_all = |line: &&str| {
                let is_it = line.split_once(object.as_str()).is_some_and(|(_, rest)| {
                    rest.is_empty()
                        || rest.starts_with(|next: char| !next.is_ascii_alphanumeric() && next != '.')
                });
                is_it
                    && line.contains(version.as_str())
                    && line.split_whitespace().any(|word| is_path(word, field))
            };
            let line = refused.evidence.lines().find(says_all);
            assert!(line.is_some(), "{name}: {object}, {field} and {version}: {}", refused.evidence);
        }
        println!("{name}: {}", refused.reason.chars().take(200).collect::<String>());
    }
}

/// Whether a word is the path of a field that ends with this one, or leads through it: `.spec.versions[name="v1"].schema` in
/// the words of server-side apply, `spec.selector` in those of validation, `/spec/versions/0` in ours.
fn is_path(word: &str, field: &str) -> bool {
    let path = word.trim_start_matches(['[', '.', '/']);
    let mut steps = path.split(['.', '/', '[', ':', ',']);
    path.starts_with("spec") && (path.starts_with(field) || steps.any(|step| step == field))
}

#[test]
fn a_path_is_known_in_the_words_of_all_who_tell_of_one() {
    for word in [
        ".spec.versions[name=\"v1\"].schema.openAPIV3Schema.properties.spec.x-kubernetes-validations:",
        "/spec/versions/0/schema/openAPIV3Schema/x-kubernetes-validations/0/rule",
        "spec.versions[0].schema.x-kubernetes-validations[0]:",
    ] {
        assert!(is_path(word, RULES), "{word}");
    }
    assert!(is_path(".spec.versions[name=\"v1\"].selectableFields:", SELECTABLE));
    assert!(is_path("[spec.selector:", "spec.selector"));
    assert!(!is_path("x-kubernetes-validations", RULES) && !is_path(".spec.versions:", RULES));
}

/// Everything that has a plugin's label, of every kind.
async fn left_of(client: &Client, plugin: &str) -> Vec<String> {
    let discovery = Discovery::new(client.clone()).run().await.expect("kinds are listed");
    let ours = ListParams::default().labels(&format!("k8sctl.dev/plugin={plugin}"));
    let mut left = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(|group| group.recommended_resources()) {
        if !capabilities.operations.iter().any(|verb| verb == "list") {
            continue;
        }
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        // A kind that went with its definition has no objects.
        let Ok(list) = api.list_metadata(&ours).await else { continue };
        left.extend(
            list.items
                .into_iter()
                .filter_map(|item| item.metadata.name)
                .map(|name| format!("{} {name}", resource.kind)),
        );
    }
    left
}

/// Removes what the old server does not know, wherever it stands.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("x-kubernetes-validations");
            fields.remove("selectableFields");
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

async fn flannel_comes_and_goes(bench: &mut Bench) {
    bench.life(&FLANNEL).await;
}

async fn local_path_comes_and_goes(bench: &mut Bench) {
    bench.life(&LOCAL_PATH).await;
}

async fn argo_cd_comes_and_goes(bench: &mut Bench) {
    bench.life(&ARGO_CD).await;
}

async fn ingress_nginx_comes_and_goes(bench: &mut Bench) {
    bench.life(&INGRESS_NGINX).await;
}

async fn metallb_comes_and_goes(bench: &mut Bench) {
    bench.life(&METALLB).await;
}

async fn metallb_as_shipped_needs_a_newer_server(bench: &mut Bench) {
    if bench.cluster.is_old() {
        let plan = bench.plan_of(&METALLB, bench.read(METALLB.file), None).await;
        bench.is_refused_by_the_old("metallb-as-shipped", &plan, METALLB_AS_SHIPPED).await;
    }
}

/// Definitions that use what the old server does not know.
async fn newer_definitions_are_refused_before_any_write_or_taken(bench: &mut Bench) {
    for (name, prefix, expected) in NEWER {
        let files = std::fs::read_dir(&bench.files).expect("a folder");
        let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
        let mut files: Vec<String> = names.filter(|file| file.starts_with(prefix)).collect();
        files.sort();
        assert!(!files.is_empty(), "{name}");
        let mut whole: Plan = plan(name);
        for file in files {
            let (wanted, body) = bench.fetched(&file, bench.read(&file), 0).await;
            whole = whole.remote(wanted, &body);
        }
        let whole = whole.checked();
        if bench.cluster.is_old() {
            bench.is_refused_by_the_old(name, &whole, expected).await;
            continue;
        }
        let installation = Installation::new(&bench.cluster, name);
        let applied = installation.apply(&whole).await;
        let applied = applied.unwrap_or_else(|failure| panic!("{name}: {failure}\n{}", failure.evidence));
        assert_eq!(applied.written, whole.objects.len(), "{name}");
        assert_eq!(installation.apply(&whole).await.expect("again").written, 0, "{name}");
        assert!(installation.engine().remove(false).await.expect("it is removed").kept.is_empty(), "{name}");
    }
}

/// It is no manifest of whole objects: no server takes it, however new.
async fn a_fragment_is_refused_by_every_server(bench: &mut Bench) {
    let (wanted, body) = bench.fetched(FRAGMENT, bench.read(FRAGMENT), 1).await;
    let account = common::plans::account("kube-system", "metrics-server");
    let plan = plan("metrics-server").object(account).remote(wanted, &body).checked();
    let deployment = "apps/v1 Deployment kube-system/metrics-server".to_owned();
    bench.is_refused("metrics-server", &plan, &[(deployment, "spec.selector")]).await;
}

#[tokio::test]
async fn what_upstream_ships_comes_and_goes() {
    let Some(files) = folder() else { return };
    let Some(cluster) = Cluster::start().await else { return };
    let kubelet = Kubelet::start(&cluster.people);
    let (upstream, store) = (Upstream::start().await, tempfile::tempdir().expect("a folder"));
    let setup =
        FetchSetup { roots: vec![upstream.root.clone()], ..FetchSetup::new(store.path().join("manifests")) };
    let manifests = Manifests::new(setup).expect("a client");
    let mut bench = Bench { cluster, _kubelet: kubelet, upstream, manifests, files, _folder: store };
    let all = crate::scenarios![Bench:
        flannel_comes_and_goes,
        local_path_comes_and_goes,
        argo_cd_comes_and_goes,
        ingress_nginx_comes_and_goes,
        metallb_comes_and_goes,
        metallb_as_shipped_needs_a_newer_server,
        newer_definitions_are_refused_before_any_write_or_taken,
        a_fragment_is_refused_by_every_server,
    ];
    common::scenarios::run(&mut bench, &all).await;
}
