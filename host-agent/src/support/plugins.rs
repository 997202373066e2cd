//! The plugins of a cluster: what was agreed to, where each stands, what it is and was, how its programs ended and what
//! they said. Of configs only the shape is there, of secrets nothing, and of revisions not what was planned.

use std::time::SystemTime;

use host_plugins::{Blocking, PluginDetails, PluginRevision, PluginRun, PluginStatus};
use k8sctl_types::failure::Failure;
use k8sctl_types::redact::without_texts;
use serde_json::{Value, json};

use super::pretty;
use crate::cluster::shared::Shared;
use crate::records::ClusterRecord;

/// As a document. What cannot be had of one plugin keeps nothing of the others back.
pub(super) async fn plugins(shared: &Shared, cluster: &ClusterRecord) -> Result<String, Failure> {
    let host = &shared.plugins;
    let mut there = Vec::new();
    for status in host.list(&cluster.id, false).await? {
        let details = host.show(&cluster.id, &status.name).await;
        let runs = host.runs(&status.name).await;
        there.push(plugin(&status, details, runs));
    }
    Ok(pretty(&json!({ "agreed": cluster.plugins, "plugins": there })))
}

fn plugin(
    status: &PluginStatus,
    details: Result<PluginDetails, Failure>,
    runs: Result<Vec<PluginRun>, Failure>,
) -> Value {
    json!({
        "name": status.name,
        "version": status.version,
        "state": status.state.as_str(),
        "message": status.message,
        "objects": status.objects,
        "installed": status.installed.and_then(time),
        "blocking": status.blocking.as_ref().map(blocking),
        "trust": status.trust,
        "origin": status.origin,
        "newer_version": status.newer_version,
        "revision": status.revision,
        "drifted": status.drifted,
        "details": or_failure(details.map(package)),
        "runs": or_failure(runs.map(|runs| runs.iter().map(run).collect())),
    })
}

/// Outputs are left out: what a plugin tells its dependents may be anything.
fn package(details: PluginDetails) -> Value {
    let config: Value = serde_json::from_str(&details.config_json).unwrap_or_default();
    json!({
        "package_sha256": details.package_sha256,
        "package_path": details.package_path,
        "permissions": details.permissions,
        "objects": details.objects,
        "config": without_texts(&config),
        "revisions": details.revisions.iter().map(revision).collect::<Vec<_>>(),
    })
}

fn blocking(blocking: &Blocking) -> Value {
    let Blocking { object, reason, pod, since } = blocking;
    json!({ "object": object, "reason": reason, "pod": pod, "since": time(*since) })
}

fn revision(revision: &PluginRevision) -> Value {
    json!({
        "revision": revision.revision,
        "version": revision.version,
        "created": time(revision.created),
        "applied": revision.applied.and_then(time),
        "current": revision.current,
    })
}

fn run(run: &PluginRun) -> Value {
    json!({
        "time": time(run.time),
        "purpose": run.purpose,
        "took_seconds": run.took.as_secs_f64(),
        "outcome": run.outcome,
        "stderr": run.stderr,
    })
}

fn or_failure(had: Result<Value, Failure>) -> Value {
    had.unwrap_or_else(|failure| json!({ "failure": failure }))
}

fn time(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use host_plugins::PluginState;

    use super::*;

    const CANARY: &str = "kanarienvogel0123456789";

    #[test]
    fn of_a_plugin_there_is_all_but_texts_of_its_config() {
        let since = UNIX_EPOCH + Duration::from_secs(60);
        let status = PluginStatus {
            name: "hello".to_owned(),
            state: PluginState::Degraded,
            blocking: Some(Blocking {
                object: "apps/v1 Deployment hello/hello".to_owned(),
                reason: "0 of 2 pods are available".to_owned(),
                pod: None,
                since,
            }),
            ..PluginStatus::default()
        };
        let revision = PluginRevision {
            revision: 3,
            version: "0.1.0".to_owned(),
            created: since,
            applied: None,
            current: false,
        };
        let details = PluginDetails {
            config_json: json!({ "motd": CANARY, "replicas": 2 }).to_string(),
            outputs: [("address".to_owned(), CANARY.to_owned())].into(),
            revisions: vec![revision],
            ..PluginDetails::default()
        };
        let run = PluginRun {
            time: since,
            purpose: "plan".to_owned(),
            took: Duration::from_millis(250),
            outcome: "ok".to_owned(),
            stderr: format!("password={CANARY}"),
        };
        let document = pretty(&plugin(&status, Ok(details), Ok(vec![run])));
        assert!(!document.contains(CANARY), "{document}");
        let read: Value = serde_json::from_str(&document).expect("JSON");
        assert_eq!((&read["state"], &read["blocking"]["pod"]), (&json!("Degraded"), &Value::Null));
        assert_eq!(read["blocking"]["since"], "1970-01-01T00:01:00Z");
        assert_eq!(read["details"]["config"]["replicas"], 2);
        assert_eq!(read["details"]["revisions"][0]["revision"], 3);
        assert_eq!(read["runs"][0]["took_seconds"], 0.25);

        let away = Failure::new("PLUGIN-STORE", "plugin hello", "the disk is full", "make room");
        let read = plugin(&status, Err(away.clone()), Err(away));
        assert_eq!(
            (&read["details"]["failure"]["id"], &read["name"]),
            (&json!("PLUGIN-STORE"), &json!("hello"))
        );
    }
}
