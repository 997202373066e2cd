//! Secrets of plugins: values that a person gave, or that were made up, one file each, for root alone. Plugins know them
//! by handle and key only; the [engine](crate::engine) puts the value into a Secret, and nobody else is told.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_plan::{Alphabet, GeneratedSecret, SecretRef};
use zeroize::Zeroizing;

/// Largest value, in bytes: half of what a Kubernetes Secret takes, for it is written in base64.
const VALUE_LIMIT: usize = 256 * 1024;
/// Longest handle or key, in bytes.
const NAME_LIMIT: usize = 63;

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &[u8] = b"0123456789abcdef";
const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// See the module. `FOLDER/CLUSTER/PLUGIN/HANDLE/KEY`; all of its methods block.
#[derive(Clone, Debug)]
pub struct Vault {
    folder: PathBuf,
}

impl Vault {
    /// Secrets below this folder, which is made when the first one comes.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Keeps a value, whatever it was before. An empty one: forgets it.
    pub fn put(&self, cluster: &str, plugin: &str, secret: &SecretRef, value: &[u8]) -> Result<(), Failure> {
        let file = self.file(cluster, plugin, secret)?;
        if value.len() > VALUE_LIMIT {
            let reason =
                format!("{} has {} bytes, expected at most {VALUE_LIMIT}", name(secret), value.len());
            return Err(refused(plugin, reason, "nothing was changed; keep a shorter value"));
        }
        let kept = if value.is_empty() { forget_file(&file) } else { write(&file, value) };
        kept.map_err(|error| unusable(plugin, &file, &error))
    }

    /// A value; `None`: none is kept.
    pub fn get(
        &self,
        cluster: &str,
        plugin: &str,
        secret: &SecretRef,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
        let file = self.file(cluster, plugin, secret)?;
        match fs::read(&file) {
            Ok(value) => Ok(Some(Zeroizing::new(value))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(plugin, &file, &error)),
        }
    }

    /// Makes up those that are not there; what is there stays as it is.
    pub fn generate_missing(
        &self,
        cluster: &str,
        plugin: &str,
        all: &[GeneratedSecret],
    ) -> Result<(), Failure> {
        for wanted in all {
            let secret = SecretRef { handle: wanted.handle.clone(), key: wanted.key.clone() };
            if self.get(cluster, plugin, &secret)?.is_none() {
                self.put(cluster, plugin, &secret, &made_up(wanted))?;
            }
        }
        Ok(())
    }

    /// Which values there are, in order.
    pub fn names(&self, cluster: &str, plugin: &str) -> Vec<SecretRef> {
        let mut names = Vec::new();
        if !is_name(cluster) || !is_name(plugin) {
            return names;
        }
        for handle in entries(&self.folder.join(cluster).join(plugin)) {
            for key in entries(&self.folder.join(cluster).join(plugin).join(&handle)) {
                names.push(SecretRef { handle: handle.clone(), key });
            }
        }
        names.sort_by(|a, b| (&a.handle, &a.key).cmp(&(&b.handle, &b.key)));
        names
    }

    /// Forgets all of a plugin, or of a whole cluster.
    pub fn forget(&self, cluster: &str, plugin: Option<&str>) {
        if !is_name(cluster) || !plugin.is_none_or(is_name) {
            return;
        }
        let folder = match plugin {
            Some(plugin) => self.folder.join(cluster).join(plugin),
            None => self.folder.join(cluster),
        };
        if let Err(error) = fs::remove_dir_all(&folder)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::error!(path = %folder.display(), error = %error, "secrets of a plugin cannot be forgotten");
        }
    }

    fn file(&self, cluster: &str, plugin: &str, secret: &SecretRef) -> Result<PathBuf, Failure> {
        let parts = [cluster, plugin, secret.handle.as_str(), secret.key.as_str()];
        if let Some(bad) = parts.iter().find(|part| !is_name(part)) {
            let reason = format!(
                "{bad:?} in the secret {}: expected at most {NAME_LIMIT} letters, digits, dots, dashes and underscores, \
                 and no dot in front",
                name(secret)
            );
            return Err(refused(plugin, reason, "nothing was changed; name it so"));
        }
        Ok(parts.iter().fold(self.folder.clone(), |path, part| path.join(part)))
    }
}

/// `handle.key`, as commands write it.
pub(crate) fn name(secret: &SecretRef) -> String {
    format!("{}.{}", secret.handle, secret.key)
}

/// No value is kept where one is needed.
pub(crate) fn missing(plugin: &str, secret: &SecretRef) -> Failure {
    let name = name(secret);
    let reason = format!("it needs the secret {name}, and no value is kept for it");
    refused(plugin, reason, format!("give it one: k8sctl plugin config {plugin} --secret {name}=@FILE"))
}

fn refused(plugin: &str, reason: String, next: impl Into<String>) -> Failure {
    Failure::new("PLUGIN-SECRET", format!("plugin {plugin}"), reason, next)
}

fn unusable(plugin: &str, file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(
        "PLUGIN-STORE",
        format!("plugin {plugin}"),
        format!("{}: {error}", file.display()),
        "see that the host agent's state directory has space and is writable, then run the same command again",
    )
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_LIMIT).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
}

/// Names of a folder's entries, but for those that are being written.
fn entries(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_name(name)).collect()
}

/// The old value or the new one, whenever the power is cut.
fn write(file: &Path, value: &[u8]) -> std::io::Result<()> {
    let folder = file.parent().ok_or_else(|| std::io::Error::other("it lies in no folder"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    // Only its owner may read it, from the beginning.
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(value)?;
    new.as_file().sync_all()?;
    new.persist(file).map_err(|error| error.error)?;
    fs::File::open(folder)?.sync_all()
}

fn forget_file(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// `length` characters of the alphabet. Of base64 a length that four divides can be read back as bytes.
fn made_up(wanted: &GeneratedSecret) -> Zeroizing<Vec<u8>> {
    let alphabet = match wanted.alphabet {
        Alphabet::Alphanumeric => ALPHANUMERIC,
        Alphabet::Hex => HEX,
        Alphabet::Base64 => BASE64,
    };
    let characters = (0..wanted.length).map(|_| alphabet[rand::random_range(0..alphabet.len())]);
    Zeroizing::new(characters.collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn secret(handle: &str, key: &str) -> SecretRef {
        SecretRef { handle: handle.to_owned(), key: key.to_owned() }
    }

    fn value_of(vault: &Vault, secret: &SecretRef) -> Option<Vec<u8>> {
        vault.get("c", "harbor", secret).expect("it is readable").map(|value| value.to_vec())
    }

    #[test]
    fn a_value_is_kept_for_its_owner_alone_until_it_is_forgotten() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::new(folder.path().join("secrets"));
        let admin = secret("admin", "password");
        assert_eq!(value_of(&vault, &admin), None);
        vault.put("c", "harbor", &admin, b"first").expect("it is kept");
        vault.put("c", "harbor", &admin, b"second").expect("it is replaced");
        assert_eq!(value_of(&vault, &admin).as_deref(), Some(&b"second"[..]));

        let mode = |path: &str| {
            let path = folder.path().join("secrets").join(path);
            fs::metadata(path).expect("it is there").permissions().mode() & 0o777
        };
        assert_eq!(mode("c/harbor/admin/password"), 0o600);
        assert_eq!(["", "c", "c/harbor", "c/harbor/admin"].map(mode), [0o700; 4]);

        vault.put("c", "harbor", &secret("admin", "name"), b"x").expect("it is kept");
        assert_eq!(vault.names("c", "harbor"), [secret("admin", "name"), admin.clone()]);
        vault.put("c", "harbor", &admin, b"").expect("it is forgotten");
        assert_eq!(vault.names("c", "harbor"), [secret("admin", "name")]);
        vault.forget("c", Some("harbor"));
        assert!(vault.names("c", "harbor").is_empty());
    }

    #[test]
    fn names_lead_out_of_no_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::new(folder.path().join("secrets"));
        let long = "x".repeat(64);
        for (handle, key) in [("..", "k"), ("a/b", "k"), ("a", ""), ("a", ".hidden"), ("a", long.as_str())] {
            let failure = vault.put("c", "harbor", &secret(handle, key), b"x").expect_err("it is no name");
            assert_eq!(failure.id, "PLUGIN-SECRET", "{failure}");
        }
        let failure = vault.put("../c", "harbor", &secret("a", "k"), b"x").expect_err("it is no name");
        assert!(failure.reason.contains("../c"), "{failure}");
        vault.forget("..", None);
        assert!(folder.path().exists());
    }

    #[test]
    fn a_value_that_is_too_long_is_refused_and_the_old_one_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::new(folder.path().to_owned());
        let key = secret("a", "k");
        vault.put("c", "harbor", &key, b"old").expect("it is kept");
        let failure = vault.put("c", "harbor", &key, &vec![0; VALUE_LIMIT + 1]).expect_err("it is too long");
        assert!(failure.reason.contains("262145 bytes"), "{failure}");
        assert_eq!(value_of(&vault, &key).as_deref(), Some(&b"old"[..]));
    }

    #[test]
    fn what_is_made_up_is_made_up_once_and_of_its_alphabet() {
        let folder = tempfile::tempdir().expect("a folder");
        let vault = Vault::new(folder.path().to_owned());
        let wanted = |key: &str, alphabet| GeneratedSecret {
            handle: "h".to_owned(),
            key: key.to_owned(),
            length: 512,
            alphabet,
        };
        let all = [
            wanted("plain", Alphabet::Alphanumeric),
            wanted("hex", Alphabet::Hex),
            wanted("base64", Alphabet::Base64),
        ];
        vault.generate_missing("c", "harbor", &all).expect("they are made up");
        let values = || -> Vec<Vec<u8>> {
            let value = |one: &GeneratedSecret| value_of(&vault, &secret("h", &one.key));
            all.iter().map(|one| value(one).expect("it is there")).collect()
        };
        let before = values();
        for (value, alphabet) in before.iter().zip([ALPHANUMERIC, HEX, BASE64]) {
            assert_eq!(value.len(), 512);
            assert!(value.iter().all(|byte| alphabet.contains(byte)), "{value:?}");
        }
        assert_ne!(before[0], before[2]);
        vault.generate_missing("c", "harbor", &all).expect("they are there");
        assert_eq!(values(), before);
    }
}
