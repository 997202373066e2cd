use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host_hypervisor::{FakeHypervisor, Hypervisor as _};
use host_store::Usage;
use k8sctl_proto::control::v1::{ClusterStatus, NodeStatus, Operation, OperationState};
use k8sctl_proto::node::v1::{Condition, ConditionStatus, Repair};
use k8sctl_proto::roles::Role;
use serde_json::Value as Json;
use tokio::sync::watch;

use super::fleet::{CONDITIONS, OTHER};
use super::libvirt::Measured;
use super::text::PREFIX;
use super::*;
use crate::cluster::desired::host_pool;
use crate::cluster::fake::{FakeHostAgent, SPEC, spec_file};
use crate::nodes::traffic::Sent;
use crate::trace::{SpanCounts, Tracer};
use crate::wire;

const PAGE: &str = include_str!("../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../examples/grafana-dashboard.json");

fn condition(kind: &str, status: ConditionStatus) -> Condition {
    wire::condition(kind, status, "Why", "", jiff::Timestamp::UNIX_EPOCH)
}

fn node(name: &str) -> NodeStatus {
    NodeStatus {
        name: name.to_owned(),
        phase: "Ready".to_owned(),
        connected: true,
        last_seen: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 500_000_000 }),
        conditions: vec![condition("DiskOK", ConditionStatus::False)],
        repairs: vec![Repair { number: 7, ..Repair::default() }],
        ..NodeStatus::default()
    }
}

fn cluster(name: &str, nodes: Vec<NodeStatus>) -> ClusterStatus {
    let conditions = vec![condition("Ready", ConditionStatus::True)];
    ClusterStatus { name: name.to_owned(), nodes, conditions, ..ClusterStatus::default() }
}

fn operation(state: OperationState) -> Operation {
    Operation {
        id: "an id".to_owned(),
        cluster_name: "home".to_owned(),
        kind: "up".to_owned(),
        state: state.into(),
        started: Some(wire::timestamp(jiff::Timestamp::UNIX_EPOCH)),
        ..Operation::default()
    }
}

fn reading(statuses: &[ClusterStatus]) -> Reading {
    let mut fleet = Fleet::default();
    statuses.iter().for_each(|status| fleet.add_cluster(status));
    fleet.add_operation(&operation(OperationState::Running));
    fleet.add_operation(&operation(OperationState::Succeeded));
    Reading {
        fleet,
        sent: Sent { sessions: 1, log_streams: 2, log_lines: 3, log_bytes: 4 },
        spans: SpanCounts { made: 6, sent: 5 },
        events: 8,
        store: Usage { calls: 9, busy: Duration::from_millis(1500) },
        files: vec![("database", 4096)],
        free: vec![("state", 1 << 30)],
        process: Process::read(jiff::Timestamp::UNIX_EPOCH),
    }
}

/// All there is, each with a value.
async fn everything() -> String {
    let meters = Meters::default();
    let libvirt = Measured::new(Arc::new(FakeHypervisor::default()), meters.clone());
    let pool = host_pool(&crate::config::HostConfig::default());
    libvirt.observe(&pool).await.expect("it answers");
    let ended = BTreeMap::from([("an id".to_owned(), operation(OperationState::Succeeded))]);
    let (sender, operations) = watch::channel(ended);
    drop(sender);
    operations::follow(operations, meters.clone(), Tracer::default()).await;
    text::encode(&meters, reading(&[cluster("home", vec![node("control")])]))
}

/// By name without what the type appends: type and names of labels, as a scraper sees them.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut families: BTreeMap<String, (String, BTreeSet<String>)> =
        types.map(|(name, kind)| (name.to_owned(), (kind.to_owned(), BTreeSet::new()))).collect();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let ends = ["_total", "_bucket", "_sum", "_count", "_info"];
        let bare = ends.iter().find_map(|end| name.strip_suffix(end));
        let key = [name, bare.unwrap_or(name)].into_iter().find(|name| families.contains_key(*name));
        let (_, labels) = key.and_then(|key| families.get_mut(key)).expect(line);
        let inside = line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}'));
        let pairs = inside.into_iter().flat_map(|(inside, _)| inside.split(','));
        let names = pairs.filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
        labels.extend(names.filter(|name| *name != "le").map(str::to_owned));
    }
    families
}

/// The name under which a query finds it.
fn queried(name: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

#[tokio::test]
async fn the_page_has_every_metric_with_type_unit_and_labels() {
    let text = everything().await;
    let units: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.strip_prefix("# UNIT ")?.split_once(' ')).collect();
    let told: BTreeSet<[String; 4]> = families(&text)
        .into_iter()
        .map(|(name, (kind, labels))| {
            let unit = units.get(name.as_str()).copied().unwrap_or("-").to_owned();
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let labels = if labels.is_empty() { "-".to_owned() } else { labels.join(", ") };
            [queried(&name, &kind), kind, unit, labels]
        })
        .collect();
    assert!(told.len() > 25, "{told:#?}");
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.filter(|row| row.starts_with(PREFIX) || row.starts_with("process_"));
    let documented: BTreeSet<[String; 4]> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let mut labels: Vec<&str> = cells[3].split(", ").collect();
            labels.sort_unstable();
            [cells[0].trim_end_matches('`'), cells[1], cells[2], &labels.join(", ")].map(str::to_owned)
        })
        .collect();
    let only = |these: &BTreeSet<[String; 4]>, those: &BTreeSet<[String; 4]>| -> Vec<[String; 4]> {
        these.difference(those).cloned().collect()
    };
    assert_eq!(only(&told, &documented), Vec::<[String; 4]>::new(), "not so in docs/metrics.md");
    assert_eq!(only(&documented, &told), Vec::<[String; 4]>::new(), "not so in the program");
}

#[tokio::test]
async fn names_are_as_prometheus_wants_them() {
    let text = everything().await;
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    for (name, (kind, labels)) in families(&text) {
        let is_word =
            |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        assert!(is_word(&name) && labels.iter().all(|label| is_word(label)), "{name}: {labels:?}");
        let help = format!("# HELP {name} ");
        assert!(text.lines().any(|line| line.starts_with(&help) && line.len() > help.len() + 5), "{name}");
        let without_base_unit = ["_ms", "_millis", "_kib", "_mib", "_percent"];
        assert!(!without_base_unit.iter().any(|unit| name.ends_with(unit)), "{name}");
        assert!(!(name.ends_with("_total") || kind == "unknown"), "{name}");
    }
}

#[tokio::test]
async fn the_older_format_has_the_same_samples_each_below_its_type() {
    let open = everything().await;
    let classic = text::classic(&open);
    let samples = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    assert_eq!(samples(&classic), samples(&open));
    let (mut family, mut kind) = ("", "");
    for line in classic.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            (family, kind) = told.split_once(' ').expect("name and type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(classic.contains(&format!("# HELP {family} ")), "{line}");
        } else if !line.starts_with("# HELP ") {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let ends: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(ends.iter().any(|end| name == format!("{family}{end}")), "{line} of {family}");
        }
    }
    assert!(classic.contains("# TYPE k8s_myhome_build_info gauge\n"), "{classic}");
    assert!(classic.contains("# TYPE k8s_myhome_events_total counter\n"), "{classic}");
}

#[test]
fn what_runs_and_ends_later_has_series_from_the_beginning() {
    let text = text::encode(&Meters::default(), Reading::default());
    for line in [
        "k8s_myhome_operations_running{kind=\"down\"} 0.0",
        "k8s_myhome_operations_ended_total{kind=\"up\",result=\"failed\"} 0",
        "k8s_myhome_operations_ended_total{kind=\"down\",result=\"superseded\"} 0",
        "k8s_myhome_operation_duration_seconds_count{kind=\"up\"} 0",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n---\n{text}");
    }
}

#[test]
fn values_are_what_was_read() {
    let text = text::encode(&Meters::default(), reading(&[cluster("home", vec![node("control")])]));
    for line in [
        "k8s_myhome_clusters 1.0",
        "k8s_myhome_cluster_condition{cluster=\"home\",condition=\"Ready\"} 1.0",
        "k8s_myhome_nodes{cluster=\"home\",phase=\"Ready\"} 1.0",
        "k8s_myhome_node_condition{cluster=\"home\",node=\"control\",condition=\"DiskOK\"} 0.0",
        "k8s_myhome_node_connected{cluster=\"home\",node=\"control\"} 1.0",
        "k8s_myhome_node_last_seen_timestamp_seconds{cluster=\"home\",node=\"control\"} 1700000000.5",
        "k8s_myhome_node_repairs_total{cluster=\"home\",node=\"control\"} 7",
        "k8s_myhome_operations_running{kind=\"up\"} 1.0",
        "k8s_myhome_operation_started_timestamp_seconds{cluster=\"home\",kind=\"up\"} 0.0",
        "k8s_myhome_sessions_opened_total 1",
        "k8s_myhome_log_streams 2.0",
        "k8s_myhome_log_lines_total 3",
        "k8s_myhome_log_received_bytes_total 4",
        "k8s_myhome_events_total 8",
        "k8s_myhome_store_calls_total 9",
        "k8s_myhome_store_busy_seconds_total 1.5",
        "k8s_myhome_store_size_bytes{file=\"database\"} 4096.0",
        "k8s_myhome_filesystem_free_bytes{directory=\"state\"} 1073741824.0",
        "k8s_myhome_trace_spans_total 6",
        "k8s_myhome_trace_spans_sent_total 5",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n---\n{text}");
    }
}

#[test]
fn what_a_name_holds_stays_within_its_quotes() {
    let hostile = "a\"} 1\n# EOF\\";
    let text = text::encode(&Meters::default(), reading(&[cluster(hostile, vec![node("control")])]));
    let escaped = r#"{cluster="a\"} 1\n# EOF\\",node="control"} 1.0"#;
    assert!(text.contains(escaped), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("# EOF")).count(), 1);
}

#[test]
fn what_an_agent_invents_makes_no_series_of_its_own() {
    let mut strange = node("control");
    strange.conditions = (0..64).map(|n| condition(&format!("Made{n}Up"), ConditionStatus::True)).collect();
    strange.conditions.push(condition("Bad", ConditionStatus::False));
    strange.conditions.push(condition("Late", ConditionStatus::Unknown));
    let text = text::encode(&Meters::default(), reading(&[cluster("home", vec![strange])]));
    let series: Vec<&str> =
        text.lines().filter(|line| line.starts_with("k8s_myhome_node_condition{")).collect();
    let other =
        format!("k8s_myhome_node_condition{{cluster=\"home\",node=\"control\",condition=\"{OTHER}\"}} 0.0");
    assert_eq!(series, [other.as_str()], "the worst of them");
}

/// What `docs/health.md` has of nodes has a series, and nothing else.
#[test]
fn conditions_are_those_of_the_papers() {
    let page = include_str!("../../../docs/health.md");
    let section = page.split("\n## Conditions\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let rows = section.expect("the section").lines().filter_map(|line| line.strip_prefix("| `"));
    let of_nodes = rows.filter(|row| !row.contains("| cluster |"));
    let documented: BTreeSet<&str> = of_nodes
        .flat_map(|row| row.split(" |").next().unwrap_or_default().split(", "))
        .map(|name| name.trim_matches('`'))
        .collect();
    assert_eq!(documented, BTreeSet::from(CONDITIONS));
}

/// What a dashboard asks for, wherever it stands in it.
fn expressions<'a>(value: &'a Json, found: &mut Vec<&'a str>) {
    match value {
        Json::Object(keys) => {
            for (key, value) in keys {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&key.as_str()) => found.push(text),
                    _ => expressions(value, found),
                }
            }
        }
        Json::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_that_the_dashboard_asks_for_exists() {
    let text = everything().await;
    let mut known: BTreeSet<String> = BTreeSet::new();
    for (name, (kind, _)) in families(&text) {
        if kind == "histogram" {
            known.extend(["_bucket", "_sum", "_count"].map(|end| format!("{name}{end}")));
        }
        known.insert(queried(&name, &kind));
    }
    let dashboard: Json = serde_json::from_str(DASHBOARD).expect("it is JSON");
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    let words = found.iter().flat_map(|text| text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
    let asked: BTreeSet<&str> =
        words.filter(|word| word.starts_with(PREFIX) || word.starts_with("process_")).collect();
    assert!(asked.len() > 12, "{asked:?}");
    let missing: Vec<_> = asked.iter().filter(|name| !known.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let panels = dashboard["panels"].as_array().expect("panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}

#[tokio::test]
async fn a_failed_call_of_libvirt_counts_as_one() {
    let meters = Meters::default();
    let libvirt = Measured::new(Arc::new(FakeHypervisor::default()), meters.clone());
    let pool = host_pool(&crate::config::HostConfig::default());
    libvirt.observe(&pool).await.expect("it answers");
    let nobody = host_hypervisor::change::DomainRef {
        name: "nobody".to_owned(),
        uuid: "00000000-0000-4000-8000-00000000beef".to_owned(),
        cluster_id: "none".to_owned(),
    };
    let op = host_hypervisor::change::HostOp::StartDomain { domain: nobody };
    libvirt.execute(&op).await.expect_err("there is no such domain");
    let text = text::encode(&meters, Reading::default());
    for line in [
        "k8s_myhome_libvirt_call_duration_seconds_count{call=\"observe\"} 1",
        "k8s_myhome_libvirt_call_duration_seconds_count{call=\"start-domain\"} 1",
        "k8s_myhome_libvirt_call_duration_seconds_bucket{le=\"+Inf\",call=\"observe\"} 1",
        "k8s_myhome_libvirt_call_errors_total{call=\"observe\"} 0",
        "k8s_myhome_libvirt_call_errors_total{call=\"start-domain\"} 1",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n---\n{text}");
    }
}

/// A real host agent on a host in memory, with a cluster that comes and goes.
#[tokio::test]
async fn of_a_cluster_that_is_gone_nothing_is_left() {
    let agent = FakeHostAgent::new().await;
    let manager = agent.start().await;
    let meters = Meters::default();
    let operations = agent.shared.operations.subscribe();
    let follows = operations::follow(operations, meters.clone(), agent.shared.tracer.clone());
    let follower = k8sctl_rpc::task::spawn("follow", follows);
    let exporter = Exporter::new(Arc::clone(&manager), agent.store.clone(), meters);
    let scrape = async || Arc::clone(&exporter).text().await.expect("a text");
    assert!(scrape().await.contains("k8s_myhome_clusters 0.0\n"));

    let file = spec_file(SPEC, "cluster.toml");
    manager.apply(&file, "", true, None, Role::Admin).await.expect("it is accepted");
    agent.wait_host("both VMs", |host| host.observed.domains.len() == 2).await;
    let text = scrape().await;
    assert!(text.contains("k8s_myhome_clusters 1.0\n"), "{text}");
    assert!(text.contains("k8s_myhome_node_connected{cluster=\"home\",node=\"worker\"} 0.0\n"), "{text}");

    let down = manager.destroy("home", "", None).await.expect("it begins");
    let has_ended = |it: &Operation| it.state() != OperationState::Running;
    agent.wait_operation("the end of down", &down, has_ended).await;
    // The task ends, and the follower sees the end, a moment after it was published.
    let gone = async {
        loop {
            let text = scrape().await;
            let ended = "k8s_myhome_operations_ended_total{kind=\"down\",result=\"succeeded\"} 1\n";
            if text.contains(ended) && text.contains("k8s_myhome_clusters 0.0\n") {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    let text = tokio::time::timeout(Duration::from_secs(60), gone).await.expect("in time");
    assert!(!text.contains("cluster=\"home\""), "{text}");
    follower.abort();
}
