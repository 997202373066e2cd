//! `deps`, on a machine that has nothing but a Rust.

use anyhow::{Context as _, Result, ensure};

use super::stage::{NOTE, Stage, said};

/// apt-cache in German, unless it is asked for English.
const APT_CACHE: &str = r#"#!/bin/bash
word=Installationskandidat
[[ ${LC_ALL:-} != C* ]] || word=Candidate
printf '%s:\n  Installed: (none)\n  %s: 1:7.2\n' "$2" "$word"
"#;
/// Notes its call, and the end of an installation that ran; reads the lists as `update` says.
const APT_GET: &str = r#"#!/bin/bash
for last; do :; done
echo "apt-get $last" >>"$STUBS/calls"
[[ $last != update || ! -e $STUBS/update ]] || . "$STUBS/update"
[[ $* != *"Lock::Timeout=600 check" ]] || rm -f "$STUBS/runs"
[[ $* != *" install "* ]] || echo "$*" >>"$STUBS/installed"
"#;
/// An installation broke off where there is the file `audit`, and runs where there is `runs`.
const DPKG: &str = r#"#!/bin/bash
case $* in
  --audit) cat "$STUBS/audit" "$STUBS/runs" 2>/dev/null; exit 0 ;;
esac
echo "dpkg $*" >>"$STUBS/calls"
# A package that this one needs is not there yet.
exit 1
"#;

/// Another apt has the lists, until it is asked for the third time.
const IN_USE: &str = r#"
echo again >>"$STUBS/asked"
(($(wc -l <"$STUBS/asked") > 2)) || {
  echo "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)" >&2
  exit 100
}
"#;

/// A machine on which every package is missing.
fn machine() -> Result<Stage> {
    let stage = Stage::new(&["deps"])?;
    stage.file("Cargo.toml", "rust-version = \"1.80\"\n")?;
    stage.stubs(&[
        ("apt-cache", APT_CACHE),
        ("apt-get", APT_GET),
        ("dpkg", DPKG),
        ("dpkg-query", "#!/bin/bash\n"),
        ("rustc", "#!/bin/bash\necho rustc 1.99.0\n"),
        ("cargo", NOTE),
        ("sudo", "#!/bin/bash\nexec \"$@\"\n"),
    ])?;
    Ok(stage)
}

/// What `deps` called there, with the last word of apt-get's.
fn deps(stage: &Stage) -> Result<Vec<String>> {
    Ok(deps_of(stage, &[])?.0)
}

/// The same, and what it said; with these arguments.
fn deps_of(stage: &Stage, args: &[&str]) -> Result<(Vec<String>, String)> {
    let mut command = stage.command("deps")?;
    command.env("LC_ALL", "de_DE.UTF-8").env("LANG", "de_DE.UTF-8").env("DPKG_ADMINDIR", stage.at("dpkg"));
    let output = command.args(args).env("POLL", "0.05").output()?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok((stage.calls(), said(&output)))
}

#[test]
fn qemus_release_is_read_in_any_language() -> Result<()> {
    let stage = machine()?;
    let calls = deps(&stage)?;
    ensure!(calls == ["apt-get update", "apt-get qemu-utils=1:7.2"], "{calls:?}");
    let installed = std::fs::read_to_string(stage.at("installed"))?;
    let wanted = installed.split_once(" install ").context("an installation")?.1;
    ensure!(wanted.starts_with("gcc g++ ") && installed.contains("--allow-downgrades"), "{installed}");
    Ok(())
}

#[test]
fn benches_have_what_they_are_measured_against_and_nobody_else_needs_it() -> Result<()> {
    let none: &[&str] = &[];
    for (args, wants) in [(none, false), (&["lab"], false), (&["bench"], true)] {
        let stage = machine()?;
        deps_of(&stage, args)?;
        let installed = std::fs::read_to_string(stage.at("installed"))?;
        ensure!(installed.contains(" systemd-journal-remote socat ") == wants, "{args:?}: {installed}");
        ensure!(installed.contains(" golang-go ") == (args == ["lab"]), "{args:?}: {installed}");
    }
    Ok(())
}

#[test]
fn an_installation_that_was_interrupted_is_brought_to_its_end_first() -> Result<()> {
    let mended = [
        "apt-get check",
        "dpkg --configure -a",
        "apt-get update",
        "apt-get install",
        "apt-get qemu-utils=1:7.2",
    ];
    for (file, expected) in [
        ("audit", &mended[..]),
        ("dpkg/updates/0000", &mended[..]),
        // It has ended when apt has the lock.
        ("runs", &["apt-get check", "apt-get update", "apt-get qemu-utils=1:7.2"]),
    ] {
        let stage = machine()?;
        stage.file(file, "The following packages are only half configured\n")?;
        let calls = deps(&stage)?;
        ensure!(calls == expected, "{file}: {calls:?}");
    }
    Ok(())
}

#[test]
fn whoever_has_the_package_lists_is_waited_for() -> Result<()> {
    let stage = machine()?;
    stage.file("update", IN_USE)?;
    let (calls, said) = deps_of(&stage, &[])?;
    let expected = ["apt-get update", "apt-get update", "apt-get update", "apt-get qemu-utils=1:7.2"];
    ensure!(calls == expected, "{calls:?}");
    ensure!(said.matches("waiting for whoever has the package lists: E: Could").count() == 1, "{said}");
    Ok(())
}

#[test]
fn a_broken_source_is_told_and_the_others_are_used() -> Result<()> {
    let stage = machine()?;
    stage.file("update", "echo 'E: example.org has no Release file.' >&2; exit 100\n")?;
    let (calls, said) = deps_of(&stage, &[])?;
    ensure!(calls == ["apt-get update", "apt-get qemu-utils=1:7.2"], "{calls:?}");
    ensure!(said.contains("E: example.org has no Release file.\n") && said.contains("going on"), "{said}");
    Ok(())
}

#[test]
fn the_lints_programs_come_from_where_rust_does_and_no_test_waits_for_them() -> Result<()> {
    let rustup = "rustup component add rustfmt clippy";
    let apt = ["apt-get update", "apt-get qemu-utils=1:7.2"];
    for (owner, has_network, expected, installs) in [
        ("rustc-web: /usr/bin/rustc\n", true, &apt[..], true),
        ("", true, &[rustup, apt[0], apt[1]], false),
        // Debian's package of it.
        ("rustup: /usr/bin/rustup\n", false, &[rustup, apt[0], apt[1]], false),
    ] {
        let stage = machine()?;
        stage.file("owner", owner)?;
        stage.stubs(&[
            ("dpkg-query", "#!/bin/bash\n[[ $1 != -S ]] || cat \"$STUBS/owner\"\n"),
            ("cargo", "#!/bin/bash\nexit 1\n"),
            ("rustup", &format!("{NOTE}exit {}\n", i32::from(!has_network))),
        ])?;
        let (calls, said) = deps_of(&stage, &["lab"])?;
        ensure!(calls == expected, "{owner}: {calls:?}");
        ensure!(said.contains("going on without") != has_network, "{owner}: {said}");
        let installed = std::fs::read_to_string(stage.at("installed"))?;
        ensure!(installed.contains(" rustfmt-web rust-web-clippy ") == installs, "{owner}: {installed}");
        ensure!(installed.contains("clippy") == installs, "{owner}: {installed}");
    }
    Ok(())
}
