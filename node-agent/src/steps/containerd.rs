//! Step `containerd`: its configuration for Kubernetes, the unit running, the CRI answering; registries as plugins need
//! them.

use std::time::Duration;

use async_trait::async_trait;
use k8sctl_proto::node::v1::DesiredState;

use super::requirements::Needs;
use super::{OwnedFile, cri, run, systemctl, unit_is_active, wait_until, whether_starting_helps};
use crate::converge::step::{Check, Step, StepError};
use crate::durable::Root;
use crate::service::{Claims, Service};
use crate::status::Progress;

/// The CRI socket.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// The unit.
pub const UNIT: &str = "containerd.service";
const CONFIG: &str = "/etc/containerd/config.toml";
/// There while a running containerd may have read another configuration. On tmpfs: no containerd outlives a boot.
const READ_ANOTHER: &str = "/run/k8s-myhome/containerd-read-another-configuration";
/// Longest wait for the CRI after the unit started.
const ANSWERS: Duration = Duration::from_secs(120);

/// The configuration's language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    /// containerd before 2.0.
    Two,
    /// containerd 2.0.
    Three,
    /// containerd 2.1 and later: CNI programs may lie in several directories, and the key for one is on its way out.
    ThreeDirs,
}

/// The step.
pub struct Containerd {
    root: Root,
    claims: Claims,
}

impl Containerd {
    /// Works below this root.
    pub fn new(root: Root, claims: Claims) -> Self {
        Self { root, claims }
    }

    fn config(&self, desired: &DesiredState, format: Format) -> OwnedFile {
        OwnedFile::public(CONFIG, render(&desired.pause_image, &plugin_dir(&self.root), format))
    }

    /// Whether the file is right in one of the languages: asking containerd for its version takes a second.
    fn config_is_right(&self, desired: &DesiredState) -> Result<bool, StepError> {
        for format in [Format::Two, Format::Three, Format::ThreeDirs] {
            let file = self.config(desired, format);
            if self.root.is(CONFIG, &file.content, file.mode).map_err(StepError::read(CONFIG))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// It reads its configuration at its start.
    async fn start(&self, progress: &Progress) -> Result<(), StepError> {
        // One that hangs while it is waited for is repair's.
        let _claim = self.claims.claim(Service::Containerd).await;
        if self.root.exists(READ_ANOTHER) && unit_is_active(UNIT).await {
            progress.say("restarting containerd");
            systemctl(&["restart", UNIT]).await?;
        } else {
            progress.say("starting containerd");
            systemctl(&["start", UNIT]).await?;
        }
        Ok(())
    }
}

/// Where the CNI programs lie: upstream's place, or Debian's.
pub fn plugin_dir(root: &Root) -> String {
    let place = ["/opt/cni/bin", "/usr/lib/cni"].into_iter().find(|dir| root.exists(format!("{dir}/bridge")));
    place.unwrap_or("/opt/cni/bin").to_owned()
}

/// `containerd github.com/containerd/containerd 1.6.20~ds1 …`; what is not understood counts as old, which every
/// containerd reads.
fn format_of(version: &str) -> Format {
    let number = version.split_whitespace().nth(2).unwrap_or_default().trim_start_matches('v');
    let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(2), None | Some(0)) => Format::Three,
        (Some(2..), _) => Format::ThreeDirs,
        _ => Format::Two,
    }
}

fn render(pause_image: &str, plugin_dir: &str, format: Format) -> String {
    let dirs = match format {
        Format::Two | Format::Three => format!("bin_dir = \"{plugin_dir}\""),
        Format::ThreeDirs => format!("bin_dirs = [\"{plugin_dir}\"]"),
    };
    match format {
        Format::Two => format!(
            r#"# Written by k8s-node-agent.
version = 2

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"

[plugins."io.containerd.grpc.v1.cri".cni]
  {dirs}
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true

[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = "/etc/containerd/certs.d"
"#
        ),
        Format::Three | Format::ThreeDirs => format!(
            r#"# Written by k8s-node-agent.
version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{pause_image}"

[plugins."io.containerd.cri.v1.images".registry]
  config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime".cni]
  {dirs}
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
  SystemdCgroup = true
"#
        ),
    }
}

#[async_trait]
impl Step for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }

    fn unit(&self) -> Option<&'static str> {
        Some(UNIT)
    }

    fn members_only(&self) -> bool {
        false
    }

    async fn check(&self, desired: &DesiredState) -> Result<Check, StepError> {
        if !self.config_is_right(desired)? {
            return Ok(Check::False(CONFIG.to_owned()));
        }
        let registries = Needs::of(desired)?.wrong_registries(&self.root)?;
        if !registries.is_empty() {
            return Ok(Check::from_missing(registries));
        }
        if self.root.exists(READ_ANOTHER) {
            return Ok(Check::False("containerd has read another configuration".to_owned()));
        }
        if !self.root.is_live() {
            return Ok(Check::True);
        }
        Ok(match cri::version(&self.root.path(SOCKET)).await {
            Ok(_) => Check::True,
            // Slow or hung: to start it again changes neither, and repair tells them apart.
            Err(error @ cri::CriError::Slow { .. }) => Check::Waits(k8sctl_rpc::chain(&error).to_string()),
            Err(error) => {
                let why = k8sctl_rpc::chain(&error).to_string();
                whether_starting_helps(UNIT, why).await
            }
        })
    }

    async fn apply(&self, desired: &DesiredState, progress: &Progress) -> Result<(), StepError> {
        Needs::of(desired)?.write_registries(&self.root)?;
        if !self.config_is_right(desired)? {
            let version =
                if self.root.is_live() { run("containerd", &["--version"]).await? } else { String::new() };
            let file = self.config(desired, format_of(&version));
            // Noted before that, so that containerd is restarted though this agent is ended in between.
            self.root.write(READ_ANOTHER, b"", 0o600).map_err(StepError::write(READ_ANOTHER))?;
            self.root.write(&file.path, &file.content, file.mode).map_err(StepError::write(CONFIG))?;
        }
        if self.root.is_live() {
            self.start(progress).await?;
        }
        self.root.remove(READ_ANOTHER).map_err(StepError::write(READ_ANOTHER))?;
        if !self.root.is_live() {
            return Ok(());
        }
        let socket = self.root.path(SOCKET);
        wait_until("the CRI answers", ANSWERS, || async {
            cri::version(&socket).await.map(drop).map_err(|error| k8sctl_rpc::chain(&error).to_string())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use k8sctl_proto::node::v1::{NodeRequirements, RegistryTrust};

    use super::*;
    use crate::status::Board;

    #[tokio::test]
    async fn containerd_is_restarted_though_the_agent_is_ended_behind_the_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let step = Containerd::new(Root::new(dir.path()), Claims::default());
        let (desired, progress) = (DesiredState::default(), Progress::new(Board::default(), "containerd"));
        let check = async || step.check(&desired).await.expect("checked");
        step.apply(&desired, &progress).await.expect("applied");
        assert_eq!(check().await, Check::True);

        // Ended there: only the note tells that containerd is still to be restarted.
        step.root.write(READ_ANOTHER, b"", 0o600).expect("written");
        assert!(matches!(check().await, Check::False(_)));
        step.apply(&desired, &progress).await.expect("applied");
        assert_eq!(check().await, Check::True);

        // It is there before the file is: here the file cannot be written.
        let path = step.root.path(CONFIG);
        std::fs::remove_file(&path).expect("removed");
        std::fs::create_dir_all(path.join("in the way")).expect("made");
        step.apply(&desired, &progress).await.expect_err("a directory is in the way");
        assert!(step.root.exists(READ_ANOTHER));
    }

    #[tokio::test]
    async fn a_registry_that_a_plugin_needs_is_part_of_it_and_restarts_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let step = Containerd::new(Root::new(dir.path()), Claims::default());
        let progress = Progress::new(Board::default(), "containerd");
        let registry = RegistryTrust { host: "harbor.example".to_owned(), ..RegistryTrust::default() };
        let requirements = NodeRequirements { registries: vec![registry], ..NodeRequirements::default() };
        let needing = DesiredState { requirements: Some(requirements), ..DesiredState::default() };
        let check = async |desired: &DesiredState| step.check(desired).await.expect("checked");
        step.apply(&DesiredState::default(), &progress).await.expect("applied");
        let file = "/etc/containerd/certs.d/harbor.example/hosts.toml";
        assert_eq!(check(&needing).await, Check::False(file.to_owned()));
        step.apply(&needing, &progress).await.expect("applied");
        assert_eq!(check(&needing).await, Check::True);
        assert!(!step.root.exists(READ_ANOTHER));
        assert_eq!(check(&DesiredState::default()).await, Check::False(file.to_owned()));
        step.apply(&DesiredState::default(), &progress).await.expect("applied");
        assert!(!step.root.exists(file));
    }

    #[test]
    fn the_language_follows_the_version() {
        assert_eq!(
            format_of("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1"),
            Format::Two
        );
        assert_eq!(format_of("containerd github.com/containerd/containerd/v2 v2.0.5 fb4c30d"), Format::Three);
        assert_eq!(
            format_of("containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7"),
            Format::ThreeDirs
        );
        assert_eq!(
            format_of("containerd github.com/containerd/containerd/v3 v3.0.0 0000000"),
            Format::ThreeDirs
        );
        assert_eq!(format_of(""), Format::Two);
    }

    #[test]
    fn every_language_is_golden() {
        insta::assert_snapshot!("containerd-2", render("k8s.gcr.io/pause:3.2", "/usr/lib/cni", Format::Two));
        insta::assert_snapshot!(
            "containerd-3",
            render("registry.k8s.io/pause:3.10", "/opt/cni/bin", Format::Three)
        );
        insta::assert_snapshot!(
            "containerd-3-dirs",
            render("registry.k8s.io/pause:3.10", "/opt/cni/bin", Format::ThreeDirs)
        );
    }
}
