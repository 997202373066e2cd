//! What every script has of `common.sh`, whoever calls, and the Makefile likewise.

use std::fs::{self, File};
use std::process::Command;

use anyhow::{Result, ensure};

use super::stage::{Stage, repo, said, wait_for};

/// Prints what must not depend on the caller.
const TELL: &str =
    "#!/bin/bash\nset -euo pipefail\n. \"${0%/*}/common.sh\"\necho \"$LC_ALL $(umask) $PATH\"\n";
/// The PATH of root by `su`, and what the scripts make of it.
const SU: (&str, &str) = ("/usr/bin:/bin", "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin");

#[test]
fn language_umask_and_path_are_not_the_callers() -> Result<()> {
    let stage = Stage::new(&[])?;
    stage.program("tests/lab/tell", TELL)?;
    let output = Command::new("sh")
        .args(["-c", "umask 077; exec \"$0\""])
        .arg(stage.at("tests/lab/tell"))
        .env("K8S_MYHOME_CACHE", stage.at("cache"))
        .env("LC_ALL", "de_DE.UTF-8")
        .env("PATH", SU.0)
        .output()?;
    ensure!(output.stdout == format!("C.UTF-8 0022 {}\n", SU.1).into_bytes(), "{output:?}");
    Ok(())
}

#[test]
fn the_recipes_have_the_same_language_and_path() -> Result<()> {
    let output = Command::new("make")
        .args(["--no-print-directory", "--eval", "tell: ; @echo \"$$LC_ALL $$PATH\"", "tell"])
        .current_dir(repo()?)
        .env_remove("MAKEFLAGS")
        .env("LC_ALL", "de_DE.UTF-8")
        .env("PATH", SU.0)
        .output()?;
    ensure!(output.stdout == format!("C.UTF-8 {}\n", SU.1).into_bytes(), "{output:?}");
    Ok(())
}

#[test]
fn every_script_begins_with_what_is_common() -> Result<()> {
    // Of cargo's, in a VM, and nothing but `run`.
    let others = ["rustc-static", "baseline-boot", "shell"];
    let mut seen = 0;
    for entry in fs::read_dir(repo()?.join("tests/lab"))? {
        let entry = entry?;
        let name = entry.file_name();
        // What is no text is no script.
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        if !text.starts_with("#!") || others.iter().any(|other| name == *other) {
            continue;
        }
        let begin = "\nset -euo pipefail\n. \"$(dirname -- \"${BASH_SOURCE[0]}\")/common.sh\"\n";
        ensure!(text.contains(begin), "{name:?}");
        seen += 1;
    }
    ensure!(seen > 15, "{seen}");
    Ok(())
}

#[test]
fn a_cache_with_a_space_in_its_path_is_refused() -> Result<()> {
    let stage = Stage::new(&["cargo-build"])?;
    stage.stubs(&[("cargo", "#!/bin/bash\necho cargo >>\"$STUBS/calls\"\n")])?;
    for (cache, refused) in [("a cache", true), ("a:cache", true), ("a-cache", false)] {
        let output = stage.command("cargo-build")?.env("K8S_MYHOME_CACHE", stage.at(cache)).output()?;
        ensure!(output.status.success() != refused && stage.calls().is_empty() == refused, "{output:?}");
        ensure!(!refused || said(&output).contains("set K8S_MYHOME_CACHE"), "{output:?}");
    }
    Ok(())
}

/// Asks about processes that end while it asks.
const GONE: &str = "#!/bin/bash\nset -euo pipefail\n. \"${0%/*}/common.sh\"\n\
    for ((n = 0; n < 100; n++)); do sleep \"0.00$((n % 10))\" & until gone $!; do :; done; done\necho through\n";

#[test]
fn a_process_may_end_while_it_is_asked_for() -> Result<()> {
    let stage = Stage::new(&[])?;
    stage.program("tests/lab/gone", GONE)?;
    let output =
        Command::new(stage.at("tests/lab/gone")).env("K8S_MYHOME_CACHE", stage.at("cache")).output()?;
    ensure!(output.stdout == b"through\n" && output.stderr.is_empty(), "{output:?}");
    Ok(())
}

#[test]
fn whoever_waits_for_a_lock_says_so() -> Result<()> {
    let stage = Stage::new(&[])?;
    stage.program(
        "tests/lab/locks",
        "#!/bin/bash\nset -euo pipefail\n. \"${0%/*}/common.sh\"\nlock image\necho has it >&2\n",
    )?;
    let output = stage.command("locks")?.output()?;
    ensure!(said(&output) == "has it\n", "{output:?}");

    let lock = File::open(stage.at("cache/locks/image"))?;
    lock.lock()?;
    let told = stage.at("told");
    let mut child = stage.command("locks")?.stderr(File::create(&told)?).spawn()?;
    let has_said = |text: &str| fs::read_to_string(&told).is_ok_and(|told| told == text);
    let waiting = "locks: waiting for another locks that has the lock image\n";
    wait_for("it says that it waits", || has_said(waiting))?;
    drop(lock);
    ensure!(child.wait()?.success() && has_said(&format!("{waiting}has it\n")));
    Ok(())
}
