//! Manifests as files that are named by their digests. A file is there whole or not at all, and is trusted only after it
//! was read. Everything that touches the disk runs where it holds up nobody else.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use plugin_plan::{hash, limits};
use tokio::task::spawn_blocking;

/// The folder of manifests.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of this digest. One that is not what its name says goes.
    pub(super) async fn read(&self, sha256: &str) -> Option<Vec<u8>> {
        let (path, sha256) = (self.path(sha256)?, sha256.to_owned());
        let read = move || {
            let body = read_small(&path).ok()?;
            if hash::sha256_hex(&body) == sha256 {
                return Some(body);
            }
            tracing::warn!(path = %path.display(), "a kept manifest is damaged, and is removed");
            let _ = fs::remove_file(&path);
            None
        };
        spawn_blocking(read).await.ok().flatten()
    }

    /// Keeps a file under its digest, so that it outlasts a crash of the host; gives it back.
    pub(super) async fn keep(&self, sha256: &str, body: Vec<u8>) -> io::Result<Vec<u8>> {
        let cache = self.clone();
        let path = self.path(sha256).ok_or_else(|| io::Error::other("its digest is no file name"))?;
        let keep = move || cache.write(&path, &body).map(|()| body);
        spawn_blocking(keep).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Takes every file of a directory whose digest is wanted.
    pub(super) async fn take_from(&self, folder: &Path, wanted: &[String]) -> io::Result<Vec<String>> {
        let (cache, folder, wanted) = (self.clone(), folder.to_owned(), wanted.to_vec());
        let take = move || -> io::Result<Vec<String>> {
            let mut found: Vec<String> = Vec::new();
            for file in fs::read_dir(&folder)? {
                let path = file?.path();
                // What is too large, or no file, is none of ours.
                let Ok(body) = read_small(&path) else { continue };
                let sha256 = hash::sha256_hex(&body);
                if !wanted.contains(&sha256) || found.contains(&sha256) {
                    continue;
                }
                if let Some(path) = cache.path(&sha256) {
                    cache.write(&path, &body)?;
                    found.push(sha256);
                }
            }
            Ok(found)
        };
        spawn_blocking(take).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// `None`: this is no digest, and would lead elsewhere.
    fn path(&self, sha256: &str) -> Option<PathBuf> {
        let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        (sha256.len() == 64 && sha256.chars().all(is_hex)).then(|| self.folder.join(sha256))
    }

    fn write(&self, path: &Path, body: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(body)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(&self.folder)?.sync_all()
    }
}

/// A regular file that is no larger than a manifest may be.
fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut body = Vec::new();
    File::open(path)?.take(limits::REMOTE_BYTES + 1).read_to_end(&mut body)?;
    if body.len() as u64 > limits::REMOTE_BYTES {
        return Err(io::Error::other("it is larger than a manifest may be"));
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_manifest_comes_back_by_its_digest_and_a_damaged_one_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::new(folder.path().join("manifests"));
        let digest = hash::sha256_hex(b"kind: A");
        assert_eq!(cache.read(&digest).await, None);
        cache.keep(&digest, b"kind: A".to_vec()).await.expect("it is kept");
        assert_eq!(cache.read(&digest).await.as_deref(), Some(b"kind: A".as_slice()));
        let path = folder.path().join("manifests").join(&digest);
        fs::write(&path, "kind: B").expect("it is damaged");
        assert_eq!(cache.read(&digest).await, None);
        assert!(!path.exists(), "it makes room for the right one");
        assert_eq!(cache.read("../../etc/passwd").await, None);
    }

    #[tokio::test]
    async fn of_a_directory_the_wanted_files_are_taken_whatever_their_names() {
        let (from, to) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fs::write(from.path().join("upstream.yaml"), "kind: A").expect("written");
        fs::write(from.path().join("other.yaml"), "kind: B").expect("written");
        fs::create_dir(from.path().join("folder")).expect("made");
        let cache = Cache::new(to.path().to_owned());
        let wanted = [hash::sha256_hex(b"kind: A"), hash::sha256_hex(b"kind: C")];
        let found = cache.take_from(from.path(), &wanted).await.expect("it is read");
        assert_eq!(found, [wanted[0].clone()]);
        assert_eq!(cache.read(&wanted[0]).await.as_deref(), Some(b"kind: A".as_slice()));
        assert!(cache.take_from(&from.path().join("nowhere"), &wanted).await.is_err());
    }
}
