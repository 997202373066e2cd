//! The operating system below everything: a tar made by mmdebstrap, kept between builds.
//!
//! Mirrors, keys and proxies come from the host's own apt configuration; where that is of another
//! distribution, mmdebstrap's defaults are used. The tar is keyed by suite, packages and sources, and
//! made anew when it is older than two weeks, or when current packages are asked for. What identifies it
//! are its packages with their versions. Called by [`super::store`].

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8sctl_command::Program;
use k8sctl_types::suite::{Distribution, Suite};
use tokio::sync::mpsc;

use super::{ImageError, Packages, STEP_DEADLINE, run, say};
use crate::digest::sha256;

/// Older base systems are not built upon: they lack security updates.
const MAX_AGE: Duration = Duration::from_secs(14 * 24 * 3600);

/// Raised when the way the base is made changes.
pub(super) const RECIPE: u32 = 1;

const PACKAGES: [&str; 18] = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "iptables",
    "conntrack",
    "ebtables",
    "ethtool",
    "socat",
    "mount",
    "util-linux",
    "procps",
    "libseccomp2",
    "ca-certificates",
    "e2fsprogs",
    "busybox-static",
];

/// What an operating system's files need not hold in a node.
const EXCLUDED: [&str; 5] = ["man/*", "doc/*", "locale/*", "info/*", "lintian/*"];

/// The suite of this name.
pub fn find(name: &str) -> Result<&'static Suite, ImageError> {
    Suite::find(name).ok_or_else(|| ImageError::Suite { suite: name.to_owned() })
}

/// What is installed; apt adds what these depend on.
pub fn packages(suite: &Suite) -> Vec<&'static str> {
    let kernel = match suite.distribution {
        Distribution::Debian => "linux-image-cloud-amd64",
        Distribution::Ubuntu => "linux-image-virtual",
    };
    PACKAGES.into_iter().chain([kernel]).collect()
}

/// What the host's apt says that a build needs.
#[derive(Clone, Debug, Default)]
pub struct HostApt {
    /// Codename of the host's suite, `bookworm`; empty means unknown.
    pub codename: String,
    /// The content of its sources files, `(is deb822, text)`.
    pub sources: Vec<(bool, String)>,
    /// Its proxy and https options, as lines of apt configuration.
    pub options: Vec<String>,
}

impl HostApt {
    /// Reads the host's configuration. What cannot be read is left out.
    pub async fn read() -> Self {
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
        let mut sources = Vec::new();
        sources.extend(fs::read_to_string("/etc/apt/sources.list").ok().map(|text| (false, text)));
        let mut paths: Vec<PathBuf> = fs::read_dir("/etc/apt/sources.list.d")
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        paths.sort();
        for path in paths {
            let suffix = path.extension().and_then(|suffix| suffix.to_str());
            if let Some(suffix @ ("list" | "sources")) = suffix
                && let Ok(text) = fs::read_to_string(&path)
            {
                sources.push((suffix == "sources", text));
            }
        }
        let dump =
            Program::new("apt-config", Duration::from_secs(20)).arg("dump").run().await.unwrap_or_default();
        let wanted = ["Acquire::http", "Acquire::https", "Acquire::Retries"];
        let options = dump
            .lines()
            .filter(|line| wanted.iter().any(|prefix| line.starts_with(prefix)) && !line.ends_with("\"\";"))
            .map(str::to_owned)
            .collect();
        Self { codename: codename.unwrap_or_default().trim_matches('"').to_owned(), sources, options }
    }
}

/// One-line sources for `suite` out of the host's own: its entries for the host's suite, with the
/// suite's name exchanged. `None` means that the host has none that fit.
pub fn plan_sources(host: &HostApt, suite: &Suite) -> Option<String> {
    if Suite::find(&host.codename).is_none_or(|known| known.distribution != suite.distribution) {
        return None;
    }
    let lines: Vec<String> = host
        .sources
        .iter()
        .flat_map(|(deb822, text)| if *deb822 { stanzas(text) } else { text.lines().map(one_line).collect() })
        .flatten()
        .flat_map(|source| source.lines_for(&host.codename, suite.name))
        .collect();
    (!lines.is_empty()).then(|| lines.join("\n") + "\n")
}

#[derive(Debug, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    options: Vec<String>,
}

impl Source {
    fn lines_for(&self, host: &str, wanted: &str) -> Vec<String> {
        // A distribution's own archive has the component main; a third party's is not ours to install from.
        if !self.components.iter().any(|component| component == "main") {
            return Vec::new();
        }
        let options =
            if self.options.is_empty() { String::new() } else { format!("[{}] ", self.options.join(" ")) };
        let mut lines = Vec::new();
        for uri in &self.uris {
            for suite in &self.suites {
                if let Some(pocket @ ("" | "-updates" | "-security")) = suite.strip_prefix(host) {
                    lines.push(format!("deb {options}{uri} {wanted}{pocket} {}", self.components.join(" ")));
                }
            }
        }
        lines
    }
}

fn one_line(line: &str) -> Option<Source> {
    let mut rest = line.split('#').next().unwrap_or_default().trim().strip_prefix("deb ")?.trim_start();
    let mut source = Source::default();
    if let Some(bracketed) = rest.strip_prefix('[') {
        let (options, after) = bracketed.split_once(']')?;
        source.options = options.split_whitespace().map(str::to_owned).collect();
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    source.uris = vec![words.next()?];
    source.suites = vec![words.next()?];
    source.components = words.collect();
    Some(source)
}

fn stanzas(text: &str) -> Vec<Option<Source>> {
    text.split("\n\n").map(stanza).collect()
}

fn stanza(text: &str) -> Option<Source> {
    let field = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let words = |name: &str| -> Vec<String> {
        field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
    };
    if field("Enabled").is_some_and(|value| value == "no") || !words("Types").contains(&"deb".to_owned()) {
        return None;
    }
    // A key within the stanza has no one-line form; mmdebstrap then finds the distribution's keyring itself.
    let key = field("Signed-By").filter(|value| value.starts_with('/'));
    Some(Source {
        uris: words("URIs"),
        suites: words("Suites"),
        components: words("Components"),
        options: key.map(|path| format!("signed-by={path}")).into_iter().collect(),
    })
}

/// The base tar in `dir`, made now unless it is there and `wanted` allows that.
pub async fn provide(
    dir: &Path,
    suite: &Suite,
    wanted: Packages,
    progress: &mpsc::Sender<String>,
) -> Result<PathBuf, ImageError> {
    let host = HostApt::read().await;
    let sources = plan_sources(&host, suite);
    let packages = packages(suite).join(",");
    let key = sha256(format!("{RECIPE}\n{}\n{packages}\n{sources:?}\n", suite.name).as_bytes());
    let path = dir.join(format!("base-{}.tar", &key[..16]));
    let age = fs::metadata(&path).and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
    if wanted == Packages::AsBuilt && age.is_some_and(|age| age < MAX_AGE) {
        return Ok(path);
    }
    say(progress, format!("making the base system ({}) with mmdebstrap", suite.name));
    let work = tempfile::Builder::new()
        .prefix(".build-base-")
        .tempdir_in(dir)
        .map_err(ImageError::io("write to", dir))?;
    let output = work.path().join("base.tar");
    let mut program = Program::new("mmdebstrap", STEP_DEADLINE)
        .args(["--mode=root", "--variant=minbase", "--format=tar"])
        .arg(format!("--include={packages}"))
        .arg("--aptopt=APT::Install-Recommends \"false\"")
        // The work directory may lie below one that only root may enter.
        .arg("--aptopt=APT::Sandbox::User \"root\"")
        .args(host.options.iter().map(|option| format!("--aptopt={option}")))
        .args(EXCLUDED.map(|path| format!("--dpkgopt=path-exclude=/usr/share/{path}")))
        .arg("--dpkgopt=path-include=/usr/share/doc/*/copyright")
        // The kernel's hook would make an initrd that nobody boots.
        .arg(r#"--setup-hook=mkdir -p "$1/etc/kernel/postinst.d"; printf '#!/bin/sh\n' >"$1/etc/kernel/postinst.d/initramfs-tools""#)
        .arg("--dpkgopt=force-confold")
        .env("INITRD", "No")
        .env("TMPDIR", work.path())
        .env("DEBIAN_FRONTEND", "noninteractive")
        .lines_to(progress.clone())
        .arg(suite.name)
        .arg(&output);
    if let Some(sources) = sources {
        // Standard input: no mirror is ever in argv.
        program = program.arg("-").stdin(sources);
    }
    run("make the base system", program).await?;
    fs::rename(&output, &path).map_err(ImageError::io("write", &path))?;
    Ok(path)
}

/// Where dpkg writes down what is installed.
const STATUS: &str = "var/lib/dpkg/status";

/// What base systems of the same packages in the same versions have in common, and no others: hexadecimal. Blocking.
pub(super) fn identify(tar: &Path) -> Result<String, ImageError> {
    let read = || {
        let mut archive = tar::Archive::new(File::open(tar)?);
        for entry in archive.entries_with_seek()? {
            let mut entry = entry?;
            let path = entry.path()?.into_owned();
            if path.strip_prefix("./").unwrap_or(&path) == Path::new(STATUS) {
                let mut text = String::new();
                entry.read_to_string(&mut text)?;
                return Ok(Some(text));
            }
        }
        Ok(None)
    };
    let text = read().map_err(ImageError::io("read", tar))?;
    let text = text.ok_or_else(|| ImageError::Incomplete { what: STATUS.to_owned() })?;
    Ok(sha256(versions(&text).join("\n").as_bytes()))
}

/// `name architecture version` of each package that is installed, sorted.
fn versions(status: &str) -> Vec<String> {
    let field = |stanza: &str, name: &str| {
        let value = stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    let installed = |stanza: &&str| field(stanza, "Status").ends_with(" installed");
    let mut versions: Vec<String> = status
        .split("\n\n")
        .filter(installed)
        .map(|stanza| ["Package", "Architecture", "Version"].map(|name| field(stanza, name)).join(" "))
        .collect();
    versions.sort();
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(deb822: bool, text: &str) -> HostApt {
        HostApt {
            codename: "bookworm".to_owned(),
            sources: vec![(deb822, text.to_owned())],
            options: Vec::new(),
        }
    }

    const DEB822: &str = "# a remark\nTypes: deb deb-src\nURIs: http://mirror.test/debian\n\
        Suites: bookworm bookworm-updates bookworm-backports\nComponents: main contrib\n\
        Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
        Types: deb\nURIs: http://other.test/\nSuites: bookworm\nComponents: stable\n";

    #[test]
    fn own_archives_are_taken_and_third_parties_are_not() {
        let suite = find("bookworm").expect("it is known");
        let sources = plan_sources(&host(true, DEB822), suite).expect("it fits");
        let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        assert_eq!(
            sources,
            format!(
                "deb {key} http://mirror.test/debian bookworm main contrib\n\
                 deb {key} http://mirror.test/debian bookworm-updates main contrib\n"
            )
        );
    }

    #[test]
    fn another_suite_of_the_same_distribution_uses_the_same_mirror() {
        let suite = find("trixie").expect("it is known");
        let text = "deb [arch=amd64] http://mirror.test/debian bookworm main # remark\n# deb http://x bookworm main\n";
        let sources = plan_sources(&host(false, text), suite);
        assert_eq!(sources.as_deref(), Some("deb [arch=amd64] http://mirror.test/debian trixie main\n"));
    }

    #[test]
    fn another_distribution_gets_the_defaults() {
        let suite = find("noble").expect("it is known");
        assert_eq!(plan_sources(&host(true, DEB822), suite), None);
    }

    /// A base system with this dpkg status.
    fn base(dir: &Path, status: &str) -> String {
        let path = dir.join("base.tar");
        let mut tar = tar::Builder::new(File::create(&path).expect("it is made"));
        for (name, content) in [("./etc/hostname", "x"), ("./var/lib/dpkg/status", status)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            // As mmdebstrap writes it, with the leading dot.
            header.as_gnu_mut().expect("it is one").name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_bytes()).expect("it is written");
        }
        tar.finish().expect("it is written");
        identify(&path).expect("it has a status")
    }

    #[test]
    fn a_base_is_its_packages_and_their_versions() {
        let dir = tempfile::tempdir().expect("a directory");
        let stanza = |name: &str, version: &str, state: &str| {
            format!(
                "Package: {name}\nStatus: install ok {state}\nArchitecture: amd64\nVersion: {version}\nDescription: x\n more: y\n"
            )
        };
        let (bash, zlib) = (stanza("bash", "5.2-1", "installed"), stanza("zlib1g", "1.2", "installed"));
        let first = base(dir.path(), &format!("{bash}\n{zlib}"));
        assert_eq!(first, base(dir.path(), &format!("{zlib}\n{bash}")), "the order is dpkg's");
        let gone = stanza("old", "1", "config-files");
        assert_eq!(first, base(dir.path(), &format!("{bash}\n{gone}\n{zlib}")), "it is not installed");
        let newer = stanza("bash", "5.2-2", "installed");
        assert_ne!(first, base(dir.path(), &format!("{newer}\n{zlib}")));
    }

    #[test]
    fn an_unknown_suite_is_named() {
        assert!(matches!(find("potato"), Err(ImageError::Suite { suite }) if suite == "potato"));
    }
}
