//! The user's kubeconfig files: read and written under kubectl's locks, all or nothing, readable by their owner only.
//! Root may write into a user's home (`sudo -E`): what it writes there stays that user's.

use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;
use tokio::time::{Instant, sleep};

use super::KubeconfigError;
use super::merge::UserFile;

/// How long another program may hold a file.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
const LOCK_INTERVAL: Duration = Duration::from_millis(50);
/// As many links as Linux follows.
const MOST_LINKS: usize = 40;

/// Reads the files, changes them and writes what is other than before; gives the files written. What is locked can
/// only be told after a look; so the decision is made again under the locks.
pub(super) async fn change<T>(
    paths: &[PathBuf],
    decide: impl Fn(&mut [UserFile]) -> Result<T, KubeconfigError>,
) -> Result<(T, Vec<PathBuf>), KubeconfigError> {
    let mut locks: Vec<Lock> = Vec::new();
    loop {
        let mut files = read(paths)?;
        let decided = decide(&mut files)?;
        let mut changed: Vec<_> = files.iter().filter(|file| file.is_changed()).collect();
        let is_locked = |file: &UserFile| locks.iter().any(|lock| lock.of == file.path);
        if changed.iter().all(|file| is_locked(file)) {
            for file in &changed {
                may_write(&file.path).map_err(io_error("write", &file.path))?;
            }
            for file in &changed {
                write(&file.path, file.text()?.as_bytes()).map_err(io_error("write", &file.path))?;
            }
            return Ok((decided, changed.iter().map(|file| file.path.clone()).collect()));
        }
        changed.retain(|file| !is_locked(file));
        // kubectl's order too, so that no two programs wait for each other.
        changed.sort_by(|a, b| a.path.cmp(&b.path));
        for file in changed {
            make_parent(&file.path)?;
            make_parent(&real(&file.path))?;
            locks.push(Lock::take(&file.path).await?);
        }
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<UserFile>, KubeconfigError> {
    let mut files: Vec<UserFile> = Vec::new();
    let mut seen = Vec::new();
    for path in paths {
        let real = real(path);
        if seen.contains(&real) {
            continue;
        }
        // What is no file, such as /dev/null, must not be replaced by one.
        if fs::metadata(&real).is_ok_and(|data| !data.is_file()) {
            return Err(io_error("use", path)(io::Error::other("it is no regular file")));
        }
        let text = match fs::read_to_string(&real) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("read", path)(error)),
        };
        seen.push(real);
        files.push(UserFile::parse(path.clone(), text.as_deref())?);
    }
    Ok(files)
}

/// The file itself: a link stays a link, also where what it leads to is not there yet.
fn real(path: &Path) -> PathBuf {
    let mut real = path.to_owned();
    for _ in 0..MOST_LINKS {
        if let Ok(found) = fs::canonicalize(&real) {
            return found;
        }
        let Ok(target) = fs::read_link(&real) else { break };
        real = parent(&real).join(target);
    }
    real
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KubeconfigError {
    let path = path.to_owned();
    move |source| KubeconfigError::Io { doing, path, source }
}

/// The directory of a file, with those above it that are not there.
fn make_parent(path: &Path) -> Result<(), KubeconfigError> {
    let dir = parent(path);
    if dir.exists() {
        return Ok(());
    }
    make_parent(dir)?;
    let make = || -> io::Result<()> {
        match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            made => made?,
        }
        let above = fs::metadata(parent(dir))?;
        // By descriptor: the directory's owner can put a link in its place meanwhile.
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let made = fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(dir)?;
        give(&made, None, &above)
    };
    make().map_err(io_error("make", dir))
}

/// Gives what is made here to whoever owned it before, else to whoever owns the directory around it.
fn give(made: &File, before: Option<&Metadata>, around: &Metadata) -> io::Result<()> {
    let to = before.unwrap_or(around);
    match fchown(made, Some(to.uid()), Some(to.gid())) {
        // Nobody but root gives files away, which matters where another user would lose his own.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let me = made.metadata()?.uid();
            let is_anothers = before.is_some_and(|before| before.uid() != me && before.uid() != 0);
            if is_anothers { Err(error) } else { Ok(()) }
        }
        given => given,
    }
}

/// A file that its user made read-only is not to be replaced by one that is not, though its directory allows it.
fn may_write(path: &Path) -> io::Result<()> {
    match File::options().append(true).open(real(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All or nothing; the file holds a key, so it is never readable by others.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let real = real(path);
    let dir = parent(&real);
    let before = match fs::metadata(&real) {
        Ok(before) => Some(before),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut file = tempfile::Builder::new().prefix(".kubeconfig-").tempfile_in(dir)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
    give(file.as_file(), before.as_ref(), &fs::metadata(dir)?)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(&real).map_err(|error| error.error)?;
    Ok(())
}

/// `kubectl`'s own way to lock a file: a second one named `….lock`.
#[derive(Debug)]
struct Lock {
    of: PathBuf,
    lock: PathBuf,
}

impl Lock {
    async fn take(path: &Path) -> Result<Self, KubeconfigError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let lock = PathBuf::from(name);
        let end = Instant::now() + LOCK_DEADLINE;
        loop {
            match File::options().write(true).create_new(true).mode(0o600).open(&lock) {
                Ok(_) => return Ok(Self { of: path.to_owned(), lock }),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("lock", path)(error));
                }
                Err(_) if Instant::now() >= end => {
                    return Err(KubeconfigError::Locked { path: path.to_owned(), lock });
                }
                Err(_) => sleep(LOCK_INTERVAL).await,
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What cannot be removed is reported to the next one that wants it.
        let _ = fs::remove_file(&self.lock);
    }
}
