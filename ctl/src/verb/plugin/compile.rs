//! The program of a plugin whose source folder is a Rust crate, by cargo. It is linked to nothing: in the sandbox there is
//! nothing of the host.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::{CommandError, Program};
use k8sctl_types::failure::Failure;
use plugin_package::Manifest;
use serde_json::Value;
use tokio::sync::mpsc;

use super::build;
use crate::ended::Ended;
use crate::progress::Ticker;
use crate::terminal::Context;

/// A first build fetches and compiles some hundred crates.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// Builds the program that `plugin.toml` names; gives where it lies.
pub(super) async fn compile(context: &Context, source: &Path, manifest: &Manifest) -> Result<PathBuf, Ended> {
    let refused =
        |reason: String, next: &str| Failure::new("PLUGIN-BUILD", build::object(source), reason, next);
    if !source.join("Cargo.toml").is_file() {
        let reason = format!(
            "it has no Cargo.toml, so nobody knows how its program {} is made",
            manifest.program.name
        );
        return Err(refused(reason, "name the program, static, for Linux, with --program FILE").into());
    }
    let source = std::fs::canonicalize(source)
        .map_err(|error| refused(format!("cannot find it: {error}"), "name the folder of a plugin"))?;
    let (sender, mut lines) = mpsc::channel(64);
    // Where cargo looks for its config and rustup for the toolchain is where it is started.
    let cargo = Program::new("env", DEADLINE)
        .arg(format!("--chdir={}", source.display()))
        .args(["cargo", "rustc", "--release", "--bin", manifest.program.name.as_str()])
        .args(["--message-format", "json-render-diagnostics", "--", "-C", "target-feature=+crt-static"])
        .lines_to(sender)
        .run();
    let tell = async {
        let mut ticker = Ticker::new(context.story());
        while let Some(line) = lines.recv().await {
            // cargo's own messages are JSON; its story is for people.
            if !line.starts_with('{') {
                ticker.show(line.trim())?;
            }
        }
        Ok::<(), std::io::Error>(())
    };
    let (built, told) = tokio::join!(cargo, tell);
    told?;
    let messages = built.map_err(|error| {
        let next = match error {
            CommandError::Start { .. } => "install Rust, or name the program with --program FILE",
            _ => "correct what cargo says",
        };
        let evidence = error.evidence().map(|evidence| evidence.output_tail.clone()).unwrap_or_default();
        let reason = format!("cargo could not build it: {}", k8sctl_rpc::chain(&error));
        refused(reason, next).with_evidence(people(&evidence))
    })?;
    executable(&messages, &manifest.program.name).ok_or_else(|| {
        let reason = format!("cargo built no program {}", manifest.program.name);
        refused(reason, "name the crate's program in plugin.toml, below [program]").into()
    })
}

/// Of cargo's output what people read.
fn people(output: &str) -> String {
    output.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n")
}

/// Where cargo says that the program lies.
fn executable(messages: &str, program: &str) -> Option<PathBuf> {
    let of_program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["reason"] == "compiler-artifact" && message["target"]["name"] == program;
        message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
    };
    messages.lines().filter_map(of_program).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_where_cargo_says() {
        let messages = concat!(
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lib\"},\"executable\":null}\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"other\"},\"executable\":\"/t/other\"}\n",
            "no JSON\n",
            "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"mine\"},\"executable\":\"/t/mine\"}\n",
            "{\"reason\":\"build-finished\",\"success\":true}\n",
        );
        assert_eq!(executable(messages, "mine"), Some(PathBuf::from("/t/mine")));
        assert_eq!(executable(messages, "lib"), None);
        assert_eq!(people("{\"a\":1}\nerror: no\n"), "error: no");
    }
}
