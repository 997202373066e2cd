//! The host agent's own configuration: a TOML file, every key with a default, all mistakes at once.
//!
//! Read once by `main`; `k8sctl` reads the same file to find the socket.

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/k8s-myhome/host-agent.toml";

/// All keys of the file.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Database and certificate authorities. Mode 0700.
    pub state_dir: PathBuf,
    /// `api.sock` and the pid file. Emptied by a reboot.
    pub run_dir: PathBuf,
    /// Directory of the libvirt pool: disks, kernels, initrds.
    pub pool_dir: PathBuf,
    /// Node images.
    pub image_dir: PathBuf,
    /// Bundles.
    pub bundle_dir: PathBuf,
    /// One directory per plugin.
    pub plugin_dir: PathBuf,
    /// The node agent that goes into images.
    pub node_agent: PathBuf,
    /// libvirt's URI.
    pub libvirt_uri: String,
    /// Start libvirt's daemons where they do not run. For this host's system libvirt only; others are left alone.
    pub start_libvirt: bool,
    /// Port on the bridge address where node agents dial in.
    pub node_port: u16,
    /// Listen here for node agents instead of on the bridge address. For libvirt's test driver, which has no bridge.
    pub node_listen: Option<SocketAddr>,
    /// Serve the join channel of each VM as a unix socket in this directory, instead of through virtio-serial.
    /// For libvirt's test driver, which has no devices.
    pub join_channel_dir: Option<PathBuf>,
    /// Take nodes for Ready when their agents say so, without asking a Kubernetes API. For simulated agents.
    pub simulated_kubernetes: bool,
    /// How long an operation may take unless the user says otherwise: `"45m"`, `"1h 30m"`.
    #[serde(with = "duration")]
    pub operation_deadline: Duration,
    /// A VM whose agent has not called home for so long fails the operation: `"15m"`.
    #[serde(with = "duration")]
    pub silence_deadline: Duration,
    /// Events kept, the last ones.
    pub event_retention: NonZeroU64,
    /// Members of this group may look. Unset means: nobody but operators and admins.
    pub reader_group: Option<String>,
}

impl Default for HostConfig {
    fn default() -> Self {
        let state = Path::new("/var/lib/k8s-myhome");
        Self {
            state_dir: state.to_owned(),
            run_dir: "/run/k8s-myhome".into(),
            pool_dir: "/var/lib/libvirt/images/k8s-myhome".into(),
            image_dir: state.join("images"),
            bundle_dir: state.join("bundles"),
            plugin_dir: "/usr/lib/k8s-myhome/plugins".into(),
            node_agent: "/usr/lib/k8s-myhome/k8s-node-agent".into(),
            libvirt_uri: "qemu:///system".to_owned(),
            start_libvirt: true,
            node_port: 7443,
            node_listen: None,
            join_channel_dir: None,
            simulated_kubernetes: false,
            operation_deadline: Duration::from_secs(60 * 60),
            silence_deadline: Duration::from_secs(15 * 60),
            event_retention: const { NonZeroU64::new(100_000).expect("it is not zero") },
            reader_group: None,
        }
    }
}

/// A length of time as people write it: a number and a unit, `"30s"`, `"1h 30m"`.
mod duration {
    use std::time::Duration;

    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        match humantime::parse_duration(&text) {
            Ok(duration) if !duration.is_zero() => Ok(duration),
            Ok(_) => Err(D::Error::custom(format!("{text:?} is no time at all; write it like \"45m\""))),
            Err(error) => {
                Err(D::Error::custom(format!("{text:?}: {error}; write it like \"45m\" or \"30s\"")))
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }
}

/// The file could not be read or holds mistakes.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the configuration {path}")]
pub struct ConfigError {
    path: PathBuf,
    #[source]
    source: config::ConfigError,
}

impl HostConfig {
    /// Reads the file. A missing file at the default place means: all defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let required = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_PATH));
        let error = |source| ConfigError { path: path.to_owned(), source };
        config::Config::builder()
            .add_source(config::File::from(path).format(config::FileFormat::Toml).required(required))
            .build()
            .map_err(error)?
            .try_deserialize()
            .map_err(error)
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// Holds the process id while the host agent runs, locked against a second one.
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir.join("k8s-host-agent.pid")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<HostConfig, ConfigError> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("host-agent.toml");
        std::fs::write(&path, text).expect("writes");
        HostConfig::load(Some(&path))
    }

    #[test]
    fn keys_override_defaults() {
        let config = load("node_port = 9000\nstate_dir = '/tmp/x'").expect("valid");
        assert_eq!((config.node_port, config.state_dir), (9000, PathBuf::from("/tmp/x")));
        assert_eq!(config.libvirt_uri, "qemu:///system");
    }

    #[test]
    fn times_have_units() {
        let config = load("silence_deadline = '90s'").expect("valid");
        assert_eq!(config.silence_deadline, Duration::from_secs(90));
        for wrong in ["silence_deadline = '15'", "silence_deadline = '0s'", "operation_deadline = 'soon'"] {
            let error = load(wrong).expect_err(wrong);
            let chain = format!("{}: {}", error, error.source);
            assert!(chain.contains("write it like"), "{chain}");
        }
    }

    #[test]
    fn an_event_log_that_keeps_nothing_is_refused() {
        assert_eq!(load("event_retention = 1").expect("valid").event_retention, NonZeroU64::MIN);
        let error = load("event_retention = 0").expect_err("nothing would be kept");
        assert!(error.source.to_string().contains("event_retention"), "{}", error.source);
    }

    #[test]
    fn the_page_has_every_key_with_its_default() {
        let page = include_str!("../../docs/configuration.md");
        let section = page.split("\n## The host agent's file\n").nth(1).expect("the page has the section");
        let section = section.split("\n## ").next().unwrap_or_default();
        let documented: Vec<(String, String)> = section
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| {
                let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
            })
            .collect();
        let defaults = serde_json::to_value(HostConfig::default()).expect("plain values");
        let mut expected: Vec<(String, String)> = defaults
            .as_object()
            .expect("a table")
            .iter()
            .map(|(key, value)| {
                let default = match value {
                    serde_json::Value::Null => "none".to_owned(),
                    serde_json::Value::String(text) => format!("`{text:?}`"),
                    other => format!("`{other}`"),
                };
                (key.clone(), default)
            })
            .collect();
        let mut documented_sorted = documented.clone();
        documented_sorted.sort();
        expected.sort();
        assert_eq!(documented_sorted, expected);
    }

    #[test]
    fn unknown_keys_are_errors() {
        let error = load("node_prot = 9000").expect_err("a misspelt key");
        let chain = format!("{}: {}", error, error.source);
        assert!(chain.contains("node_prot"), "{chain}");
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(HostConfig::load(Some(Path::new("/no/such/file"))).is_err());
    }
}
