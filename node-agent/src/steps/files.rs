//! Step `files`: the files that the host keeps on the node, PKI and kubeconfigs, before kubeadm.
//!
//! One is special: the kubelet's kubeconfig comes with its certificate inside. It is split into a certificate
//! file and a kubeconfig that refers to the link beside it, so that the kubelet can rotate its certificate and
//! needs no TLS bootstrap.

use std::os::unix::fs::symlink;

use async_trait::async_trait;
use aws_lc_rs::digest;
use k8sctl_proto::node::v1::{DesiredState, ManagedFile};

use super::{OwnedFile, write_files, wrong_files};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::kubeconfig::Kubeconfig;
use crate::status::Progress;

/// The kubelet's kubeconfig.
pub const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";
/// The administrator's.
pub const ADMIN_CONF: &str = "/etc/kubernetes/admin.conf";
/// The link that the kubelet turns when it rotates its certificate.
const CURRENT: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// The step.
pub struct Files {
    root: Root,
}

impl Files {
    /// Works below this root.
    pub fn new(root: Root) -> Self {
        Self { root }
    }

    /// The link leads somewhere, and the delivered certificate is not newer than it.
    fn link_is_right(&self, plan: &Plan) -> bool {
        let Some(certificate) = &plan.kubelet_certificate else { return true };
        self.root.exists(CURRENT) && self.root.exists(certificate)
    }
}

/// What should be there.
struct Plan {
    files: Vec<OwnedFile>,
    /// Where the delivered kubelet certificate lies.
    kubelet_certificate: Option<String>,
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
        plan.files.push(OwnedFile { path: path.clone(), content: pair, mode: 0o600 });
        plan.files.push(OwnedFile {
            path: KUBELET_CONF.to_owned(),
            content: kubeconfig.with_certificate_file(CURRENT),
            mode,
        });
        plan.kubelet_certificate = Some(path);
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
        if !self.link_is_right(&plan) {
            wrong.push(CURRENT.to_owned());
        }
        Ok(Check::from_missing(wrong))
    }

    async fn apply(&self, desired: &DesiredState, _progress: &Progress) -> Result<(), StepError> {
        let plan = plan_files(&desired.files)?;
        // Before the files: afterwards a new certificate looks like one that was rotated away long ago.
        let delivered = !self.link_is_right(&plan);
        if let Some(certificate) = plan.kubelet_certificate.as_ref().filter(|_| delivered) {
            let link = self.root.path(CURRENT);
            if let Some(parent) = link.parent() {
                std::fs::create_dir_all(parent).map_err(StepError::write(parent))?;
            }
            let fresh = link.with_extension("new");
            crate::durable::remove(&fresh).map_err(StepError::write(&fresh))?;
            // Relative to the link, so that it holds below any root.
            let name = certificate.rsplit('/').next().unwrap_or_default();
            symlink(name, &fresh).map_err(StepError::write(&fresh))?;
            std::fs::rename(&fresh, &link).map_err(StepError::write(&link))?;
        }
        write_files(&self.root, &plan.files)?;
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
            step: Files::new(root.clone()),
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

    #[tokio::test]
    async fn the_kubelet_certificate_is_split_out_and_rotation_is_left_alone() {
        let fixture = fixture();
        let first = desired(&[(KUBELET_CONF, &example("CERT1\n", "KEY1\n"), 0o600)]);
        fixture.settle(&first).await;
        assert_eq!(fixture.current(), b"CERT1\nKEY1\n");
        let link = std::fs::symlink_metadata(fixture.root.path(CURRENT)).expect("there");
        assert!(link.file_type().is_symlink());

        // The kubelet rotates: a file beside it, and the link turned.
        fixture.root.write("/var/lib/kubelet/pki/rotated.pem", b"ROTATED", 0o600).expect("written");
        std::fs::remove_file(fixture.root.path(CURRENT)).expect("removed");
        symlink("rotated.pem", fixture.root.path(CURRENT)).expect("linked");
        assert_eq!(fixture.step.check(&first).await.expect("checked"), Check::True);

        // The host delivers another certificate: that one counts.
        let second = desired(&[(KUBELET_CONF, &example("CERT2\n", "KEY2\n"), 0o600)]);
        fixture.settle(&second).await;
        assert_eq!(fixture.current(), b"CERT2\nKEY2\n");
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
