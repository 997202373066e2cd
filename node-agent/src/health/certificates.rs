//! How long the certificates on the node's disk are good: `KubeletCertificateValid`, and on a control plane
//! `ControlPlaneCertificatesValid`. The agent's own is the session's.
//!
//! The kubelet rotates the one that it shows to the API server, and the host makes the others anew at half of their
//! life: one that is about to end says that neither has happened.

use std::time::{Duration, SystemTime};

use k8sctl_proto::node::v1::ConditionStatus::{self, False, True};
use k8sctl_proto::node::v1::DesiredState;
use tokio::sync::watch;
use tokio::time::sleep;

use super::is_control_plane;
use crate::certificate::Validity;
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::status::Board;
use crate::steps::files::{ADMIN_CONF, CURRENT, SERVING};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(60);
/// What is left when a certificate counts as about to end: both the kubelet and the host have tried for months then.
const SOON: Duration = Duration::from_secs(7 * 24 * 3600);
/// A clock may be so far behind that of who signed: the host backdates by more.
const AHEAD: Duration = Duration::from_secs(60);
/// Where certificates and kubeconfigs of a control plane lie.
const PKI: [&str; 4] = [
    "/etc/kubernetes/pki",
    "/etc/kubernetes/pki/controller-manager",
    "/etc/kubernetes/pki/etcd",
    "/etc/kubernetes/pki/scheduler",
];
const KUBECONFIGS: [&str; 4] = [
    ADMIN_CONF,
    "/etc/kubernetes/controller-manager.conf",
    "/etc/kubernetes/scheduler.conf",
    "/etc/kubernetes/super-admin.conf",
];

/// Looks until the host has gone for good.
pub async fn watch(board: Board, root: Root, mut desired: watch::Receiver<Option<DesiredState>>) {
    loop {
        let control_plane = desired.borrow_and_update().as_ref().is_some_and(is_control_plane);
        let now = SystemTime::now();
        // Not before there is one: a node that joins has none yet.
        if root.exists(CURRENT) {
            report(&board, "KubeletCertificateValid", &kubelet_files(&root), now);
        }
        let all = if control_plane { control_plane_files(&root) } else { Vec::new() };
        if !all.is_empty() {
            report(&board, "ControlPlaneCertificatesValid", &all, now);
        }
        // Cancel-safe: it is looked anew in any case.
        tokio::select! {
            () = sleep(LOOK) => {}
            changed = desired.changed() => if changed.is_err() { return },
        }
    }
}

/// A file and what could be read of it.
type Found = (String, Option<Validity>);

/// What it shows to the API server, and what it shows on its own port.
fn kubelet_files(root: &Root) -> Vec<Found> {
    let found = [CURRENT, SERVING].into_iter().filter(|path| root.exists(path));
    found.map(|path| look(root, path.to_owned())).collect()
}

fn look(root: &Root, path: String) -> Found {
    let pem = root.read(&path).ok().flatten().unwrap_or_default();
    (path, Validity::of_pem(&pem))
}

fn control_plane_files(root: &Root) -> Vec<Found> {
    let mut found = Vec::new();
    for dir in PKI {
        let entries = std::fs::read_dir(root.path(dir)).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        for path in names.filter(|name| name.ends_with(".crt")).map(|name| format!("{dir}/{name}")) {
            found.push(look(root, path));
        }
    }
    for path in KUBECONFIGS {
        let Ok(Some(text)) = root.read(path) else { continue };
        let pem = Kubeconfig::parse(&text).map(|kubeconfig| kubeconfig.certificate_pem);
        found.push((path.to_owned(), Validity::of_pem(&pem.unwrap_or_default())));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

fn report(board: &Board, kind: &str, found: &[Found], now: SystemTime) {
    let (status, reason, message) = judge(found, now);
    board.condition(kind, status, reason, message);
}

/// By the one that ends first.
fn judge(found: &[Found], now: SystemTime) -> (ConditionStatus, &'static str, String) {
    if let Some((path, _)) = found.iter().find(|(_, validity)| validity.is_none()) {
        return (False, "Unreadable", format!("{path} has no certificate that can be read"));
    }
    let known = found.iter().filter_map(|(path, validity)| Some((path, (*validity)?)));
    if let Some((path, validity)) = known.clone().find(|(_, validity)| validity.not_before > now + AHEAD) {
        return (False, "NotYetValid", format!("{path} begins {}", show(validity.not_before)));
    }
    let Some((path, validity)) = known.min_by_key(|(_, validity)| validity.not_after) else {
        return (True, "Valid", String::new());
    };
    let end = show(validity.not_after);
    if validity.is_over(now) {
        (False, "Expired", format!("{path} ended {end}"))
    } else if validity.is_over(now + SOON) {
        (False, "ExpiresSoon", format!("{path} ends {end}"))
    } else {
        (True, "Valid", format!("until {end} ({path})"))
    }
}

fn show(time: SystemTime) -> String {
    format!("{:.0}", jiff::Timestamp::try_from(time).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::example;
    use crate::kubeconfig;

    const DAY: i64 = 24 * 3600;

    fn reason(found: &[Found]) -> &'static str {
        judge(found, SystemTime::now()).1
    }

    fn certificate(days: i64) -> Found {
        (format!("/{days}.crt"), Validity::of_pem(example(days * DAY).0.as_bytes()))
    }

    #[test]
    fn the_one_that_ends_first_counts_and_is_named() {
        assert_eq!(reason(&[certificate(100), certificate(30)]), "Valid");
        assert_eq!(reason(&[certificate(100), certificate(3)]), "ExpiresSoon");
        let (status, reason, message) = judge(&[certificate(100), certificate(-1)], SystemTime::now());
        assert_eq!((status, reason), (False, "Expired"));
        assert!(message.starts_with("/-1.crt ended 20"), "{message}");
    }

    #[test]
    fn what_cannot_be_read_or_has_not_begun_is_not_valid() {
        let torn = ("/torn.crt".to_owned(), None);
        assert_eq!(reason(&[certificate(100), torn]), "Unreadable");
        assert_eq!(reason(&[certificate(500)]), "NotYetValid");
    }

    #[test]
    fn all_files_of_a_control_plane_are_looked_at() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        let (good, key) = example(100 * DAY);
        for name in ["apiserver", "etcd/server", "scheduler/server"] {
            let path = format!("/etc/kubernetes/pki/{name}.crt");
            root.write(path, good.as_bytes(), 0o644).expect("written");
        }
        root.write("/etc/kubernetes/pki/ca.key", key.as_bytes(), 0o600).expect("written");
        root.write(KUBECONFIGS[1], &kubeconfig::example(&good, &key), 0o600).expect("written");
        let found = control_plane_files(&root);
        assert_eq!((found.len(), reason(&found)), (4, "Valid"));
        for path in found.iter().map(|(path, _)| path.clone()) {
            let whole = root.read(&path).expect("read").expect("there");
            root.write(&path, b"", 0o600).expect("written");
            assert_eq!(reason(&control_plane_files(&root)), "Unreadable", "{path}");
            root.write(&path, &whole, 0o600).expect("written");
        }
    }

    #[test]
    fn both_of_the_kubelets_count() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        root.write(CURRENT, example(100 * DAY).0.as_bytes(), 0o600).expect("written");
        assert_eq!(reason(&kubelet_files(&root)), "Valid");
        root.write(SERVING, example(DAY).0.as_bytes(), 0o644).expect("written");
        assert_eq!(reason(&kubelet_files(&root)), "ExpiresSoon");
    }
}
