//! What can go wrong with node images, and how a person is told.

use std::io;
use std::path::{Path, PathBuf};

use k8sctl_command::CommandError;
use k8sctl_types::failure::Failure;

/// An image that cannot be built, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A program that building needs is not installed.
    #[error("{program} is not installed")]
    ToolMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A suite that nobody knows.
    #[error("unknown suite {suite:?}")]
    Suite {
        /// The suite asked for.
        suite: String,
    },
    /// A program of the build failed.
    #[error("cannot {step}")]
    Program {
        /// What it was to do.
        step: &'static str,
        /// How it ended.
        #[source]
        source: CommandError,
    },
    /// The file system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The operating system's packages lack something that an image needs.
    #[error("the base system has no {what}")]
    Incomplete {
        /// What was looked for.
        what: String,
    },
    /// The bundle is broken.
    #[error("the bundle cannot be used")]
    Bundle(#[source] crate::bundle::BundleError),
    /// No image has this id, or several begin with it.
    #[error("{count} images have an id that begins with {id:?}")]
    Unknown {
        /// What was asked for.
        id: String,
        /// How many fit.
        count: usize,
    },
    /// A file of an image is not as it was made.
    #[error("image {id}: {}: {reason}", path.display())]
    Damaged {
        /// The image.
        id: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A cluster still runs on it.
    #[error("image {id} is in use")]
    InUse {
        /// The image.
        id: String,
        /// Names of the clusters.
        clusters: Vec<String>,
    },
}

impl ImageError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::ToolMissing { program, package } => Failure::new(
                "IMAGE-TOOL-MISSING",
                format!("program {program}"),
                "it is not installed, and building an image needs it",
                format!("install the package {package}: `apt-get install {package}`"),
            ),
            ImageError::Suite { suite } => Failure::new(
                "IMAGE-SUITE",
                format!("suite {suite}"),
                "it is no Debian or Ubuntu suite that images can be made of",
                format!("set image.suite to one of {}", k8sctl_types::suite::names()),
            ),
            ImageError::Program { step, source } => {
                let evidence = source.evidence().map(ToString::to_string).unwrap_or_default();
                Failure::new(
                    "IMAGE-BUILD",
                    "node image",
                    format!("cannot {step}: {source}"),
                    "read the output that is shown; a mirror that is out of reach and a full disk are the usual causes; \
                     then run the command again, nothing half-made is kept",
                )
                .with_evidence(evidence)
            }
            ImageError::Io { doing, path, source } => Failure::new(
                "IMAGE-IO",
                format!("file {}", path.display()),
                format!("cannot {doing} it: {source}"),
                "check that its directory may be written and that the disk has room, then run the command again",
            ),
            ImageError::Incomplete { what } => Failure::new(
                "IMAGE-BUILD",
                "node image",
                format!("the base system has no {what}"),
                "check the machine's apt sources for the suite (main, and for Ubuntu universe, must be there)",
            ),
            ImageError::Bundle(error) => error.into(),
            ImageError::Unknown { id, count } => Failure::new(
                "IMAGE-UNKNOWN",
                format!("image {id}"),
                match count {
                    0 => "no image has an id that begins so".to_owned(),
                    _ => format!("{count} images have an id that begins so; name more of it"),
                },
                "`k8sctl image list` shows the ids",
            ),
            ImageError::Damaged { id, path, reason } => Failure::new(
                "IMAGE-DAMAGED",
                format!("image {id}"),
                format!("{}: {reason}", path.display()),
                "build it again with `k8sctl image build -f FILE`, your cluster file; running VMs keep what they have",
            ),
            ImageError::InUse { id, clusters } => {
                let (whose, them) = match clusters.len() {
                    1 => ("a cluster's nodes", "that cluster down or move it"),
                    _ => ("nodes of several clusters", "those clusters down or move them"),
                };
                Failure::new(
                    "IMAGE-IN-USE",
                    format!("image {id}"),
                    format!("{whose} run on it: {}", clusters.join(", ")),
                    format!("take {them} to another image first"),
                )
            }
        }
    }
}
