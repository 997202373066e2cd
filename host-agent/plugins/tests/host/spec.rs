//! The plugins of a cluster file: what would change, what comes first and what beside it, what fails once, what leaves.

use host_plugins::{
    Converged, Gate, LockFile, PluginState, ProposedAction, SpecAsk, SpecProposal, WantedPlugin, WishKind,
};
use k8s_openapi::api::core::v1::ConfigMap;
use k8sctl_types::event::EventType;
use k8sctl_types::spec::PluginSpec;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::bench::{Bench, failure, wish};
use crate::shelf::Data;

fn plugin(name: &str, config: Value) -> PluginSpec {
    PluginSpec { name: name.to_owned(), config, source: None }
}

async fn propose(bench: &Bench, wanted: &[PluginSpec], lock: &LockFile, locked: bool) -> SpecProposal {
    let (cluster_id, facts) = (Some(bench.access.cluster_id.as_str()), &bench.access.facts);
    let ask = SpecAsk { cluster_id, facts, wanted, lock, locked, agreed: &[] };
    bench.host.propose_spec(&ask).await.expect("a proposal")
}

/// The same, with nothing in the way, agreed to.
async fn agree(bench: &Bench, wanted: &[PluginSpec]) -> (SpecProposal, Vec<WantedPlugin>) {
    let proposal = propose(bench, wanted, &LockFile::default(), false).await;
    assert!(proposal.failures.is_empty() && proposal.diagnostics.is_empty(), "{proposal:?}");
    bench.host.pin(wanted, &proposal.pinned).await.expect("they are kept");
    let pinned = proposal.pinned.iter().cloned();
    let wanted = pinned
        .zip(wanted)
        .map(|(pinned, plugin)| WantedPlugin { pinned, config: plugin.config.clone() })
        .collect();
    (proposal, wanted)
}

async fn converge(bench: &Bench, wanted: &[WantedPlugin], attempt: &str) -> Converged {
    bench.host.converge(&bench.access, wanted, Gate::Everything, attempt).await.expect("it converges")
}

/// Until there is nothing to wait for, or something failed; two minutes at most. Gives what was waited for at each look.
async fn converge_all(bench: &Bench, wanted: &[WantedPlugin], attempt: &str) -> (Converged, Vec<Converged>) {
    let mut looks = Vec::new();
    let end = async {
        loop {
            let converged = converge(bench, wanted, attempt).await;
            if converged.waiting.is_empty() || converged.failed.is_some() {
                return converged;
            }
            looks.push(converged);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let converged = tokio::time::timeout(std::time::Duration::from_secs(120), end).await;
    (converged.expect("it ends in two minutes"), looks)
}

fn changes(proposal: &SpecProposal) -> Vec<(ProposedAction, &str)> {
    proposal.changes.iter().map(|change| (change.action, change.plugin.as_str())).collect()
}

#[tokio::test]
async fn plugins_of_a_file_come_in_order_stay_and_leave_in_reverse() {
    let made = Bench::start(async |shelf| {
        vec![
            shelf.data("path/base", &Data { provides: &["thing"], ..Data::new("base") }),
            shelf.data("path/top", &Data { requires: &["thing"], ..Data::new("top") }),
            shelf.data("path/other", &Data::new("other")),
            shelf.data("path/added", &Data::new("added")),
        ]
    });
    let Some(bench) = made.await else { return };
    bench.wish(&wish(WishKind::Add, "added", None)).await.expect("a command adds one");
    let file = [plugin("top", json!({})), plugin("base", json!({})), plugin("other", json!({}))];

    let (proposal, wanted) = agree(&bench, &file).await;
    let create = ProposedAction::Create;
    assert_eq!(changes(&proposal), [(create, "top"), (create, "base"), (create, "other")]);
    assert_eq!(proposal.changes[0].reason, "0.1.0 (in tree), 2 objects");
    assert_eq!(proposal.changes[0].permissions.len(), 2);
    let names: Vec<_> = proposal.lock.plugins.iter().map(|locked| locked.name.as_str()).collect();
    assert_eq!(names, ["base", "other", "top"]);
    let notice = "added was added by a command and is not in the file; it stays";
    assert_eq!(proposal.notices, [notice]);
    bench.told();

    // Those that need nothing begin together; the third waits for its own.
    let (converged, looks) = converge_all(&bench, &wanted, "up 1").await;
    assert!(converged.is_done(), "{converged:?}");
    let waiting: Vec<_> = looks[0].waiting.iter().map(|(plugin, why)| format!("{plugin}: {why}")).collect();
    assert_eq!(
        waiting,
        ["top: it waits for base", "base: it is about to be changed", "other: it is about to be changed"]
    );
    let mut told = bench.told();
    told.retain(|(_, kind)| *kind != EventType::PluginApproved);
    let at = |plugin: &str| told.iter().position(|(name, _)| name == plugin).expect("it is told");
    assert!(
        told.iter().all(|(_, kind)| *kind == EventType::PluginInstalled) && at("base") < at("top"),
        "{told:?}"
    );
    for name in ["base", "top", "other"] {
        let status = bench.status(name).await.expect("it is there");
        assert_eq!((status.state, status.origin.as_str()), (PluginState::Ready, "spec"), "{name}");
    }

    // Again: no change, no process, no operation.
    let runs = bench.runs("top").await;
    let (proposal, wanted) = agree(&bench, &file).await;
    assert!(proposal.changes.is_empty(), "{:?}", proposal.changes);
    assert!(converge(&bench, &wanted, "up 2").await.is_done());
    assert_eq!(bench.runs("top").await, runs);
    // Also where the lock is asked.
    let locked = propose(&bench, &file, &proposal.lock, true).await;
    assert!(locked.diagnostics.is_empty() && locked.lock == proposal.lock, "{locked:?}");
    let unlocked = propose(&bench, &file, &LockFile::default(), true).await;
    assert!(unlocked.diagnostics.iter().all(|(_, it)| it.code == "PLUGIN-LOCK"), "{unlocked:?}");
    assert_eq!(unlocked.diagnostics.len(), 3);

    // What the file has is the file's.
    let refused = bench.remove("other").await.expect_err("the file has it");
    assert_eq!(refused.id, "PLUGIN-IN-SPEC");
    let mut same = wish(WishKind::Configure, "other", Some(&json!({})));
    assert_eq!(failure(bench.offer(&same).await).id, "PLUGIN-IN-SPEC");
    // What is only looked at is nobody's, and a quarantine is no matter of the file.
    let seen = bench.host.offer(&bench.access, &same, true).await.expect("it is only looked at");
    assert_eq!(seen.remarks, ["create 0, change 0, delete 0"]);
    same.lift_quarantine = true;
    assert_eq!(bench.wish(&same).await.expect("it is started").origin, "spec");

    // Another config of one.
    let file =
        [plugin("top", json!({"message": "new"})), plugin("base", json!({})), plugin("other", json!({}))];
    let (proposal, wanted) = agree(&bench, &file).await;
    assert_eq!(changes(&proposal), [(ProposedAction::Update, "top")]);
    assert!(proposal.changes[0].permissions.is_empty() && !proposal.changes[0].destructive);
    assert!(converge_all(&bench, &wanted, "up 3").await.0.is_done());
    assert_eq!(bench.text("top").await.map(|(text, _)| text).as_deref(), Some("new"));
    bench.told();

    // Two leave the file, and what a command added comes into it.
    let file = [plugin("other", json!({})), plugin("added", json!({}))];
    let (proposal, wanted) = agree(&bench, &file).await;
    let delete = ProposedAction::Delete;
    assert_eq!(changes(&proposal), [(ProposedAction::Update, "added"), (delete, "base"), (delete, "top")]);
    let (converged, looks) = converge_all(&bench, &wanted, "up 4").await;
    assert!(converged.is_done(), "{converged:?}");
    assert!(looks[0].waiting.contains(&("base".to_owned(), "it waits until top is gone".to_owned())));
    let gone = |plugin: &str| (plugin.to_owned(), EventType::PluginRemoved);
    assert_eq!(bench.told(), [gone("top"), gone("base")]);
    assert!(!bench.has_namespace("base").await && bench.has_namespace("added").await);
    assert_eq!(bench.status("added").await.expect("it is there").origin, "spec");
}

#[tokio::test]
async fn one_that_fails_fails_once_in_each_attempt() {
    let never = "---\napiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: never\n  namespace: never\nspec:\n\
                 \x20 selector:\n    matchLabels: {app: never}\n  template:\n    metadata:\n      labels: {app: never}\n\
                 \x20   spec:\n      containers:\n      - {name: never, image: never}\n";
    let permission = "[[permission]]\ngroup = \"apps\"\nkind = \"Deployment\"\nnamespaces = [\"never\"]\n\
                      verbs = [\"get\", \"create\", \"patch\", \"delete\"]\n";
    let made = Bench::start(async |shelf| {
        vec![
            shelf.data("path/never", &Data { manifest: permission, objects: never, ..Data::new("never") }),
            shelf.data("path/other", &Data::new("other")),
        ]
    });
    let Some(mut bench) = made.await else { return };
    bench.restart_with(std::time::Duration::from_secs(2));
    let (_, wanted) = agree(&bench, &[plugin("never", json!({})), plugin("other", json!({}))]).await;
    let (converged, _) = converge_all(&bench, &wanted, "up 1").await;
    let (name, failure) = converged.failed.expect("nobody runs its pods");
    assert_eq!((name.as_str(), failure.id.as_str()), ("never", "PLUGIN-NOT-READY"), "{failure}");
    let status = bench.status("never").await.expect("it is there");
    assert_eq!(status.state, PluginState::Failed);

    // In the same attempt it is told again, and not tried.
    let runs = bench.runs("never").await;
    let again = converge(&bench, &wanted, "up 1").await;
    assert_eq!(again.failed.map(|(_, failure)| failure), Some(failure));
    assert_eq!(bench.runs("never").await, runs);
    // The next one tries again, and says beforehand why.
    let (proposal, wanted) = agree(&bench, &[plugin("never", json!({})), plugin("other", json!({}))]).await;
    let change = proposal.changes.iter().find(|change| change.plugin == "never").expect("it is tried again");
    assert_eq!(change.action, ProposedAction::Create);
    let first = converge(&bench, &wanted, "up 2").await;
    assert!(first.failed.is_none() && !first.is_done(), "{first:?}");
    let (converged, _) = converge_all(&bench, &wanted, "up 2").await;
    assert!(converged.failed.is_some());
    assert_eq!(bench.status("other").await.expect("it is there").state, PluginState::Ready);
}

#[tokio::test]
async fn what_was_agreed_to_is_asked_for_once_also_where_nothing_of_it_has_begun() {
    let taken = Data { namespace: "default", ..Data::new("taken") };
    let made = Bench::start(async |shelf| vec![shelf.data("path/taken", &taken)]);
    let Some(bench) = made.await else { return };
    // Somebody has one of that name.
    let maps: Api<ConfigMap> = Api::namespaced(bench.cluster.people.clone(), "default");
    let map = json!({"metadata": {"name": "taken"}, "data": {"text": "theirs"}});
    let map: ConfigMap = serde_json::from_value(map).expect("a map");
    maps.create(&PostParams::default(), &map).await.expect("it is made");

    let file = [plugin("taken", json!({}))];
    let (proposal, wanted) = agree(&bench, &file).await;
    assert_eq!(proposal.changes[0].permissions.len(), 1);
    let (converged, _) = converge_all(&bench, &wanted, "up 1").await;
    let (name, failure) = converged.failed.expect("it is somebody's");
    assert_eq!((name.as_str(), failure.id.as_str()), ("taken", "PLUGIN-OBJECT-FOREIGN"), "{failure}");
    let status = bench.status("taken").await.expect("the last try is told");
    assert_eq!((status.state, status.revision, status.objects), (PluginState::Failed, 0, 0));
    // In the same attempt it is told again, and not tried.
    let runs = bench.runs("taken").await;
    assert_eq!(converge(&bench, &wanted, "up 1").await.failed.map(|(_, failure)| failure), Some(failure));
    assert_eq!(bench.runs("taken").await, runs);

    // Nothing of it has begun, and what it asks for was approved with the spec.
    let (cluster_id, facts) = (Some(bench.access.cluster_id.as_str()), &bench.access.facts);
    let lock = LockFile::default();
    let ask = SpecAsk { cluster_id, facts, wanted: &file, lock: &lock, locked: false, agreed: &[] };
    let unknown = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert_eq!(unknown.changes[0].permissions.len(), 1);
    let ask = SpecAsk { agreed: &proposal.pinned, ..ask };
    let known = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert_eq!(changes(&known), [(ProposedAction::Create, "taken")]);
    assert_eq!(known.changes[0].permissions, Vec::<String>::new());
    // Whoever nobody vouches for was agreed to with the package.
    let mine = [PluginSpec { source: Some(bench.shelf.at("next/mine")), ..plugin("mine", json!({})) }];
    bench.shelf.data("next/mine", &Data::new("mine"));
    let ask = SpecAsk { wanted: &mine, ..ask };
    let first = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert!(first.changes[0].permissions.iter().any(|line| line.starts_with("UNSIGNED: ")), "{first:?}");
    let ask = SpecAsk { agreed: &first.pinned, ..ask };
    let again = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert_eq!(again.changes[0].permissions, Vec::<String>::new());
    bench.shelf.data("other/mine", &Data { version: "0.2.0", ..Data::new("mine") });
    let other = [PluginSpec { source: Some(bench.shelf.at("other/mine")), ..plugin("mine", json!({})) }];
    let ask = SpecAsk { wanted: &other, ..ask };
    let other = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert!(other.changes[0].permissions.iter().all(|line| line.starts_with("UNSIGNED: ")), "{other:?}");
    assert_eq!(other.changes[0].permissions.len(), 1);
}

#[tokio::test]
async fn mistakes_of_a_file_are_told_with_their_plugins() {
    let made = Bench::start(async |shelf| {
        vec![
            shelf.data("path/lonely", &Data { requires: &["nothing-has-this"], ..Data::new("lonely") }),
            shelf.data("path/strict", &Data::new("strict")),
        ]
    });
    let Some(bench) = made.await else { return };
    let file = [plugin("lonely", json!({})), plugin("strict", json!({"colour": "red"}))];
    let proposal = propose(&bench, &file, &LockFile::default(), false).await;
    let mut found: Vec<_> = proposal
        .diagnostics
        .iter()
        .map(|(plugin, it)| (plugin.as_str(), it.code.as_str(), it.path.as_str()))
        .collect();
    found.sort_unstable();
    assert_eq!(found[0], ("lonely", "PLUGIN-REQUIRES", ""));
    assert_eq!((found.len(), found[1].0, found[1].2), (2, "strict", "/colour"));
    assert!(proposal.changes.is_empty(), "{:?}", proposal.changes);

    let unknown = propose(&bench, &[plugin("metallb", json!({}))], &LockFile::default(), false).await;
    assert_eq!((unknown.failures.len(), unknown.failures[0].1.id.as_str()), (1, "PLUGIN-UNKNOWN"));
    // A path takes what nobody signed, and says so.
    bench.shelf.data("elsewhere/mine", &Data::new("mine"));
    let mine = PluginSpec { source: Some(bench.shelf.at("elsewhere/mine")), ..plugin("mine", json!({})) };
    let proposal = propose(&bench, &[mine], &LockFile::default(), false).await;
    assert_eq!(proposal.changes[0].reason, "0.1.0 (in development, not signed), 2 objects");
    assert_eq!(proposal.notices, ["mine is not signed: it is taken as a package in development"]);
    // Whoever may approve permissions agrees to that, too.
    let asked = &proposal.changes[0].permissions;
    assert!(asked.len() == 3 && asked[2].starts_with("UNSIGNED: "), "{asked:?}");
    // The cluster is not there yet.
    let ask = SpecAsk {
        cluster_id: None,
        facts: &bench.access.facts,
        wanted: &[plugin("strict", json!({}))],
        lock: &LockFile::default(),
        locked: false,
        agreed: &[],
    };
    let proposal = bench.host.propose_spec(&ask).await.expect("a proposal");
    assert_eq!(changes(&proposal), [(ProposedAction::Create, "strict")]);
}
