//! Which host agent is meant: flags and environment first, then the host agent's own config, then the defaults.

use std::path::{Path, PathBuf};

use k8sctl_types::config_file;
use k8sctl_types::failure::Failure;
use serde::Deserialize;

use crate::terminal::visible;

/// Where the host agent's config lies unless told otherwise.
const DEFAULT_CONFIG: &str = "/etc/k8s-myhome/host-agent.toml";
const SOCKET_NAME: &str = "api.sock";

/// What the user said about where the host agent is.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `--socket` or `K8SCTL_SOCKET`.
    pub socket: Option<PathBuf>,
    /// `--config` or `K8SCTL_CONFIG`.
    pub config: Option<PathBuf>,
}

impl Source {
    /// A command to type next, `k8sctl` and these words, for the same host agent: what the command line says about it is
    /// said again, what the environment says holds by itself.
    pub fn command(&self, words: &[&str]) -> String {
        let holds = |name: &str, path: &Path| std::env::var_os(name).is_some_and(|value| value == *path);
        let flags = self.flags(holds);
        let flags = flags.iter().map(String::as_str);
        let words = ["k8sctl"].into_iter().chain(flags).chain(words.iter().copied());
        // No argument of a program has the one character in it that cannot be quoted.
        visible(&shlex::try_join(words).unwrap_or_default())
    }

    /// The flags that are needed where only some of it `holds` by a variable.
    fn flags(&self, holds: impl Fn(&str, &Path) -> bool) -> Vec<String> {
        let said = [("--config", "K8SCTL_CONFIG", &self.config), ("--socket", "K8SCTL_SOCKET", &self.socket)];
        let mut flags = Vec::new();
        for (flag, name, path) in said {
            if let Some(path) = path
                && !holds(name, path)
            {
                flags.extend([flag.to_owned(), path.display().to_string()]);
            }
        }
        flags
    }
}

/// Where the host agent is and how it would be started.
#[derive(Debug)]
pub struct Settings {
    /// Its control socket.
    pub socket: PathBuf,
    /// The config that was named; `None` means: the default one, there or not.
    pub config: Option<PathBuf>,
    /// Its run directory.
    pub run_dir: PathBuf,
    /// Its state directory.
    pub state_dir: PathBuf,
    /// A host agent with this config would listen on this socket.
    pub may_start: bool,
}

/// The keys of the host agent's config that are of interest here. The host agent itself checks the rest.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Keys {
    #[serde(deserialize_with = "config_file::absolute")]
    run_dir: PathBuf,
    #[serde(deserialize_with = "config_file::absolute")]
    state_dir: PathBuf,
}

impl Default for Keys {
    fn default() -> Self {
        Self { run_dir: "/run/k8s-myhome".into(), state_dir: "/var/lib/k8s-myhome".into() }
    }
}

impl Settings {
    /// Reads the config where there is one. One that cannot be used is no mistake where the socket is named: then it
    /// is only not known how a host agent would be started.
    pub fn load(source: &Source) -> Result<Self, Failure> {
        let default = || Some(Path::new(DEFAULT_CONFIG)).filter(|path| path.exists());
        let path = source.config.as_deref().or_else(default);
        let (keys, is_known) = match path.map_or_else(|| Ok(Keys::default()), read) {
            Ok(keys) => (keys, true),
            Err(_) if source.socket.is_some() => (Keys::default(), false),
            Err(failure) => return Err(failure),
        };
        let own = keys.run_dir.join(SOCKET_NAME);
        let socket = source.socket.clone().unwrap_or_else(|| own.clone());
        let config = source.config.as_deref().map(std::path::absolute).transpose().unwrap_or_default();
        Ok(Self {
            may_start: is_known && socket == own,
            socket,
            config,
            run_dir: keys.run_dir,
            state_dir: keys.state_dir,
        })
    }
}

fn read(path: &Path) -> Result<Keys, Failure> {
    let failure = |reason: String| {
        let object = format!("config {}", path.display());
        Failure::new("HOST-CONFIG", object, reason, "mend the file, or name another one with --config")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failure(format!("cannot read it: {error}")))?;
    config_file::check::<Keys>(&text).map_err(|mistakes| failure(mistakes.join("; ")))?;
    toml::from_str(&text).map_err(|error| failure(error.message().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_lies_in_the_run_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("host-agent.toml");
        std::fs::write(&config, "run_dir = '/tmp/r'\nnode_port = 1\n").expect("writes");
        let source = Source { socket: None, config: Some(config) };
        let settings = Settings::load(&source).expect("valid");
        assert_eq!(settings.socket, Path::new("/tmp/r/api.sock"));
        assert!(settings.may_start);
        let elsewhere = Source { socket: Some("/tmp/other.sock".into()), ..source };
        assert!(!Settings::load(&elsewhere).expect("valid").may_start);
    }

    #[test]
    fn every_mistake_in_the_config_is_told_with_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("host-agent.toml");
        std::fs::write(&config, "run_dir = 'run'\nnode_port =\n\nstate_dir = 1\n").expect("writes");
        let source = Source { socket: None, config: Some(config) };
        let failure = Settings::load(&source).expect_err("mistakes");
        let told: Vec<_> = failure.reason.split("; ").collect();
        let beginnings = ["line 1: run_dir: got \"run\"", "line 2: ", "line 4: state_dir: "];
        assert_eq!((failure.id.as_str(), told.len()), ("HOST-CONFIG", beginnings.len()), "{told:#?}");
        for (mistake, beginning) in told.iter().zip(beginnings) {
            assert!(mistake.starts_with(beginning) && !mistake.contains('\n'), "{mistake}");
        }
    }

    #[test]
    fn a_config_that_cannot_be_used_matters_only_where_no_socket_is_named() {
        let source = Source { socket: None, config: Some("/no/such/file".into()) };
        assert_eq!(Settings::load(&source).expect_err("not there").id, "HOST-CONFIG");
        // That of a host agent by the defaults, which this may not be.
        let socket = Keys::default().run_dir.join(SOCKET_NAME);
        let named = Source { socket: Some(socket.clone()), ..source };
        let settings = Settings::load(&named).expect("the socket is known");
        assert_eq!((settings.socket, settings.may_start), (socket, false));
    }

    #[test]
    fn a_command_to_type_next_is_for_the_same_host_agent() {
        let source = Source { socket: Some("/run/it's".into()), config: Some("a b.toml".into()) };
        let line = source.command(&["plugin", "add", "hello", "--set", "title=$HOME", "--config", "*.toml"]);
        let words = shlex::split(&line).expect("words of a shell");
        let expected = [
            "k8sctl",
            "--config",
            "a b.toml",
            "--socket",
            "/run/it's",
            "plugin",
            "add",
            "hello",
            "--set",
            "title=$HOME",
            "--config",
            "*.toml",
        ];
        assert_eq!(words, expected);
        crate::cli::Cli::full_command().try_get_matches_from(words).expect("it is taken");
        assert_eq!(Source::default().command(&["status", "-w"]), "k8sctl status -w");
        // What the environment says needs no word.
        assert_eq!(source.flags(|name, _| name == "K8SCTL_SOCKET"), ["--config", "a b.toml"]);
    }
}
