//! What can go wrong with a package, and the failures that people see of it.

use std::path::PathBuf;

use k8sctl_types::failure::Failure;

use crate::PLATFORM;

/// An operation on a package failed.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file of a package could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file that `plugin.toml` lists is not there.
    #[error("{path} is not there")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Something else than a file or a folder of files.
    #[error("{path} is no regular file: packages have no links, pipes or devices")]
    NotPlain {
        /// What it is.
        path: PathBuf,
    },
    /// A file is larger than anybody reads.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How many there may be.
        limit: u64,
    },
    /// `plugin.toml` is not right.
    #[error("{path} has {} mistake(s): {}", .mistakes.len(), .mistakes.join("; "))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// Each of them.
        mistakes: Vec<String>,
    },
    /// `plugin.toml` has no digests: it is a source folder.
    #[error("{folder} is a plugin's source: its plugin.toml has no [[binary]]")]
    NotBuilt {
        /// The folder.
        folder: PathBuf,
    },
    /// A file has another size than `plugin.toml` says.
    #[error("{path} has {got} bytes, plugin.toml says {expected}")]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        got: u64,
        /// The one in `plugin.toml`.
        expected: u64,
    },
    /// A file has another digest than `plugin.toml` says.
    #[error("{path} has the SHA-256 {got}, expected {expected}")]
    Digest {
        /// The file.
        path: PathBuf,
        /// Its digest.
        got: String,
        /// The one in `plugin.toml`.
        expected: String,
    },
    /// Files that `plugin.toml` does not list.
    #[error("plugin.toml does not list what lies in {folder}: {}", .names.join(", "))]
    Unlisted {
        /// The package.
        folder: PathBuf,
        /// What lies there.
        names: Vec<String>,
    },
    /// There is no program for this machine.
    #[error("{folder} has no program for {platform}, only for: {}", .has.join(", "), platform = PLATFORM)]
    Platform {
        /// The package.
        folder: PathBuf,
        /// Platforms for which there is one.
        has: Vec<String>,
    },
    /// `schema.json` is missing or is no JSON.
    #[error("the schema of {folder} cannot be used: {reason}")]
    Schema {
        /// The package.
        folder: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A signature does not fit what it signs.
    #[error("the signature in plugin.toml.sig is not one of plugin.toml: {reason}")]
    Signature {
        /// The library's reason.
        reason: String,
    },
    /// A signature of a key that nobody trusts here.
    #[error("it is signed with the key {key}, which is not among the trusted ones")]
    UnknownKey {
        /// Its id, 16 hex digits.
        key: String,
    },
    /// Nobody signed it.
    #[error("nobody vouches for {folder}: it is neither built in nor signed")]
    Unsigned {
        /// The package.
        folder: PathBuf,
    },
    /// A key cannot be used.
    #[error("the key {what} cannot be used: {reason}")]
    Key {
        /// Its file or its use.
        what: String,
        /// Why.
        reason: String,
    },
    /// An archive is none of a package.
    #[error("the archive {path} is refused: {reason}")]
    Archive {
        /// The archive.
        path: PathBuf,
        /// Which limit it breaks, or what cannot be read or written.
        reason: String,
    },
    /// A package, an archive or a signature could not be made.
    #[error("cannot make {path}: {reason}")]
    Build {
        /// What was to be made.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl PackageError {
    /// The failure that a person sees, with what to do next.
    pub fn failure(&self, plugin: &str) -> Failure {
        let (id, next) = match self {
            Self::Read { path, .. } | Self::TooLarge { path, .. } => (
                "PLUGIN-MANIFEST",
                format!("see that {} is a file of a package, and readable", path.display()),
            ),
            Self::Mistakes { path, .. } => {
                ("PLUGIN-MANIFEST", format!("correct {}, or take the folder away", path.display()))
            }
            Self::NotBuilt { folder } => {
                ("PLUGIN-MANIFEST", format!("build a package of {} (k8sctl plugin build)", folder.display()))
            }
            Self::Missing { .. } | Self::NotPlain { .. } | Self::Unlisted { .. } | Self::Schema { .. } => {
                ("PLUGIN-MANIFEST", "build or copy the package again, as a whole".to_owned())
            }
            Self::Size { .. } | Self::Digest { .. } => {
                ("PLUGIN-DIGEST", "somebody changed it after it was built: get the package again".to_owned())
            }
            Self::Platform { .. } => {
                ("PLUGIN-PLATFORM", format!("get a package with a program for {PLATFORM}, or build one"))
            }
            Self::Signature { .. } => {
                ("PLUGIN-SIGNATURE", "do not use it; get the package again from whom you trust".to_owned())
            }
            Self::UnknownKey { .. } => (
                "PLUGIN-SIGNATURE",
                "if you trust its owner, put the public key into the host agent's plugin_key_dir, and restart that"
                    .to_owned(),
            ),
            Self::Unsigned { .. } => (
                "PLUGIN-UNSIGNED",
                "sign it (k8sctl plugin sign), or try it out as your own (k8sctl plugin add --dev)"
                    .to_owned(),
            ),
            Self::Key { .. } => (
                "PLUGIN-KEY",
                "use a key that minisign made, or a new one (k8sctl plugin sign --new-key FILE)".to_owned(),
            ),
            Self::Archive { .. } => {
                ("PLUGIN-ARCHIVE", "make it again (k8sctl plugin package), and copy it as a whole".to_owned())
            }
            Self::Build { path, .. } => {
                ("PLUGIN-BUILD", format!("correct that, or name another place than {}", path.display()))
            }
        };
        let cause = std::error::Error::source(self).map(|cause| format!(": {cause}")).unwrap_or_default();
        let failure = Failure::new(id, format!("plugin {plugin}"), format!("{self}{cause}"), next);
        match self {
            Self::Mistakes { mistakes, .. } => failure.with_evidence(mistakes.join("\n")),
            _ => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_file_the_reason_and_the_next_step() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let failure = PackageError::Read { path: "/p/plugin.toml".into(), source }.failure("hello");
        assert_eq!((failure.id.as_str(), failure.object.as_str()), ("PLUGIN-MANIFEST", "plugin hello"));
        assert_eq!(failure.reason, "cannot read /p/plugin.toml: permission denied");
        assert!(failure.next_step.contains("/p/plugin.toml"), "{failure:?}");
    }

    #[test]
    fn all_mistakes_are_the_evidence() {
        let mistakes = vec!["name: a".to_owned(), "format: b".to_owned()];
        let failure = PackageError::Mistakes { path: "plugin.toml".into(), mistakes }.failure("hello");
        assert_eq!(failure.evidence, "name: a\nformat: b");
        assert!(failure.reason.contains("2 mistake(s)"), "{failure:?}");
    }
}
