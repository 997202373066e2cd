//! What `up` would do to the plugins of a spec: changes for a person to agree to, and mistakes with their places in the
//! user's file.

use host_plugins::{LockFile, PinnedPlugin, ProposedAction, ProposedChange, SpecAsk};
use k8sctl_proto::control::v1 as control;
use k8sctl_proto::plugin::v1::ClusterFacts;
use k8sctl_types::failure::Failure;
use k8sctl_types::spec::{self, ClusterSpec, Diagnostic, KeyLines};

use super::PluginsSeen;
use crate::cluster::manager::RequestError;
use crate::cluster::node_requirements::pod_network;
use crate::cluster::shared::Shared;
use crate::records::ClusterRecord;
use crate::wire;

/// What the built-in pod network is called.
const BUILT_IN: &str = "built-in";

/// What a plan is to be made of.
pub struct Asked<'a> {
    /// The user's file, with the lock beside it.
    pub file: &'a control::SpecFile,
    /// What it says.
    pub spec: &'a ClusterSpec,
    /// Where.
    pub lines: &'a KeyLines,
    /// The cluster as it is; `None`: there is none yet.
    pub record: Option<&'a ClusterRecord>,
    /// As they would be.
    pub facts: &'a ClusterFacts,
}

/// What would become of the plugins.
#[derive(Debug, Default)]
pub struct Proposed {
    /// For a person to agree to.
    pub changes: Vec<control::Change>,
    /// What they say that stops nothing.
    pub warnings: Vec<Diagnostic>,
    /// What is worth knowing beside.
    pub notices: Vec<String>,
    /// What is agreed to.
    pub pinned: Vec<PinnedPlugin>,
    /// What `k8sctl.lock` shall hold; empty: as it is.
    pub lock_text: String,
    /// The plugin whose pod network new nodes begin with; empty: the built-in one.
    pub pod_network: String,
}

/// Asks the plugins. `Err` holds all mistakes at once, with `warnings` of the rest of the file among them.
pub async fn propose(
    shared: &Shared,
    asked: &Asked<'_>,
    warnings: &[Diagnostic],
) -> Result<Proposed, RequestError> {
    let lock = read_lock(&asked.file.lock_text)?;
    let seen = match asked.record {
        Some(record) => shared.cluster_plugins.look(record).await?,
        None => PluginsSeen::default(),
    };
    let ask = SpecAsk {
        cluster_id: asked.record.map(|record| record.id.as_str()),
        facts: asked.facts,
        wanted: &asked.spec.plugins,
        lock: &lock,
        locked: asked.file.locked,
        agreed: asked.record.map(|record| record.plugins.as_slice()).unwrap_or_default(),
    };
    let proposal = shared.cluster_plugins.propose_spec(&ask).await?;
    let said = proposal.diagnostics.into_iter().map(|(plugin, it)| place(asked.lines, &plugin, it));
    let in_the_way =
        proposal.failures.iter().map(|(plugin, failure)| place_failure(asked.lines, plugin, failure));
    let mut found: Vec<Diagnostic> = said.chain(in_the_way).collect();
    found.sort_by_key(|one| (one.line, one.column));
    if found.iter().any(|one| !one.warning) {
        found.extend_from_slice(warnings);
        found.sort_by_key(|one| one.line);
        return Err(RequestError::Diagnostics(found));
    }
    let (before, after) = networks(asked.record, &seen, &proposal.pinned);
    let mut changes: Vec<_> = proposal.changes.into_iter().map(wire_change).collect();
    changes.extend(asked.record.and_then(|_| network_change(&before, &after)));
    Ok(Proposed {
        changes,
        warnings: found,
        notices: proposal.notices,
        lock_text: new_lock(&asked.file.lock_text, &proposal.lock),
        pinned: proposal.pinned,
        pod_network: after,
    })
}

/// What a plugin says of its config, at its place in the user's file.
pub fn place(lines: &KeyLines, plugin: &str, diagnostic: host_plugins::Diagnostic) -> spec::Diagnostic {
    let (line, column) = lines.plugin(plugin, &diagnostic.path).unwrap_or_default();
    let code = Some(diagnostic.code).filter(|code| !code.is_empty());
    spec::Diagnostic {
        id: code.map_or(wire::PLUGIN_CONFIG.into(), Into::into),
        field: KeyLines::plugin_field(plugin, &diagnostic.path),
        line,
        column,
        message: diagnostic.message,
        hint: diagnostic.hint,
        warning: diagnostic.warning,
    }
}

/// What is in the way of a plugin as a whole, at its table.
fn place_failure(lines: &KeyLines, plugin: &str, failure: &Failure) -> Diagnostic {
    let (line, column) = lines.plugin(plugin, "").unwrap_or_default();
    let mut message = failure.reason.clone();
    let details: Vec<&str> = failure.evidence.lines().filter(|line| !line.trim().is_empty()).collect();
    if !details.is_empty() {
        message = format!("{message}: {}", details.join("; "));
    }
    Diagnostic {
        id: failure.id.clone().into(),
        field: KeyLines::plugin_field(plugin, ""),
        line,
        column,
        message,
        hint: failure.next_step.clone(),
        warning: false,
    }
}

/// `k8sctl.lock` of a user; without one an empty one.
pub fn read_lock(text: &str) -> Result<LockFile, Failure> {
    if text.is_empty() {
        return Ok(LockFile::default());
    }
    LockFile::parse(text).map_err(|mistakes| {
        let reason = format!("it is no lock file: {}", mistakes.join("; "));
        let next = "put it back from version control; without it, the next `k8sctl up` writes it anew";
        Failure::new("PLUGIN-LOCK", "k8sctl.lock", reason, next)
    })
}

/// The file's new text; empty where it stays, or where there is none and nothing to write into it.
fn new_lock(before: &str, lock: &LockFile) -> String {
    if before.is_empty() && lock.plugins.is_empty() {
        return String::new();
    }
    Some(lock.to_text()).filter(|text| text != before).unwrap_or_default()
}

fn wire_change(change: ProposedChange) -> control::Change {
    let action = match change.action {
        ProposedAction::Create => control::Action::Create,
        ProposedAction::Update => control::Action::Update,
        ProposedAction::Delete => control::Action::Delete,
    };
    control::Change {
        action: action.into(),
        kind: "plugin".to_owned(),
        name: change.plugin,
        reason: change.reason,
        destructive: change.destructive,
        permissions: change.permissions,
        permissions_digest: change.permissions_digest,
    }
}

/// Whose the pod network is, and whose it would be; empty: the built-in one.
fn networks(record: Option<&ClusterRecord>, seen: &PluginsSeen, pinned: &[PinnedPlugin]) -> (String, String) {
    let before = record.map(|record| record.plugins.as_slice()).unwrap_or_default();
    // What the spec brought goes with it; what a command brought stays.
    let stays: Vec<_> = seen
        .needs
        .iter()
        .filter(|need| before.iter().all(|plugin| plugin.name != need.plugin))
        .cloned()
        .collect();
    let name = |network: Option<crate::cluster::node_requirements::PodNetwork>| {
        network.map(|network| network.plugin).unwrap_or_default()
    };
    (name(pod_network(before, &seen.needs)), name(pod_network(pinned, &stays)))
}

/// On a living cluster pods have addresses of the network that goes.
fn network_change(before: &str, after: &str) -> Option<control::Change> {
    let shown = |name: &str| if name.is_empty() { "the built-in one".to_owned() } else { name.to_owned() };
    let change = || control::Change {
        action: control::Action::Update.into(),
        kind: "pod-network".to_owned(),
        name: if after.is_empty() { BUILT_IN } else { after }.to_owned(),
        reason: format!("{} instead of {}: the pods of all nodes restart", shown(after), shown(before)),
        destructive: true,
        ..control::Change::default()
    };
    (before != after).then(change)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::fake::SPEC;
    use crate::cluster::node_requirements::tests::{flannel, need};

    fn lines() -> KeyLines {
        let text = format!("{SPEC}[plugins.metallb]\naddresses = [\"10.0.0.1-10.0.0.9\"]\n");
        spec::parse(&text).expect("a sound spec").lines
    }

    fn said(code: &str, path: &str) -> host_plugins::Diagnostic {
        host_plugins::Diagnostic {
            code: code.to_owned(),
            path: path.to_owned(),
            message: "it overlaps".to_owned(),
            hint: "take another".to_owned(),
            warning: false,
        }
    }

    #[test]
    fn what_a_plugin_says_stands_at_its_line() {
        let first = SPEC.lines().count() as u32 + 1;
        let placed = place(&lines(), "metallb", said("METALLB-POOL-OVERLAP", "/addresses/0"));
        assert_eq!(
            (&*placed.id, placed.field.as_str(), placed.line, placed.column),
            ("METALLB-POOL-OVERLAP", "plugins.metallb.addresses[0]", first + 1, 14)
        );
        let placed = place(&lines(), "metallb", said("", ""));
        assert_eq!((&*placed.id, placed.line), ("PLUGIN-CONFIG", first));
        // Of a plugin that the file does not name.
        assert_eq!(place(&lines(), "other", said("", "/x")).line, 0);
        let failure = Failure::new("PLUGIN-LOCK", "plugin metallb", "it is another", "upgrade it");
        let placed = place_failure(&lines(), "metallb", &failure.with_evidence("one\n\ntwo\n"));
        assert_eq!((&*placed.id, placed.line), ("PLUGIN-LOCK", first));
        assert_eq!(
            (placed.message.as_str(), placed.hint.as_str()),
            ("it is another: one; two", "upgrade it")
        );
    }

    #[test]
    fn a_lock_file_is_written_where_it_says_something_new() {
        let lock = read_lock("").expect("there is none");
        assert_eq!(new_lock("", &lock), "");
        let text = lock.to_text();
        assert_eq!(new_lock(&text, &lock), "", "it stays");
        assert_eq!(new_lock("# old", &lock), text);
        let refused = read_lock("format = 'x'").expect_err("no lock file");
        assert_eq!((refused.id.as_str(), refused.object.as_str()), ("PLUGIN-LOCK", "k8sctl.lock"));
    }

    #[test]
    fn another_pod_network_on_a_living_cluster_is_agreed_to() {
        let spec = spec::parse(SPEC).expect("a sound spec").spec;
        let mut record = ClusterRecord::planned(&spec, None, "image", "v1.29.0");
        let (none, cni) = (PluginsSeen::default(), flannel().node[0].what.clone());
        let of = |record: &ClusterRecord, seen: &PluginsSeen, pinned: &[PinnedPlugin]| {
            let (before, after) = networks(Some(record), seen, pinned);
            network_change(&before, &after).map(|change| (change.name, change.reason))
        };
        let change = |name: &str, instead: &str| {
            Some((name.to_owned(), format!("{instead}: the pods of all nodes restart")))
        };
        assert_eq!(of(&record, &none, &[]), None);
        let to_flannel = change("flannel", "flannel instead of the built-in one");
        assert_eq!(of(&record, &none, &[flannel()]), to_flannel);
        // Added by a command it stays, whatever the file says.
        let by_command = PluginsSeen { needs: vec![need("flannel", cni, true)], ..PluginsSeen::default() };
        assert_eq!(of(&record, &by_command, &[]), None);
        record.plugins = vec![flannel()];
        assert_eq!(of(&record, &by_command, &[flannel()]), None);
        let back = change("built-in", "the built-in one instead of flannel");
        assert_eq!(of(&record, &by_command, &[]), back);
        assert_eq!(networks(None, &none, &[flannel()]), (String::new(), "flannel".to_owned()));
    }
}
