//! A real terminal of any size: a tmux of its own, in which `k8sctl` runs between what a user sees before and after it.

#![expect(
    clippy::disallowed_methods,
    reason = "a test looks at the exit status and the output of the program itself"
)]

use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Bench, heeds_nothing};
use crate::{PATIENCE, PAUSE, program};

/// What runs in the terminal; behind it are the program and its arguments.
const AROUND: &str = r#"echo before
before=$(stty -g)
"$@"
echo "ended with $?"
if [ "$(stty -g)" = "$before" ]; then echo "the terminal is as it was"; fi
exec cat"#;
const CONF: &str = "tmux.conf";
const SETTINGS: &str = "set -g status off\nset -g default-terminal tmux-256color\n";

/// Columns and rows.
pub type Size = (u16, u16);

/// See the module. Its server ends with it.
pub struct Tmux {
    program: PathBuf,
    /// Of whoever runs `k8sctl`.
    home: PathBuf,
    /// Its socket and its settings are in there.
    folder: TempDir,
}

impl Tmux {
    /// Runs `k8sctl` with these arguments, in this environment.
    pub async fn run(bench: &Bench, args: &[&str], size: Size, set: &[(&str, &str)]) -> Self {
        bench.listening().await;
        let (program, home, folder) =
            (program("tmux"), bench.dir.path().to_owned(), tempfile::tempdir().unwrap());
        std::fs::write(folder.path().join(CONF), SETTINGS).unwrap();
        let tmux = Self { program, home, folder };
        let (width, height) = (size.0.to_string(), size.1.to_string());
        let mut command = tmux.command();
        command.env("K8SCTL_SOCKET", bench.path("api.sock")).envs(set.iter().copied());
        command.args(["new-session", "-d", "-x", width.as_str(), "-y", height.as_str()]);
        command.args(["sh", "-c", AROUND, "sh", env!("CARGO_BIN_EXE_k8sctl")]).args(args);
        answer(command).await;
        tmux
    }

    /// Its client, which talks to its own server and to no other one.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        heeds_nothing(&mut command, &self.home);
        command.env_remove("TMUX").env("LC_ALL", "C.UTF-8").arg("-u");
        command.arg("-S").arg(self.socket()).arg("-f").arg(self.folder.path().join(CONF));
        command
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("tmux.sock")
    }

    async fn ask(&self, args: &[&str]) -> String {
        let mut command = self.command();
        command.args(args);
        answer(command).await
    }

    /// Every row, without the blanks at its end.
    pub async fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"]).await
    }

    /// The same, with escape sequences for colours and so on.
    pub async fn painted(&self) -> String {
        self.ask(&["capture-pane", "-e", "-p"]).await
    }

    /// What tmux knows of the terminal: `#{alternate_on}` and so on.
    pub async fn knows(&self, format: &str) -> String {
        self.ask(&["display-message", "-p", format]).await.trim().to_owned()
    }

    /// Presses keys, one after the other.
    pub async fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat()).await;
    }

    /// Gives the terminal another size.
    pub async fn resize(&self, (width, height): Size) {
        let (width, height) = (width.to_string(), height.to_string());
        self.ask(&["resize-window", "-x", width.as_str(), "-y", height.as_str()]).await;
    }

    /// Waits for a screen that is so, and gives it.
    pub async fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen().await;
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "never came: {what}\n{screen}");
            sleep(PAUSE).await;
        }
    }

    /// Waits for a screen that has all of this.
    pub async fn shows(&self, texts: &[&str]) -> String {
        self.until(&format!("{texts:?}"), |screen| texts.iter().all(|text| screen.contains(text))).await
    }

    /// Waits for the end with this exit code, which leaves the terminal as it was before.
    pub async fn gives_back(&self, code: i32) {
        let ended = format!("ended with {code}");
        let screen = self.shows(&["before", &ended, "the terminal is as it was"]).await;
        assert!(!screen.contains(" Logs ") && !screen.contains("panicked"), "{screen}");
        assert_eq!(self.knows("#{alternate_on} #{cursor_flag}").await, "0 1", "{screen}");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(&self.program);
        command.arg("-S").arg(self.socket()).arg("kill-server");
        // Where it has not begun, there is nothing to end.
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

async fn answer(mut command: Command) -> String {
    let output = timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}
