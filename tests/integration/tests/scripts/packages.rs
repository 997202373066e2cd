//! `package-plugins` and `install`: packages of the tree's own plugins, their digests, and where they end up.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::Output;

use anyhow::{Context as _, Result, ensure};

use super::stage::{Stage, said};

/// A `k8sctl plugin build SOURCE --program FILE --out FOLDER` that only copies, and fails as the file "fails" says.
const K8SCTL: &str = r#"#!/bin/bash
[[ "$1 $2 $4 $6" == "plugin build --program --out" ]] || exit 2
if [[ -e $STUBS/fails && $(<"$STUBS/fails") == "${3##*/} "* ]]; then
  echo "error $(cut -d' ' -f2 "$STUBS/fails"): plugin" >&2
  exit 1
fi
mkdir -p "$7/bin/x86_64-linux"
cp "$5" "$7/bin/x86_64-linux/plugin"
{ cat "$3/plugin.toml"; sha256sum <"$5"; } >"$7/plugin.toml"
"#;
const DESCRIPTION: &str =
    "name = \"NAME\"\n\n[program]\nname = \"NAME-program\" # its own\n\n[[image]]\nname = \"x\"\n";

fn stage() -> Result<Stage> {
    let stage = Stage::new(&["package-plugins", "install"])?;
    stage.program("target/release/k8sctl", K8SCTL)?;
    for name in ["k8s-host-agent", "k8s-node-agent", "data-plugin"] {
        stage.program(&format!("target/release/{name}"), name)?;
    }
    // Whatever it is asked about is linked to nothing.
    stage.stubs(&[("readelf", "#!/bin/bash\n")])?;
    plugin(&stage, "one", "first")?;
    plugin(&stage, "two", "second")?;
    Ok(stage)
}

fn plugin(stage: &Stage, name: &str, program: &str) -> Result<()> {
    stage.file(&format!("plugins/{name}/plugin.toml"), &DESCRIPTION.replace("NAME", name))?;
    stage.program(&format!("target/release/{name}-program"), program)
}

fn run(stage: &Stage, script: &str, args: &[&str]) -> Result<Output> {
    Ok(stage.command(script)?.args(args).env("CARGO_TARGET_DIR", stage.at("target")).output()?)
}

fn package(stage: &Stage) -> Result<Vec<String>> {
    let output = run(stage, "package-plugins", &[])?;
    ensure!(output.status.success(), "{}", said(&output));
    let list = fs::read_to_string(stage.at("target/tree-plugins"))?;
    list.lines().map(|line| Ok(line.split_once(' ').context("digest and name")?.1.to_owned())).collect()
}

#[test]
fn packages_that_are_the_same_stay_and_digests_are_those_of_what_is_there() -> Result<()> {
    let stage = stage()?;
    ensure!(package(&stage)? == ["one", "two"]);
    let inode = |name: &str| -> Result<u64> {
        Ok(fs::metadata(stage.at(&format!("target/release/plugins/{name}/plugin.toml")))?.ino())
    };
    let list = || fs::read_to_string(stage.at("target/tree-plugins"));
    let (one, two, before) = (inode("one")?, inode("two")?, list()?);
    let modified = fs::metadata(stage.at("target/tree-plugins"))?.modified()?;
    package(&stage)?;
    ensure!((inode("one")?, inode("two")?) == (one, two), "they were made anew");
    ensure!(
        fs::metadata(stage.at("target/tree-plugins"))?.modified()? == modified,
        "cargo would build again"
    );
    plugin(&stage, "two", "changed")?;
    package(&stage)?;
    ensure!(inode("one")? == one && inode("two")? != two && list()? != before);
    // What left the tree is no plugin any more.
    fs::remove_dir_all(stage.at("plugins/one"))?;
    ensure!(package(&stage)? == ["two"] && !stage.at("target/release/plugins/one").exists());
    Ok(())
}

#[test]
fn without_a_sandbox_what_cannot_be_asked_is_left_out_and_everything_else_fails() -> Result<()> {
    let stage = stage()?;
    package(&stage)?;
    stage.file("fails", "one PLUGIN-SANDBOX")?;
    ensure!(package(&stage)? == ["two"] && !stage.at("target/release/plugins/one").exists());
    stage.file("fails", "two PLUGIN-CRASHED")?;
    let output = run(&stage, "package-plugins", &[])?;
    ensure!(!output.status.success() && said(&output).contains("PLUGIN-CRASHED"), "{}", said(&output));
    ensure!(stage.at("target/release/plugins/two").exists(), "the one of before stays");
    Ok(())
}

#[test]
fn what_is_installed_is_the_package_and_nothing_else() -> Result<()> {
    let stage = stage()?;
    package(&stage)?;
    let dist = stage.at("dist").display().to_string();
    // What an older release had there.
    stage.file("dist/plugins/one/one", "program")?;
    stage.file("dist/plugins/gone/plugin.toml", "")?;
    let output = run(&stage, "install", &[&dist])?;
    ensure!(output.status.success(), "{}", said(&output));
    for (file, mode) in [
        ("bin/k8sctl", 0o755),
        ("data-plugin", 0o755),
        ("plugins/one/plugin.toml", 0o644),
        ("plugins/two/bin/x86_64-linux/plugin", 0o755),
    ] {
        let found = fs::metadata(stage.at(&format!("dist/{file}"))).with_context(|| file.to_owned())?;
        ensure!(found.permissions().mode() & 0o777 == mode, "{file}: {:o}", found.permissions().mode());
    }
    for left in ["plugins/one/one", "plugins/gone"] {
        ensure!(!stage.at(&format!("dist/{left}")).exists(), "{left} is still there");
    }
    // The host agent was built with other digests.
    plugin(&stage, "one", "changed")?;
    let before = fs::read(stage.at("target/tree-plugins"))?;
    package(&stage)?;
    fs::write(stage.at("target/tree-plugins"), before)?;
    let output = run(&stage, "install", &[&dist])?;
    ensure!(!output.status.success() && said(&output).contains("cargo-build again"), "{}", said(&output));
    Ok(())
}
