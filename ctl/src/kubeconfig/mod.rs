//! A cluster's entries in the user's kubeconfig: under a name of our own, leaving all others alone.
//!
//! - `merge`: decides, over all files of `KUBECONFIG` as kubectl sees them
//! - `file`: locks, reads and writes them: atomically, private, with the owner that they had

mod file;
mod merge;

use std::io;
use std::path::PathBuf;

use k8sctl_types::failure::Failure;

use crate::agent::Source;
use merge::Own;

/// Name of the context, the cluster and the user of a cluster.
pub fn context_name(cluster: &str) -> String {
    format!("k8s-myhome-{cluster}")
}

/// A kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The one that the host agent made is none.
    #[error("what the host agent gave is no kubeconfig: {0}")]
    Own(String),
    /// A file of the user's is none.
    #[error("it is no kubeconfig: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, without its text: that holds keys.
        reason: String,
    },
    /// Another program holds its lock.
    #[error("another program holds {}, or left it behind", .lock.display())]
    Locked {
        /// The file.
        path: PathBuf,
        /// Its lock.
        lock: PathBuf,
    },
    /// It cannot be read or written.
    #[error("cannot {doing} {}", .path.display())]
    Io {
        /// Read, write, …
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl KubeconfigError {
    /// As a person meets it; `again` is the command that does what was not done.
    fn into_failure(self, source: &Source, again: &str) -> Failure {
        let reason = k8sctl_rpc::chain(&self).to_string();
        let (path, first) = match &self {
            Self::Own(_) => {
                let next = format!("compare the versions with: {}", source.command(&["version"]));
                return Failure::new("HOST-KUBECONFIG", "kubeconfig", reason, next);
            }
            Self::Locked { path, lock } => (path, format!("when no kubectl runs, remove {}", lock.display())),
            Self::Io { path, source: error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                (path, "make it yours to read and write, or name another file in KUBECONFIG".to_owned())
            }
            Self::Parse { path, .. } | Self::Io { path, .. } => (path, "mend or move the file".to_owned()),
        };
        let object = format!("file {}", path.display());
        Failure::new("HOST-KUBECONFIG", object, reason, format!("{first}, then run: {again}"))
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Installed {
    /// The file with the context.
    pub path: PathBuf,
    /// Name of the context.
    pub context: String,
    /// It is the current context.
    pub current: bool,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// The files that held something of it; none where nothing was there.
    pub paths: Vec<PathBuf>,
    /// Name of the context.
    pub context: String,
}

/// The host agent's kubeconfig with our names, for itself.
pub fn renamed(source: &Source, own: &str, cluster: &str) -> Result<String, Failure> {
    merge::renamed(own, &context_name(cluster)).map_err(|error| error.into_failure(source, ""))
}

/// Adds or replaces the cluster's entries in the user's files. A current context that lives stays, unless
/// `force_context`.
pub async fn install(
    source: &Source,
    own: &str,
    cluster: &str,
    force_context: bool,
) -> Result<Installed, Failure> {
    let files = user_files(source)?;
    let mut again = vec!["kubeconfig", cluster];
    again.extend(force_context.then_some("--force-context"));
    install_in(&files, own, &context_name(cluster), force_context)
        .await
        .map_err(|error| error.into_failure(source, &source.command(&again)))
}

async fn install_in(
    files: &[PathBuf],
    own: &str,
    context: &str,
    force: bool,
) -> Result<Installed, KubeconfigError> {
    let own = Own::parse(own)?;
    let (added, _) = file::change(files, |files| merge::add(files, &own, context, force)).await?;
    Ok(Installed { path: added.path, context: context.to_owned(), current: added.current })
}

/// Removes the cluster's entries from all of the user's files, and `current-context` where it is ours.
pub async fn remove(source: &Source, cluster: &str) -> Result<Removed, Failure> {
    let files = user_files(source)?;
    let context = context_name(cluster);
    let again = by_hand(cluster);
    let removed = remove_in(&files, &context).await.map_err(|error| error.into_failure(source, &again))?;
    Ok(Removed { paths: removed, context })
}

async fn remove_in(files: &[PathBuf], context: &str) -> Result<Vec<PathBuf>, KubeconfigError> {
    let ((), written) = file::change(files, |files| {
        merge::remove(files, context);
        Ok(())
    })
    .await?;
    Ok(written)
}

/// The commands that remove the cluster's entries.
pub fn by_hand(cluster: &str) -> String {
    let name = context_name(cluster);
    let commands = ["context", "cluster", "user"].map(|kind| format!("kubectl config delete-{kind} {name}"));
    commands.join(" && ")
}

/// The files that kubectl reads, in its order: those of `KUBECONFIG`, else `~/.kube/config`.
fn user_files(source: &Source) -> Result<Vec<PathBuf>, Failure> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let listed: Vec<_> = std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    home.map(|home| vec![home.join(".kube").join("config")]).ok_or_else(|| {
        let reason = "neither KUBECONFIG nor HOME is set";
        let print = source.command(&["kubeconfig", "--print"]);
        let next = format!("set KUBECONFIG, or print it with: {print}");
        Failure::new("HOST-KUBECONFIG", "kubeconfig", reason, next)
    })
}

#[cfg(test)]
mod tests;
