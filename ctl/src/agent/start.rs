//! Starts the host agent where none runs: as systemd's unit where that is installed, else detached, through sudo
//! where the caller is not root. Returns when its socket answers.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::{CommandError, Program};
use k8sctl_types::failure::Failure;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::Settings;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::terminal::Context;

const UNIT: &str = "k8s-host-agent.service";
const PROGRAM: &str = "k8s-host-agent";
/// How long a host agent may take until its socket answers.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long a person may take to type a password.
const PASSWORD_DEADLINE: Duration = Duration::from_secs(120);
/// Between two looks at the socket.
const INTERVAL: Duration = Duration::from_millis(50);
/// How much of the log is shown, in bytes.
const TAIL: u64 = 4096;

/// What of our environment the host agent gets, which does the downloading.
const PROXIES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
];

/// Takes variables from standard input, for sudo keeps none and an argument is everybody's to read; makes the
/// directory and the log, which are private, while those above the directory are not; allows as many open files as the
/// unit does or the system lets it, adds the directories of daemons to the PATH, which root by `su` lacks, begins the
/// host agent in a session of its own and prints its process id. `$1` is the state directory, `$2` the log, the rest is
/// the command line.
const DETACH: &str = r#"
while IFS= read -r variable; do
  export "$variable"
done
# Of whoever runs us: the host agent writes into its log.
unset JOURNAL_STREAM
umask 022
mkdir -p -m 0700 -- "$1" || exit
umask 077
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
log=$2
shift 2
setsid "$@" </dev/null >>"$log" 2>&1 &
echo "$!"
"#;

/// How a host agent is started here.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Systemd,
    Detached { program: PathBuf },
}

/// Starts a host agent and waits until its socket answers.
pub(super) async fn start(context: &Context, settings: &Settings) -> Result<(), Ended> {
    let way = find_way(settings).await?;
    let needs_root = !rustix::process::geteuid().is_root() && !is_own(&settings.run_dir);
    let sudo = needs_root.then(|| sudo(context));
    let sudo = match sudo {
        Some(future) => Some(future.await?),
        None => None,
    };
    // To standard error: it is not what was asked for.
    let _ = context.err.line("starting the host agent …");
    match way {
        Way::Systemd => {
            let argv = ["systemctl", "start", UNIT].map(str::to_owned);
            run(sudo, &argv, None)
                .await
                .map_err(|error| failed(settings, &way, &k8sctl_rpc::chain(&error).to_string()))?;
            wait(settings, &way, None).await
        }
        Way::Detached { ref program } => {
            let mut argv = vec!["sh".to_owned(), "-c".to_owned(), DETACH.to_owned(), "sh".to_owned()];
            argv.push(settings.state_dir.display().to_string());
            argv.push(log_file(settings).display().to_string());
            argv.push(program.display().to_string());
            if let Some(config) = &settings.config {
                argv.extend(["--config".to_owned(), config.display().to_string()]);
            }
            let pid = run(sudo, &argv, Some(proxies(|name| std::env::var(name).ok())))
                .await
                .map_err(|error| failed(settings, &way, &k8sctl_rpc::chain(&error).to_string()))?;
            wait(settings, &way, pid.trim().parse().ok()).await
        }
    }
}

fn log_file(settings: &Settings) -> PathBuf {
    settings.state_dir.join("host-agent.log")
}

/// The proxies' variables that are set, as lines of `NAME=VALUE`.
fn proxies(variable: impl Fn(&str) -> Option<String>) -> String {
    let set = PROXIES.iter().filter_map(|name| Some((name, variable(name)?)));
    set.filter(|(_, value)| !value.contains('\n')).map(|(name, value)| format!("{name}={value}\n")).collect()
}

/// A host agent whose directory is the caller's own runs as the caller.
fn is_own(run_dir: &Path) -> bool {
    let existing = run_dir.ancestors().find_map(|path| fs::metadata(path).ok());
    existing.is_some_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw())
}

/// systemd's unit has its own config, so it is only meant where no other was named.
async fn find_way(settings: &Settings) -> Result<Way, Ended> {
    if settings.config.is_none() && Path::new("/run/systemd/system").is_dir() {
        let cat = Program::new("systemctl", DEADLINE).args(["cat", UNIT]).run().await;
        if cat.is_ok() {
            return Ok(Way::Systemd);
        }
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(|dir| dir.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|dir| dir.join(PROGRAM));
    let program = beside.into_iter().chain(on_path).find(|program| program.is_file());
    program.map(|program| Way::Detached { program }).ok_or_else(|| {
        let reason = format!("none runs, and {PROGRAM} is neither beside k8sctl nor on the PATH");
        let next =
            "put it beside k8sctl, or its directory on the PATH; `make up` in the checkout installs both";
        Ended::with(Exit::Unreachable, Failure::new("HOST-AGENT-START", "host agent", reason, next))
    })
}

/// The arguments that make sudo work here: with a terminal it may ask, else it must not need to.
async fn sudo(context: &Context) -> Result<&'static [&'static str], Ended> {
    if context.can_ask {
        return Ok(&["sudo"]);
    }
    match Program::new("sudo", DEADLINE).args(["-n", "true"]).run().await {
        Ok(_) => Ok(&["sudo", "-n"]),
        Err(error) => {
            let reason = format!("none runs, and starting one needs root: {}", k8sctl_rpc::chain(&error));
            let next = "start it as root, or run this with sudo or on a terminal";
            Err(Ended::with(Exit::Unreachable, Failure::new("HOST-AGENT-START", "host agent", reason, next)))
        }
    }
}

async fn run(sudo: Option<&[&str]>, argv: &[String], stdin: Option<String>) -> Result<String, CommandError> {
    let words = sudo.unwrap_or_default().iter().map(|word| (*word).to_owned());
    let mut words = words.chain(argv.iter().cloned());
    let program = words.next().expect("the command line is not empty");
    // sudo asks on the terminal itself, not on standard input.
    let deadline = if sudo.is_some() { PASSWORD_DEADLINE } else { DEADLINE };
    let program = Program::new(program, deadline).args(words);
    match stdin {
        Some(text) => program.stdin(text).run().await,
        None => program.run().await,
    }
}

/// Waits for the socket; a process that ended is not waited for.
async fn wait(settings: &Settings, way: &Way, pid: Option<u32>) -> Result<(), Ended> {
    let end = Instant::now() + DEADLINE;
    loop {
        let reason = match UnixStream::connect(&settings.socket).await {
            Ok(_) => return Ok(()),
            // It listens; that the caller may not is said by the next try.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            Err(error) => error.to_string(),
        };
        if let Some(pid) = pid
            && has_ended(pid)
        {
            return Err(failed(settings, way, "it ended at once"));
        }
        if Instant::now() >= end {
            let socket = settings.socket.display();
            let reason =
                format!("its socket {socket} did not answer within {} s: {reason}", DEADLINE.as_secs());
            return Err(failed(settings, way, &reason));
        }
        sleep(INTERVAL).await;
    }
}

fn has_ended(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses and may hold anything.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

fn failed(settings: &Settings, way: &Way, reason: &str) -> Ended {
    let log = log_file(settings);
    let next = match way {
        Way::Systemd => format!("see why with: journalctl -u {UNIT} -n 50"),
        Way::Detached { .. } => format!("mend what its log says ({}), then try again", log.display()),
    };
    let evidence = match way {
        Way::Systemd => String::new(),
        Way::Detached { .. } => {
            k8sctl_command::end_of_file(&log, TAIL).map(|(text, _)| text).unwrap_or_default()
        }
    };
    let failure =
        Failure::new("HOST-AGENT-START", "host agent", format!("it could not be started: {reason}"), next);
    Ended::with(Exit::Unreachable, failure.with_evidence(evidence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_handed_on_and_nothing_else() {
        let variables = [
            ("https_proxy", "http://u:p@proxy:1"),
            ("NO_PROXY", ".lan"),
            ("HOME", "/root"),
            ("all_proxy", "a\nb=c"),
        ];
        let variable =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        assert_eq!(proxies(variable), "https_proxy=http://u:p@proxy:1\nNO_PROXY=.lan\n");
    }
}
