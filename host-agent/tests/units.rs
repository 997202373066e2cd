//! The units that we install are such that systemd takes every line of them: the host agent's on the host, the node
//! agent's and those around it in the image. systemd itself is asked; it need not run.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;

fn crate_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for tests").into()
}

/// What systemd says about these units, when the programs that they start are there.
async fn verify(units: &[(String, String)]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    // Man pages and other units of the host that runs this test are not what is tested.
    let mut verify = Program::new("systemd-analyze", Duration::from_secs(60)).args([
        "verify",
        "--man=no",
        "--recursive-errors=no",
    ]);
    for (name, text) in units {
        let file = dir.path().join(name);
        fs::write(&file, with_programs_that_exist(text)).expect("writes");
        verify = verify.arg(file);
    }
    let (sender, mut lines) = tokio::sync::mpsc::channel(1024);
    let ended = verify.lines_to(sender).run().await;
    let mut said = String::new();
    while let Ok(line) = lines.try_recv() {
        said.push_str(&line);
        said.push('\n');
    }
    match ended {
        Ok(_) => said,
        Err(error) => format!("{said}{error}\n"),
    }
}

/// The same unit with `/bin/true` for each program: those of an image are not on the host that runs this test.
fn with_programs_that_exist(text: &str) -> String {
    let line = |line: &str| match line.split_once('=') {
        Some((key, value)) if key.starts_with("Exec") && !value.is_empty() => {
            let arguments = value.split_once(' ').map(|(_, rest)| rest).unwrap_or_default();
            format!("{key}=/bin/true {arguments}\n")
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn units_of(dir: &Path) -> Vec<(String, String)> {
    let is_unit = |path: &Path| {
        path.extension().is_some_and(|kind| ["service", "timer", "path"].iter().any(|unit| kind == *unit))
    };
    let mut units: Vec<_> = fs::read_dir(dir)
        .expect("the directory of units")
        .flatten()
        .filter(|entry| is_unit(&entry.path()))
        .map(|entry| {
            let text = fs::read_to_string(entry.path()).expect("a unit");
            (entry.file_name().to_string_lossy().into_owned(), text)
        })
        .collect();
    units.sort();
    units
}

fn host_unit() -> (String, String) {
    units_of(&crate_dir().join("systemd")).pop().expect("the host agent's unit")
}

#[tokio::test]
async fn systemd_takes_the_host_agents_unit() {
    let (name, text) = host_unit();
    assert_eq!(name, "k8s-host-agent.service");
    assert_eq!(verify(&[(name.clone(), text.clone())]).await, "");
    // systemd shows `Environment=` to everybody, and what the file holds to nobody.
    assert!(
        text.contains("\nEnvironmentFile=-/etc/k8s-myhome/environment\n") && !text.contains("\nEnvironment=")
    );
    // It would say so if there were something to say.
    let misspelt = text.replace("RuntimeDirectory=", "RunTimeDirectory=");
    assert_ne!(verify(&[(name, misspelt)]).await, "");
}

#[tokio::test]
async fn systemd_takes_the_images_units() {
    let units = units_of(&crate_dir().join("artifacts/src/image/files"));
    assert!(units.iter().any(|(name, _)| name == "k8s-node-agent.service"), "{units:?}");
    assert_eq!(verify(&units).await, "");
}

/// The unit's directories and program are those that the host agent uses by itself and that `make up` installs.
#[test]
fn the_unit_and_the_defaults_agree() {
    let (_, text) = host_unit();
    let config = host_agent::config::HostConfig::default();
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{key} is not in the unit")).to_owned()
    };
    assert_eq!(Path::new("/run").join(of("RuntimeDirectory")), config.run_dir);
    assert_eq!(Path::new("/var/lib").join(of("StateDirectory")), config.state_dir);
    let install = fs::read_to_string(crate_dir().join("../tests/lab/install-system")).expect("the script");
    assert!(install.contains(&format!("\nagent={}\n", of("ExecStart"))), "{install}");
    assert!(install.contains("k8s-host-agent.service"), "{install}");
}
