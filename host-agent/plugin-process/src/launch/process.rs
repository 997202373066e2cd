//! One plugin process, from its start until it is gone: the process itself, its user and its control group end together.
//! Called by [`super::Launcher`]; knows nothing of what is said.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tokio::process::{Child, ChildStderr, Command};
use tokio::runtime::Handle;

use super::cgroup::{Cgroups, Group};
use super::child::{Setup, away_from_fd_3, enter_before_exec};
use super::parent;
use super::program::Sealed;
use super::sandbox::Rules;
use super::users::Lease;
use super::{Ceilings, LaunchError};

/// A process that runs. Dropping it ends it; its user is given back when it is gone.
#[derive(Debug)]
pub(super) struct Process {
    pid: u32,
    user: Option<u32>,
    // `None`: it has been handed on to its end.
    parts: Option<Parts>,
}

#[derive(Debug)]
struct Parts {
    child: Child,
    group: Option<Group>,
    lease: Option<Lease>,
}

impl Process {
    /// Starts a program in its sandbox, with this socket as fd 3.
    pub(super) async fn start(
        program: &Sealed,
        socket: OwnedFd,
        ceilings: Ceilings,
        cgroups: Option<&Cgroups>,
    ) -> Result<Self, LaunchError> {
        let spawn_error = |error| LaunchError::Spawn(program.name(), error);
        let root = rustix::process::geteuid().is_root();
        let lease = if root { Some(Lease::take().await) } else { None };
        let user = lease.as_ref().map(Lease::id);
        let group = cgroups.map(|groups| groups.make(ceilings)).transpose().map_err(LaunchError::Group)?;
        let entrance = group.as_ref().map(Group::entrance).transpose().map_err(LaunchError::Group)?;
        let setup = Setup {
            socket: away_from_fd_3(socket).map_err(spawn_error)?,
            program: program.file(),
            group: entrance.map(away_from_fd_3).transpose().map_err(spawn_error)?,
            rules: Rules::new(root, ceilings.memory_bytes)?,
        };
        let child = spawn(setup, user).map_err(spawn_error)?;
        let pid = child.id().ok_or_else(|| spawn_error(io::Error::other("it has no number")))?;
        Ok(Self { pid, user, parts: Some(Parts { child, group, lease }) })
    }

    /// Its number, until it is gone.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Its user, where it has one of its own.
    pub(super) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Its standard error, once.
    pub(super) fn stderr(&mut self) -> Option<ChildStderr> {
        self.parts.as_mut()?.child.stderr.take()
    }

    /// Waits until it has ended by itself.
    pub(super) async fn wait(&mut self) -> Option<ExitStatus> {
        self.parts.as_mut()?.child.wait().await.ok()
    }

    /// Whether the kernel ended it for its memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let group = self.parts.as_ref().and_then(|parts| parts.group.as_ref());
        group.is_some_and(Group::ran_out_of_memory)
    }

    /// Ends it, if it has not ended, and sees to it that nothing is left of it. How it ended.
    pub(super) async fn end(mut self) -> Option<ExitStatus> {
        self.parts.take()?.end().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else { return };
        let _ = parts.child.start_kill();
        // Without a runtime nobody can wait for it; tokio has asked for its end.
        if Handle::try_current().is_ok() {
            k8sctl_rpc::task::spawn("plugin-end", async move {
                parts.end().await;
            });
        }
    }
}

impl Parts {
    async fn end(mut self) -> Option<ExitStatus> {
        // tokio signals through the handle it waits on, so the number cannot be another process's by now.
        let _ = self.child.start_kill();
        let status = self.child.wait().await.ok();
        if let Some(group) = self.group.take() {
            group.end().await;
        }
        // Now that nothing runs as this user.
        drop(self.lease.take());
        status
    }
}

fn spawn(setup: Setup, user: Option<u32>) -> io::Result<Child> {
    // The path is never used: the child executes the sealed copy by its descriptor.
    #[expect(
        clippy::disallowed_methods,
        reason = "a plugin is started from a sealed copy, by descriptor, with a sandbox before exec"
    )]
    let mut command = Command::new(Path::new("/nonexistent/k8sctl-plugin"));
    command
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    enter_before_exec(&mut command, setup);
    parent::spawn(command)
}
