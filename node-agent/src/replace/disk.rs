//! The files of a replacement: looked at, and changed one at a time, each whole or not at all. Blocking.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::plan::{Confirmed, Disk, Outcome, Trial};
use crate::durable::{self, Root};

/// Where systemd starts the agent.
const PROGRAM: &str = "/usr/lib/k8s-myhome/k8s-node-agent";
/// The copy of the one before, beside it.
const KEPT: &str = "/usr/lib/k8s-myhome/k8s-node-agent.previous";
/// The one that was fetched.
const STAGED: &str = "/usr/lib/k8s-myhome/k8s-node-agent.next";
/// Permission bits of a program.
const MODE: u32 = 0o755;

/// Where the files are.
#[derive(Clone, Debug)]
pub struct Places {
    /// What systemd starts.
    pub program: PathBuf,
    /// The copy of what ran before; the guard's own program.
    pub kept: PathBuf,
    /// The new one.
    pub staged: PathBuf,
    dir: PathBuf,
}

impl Places {
    /// Of the machine below `root`, with the agent's state in `state_dir`.
    pub fn new(root: &Root, state_dir: &Path) -> Self {
        Self {
            program: root.path(PROGRAM),
            kept: root.path(KEPT),
            staged: root.path(STAGED),
            dir: state_dir.join("agent"),
        }
    }

    fn trial(&self) -> PathBuf {
        self.dir.join("trial.json")
    }

    fn confirmed(&self) -> PathBuf {
        self.dir.join("confirmed.json")
    }

    fn outcome(&self) -> PathBuf {
        self.dir.join("outcome.json")
    }
}

/// Device, inode, size, and when it was changed last.
type Version = (u64, u64, u64, i64, i64);

/// Looks at the files. A program is read only when it is another one than before.
#[derive(Debug)]
pub struct Files {
    /// Where they are.
    pub places: Places,
    known: HashMap<PathBuf, (Version, String)>,
}

impl Files {
    /// Nothing is read yet.
    pub fn new(places: Places) -> Self {
        Self { places, known: HashMap::new() }
    }

    /// All of it.
    pub fn look(&mut self) -> io::Result<Disk> {
        let places = self.places.clone();
        Ok(Disk {
            program: self.digest(&places.program)?,
            kept: self.digest(&places.kept)?,
            staged: self.digest(&places.staged)?,
            trial: read(&places.trial())?,
            confirmed: read(&places.confirmed())?,
            outcome: read(&places.outcome())?,
        })
    }

    fn digest(&mut self, path: &Path) -> io::Result<Option<String>> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let data = file.metadata()?;
        let version = (data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec());
        if let Some((known, digest)) = self.known.get(path)
            && *known == version
        {
            return Ok(Some(digest.clone()));
        }
        let digest = digest_of(&mut file)?;
        self.known.insert(path.to_owned(), (version, digest.clone()));
        Ok(Some(digest))
    }

    /// Whether somebody has said that it has a session; cheap.
    pub fn is_confirmed(&self, trial: &Trial) -> bool {
        let word: io::Result<Option<Confirmed>> = read(&self.places.confirmed());
        matches!(word, Ok(Some(word)) if word.attempt == trial.attempt && word.sha256 == trial.new)
    }

    /// Keeps a copy of the program that this process is.
    pub fn keep_running(&self) -> io::Result<()> {
        copy(&mut File::open("/proc/self/exe")?, &self.places.kept)
    }

    /// Gives the new one the place.
    pub fn install(&self) -> io::Result<()> {
        fs::rename(&self.places.staged, &self.places.program)?;
        sync_parent(&self.places.program)
    }

    /// Gives the old one the place; its copy stays. Needs no room on the disk: it is the same file.
    pub fn restore(&self) -> io::Result<()> {
        let temporary = durable::beside(&self.places.program);
        durable::remove(&temporary)?;
        fs::hard_link(&self.places.kept, &temporary)
            .or_else(|_| copy_to(&mut File::open(&self.places.kept)?, &temporary))?;
        fs::rename(&temporary, &self.places.program)?;
        sync_parent(&self.places.program)
    }

    /// Writes the trial.
    pub fn write_trial(&self, trial: &Trial) -> io::Result<()> {
        write(&self.places.trial(), trial)
    }

    /// Writes that this program has a session.
    pub fn write_confirmed(&self, word: &Confirmed) -> io::Result<()> {
        write(&self.places.confirmed(), word)
    }

    /// Writes how it ended.
    pub fn write_outcome(&self, outcome: &Outcome) -> io::Result<()> {
        write(&self.places.outcome(), outcome)
    }

    /// Takes away what was on trial, and last the trial.
    pub fn clear(&self) -> io::Result<()> {
        durable::remove(&self.places.staged)?;
        durable::remove(&self.places.trial())?;
        sync_parent(&self.places.trial())
    }
}

/// A file that a program is written into, beside the place that it gets when it is whole.
pub struct Staging {
    file: File,
    digest: Context,
    size: u64,
    temporary: PathBuf,
    path: PathBuf,
    has_place: bool,
}

/// What is not whole is of no use, and may have filled the disk.
impl Drop for Staging {
    fn drop(&mut self) {
        if !self.has_place
            && let Err(error) = durable::remove(&self.temporary)
        {
            tracing::warn!(%error, "cannot remove a program that did not come whole");
        }
    }
}

impl Staging {
    /// Begins anew.
    pub fn begin(path: &Path) -> io::Result<Self> {
        let temporary = durable::beside(path);
        durable::remove(&temporary)?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        Ok(Self {
            file,
            digest: Context::new(&SHA256),
            size: 0,
            temporary,
            path: path.to_owned(),
            has_place: false,
        })
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds some.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, bytes)?;
        self.digest.update(bytes);
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Gives it its place where its digest is this one; else its digest.
    pub fn finish(mut self, expected: &str) -> io::Result<Result<(), String>> {
        let digest = hex::encode(self.digest.clone().finish().as_ref());
        if digest != expected {
            return Ok(Err(digest));
        }
        self.file.set_permissions(fs::Permissions::from_mode(MODE))?;
        self.file.sync_all()?;
        fs::rename(&self.temporary, &self.path)?;
        self.has_place = true;
        sync_parent(&self.path)?;
        Ok(Ok(()))
    }
}

/// The digest of the program that this process is; what has its place on the disk may be another one by now.
pub fn running_digest() -> io::Result<String> {
    digest_of(&mut File::open("/proc/self/exe")?)
}

fn digest_of(file: &mut File) -> io::Result<String> {
    let mut digest = Context::new(&SHA256);
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(digest.finish().as_ref())),
            read => digest.update(&buffer[..read]),
        }
    }
}

fn copy(from: &mut File, to: &Path) -> io::Result<()> {
    let temporary = durable::beside(to);
    durable::remove(&temporary)?;
    copy_to(from, &temporary)?;
    fs::rename(&temporary, to)?;
    sync_parent(to)
}

/// A whole copy, or none.
fn copy_to(from: &mut File, to: &Path) -> io::Result<()> {
    let copied = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
        io::copy(from, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        file.sync_all()
    })();
    if copied.is_err() {
        let _ = durable::remove(to);
    }
    copied
}

fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    durable::write(path, &serde_json::to_vec(value)?, 0o600)
}

/// What cannot be read back counts as not there: all of it was written whole, so that it is none of ours.
fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Files {
        let root = Root::new(dir);
        root.write(PROGRAM, b"old", MODE).expect("written");
        Files::new(Places::new(&root, &dir.join("state")))
    }

    fn sha(bytes: &[u8]) -> String {
        let mut digest = Context::new(&SHA256);
        digest.update(bytes);
        hex::encode(digest.finish().as_ref())
    }

    #[test]
    fn a_program_has_its_place_only_when_it_is_whole() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut files = files(dir.path());
        let staged = files.places.staged.clone();
        let mut staging = Staging::begin(&staged).expect("begun");
        staging.write(b"ne").expect("written");
        assert_eq!(files.look().expect("a look").staged, None, "it is not whole");
        assert_eq!(staging.finish(&sha(b"new")).expect("written"), Err(sha(b"ne")));
        let mut staging = Staging::begin(&staged).expect("begun anew");
        staging.write(b"ne").expect("written");
        staging.write(b"w").expect("written");
        assert_eq!((staging.size(), staging.finish(&sha(b"new")).expect("written")), (3, Ok(())));
        assert_eq!(files.look().expect("a look").staged, Some(sha(b"new")));

        files.install().expect("installed");
        let disk = files.look().expect("a look");
        assert_eq!((disk.program, disk.staged), (Some(sha(b"new")), None));
        let mode = fs::metadata(&files.places.program).expect("there").mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn the_copy_of_what_runs_comes_back_and_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut files = files(dir.path());
        files.keep_running().expect("kept");
        files.restore().expect("restored");
        let disk = files.look().expect("a look");
        let running = running_digest().expect("this test's program");
        assert_eq!((disk.program.as_ref(), disk.kept.as_ref()), (Some(&running), Some(&running)));
    }

    #[test]
    fn what_is_written_is_read_back_and_what_is_broken_is_not_there() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut files = files(dir.path());
        let trial = Trial {
            attempt: "a".into(),
            old: "o".into(),
            new: "n".into(),
            seconds: 60,
            starts: 0,
            reverting: None,
        };
        files.write_trial(&trial).expect("written");
        assert!(!files.is_confirmed(&trial));
        let word = Confirmed { attempt: "a".into(), sha256: "n".into() };
        files.write_confirmed(&word).expect("written");
        assert!(files.is_confirmed(&trial));
        let disk = files.look().expect("a look");
        assert_eq!((disk.trial, disk.confirmed), (Some(trial), Some(word)));
        files.clear().expect("cleared");
        fs::write(dir.path().join("state/agent/outcome.json"), "{").expect("written");
        let disk = files.look().expect("a look");
        assert_eq!((disk.trial, disk.outcome), (None, None));
    }
}
