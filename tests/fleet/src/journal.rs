//! A journal as nodes have them, of any size, that no node has written; and how fast it is read without us: by
//! `journalctl` alone, and by `journalctl` into a `socat` that speaks TLS to another one.
//!
//! Its entries have the fields of journald's own, and are of the three units that `k8sctl logs` reads unless it is told
//! otherwise: whoever reads it reads all of it.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use crate::program::Ended;
use crate::wait_for;

/// Makes a journal of entries in the export format. Debian's package of it is systemd-journal-remote.
const WRITER: &str = "/lib/systemd/systemd-journal-remote";
/// What entries are from.
const UNITS: [(&str, &str); 3] = [
    ("kubelet", "kubelet.service"),
    ("containerd", "containerd.service"),
    ("k8s-node-agent", "k8s-node-agent.service"),
];
/// Entries that are written between two looks at the size.
const AT_ONCE: u64 = 5_000;
/// How old the first entry is, and how far apart they are, in microseconds.
const AGE: Duration = Duration::from_secs(24 * 3600);
const APART: u64 = 10_000;
/// How long writing a journal may take.
const WRITTEN: Duration = Duration::from_secs(30 * 60);
/// How long a socat may take to listen.
const LISTENS: Duration = Duration::from_secs(30);
/// What a socat reads at once: as much as others here do.
const BUFFER: &str = "-b65536";
/// Whose certificate it is.
const NAME: &str = "socat.k8sctl.internal";

/// See the module. It goes with its directory when it is dropped.
#[derive(Debug)]
pub struct Journal {
    dir: TempDir,
    entries: u64,
    bytes: u64,
}

impl Journal {
    /// Writes one that takes at least so many bytes of the disk.
    pub fn new(bytes: u64) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("fleet-journal-").tempdir()?;
        let mut journal = Self { dir, entries: 0, bytes: 0 };
        fs::create_dir(journal.files())?;
        let log = journal.file("writer.log");
        let written = journal.write(bytes, &log);
        written.with_context(|| format!("{WRITER}: {}", fs::read_to_string(&log).unwrap_or_default()))?;
        for file in fs::read_dir(journal.files())? {
            // What is still on its way to the disk is none of what is measured.
            File::open(file?.path())?.sync_all()?;
        }
        journal.bytes = journal.size()?;
        Ok(journal)
    }

    /// The directory of its files.
    pub fn files(&self) -> PathBuf {
        self.file("journal")
    }

    /// How many entries it has.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What it takes of the disk.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn size(&self) -> Result<u64> {
        let mut size = 0;
        for file in fs::read_dir(self.files())? {
            size += file?.metadata()?.len();
        }
        Ok(size)
    }

    fn write(&mut self, bytes: u64, log: &Path) -> Result<()> {
        let child = Command::new(WRITER)
            .arg(format!("--output={}", self.files().join("fleet.journal").display()))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(File::create(log)?)
            .spawn();
        let mut writer =
            Ended(child.context("cannot be started; `tests/lab/deps bench` installs what benches need")?);
        let stdin = writer.0.stdin.take().context("its input")?;
        self.fill(bytes, stdin)?;
        writer.wait(WRITER, WRITTEN)
    }

    /// Writes entries until they take so many bytes, and closes the input.
    fn fill(&mut self, bytes: u64, mut stdin: ChildStdin) -> Result<()> {
        let first = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.saturating_sub(AGE);
        let first = u64::try_from(first.as_micros())?;
        let (end, mut text) = (Instant::now() + WRITTEN, String::new());
        loop {
            let size = self.size()?;
            if size >= bytes {
                return Ok(());
            }
            ensure!(Instant::now() < end, "only {size} of {bytes} bytes within {WRITTEN:?}");
            text.clear();
            for number in self.entries..self.entries + AT_ONCE {
                add_entry(&mut text, number, first);
            }
            stdin.write_all(text.as_bytes())?;
            self.entries += AT_ONCE;
        }
    }

    /// How long `journalctl --output=export >/dev/null` takes.
    pub fn time_export(&self, deadline: Duration) -> Result<Duration> {
        let began = Instant::now();
        let child = self.journalctl("export").stdout(Stdio::null()).spawn();
        Ended(child.context("cannot start journalctl")?).wait("journalctl", deadline)?;
        Ok(began.elapsed())
    }

    /// How long `journalctl --output=json | socat - OPENSSL:…` takes, until the socat at the other end has written all
    /// of it to `/dev/null` and has ended.
    pub fn time_socat(&self, deadline: Duration) -> Result<Duration> {
        let (certificate, key) = self.certificate()?;
        let log = self.file("socat.log");
        let (certificate, key) = (certificate.display(), key.display());
        let server = Command::new("socat")
            .args(["-d", "-d", "-u", BUFFER])
            .arg(format!("OPENSSL-LISTEN:0,bind=127.0.0.1,cert={certificate},key={key},verify=0"))
            .arg("-")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn();
        let mut server =
            Ended(server.context("cannot start socat; `tests/lab/deps bench` installs what benches need")?);
        let port = wait_for("a socat listens", LISTENS, || Ok(port(&fs::read_to_string(&log)?)))
            .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        let began = Instant::now();
        let source = self.journalctl("json").stdout(Stdio::piped()).spawn();
        let mut source = Ended(source.context("cannot start journalctl")?);
        let output = source.0.stdout.take().context("its output")?;
        let client = Command::new("socat")
            .args(["-u", BUFFER, "-"])
            .arg(format!("OPENSSL:127.0.0.1:{port},cafile={certificate},openssl-commonname={NAME}"))
            .stdin(output)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        // It first: where it fails, the others' ends only follow from that.
        Ended(client.context("cannot start socat")?).wait("socat", deadline)?;
        source.wait("journalctl", deadline)?;
        let ended = server.wait("socat", deadline);
        ended.with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
        Ok(began.elapsed())
    }

    fn journalctl(&self, output: &str) -> Command {
        let mut command = Command::new("journalctl");
        command
            .arg(format!("--directory={}", self.files().display()))
            .arg(format!("--output={output}"))
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// Files with a certificate and its key.
    fn certificate(&self) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?;
        let files = (self.file("certificate.pem"), self.file("key.pem"));
        fs::write(&files.0, certificate.pem())?;
        fs::write(&files.1, key.serialize_pem())?;
        Ok(files)
    }
}

/// An entry in the export format, with the fields that journald gives a line which a unit has printed.
fn add_entry(text: &mut String, number: u64, first: u64) {
    let (program, unit) = UNITS[number as usize % UNITS.len()];
    let passed = number.saturating_mul(APART);
    let (realtime, monotonic) = (first.saturating_add(passed), passed.saturating_add(1));
    // No two volumes look alike, and no journal is shorter for it.
    let volume = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // Writing into a text cannot fail.
    let _ = write!(
        text,
        "__REALTIME_TIMESTAMP={realtime}\n\
         __MONOTONIC_TIMESTAMP={monotonic}\n\
         _BOOT_ID=00112233445566778899aabbccddeeff\n\
         _TRANSPORT=stdout\n\
         PRIORITY=6\n\
         SYSLOG_FACILITY=3\n\
         SYSLOG_IDENTIFIER={program}\n\
         MESSAGE=I1124 10:00:00.069123     812 reconciler.go:224] line {number}: operationExecutor.MountVolume started \
         for volume \"kube-api-access-{volume:016x}\" pod \"default/web-{pod}\"\n\
         _PID=812\n\
         _UID=0\n\
         _GID=0\n\
         _COMM={program}\n\
         _EXE=/usr/bin/{program}\n\
         _CMDLINE=/usr/bin/{program} --config=/etc/{program}.yaml --node-ip=192.168.122.11\n\
         _CAP_EFFECTIVE=1ffffffffff\n\
         _SYSTEMD_CGROUP=/system.slice/{unit}\n\
         _SYSTEMD_UNIT={unit}\n\
         _SYSTEMD_SLICE=system.slice\n\
         _SYSTEMD_INVOCATION_ID=0123456789abcdef0123456789abcdef\n\
         _STREAM_ID=fedcba9876543210fedcba9876543210\n\
         _MACHINE_ID=0123456789abcdef0123456789abcdef\n\
         _HOSTNAME=fleet-0-1\n\n",
        pod = number % 97,
    );
}

/// Where a socat listens, by what it has said: `… N listening on AF=2 127.0.0.1:41234`.
fn port(log: &str) -> Option<u16> {
    let is_it = |line: &&str| line.contains(" listening on ") && line.ends_with('\n');
    let line = log.split_inclusive('\n').find(is_it)?;
    line.trim_end().rsplit_once(':')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_lines_of_fields_and_an_empty_one() {
        let mut text = String::new();
        for number in [0, 4] {
            add_entry(&mut text, number, 1_700_000_000_000_000);
        }
        let entries: Vec<&str> = text.split_terminator("\n\n").collect();
        assert_eq!(entries.len(), 2, "{text}");
        for entry in &entries {
            let is_field = |line: &str| line.split_once('=').is_some_and(|(name, _)| !name.contains(' '));
            assert!(entry.lines().all(is_field), "{entry}");
        }
        assert!(entries[0].starts_with("__REALTIME_TIMESTAMP=1700000000000000\n"), "{}", entries[0]);
        assert!(entries[1].contains("\n__MONOTONIC_TIMESTAMP=40001\n"), "{}", entries[1]);
        assert!(entries[1].contains("\n_SYSTEMD_UNIT=containerd.service\n"), "{}", entries[1]);
    }

    #[test]
    fn the_port_is_in_what_socat_says_once_all_of_it_is_there() {
        let said = "2026/11/24 10:00:00 socat[7] N listening on AF=2 127.0.0.1:41234\n";
        assert_eq!(port(said), Some(41_234));
        assert_eq!(port(&said[..said.len() - 3]), None);
        assert_eq!(port("2026/11/24 10:00:00 socat[7] E SSL_CTX_use_certificate_file()\n"), None);
    }
}
