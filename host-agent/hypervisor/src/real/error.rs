//! What goes wrong at libvirt, and how a person meets it.

use std::path::PathBuf;

use k8sctl_command::CommandError;
use k8sctl_types::failure::Failure;
use virt::error::ErrorNumber;

use crate::xml::XmlError;

/// A call that libvirt, or the file system beside it, did not do.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// There is no connection, or it broke.
    #[error("libvirt at {uri} does not answer: {reason}")]
    Unreachable {
        /// Where it should be.
        uri: String,
        /// The last reason.
        reason: String,
    },
    /// libvirt refused.
    #[error("cannot {what} {object}")]
    Call {
        /// The call in words, `start`.
        what: &'static str,
        /// Kind and name of the object.
        object: String,
        /// libvirt's reason.
        #[source]
        source: virt::error::Error,
    },
    /// A document could not be read or written.
    #[error("cannot read or write the XML of {object}")]
    Xml {
        /// Kind and name of the object.
        object: String,
        /// The reason.
        #[source]
        source: XmlError,
    },
    /// A file could not be put in place or removed.
    #[error("cannot {what} {}", path.display())]
    File {
        /// The call in words.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A program failed.
    #[error("cannot look at the neighbours on {bridge}")]
    Neighbours {
        /// The bridge.
        bridge: String,
        /// The program's end.
        #[source]
        source: CommandError,
    },
    /// The host's end of a VM's interface stays off its bridge.
    #[error("cannot put {device} onto bridge {bridge}")]
    Tap {
        /// The link.
        device: String,
        /// The bridge.
        bridge: String,
        /// The program's end.
        #[source]
        source: CommandError,
    },
    /// A VM did not shut down.
    #[error("domain {domain} still runs")]
    StillRuns {
        /// Its name.
        domain: String,
    },
    /// Already what a person meets.
    #[error(transparent)]
    Failure(#[from] Failure),
}

/// Short form for the modules beside.
pub(crate) type Result<T> = std::result::Result<T, LibvirtError>;

/// Adds what was to be done, on which object.
pub(crate) trait Context<T> {
    fn call(self, what: &'static str, kind: &str, name: &str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, virt::error::Error> {
    fn call(self, what: &'static str, kind: &str, name: &str) -> Result<T> {
        self.map_err(|source| LibvirtError::Call { what, object: format!("{kind} {name}"), source })
    }
}

impl<T> Context<T> for std::result::Result<T, XmlError> {
    fn call(self, _what: &'static str, kind: &str, name: &str) -> Result<T> {
        self.map_err(|source| LibvirtError::Xml { object: format!("{kind} {name}"), source })
    }
}

/// Whether libvirt says that the object does not exist.
pub(crate) fn is_absent(error: &virt::error::Error) -> bool {
    [ErrorNumber::NoDomain, ErrorNumber::NoNetwork, ErrorNumber::NoStoragePool, ErrorNumber::NoStorageVolume]
        .into_iter()
        .any(|number| error.code() == number.into())
}

/// `None` where the object does not exist.
pub(crate) fn optional<T>(
    result: std::result::Result<T, virt::error::Error>,
) -> std::result::Result<Option<T>, virt::error::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The failure of an op on an object that is not there (any more).
pub(crate) fn missing(kind: &str, name: &str) -> Failure {
    Failure::new(
        "LIBVIRT-GONE",
        format!("{kind} {name}"),
        "it is not there although it was when the plan was made",
        "run the command again: it plans anew",
    )
}

/// The failure of an op on an object that is somebody else's.
pub(crate) fn not_ours(kind: &str, name: &str) -> Failure {
    Failure::new(
        "LIBVIRT-NOT-OURS",
        format!("{kind} {name}"),
        "it does not carry this cluster's mark; nothing was changed",
        "run the command again: it plans anew and says what stands in the way",
    )
}

impl From<LibvirtError> for Failure {
    fn from(error: LibvirtError) -> Self {
        let chain = chain(&error);
        match error {
            LibvirtError::Failure(failure) => failure,
            LibvirtError::Unreachable { uri, reason } => Self::new(
                "LIBVIRT-UNREACHABLE",
                format!("libvirt {uri}"),
                reason,
                "start it (`systemctl start virtlogd libvirtd`), see `k8sctl doctor`, then run the command again",
            ),
            LibvirtError::Call { object, .. } if is_disk_full(&chain) => disk_full_at_work(object, chain),
            LibvirtError::File { path, source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                disk_full_at_work(format!("file {}", path.display()), chain)
            }
            LibvirtError::Call { object, .. } | LibvirtError::Xml { object, .. } => Self::new(
                "LIBVIRT-OPERATION-FAILED",
                object,
                chain,
                "see libvirt's log (`journalctl -u libvirtd`) and `k8sctl doctor`, then run the command again",
            ),
            LibvirtError::File { path, .. } => Self::new(
                "HOST-FILE-FAILED",
                format!("file {}", path.display()),
                chain,
                "check the directory's owner, mode and file system, then run the command again",
            ),
            LibvirtError::Neighbours { bridge, source } => {
                let evidence = source.evidence().map(ToString::to_string).unwrap_or_default();
                let look = || {
                    format!("look at them with `ip -4 neigh show dev {bridge}`, then run the command again")
                };
                let next = without_ip(&source).unwrap_or_else(look);
                Self::new("HOST-NEIGHBOURS-UNREADABLE", format!("bridge {bridge}"), chain, next)
                    .with_evidence(evidence)
            }
            LibvirtError::Tap { device, bridge, source } => {
                let evidence = source.evidence().map(ToString::to_string).unwrap_or_default();
                let look = || {
                    format!(
                        "look at both with `ip link show {device}` and `ip link show {bridge}`, then run the command again"
                    )
                };
                let next = without_ip(&source).unwrap_or_else(look);
                Self::new("HOST-LINK-FAILED", format!("interface {device}"), chain, next)
                    .with_evidence(evidence)
            }
            LibvirtError::StillRuns { domain } => Self::new(
                "NODE-STILL-RUNS",
                format!("domain {domain}"),
                "it did not end, not even by force",
                format!("look at the VM with `virsh domstate {domain} --reason`, then run the command again"),
            ),
        }
    }
}

/// What to do where the `ip` program could not be run at all.
fn without_ip(error: &CommandError) -> Option<String> {
    let is_missing = matches!(error, CommandError::Start { .. });
    is_missing.then(|| "install iproute2, then run the command again".to_owned())
}

fn is_disk_full(text: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|sign| text.contains(sign))
}

fn disk_full_at_work(object: String, reason: String) -> Failure {
    Failure::new(
        "HOST-DISK-FULL",
        object,
        reason,
        "free space there, or set pool_dir to a directory on a larger file system; then run the command again",
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use k8sctl_command::Program;

    use super::*;

    async fn failed(program: &str) -> CommandError {
        Program::new(program, Duration::from_secs(10)).run().await.expect_err("it does not succeed")
    }

    #[tokio::test]
    async fn only_a_missing_program_is_to_be_installed() {
        for (program, is_missing) in [("no-such-program-of-ours", true), ("false", false)] {
            let bridge = || "virbr0".to_owned();
            for error in [
                LibvirtError::Neighbours { bridge: bridge(), source: failed(program).await },
                LibvirtError::Tap { device: "vnet0".into(), bridge: bridge(), source: failed(program).await },
            ] {
                let failure = Failure::from(error);
                assert_eq!(failure.next_step.contains("install iproute2"), is_missing, "{failure:?}");
            }
        }
    }
}
