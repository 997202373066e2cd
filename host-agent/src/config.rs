//! The host agent's own configuration: a TOML file, every key with a default, all mistakes at once.
//!
//! Read once by `main`; `k8sctl` reads the same file to find the socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_types::config_file;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

mod telemetry;

/// Where the configuration lies unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/k8s-myhome/host-agent.toml";

/// All keys of the file. Paths are absolute: where the host agent was started means nothing.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Database and certificate authorities. Mode 0700.
    #[serde(deserialize_with = "config_file::absolute")]
    pub state_dir: PathBuf,
    /// `api.sock`, `metrics.sock` and the pid file. Emptied by a reboot.
    #[serde(deserialize_with = "config_file::absolute")]
    pub run_dir: PathBuf,
    /// Directory of the libvirt pool: disks, kernels, initrds.
    #[serde(deserialize_with = "config_file::absolute")]
    pub pool_dir: PathBuf,
    /// Node images.
    #[serde(deserialize_with = "config_file::absolute")]
    pub image_dir: PathBuf,
    /// Bundles.
    #[serde(deserialize_with = "config_file::absolute")]
    pub bundle_dir: PathBuf,
    /// One directory per plugin.
    #[serde(deserialize_with = "config_file::absolute")]
    pub plugin_dir: PathBuf,
    /// Public keys of those whose plugins are taken: each `*.pub` in it, as minisign writes them.
    #[serde(deserialize_with = "config_file::absolute")]
    pub plugin_key_dir: PathBuf,
    /// How often it is looked whether a plugin's objects are still as they were applied: `"60s"`.
    #[serde(with = "duration")]
    pub plugin_drift_interval: Duration,
    /// The node agent that goes into images.
    #[serde(deserialize_with = "config_file::absolute")]
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
    #[serde(deserialize_with = "config_file::absolute_if_any")]
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
    #[serde(deserialize_with = "at_least_one")]
    pub event_retention: u64,
    /// Members of this group may look. Unset means: nobody but operators and admins.
    pub reader_group: Option<String>,
    /// Serve the metrics at this loopback address, to everybody on the host. Unset means: on their socket alone.
    #[serde(deserialize_with = "telemetry::loopback_if_any")]
    pub metrics_listen: Option<SocketAddr>,
    /// Send traces of operations to the OpenTelemetry collector at this URL, `"http://127.0.0.1:4317"`. Unset means:
    /// nowhere.
    #[serde(deserialize_with = "telemetry::endpoint_if_any")]
    pub trace_endpoint: Option<String>,
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
            plugin_key_dir: "/etc/k8s-myhome/plugin-keys.d".into(),
            plugin_drift_interval: Duration::from_secs(60),
            node_agent: "/usr/lib/k8s-myhome/k8s-node-agent".into(),
            libvirt_uri: "qemu:///system".to_owned(),
            start_libvirt: true,
            node_port: 7443,
            node_listen: None,
            join_channel_dir: None,
            simulated_kubernetes: false,
            operation_deadline: Duration::from_secs(60 * 60),
            silence_deadline: Duration::from_secs(15 * 60),
            event_retention: 100_000,
            reader_group: None,
            metrics_listen: None,
            trace_endpoint: None,
        }
    }
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match u64::deserialize(from)? {
        0 => Err(D::Error::custom("got 0, expected at least 1")),
        count => Ok(count),
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

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// All of them, each with line and key.
    #[error("mend the configuration {}:\n{}", path.display(), mistakes.join("\n"))]
    Mistakes {
        /// The file.
        path: PathBuf,
        /// A sentence each, in the order of the file.
        mistakes: Vec<String>,
    },
}

impl HostConfig {
    /// Reads the file. A missing file at the default place means: all defaults.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let required = path.is_some();
        let path = path.unwrap_or(Path::new(DEFAULT_PATH));
        match std::fs::read_to_string(path) {
            Ok(text) => {
                parse(&text).map_err(|mistakes| ConfigError::Mistakes { path: path.to_owned(), mistakes })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// The socket of the metrics.
    pub fn metrics_socket(&self) -> PathBuf {
        self.run_dir.join("metrics.sock")
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join("k8s-myhome.db")
    }

    /// Locked while the host agent of this state directory runs, wherever its socket is.
    pub fn lock_file(&self) -> PathBuf {
        self.state_dir.join("k8s-host-agent.lock")
    }

    /// Holds the process id while the host agent runs, locked against a second one.
    pub fn pid_file(&self) -> PathBuf {
        self.run_dir.join("k8s-host-agent.pid")
    }
}

/// The keys of a text, or every mistake in it: the crate config ends with the first one, and names no line.
fn parse(text: &str) -> Result<HostConfig, Vec<String>> {
    config_file::check::<HostConfig>(text)?;
    read(text).map_err(|error| vec![error.to_string()])
}

fn read(text: &str) -> Result<HostConfig, config::ConfigError> {
    let file = config::File::from_str(text, config::FileFormat::Toml);
    config::Config::builder().add_source(file).build()?.try_deserialize()
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
            let told = load(wrong).expect_err(wrong).to_string();
            assert!(told.contains("write it like"), "{told}");
        }
    }

    #[test]
    fn paths_are_absolute_and_an_event_is_kept() {
        let paths = [
            "state_dir",
            "run_dir",
            "pool_dir",
            "image_dir",
            "bundle_dir",
            "plugin_dir",
            "plugin_key_dir",
            "node_agent",
            "join_channel_dir",
        ];
        // Whatever else is a path belongs among them.
        let defaults = serde_json::to_value(HostConfig::default()).expect("plain values");
        for (key, value) in defaults.as_object().expect("a table") {
            let is_path = value.as_str().is_some_and(|text| text.starts_with('/'));
            assert!(!is_path || paths.contains(&key.as_str()), "{key}");
        }
        let text = format!("{} = './here'\nevent_retention = 0\n", paths.join(" = 'here'\n"));
        let ConfigError::Mistakes { mistakes, .. } = load(&text).expect_err("mistakes") else {
            panic!("it can be read")
        };
        assert_eq!(mistakes.len(), paths.len() + 1, "{mistakes:#?}");
        for (index, (mistake, key)) in mistakes.iter().zip(paths).enumerate() {
            let told = format!("line {}: {key}: got ", index + 1);
            assert!(mistake.starts_with(&told) && mistake.contains("an absolute path"), "{mistake}");
        }
        assert_eq!(mistakes[paths.len()], "line 10: event_retention: got 0, expected at least 1");
        let least = load("event_retention = 1\njoin_channel_dir = '/run/channels'").expect("valid");
        assert_eq!(
            (least.event_retention, least.join_channel_dir),
            (1, Some(PathBuf::from("/run/channels")))
        );
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
    fn all_mistakes_are_told_each_with_its_line() {
        let text = "node_prot = 9000\n\nnode_port = 70000\nrun_dir = 1\nstart_libvirt = 'no'\n\
                    silence_deadline = 'soon'\nevent_retention =\npool_dir = '/p'\nnode_listen = 'x'\n";
        let ConfigError::Mistakes { mistakes, .. } = load(text).expect_err("mistakes") else {
            panic!("it can be read")
        };
        let told = [
            (1, "node_prot: unknown field"),
            (3, "node_port: "),
            (4, "run_dir: "),
            (5, "start_libvirt: "),
            (6, "silence_deadline: \"soon\": "),
            (7, ""),
            (9, "node_listen: "),
        ];
        assert_eq!(mistakes.len(), told.len(), "{mistakes:#?}");
        for (mistake, (line, beginning)) in mistakes.iter().zip(told) {
            assert!(mistake.starts_with(&format!("line {line}: {beginning}")), "{mistake}");
        }
        assert!(mistakes[0].contains("`node_port`"), "the known ones: {}", mistakes[0]);
    }

    #[test]
    fn a_named_file_must_be_there() {
        assert!(HostConfig::load(Some(Path::new("/no/such/file"))).is_err());
    }
}
