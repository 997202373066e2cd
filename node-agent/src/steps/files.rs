//! Step `files`: the files that the host keeps on the node, PKI and kubeconfigs, before kubeadm.
//!
//! One is special: the kubelet's kubeconfig comes with its certificate inside. It is split into a certificate
//! file and a kubeconfig that refers to the link beside it, so that the kubelet can rotate its certificate and
//! needs no TLS bootstrap. A rotated one that has lost its content or is over gives way to the delivered one: a kubelet
//! whose certificate is over cannot ask for another.

use std::os::unix::fs::symlink;
use std::time::SystemTime;

use async_trait::async_trait;
use aws_lc_rs::digest;
use k8sctl_proto::node::v1::{DesiredState, ManagedFile};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::{OwnedFile, kubelet, systemctl, write_files, wrong_files};
use crate::certificate::Validity;
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::service::{Claims, Service};
use crate::status::Progress;

/// The kubelet's kubeconfig.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// The administrator's.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// Where the kubelet keeps its certificates.
pub const KUBELET_PKI: &str = "/var/lib/kubelet/pki";
/// What the kubelet shows on its port, which it reads once, at its start.
pub const SERVING: &str = "/var/lib/kubelet/pki/kubelet.crt";
/// There while a running kubelet may have another certificate than the delivered one. On tmpfs: no kubelet outlives a
/// boot.
const SHOWS_ANOTHER: &str = "/run/k8s-myhome/kubelet-shows-another-certificate";
/// The link that the kubelet turns when it rotates its certificate.
pub const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// The step.
pub struct Files {
    root: Root,
    claims: Claims,
}

/// How the link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// It leads to a certificate that is good, or as good as the delivered one.
    Right,
    /// There is none yet, or another certificate was delivered since.
    Wrong,
    /// It leads nowhere, or to something that the kubelet cannot read.
    Torn,
    /// It leads to a certificate that the kubelet cannot use any more, and the delivered one is good.
    Over,
}

impl Files {
    /// Works below this root.
    pub fn new(root: Root, claims: Claims) -> Self {
        Self { root, claims }
    }

    /// A rotated certificate is the kubelet's, which does not sync it: without its content it counts as missing.
    fn link(&self, plan: &Plan) -> Link {
        let Some(certificate) = &plan.kubelet_certificate else { return Link::Right };
        let current = self.root.read(CURRENT).ok().flatten().unwrap_or_default();
        if !is_pair(&current) {
            let is_there = self.root.path(CURRENT).symlink_metadata().is_ok();
            return if is_there { Link::Torn } else { Link::Wrong };
        }
        if !self.root.exists(&certificate.path) {
            return Link::Wrong;
        }
        let now = SystemTime::now();
        let is_good = |pem: &[u8]| Validity::of_pem(pem).is_some_and(|validity| !validity.is_over(now));
        if is_good(&current) || !is_good(&certificate.content) { Link::Right } else { Link::Over }
    }

    /// The kubelet reads its certificates once, at its start. One that does not run reads them then.
    async fn restart_kubelet(&self, progress: &Progress) -> Result<(), StepError> {
        if self.root.is_live() {
            let _claim = self.claims.claim(Service::Kubelet).await;
            progress.say("restarting the kubelet with the delivered certificate");
            systemctl(&["try-restart", kubelet::UNIT]).await?;
        }
        Ok(())
    }

    /// Another certificate than the delivered one, or another kubeconfig, lies where the kubelet has read it.
    fn is_read_otherwise(&self, plan: &Plan) -> Result<bool, StepError> {
        for file in plan.files.iter().filter(|file| [SERVING, KUBELET_CONF].contains(&file.path.as_str())) {
            let current = self.root.read(&file.path).map_err(StepError::read(&file.path))?;
            if current.is_some_and(|current| current != file.content) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A certificate and its key, in one file.
fn is_pair(pem: &[u8]) -> bool {
    CertificateDer::from_pem_slice(pem).is_ok() && PrivateKeyDer::from_pem_slice(pem).is_ok()
}

/// What should be there.
struct Plan {
    files: Vec<OwnedFile>,
    /// The delivered kubelet certificate, one of them.
    kubelet_certificate: Option<OwnedFile>,
}

fn plan_files(managed: &[ManagedFile]) -> Result<Plan, StepError> {
    let mut plan = Plan { files: Vec::new(), kubelet_certificate: None };
    for file in managed {
        if !file.path.starts_with('/') || file.path.split('/').any(|part| part == "..") {
            return Err(StepError::Desired(format!("the path {:?} of a managed file", file.path)));
        }
        let mode = file.mode & 0o777;
        let kubeconfig = if file.path == KUBELET_CONF { Kubeconfig::parse(&file.content).ok() } else { None };
        let Some(kubeconfig) = kubeconfig else {
            plan.files.push(OwnedFile { path: file.path.clone(), content: file.content.clone(), mode });
            continue;
        };
        let mut pair = kubeconfig.certificate_pem.clone();
        pair.extend_from_slice(&kubeconfig.key_pem);
        let name = hex::encode(&digest::digest(&digest::SHA256, &pair).as_ref()[..8]);
        let path = format!("/var/lib/kubelet/pki/kubelet-client-host-{name}.pem");
        let certificate = OwnedFile { path, content: pair, mode: 0o600 };
        plan.files.push(certificate.clone());
        plan.files.push(OwnedFile {
            path: KUBELET_CONF.to_owned(),
            content: kubeconfig.with_certificate_file(CURRENT),
            mode,
        });
        plan.kubelet_certificate = Some(certificate);
    }
    Ok(plan)
}

#[async_trait]
impl Step for Files {
    fn name(&self) -> &'static str {
        "files"
    }

    fn unit(&self) -> Option<&'static str> {
        None
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        let plan = plan_files(&desired.files)?;
        let mut wrong: Vec<String> =
            wrong_files(&self.root, &plan.files)?.iter().map(|file| file.path.clone()).collect();
        match self.link(&plan) {
            Link::Right => {}
            Link::Wrong | Link::Torn => wrong.push(CURRENT.to_owned()),
            Link::Over => wrong.push(format!("{CURRENT}, which is over")),
        }
        if self.root.exists(SHOWS_ANOTHER) {
            wrong.push("the kubelet has its certificate of before".to_owned());
        }
        Ok(Check::from_missing(wrong))
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        let plan = plan_files(&desired.files)?;
        // Before the files: afterwards a new certificate looks like one that was rotated away long ago.
        let before = self.link(&plan);
        let delivered = before != Link::Right;
        // Noted before anything is changed, so that a kubelet is restarted though this agent is ended in between.
        if matches!(before, Link::Torn | Link::Over) || self.is_read_otherwise(&plan)? {
            self.root.write(SHOWS_ANOTHER, b"", 0o600).map_err(StepError::write(SHOWS_ANOTHER))?;
        }
        if let Some(certificate) = plan.kubelet_certificate.as_ref().filter(|_| delivered) {
            let link = self.root.path(CURRENT);
            if let Some(parent) = link.parent() {
                std::fs::create_dir_all(parent).map_err(StepError::write(parent))?;
            }
            let fresh = link.with_extension("new");
            crate::durable::remove(&fresh).map_err(StepError::write(&fresh))?;
            // Relative to the link, so that it holds below any root.
            let name = certificate.path.rsplit('/').next().unwrap_or_default();
            symlink(name, &fresh).map_err(StepError::write(&fresh))?;
            std::fs::rename(&fresh, &link).map_err(StepError::write(&link))?;
        }
        write_files(&self.root, &plan.files)?;
        if delivered {
            self.root.sync_dirs(&[KUBELET_PKI]).map_err(StepError::write(KUBELET_PKI))?;
        }
        if self.root.exists(SHOWS_ANOTHER) {
            self.restart_kubelet(progress).await?;
            self.root.remove(SHOWS_ANOTHER).map_err(StepError::write(SHOWS_ANOTHER))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubeconfig::example;
    use crate::status::Board;

    struct Fixture {
        root: Root,
        step: Files,
        progress: Progress,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = Root::new(dir.path());
        Fixture {
            step: Files::new(root.clone(), Claims::default()),
            root,
            progress: Progress::new(Board::default(), "files"),
            _dir: dir,
        }
    }

    fn desired(files: &[(&str, &[u8], u32)]) -> DesiredState {
        let file = |(path, content, mode): &(&str, &[u8], u32)| ManagedFile {
            path: (*path).into(),
            content: content.to_vec(),
            mode: *mode,
        };
        DesiredState { files: files.iter().map(file).collect(), ..DesiredState::default() }
    }

    impl Fixture {
        async fn settle(&self, desired: &DesiredState) {
            assert!(matches!(self.step.check(desired).await.expect("checked"), Check::False(_)));
            self.step.apply(desired, &self.progress).await.expect("applied");
            assert_eq!(self.step.check(desired).await.expect("checked"), Check::True);
        }

        fn current(&self) -> Vec<u8> {
            self.root.read(CURRENT).expect("read").expect("there")
        }
    }

    #[tokio::test]
    async fn content_and_mode_are_kept() {
        let fixture = fixture();
        let desired = desired(&[("/etc/kubernetes/pki/ca.key", b"KEY", 0o600)]);
        fixture.settle(&desired).await;
        fixture.root.write("/etc/kubernetes/pki/ca.key", b"KEY", 0o644).expect("written");
        fixture.settle(&desired).await;
    }

    /// A certificate and a key as the kubelet could read them.
    fn pair(content: &str) -> (String, String) {
        let pem = |kind: &str| {
            let content = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, content);
            format!("-----BEGIN {kind}-----\n{content}\n-----END {kind}-----\n")
        };
        (pem("CERTIFICATE"), pem("PRIVATE KEY"))
    }

    fn delivered(content: &str) -> (DesiredState, Vec<u8>) {
        let (certificate, key) = pair(content);
        let desired = desired(&[(KUBELET_CONF, &example(&certificate, &key), 0o600)]);
        (desired, (certificate + &key).into_bytes())
    }

    #[tokio::test]
    async fn the_kubelet_certificate_is_split_out_and_rotation_is_left_alone() {
        let fixture = fixture();
        let (first, first_pair) = delivered("first");
        fixture.settle(&first).await;
        assert_eq!(fixture.current(), first_pair);
        let link = std::fs::symlink_metadata(fixture.root.path(CURRENT)).expect("there");
        assert!(link.file_type().is_symlink());

        // The kubelet rotates: a file beside it, and the link turned.
        let rotated = "/var/lib/kubelet/pki/rotated.pem";
        fixture.root.write(rotated, &delivered("rotated").1, 0o600).expect("written");
        std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
        symlink("rotated.pem", fixture.root.path(CURRENT)).expect("linked");
        assert_eq!(fixture.step.check(&first).await.expect("checked"), Check::True);

        // The host delivers another certificate: that one counts.
        let (second, second_pair) = delivered("second");
        fixture.settle(&second).await;
        assert_eq!(fixture.current(), second_pair);
    }

    #[tokio::test]
    async fn a_rotated_certificate_that_lost_its_content_gives_way_to_the_delivered_one() {
        let fixture = fixture();
        let (desired, pair) = delivered("first");
        fixture.settle(&desired).await;
        std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
        symlink("rotated.pem", fixture.root.path(CURRENT)).expect("linked");
        for torn in [&b""[..], &[0; 512], &pair[..60]] {
            fixture.root.write("/var/lib/kubelet/pki/rotated.pem", torn, 0o600).expect("written");
            fixture.settle(&desired).await;
            assert_eq!(fixture.current(), pair);
            std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
            symlink("rotated.pem", fixture.root.path(CURRENT)).expect("linked");
        }
    }

    #[tokio::test]
    async fn a_kubelet_is_restarted_for_a_certificate_that_it_cannot_read_but_not_for_its_first() {
        let fixture = fixture();
        let (desired, pair) = delivered("first");
        let noted = || fixture.root.exists(SHOWS_ANOTHER);
        // The last of its files cannot be written, so that a note stays.
        let mut blocked = desired.clone();
        let dir = ManagedFile { path: "/etc/kubernetes".into(), content: Vec::new(), mode: 0o600 };
        blocked.files.push(dir);
        fixture.step.apply(&blocked, &fixture.progress).await.expect_err("a directory is in the way");
        assert!(!noted());
        fixture.root.write("/var/lib/kubelet/pki/torn.pem", &pair[..60], 0o600).expect("written");
        for target in ["torn.pem", "nowhere.pem"] {
            std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
            symlink(target, fixture.root.path(CURRENT)).expect("linked");
            fixture.step.apply(&blocked, &fixture.progress).await.expect_err("a directory is in the way");
            assert!(noted(), "{target}");
            fixture.settle(&desired).await;
            assert_eq!((noted(), fixture.current()), (false, pair.clone()), "{target}");
        }
    }

    #[tokio::test]
    async fn a_rotated_certificate_that_is_over_gives_way_to_a_delivered_one_that_is_good() {
        let fixture = fixture();
        let of = |seconds| {
            let (certificate, key) = crate::certificate::example(seconds);
            let desired = desired(&[(KUBELET_CONF, &example(&certificate, &key), 0o600)]);
            (desired, (certificate + &key).into_bytes())
        };
        let rotate = |pair: &[u8]| {
            fixture.root.write("/var/lib/kubelet/pki/rotated.pem", pair, 0o600).expect("written");
            std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
            symlink("rotated.pem", fixture.root.path(CURRENT)).expect("linked");
        };
        let (good, pair) = of(3600);
        fixture.settle(&good).await;
        rotate(&of(-10).1);
        let check = fixture.step.check(&good).await.expect("checked");
        assert_eq!(check, Check::False(format!("{CURRENT}, which is over")));
        fixture.settle(&good).await;
        assert_eq!(fixture.current(), pair);
        // A good one stays, and so does one that is over where the host has none that is better.
        rotate(&of(1800).1);
        assert_eq!(fixture.step.check(&good).await.expect("checked"), Check::True);
        let (over, _) = of(-20);
        fixture.settle(&over).await;
        rotate(&of(-10).1);
        assert_eq!(fixture.step.check(&over).await.expect("checked"), Check::True);
    }

    #[tokio::test]
    async fn every_delivered_file_that_lost_its_content_is_written_again() {
        let fixture = fixture();
        let (mut desired, _) = delivered("first");
        let key =
            ManagedFile { path: "/etc/kubernetes/pki/ca.key".into(), content: b"KEY".into(), mode: 0o600 };
        desired.files.push(key);
        fixture.settle(&desired).await;
        for file in plan_files(&desired.files).expect("planned").files {
            fixture.root.write(&file.path, b"", file.mode).expect("written");
            fixture.settle(&desired).await;
            assert_eq!(fixture.root.read(&file.path).expect("read"), Some(file.content));
        }
    }

    #[tokio::test]
    async fn a_renewed_serving_certificate_is_noted_until_the_kubelet_is_restarted() {
        let fixture = fixture();
        let [first, second] = [b"first", b"other"].map(|content| desired(&[(SERVING, content, 0o644)]));
        let noted = || fixture.root.exists(SHOWS_ANOTHER);
        let plan = |desired: &DesiredState| plan_files(&desired.files).expect("planned");
        // A kubelet that has none yet reads the first one at its start.
        assert!(!fixture.step.is_read_otherwise(&plan(&first)).expect("looked at"));
        fixture.settle(&first).await;
        assert!(!fixture.step.is_read_otherwise(&plan(&first)).expect("looked at"));
        assert!(fixture.step.is_read_otherwise(&plan(&second)).expect("looked at"));
        fixture.settle(&second).await;
        assert!(!noted());

        // An agent that was ended behind the write: only the note tells that the kubelet is still to be restarted.
        fixture.root.write(SHOWS_ANOTHER, b"", 0o600).expect("written");
        fixture.settle(&second).await;
        assert!(!noted());

        // It stays until the kubelet is restarted, which comes when all is written: here one file cannot be.
        let blocked = desired(&[("/etc/kubernetes", b"", 0o600), (SERVING, b"third", 0o644)]);
        std::fs::create_dir_all(fixture.root.path("/etc/kubernetes/pki")).expect("made");
        fixture.step.apply(&blocked, &fixture.progress).await.expect_err("a directory is in the way");
        assert!(noted());
        assert_eq!(fixture.root.read(SERVING).expect("read"), Some(b"third".to_vec()));
    }

    #[tokio::test]
    async fn a_path_that_leads_elsewhere_is_refused() {
        let fixture = fixture();
        for path in ["etc/x", "/etc/../x"] {
            let error = fixture.step.check(&desired(&[(path, b"", 0o600)])).await.expect_err("refused");
            assert!(matches!(error, StepError::Desired(_)), "{error:?}");
        }
    }
}
