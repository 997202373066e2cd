//! `k8sctl.lock` beside a cluster file: which plugins it means, exactly. The host agent decides what it shall hold; here
//! it is read, and written when what it says has been applied.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::LockFile;

use crate::ended::{self, Ended};
use crate::spec_file::SpecFile;
use crate::terminal::{Context, visible};

/// Its name.
pub const NAME: &str = "k8sctl.lock";
/// Far more than a thousand plugins take.
const LIMIT: u64 = 1 << 20;

/// A cluster file with what lies beside it; standard input has no lock file, so it cannot be `locked`.
pub fn with_file(path: &Path, locked: bool) -> Result<(SpecFile, Option<Lock>), Ended> {
    let file = SpecFile::read(path)?;
    match Lock::beside(path)? {
        None if locked => Err(of_standard_input()),
        None => Ok((file, None)),
        Some(lock) => Ok((file.with_lock(lock.text(), locked), Some(lock))),
    }
}

/// What ends a run that wants the lock file of standard input.
pub fn of_standard_input() -> Ended {
    let next = "name the cluster file itself with -f FILE";
    Failure::new("PLUGIN-LOCK", "standard input", "it has no k8sctl.lock beside it", next).into()
}

/// The file as it is.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Its content; empty: there is none.
    text: String,
}

impl Lock {
    /// Reads the one beside a cluster file. Standard input has none.
    pub fn beside(file: &Path) -> Result<Option<Self>, Ended> {
        if file == Path::new("-") {
            return Ok(None);
        }
        let path = file.with_file_name(NAME);
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let next =
                    "mend it, or put it back from version control; without one, the next up writes it anew";
                let reason = format!("cannot read it: {error}");
                return Err(refused(&path, reason, next).into());
            }
        };
        Ok(Some(Self { path, text }))
    }

    /// What it says; empty where there is none.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same without these plugins, or without any: what is not in it is taken as the host has it now.
    pub fn without(&self, plugin: Option<&str>) -> Result<String, Ended> {
        let mut lock = self.parse()?;
        match plugin {
            None => lock.plugins.clear(),
            Some(name) => {
                let before = lock.plugins.len();
                lock.plugins.retain(|locked| locked.name != name);
                if lock.plugins.len() == before {
                    let names: Vec<_> = lock.plugins.iter().map(|locked| locked.name.as_str()).collect();
                    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    let reason = format!("it has no plugin {name}; it has: {has}");
                    let next = "name one that is in it; up takes those in that are new in the cluster file";
                    return Err(refused(&self.path, reason, next).into());
                }
            }
        }
        // A lock file without a plugin is there all the same: an empty text would mean that there is none.
        Ok(lock.to_text())
    }

    fn parse(&self) -> Result<LockFile, Ended> {
        if self.text.is_empty() {
            return Ok(LockFile::default());
        }
        LockFile::parse(&self.text).map_err(|mistakes| {
            let reason = format!("it is no lock file: {}", mistakes.join("; "));
            let next = "put it back from version control, or remove it: the next up writes it anew";
            refused(&self.path, reason, next).into()
        })
    }

    /// Writes what was applied, where that is something else; a cluster without plugins gets no file. It went well whatever
    /// becomes of this file, so that is told and no failure.
    pub fn keep(&self, context: &Context, text: Option<&str>) -> io::Result<()> {
        let Some(text) = text.filter(|text| *text != self.text) else { return Ok(()) };
        if self.text.is_empty() && LockFile::parse(text).is_ok_and(|lock| lock.plugins.is_empty()) {
            return Ok(());
        }
        if let Err(error) = write(&self.path, text) {
            let reason = format!("cannot write it: {error}");
            let next = "make its directory writable for you, then run the same command again";
            return ended::print(&context.err, "warning", &refused(&self.path, reason, next));
        }
        let path = visible(&self.path.display().to_string());
        context.story().line(format!("{path}: written; keep it with the cluster file"))
    }
}

fn refused(path: &Path, reason: String, next: &str) -> Failure {
    Failure::new("PLUGIN-LOCK", format!("file {}", path.display()), reason, next)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LIMIT + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::other("it is larger than 1 MiB, which no lock file is"));
    }
    Ok(text)
}

/// All or nothing. Root writes into a user's directory (`sudo k8sctl up`): the file is then that user's.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".k8sctl-lock-").tempfile_in(dir)?;
    let (mode, owner) = match fs::metadata(path) {
        Ok(before) => (before.mode() & 0o777, before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0o644, fs::metadata(dir)?),
        Err(error) => return Err(error),
    };
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    if rustix::process::geteuid().is_root() {
        fchown(file.as_file(), Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    const TWO: &str = "format = 1\n\n[[plugin]]\nname = \"hello\"\nversion = \"0.1.0\"\nsource = \"path\"\n\
                       sha256 = \"aa\"\ntrust = \"built-in\"\n[plugin.binaries]\n\n[[plugin]]\nname = \"metallb\"\n\
                       version = \"0.1.0\"\nsource = \"path\"\nsha256 = \"bb\"\ntrust = \"built-in\"\n\
                       [plugin.binaries]\n";

    fn lock(text: &str) -> (tempfile::TempDir, Lock) {
        let dir = tempfile::tempdir().expect("a directory");
        if !text.is_empty() {
            fs::write(
                dir.path().join(NAME),
                text.replace("aa", &"a".repeat(64)).replace("bb", &"b".repeat(64)),
            )
            .expect("writes");
        }
        let lock = Lock::beside(&dir.path().join("home.toml")).expect("readable").expect("a file has one");
        (dir, lock)
    }

    fn id(ended: Ended) -> String {
        match ended {
            Ended::Problem(problem) => problem.failure.id,
            other => panic!("no problem: {other}"),
        }
    }

    #[test]
    fn it_lies_beside_the_file_and_standard_input_has_none() {
        let (dir, none) = lock("");
        assert_eq!((none.path, none.text.as_str()), (dir.path().join(NAME), ""));
        assert!(Lock::beside(Path::new("-")).expect("no mistake").is_none());
        assert_eq!(id(of_standard_input()), "PLUGIN-LOCK");
        let (_dir, two) = lock(TWO);
        assert!(two.text().contains("metallb"), "{}", two.text());
    }

    #[test]
    fn what_is_to_be_taken_anew_is_left_out() {
        let (_dir, two) = lock(TWO);
        let one = two.without(Some("hello")).expect("it has it");
        assert!(one.contains("metallb") && !one.contains("hello"), "{one}");
        let none = two.without(None).expect("all");
        assert!(!none.is_empty() && !none.contains("[[plugin]]"), "{none}");
        assert_eq!(id(two.without(Some("flannel")).expect_err("it has it not")), "PLUGIN-LOCK");
        let (_dir, broken) = lock("format = 1\nunknown = 2\n");
        assert_eq!(id(broken.without(None).expect_err("unknown keys")), "PLUGIN-LOCK");
    }

    #[test]
    fn it_is_written_where_it_says_something_else_and_keeps_its_mode() {
        let context = Context::without_command(Format::Json);
        let (dir, two) = lock(TWO);
        let path = dir.path().join(NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("its owner may");
        let before = fs::metadata(&path).expect("there").ino();
        two.keep(&context, None).expect("nothing is said");
        two.keep(&context, Some(&two.text)).expect("the same");
        assert_eq!(fs::metadata(&path).expect("there").ino(), before, "it was not touched");
        two.keep(&context, Some("format = 1\n")).expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "format = 1\n");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o640);
        let (dir, none) = lock("");
        none.keep(&context, Some("format = 1\n")).expect("it has no plugin");
        assert!(!dir.path().join(NAME).exists());
    }
}
