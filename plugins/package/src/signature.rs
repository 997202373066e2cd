//! Who vouches for a package: the build of this host agent, which knows the digests of the tree's own plugins; a key that
//! the administrator trusts; or nobody. Signatures are those of minisign, so that people can make and check them with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Cursor, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKeyBox, SignatureBox};

use crate::error::PackageError;
use crate::folder::{MANIFEST_FILE, SIGNATURE_FILE, utf8};
use crate::manifest::Manifest;
use crate::plain::{read_below, read_bounded};

/// Largest key file, and largest `plugin.toml` that is signed.
const KEY_BYTES: u64 = 4 << 10;
const SIGNED_BYTES: u64 = 256 << 10;
/// Base64 digits of the second signature, the one of the trusted comment.
const SECOND_SIGNATURE: usize = 88;

/// Who vouches for a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The build of this host agent.
    BuiltIn,
    /// A trusted key.
    Signed {
        /// Its id, 16 hex digits.
        key: String,
    },
    /// Nobody: somebody is developing it.
    Dev,
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Signed { key } => write!(f, "signed:{key}"),
            Self::Dev => f.write_str("dev"),
        }
    }
}

impl FromStr for Trust {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match (text, text.strip_prefix("signed:")) {
            ("built-in", _) => Ok(Self::BuiltIn),
            ("dev", _) => Ok(Self::Dev),
            (_, Some(key)) if key.len() == 16 && key.chars().all(|c| c.is_ascii_hexdigit()) => {
                Ok(Self::Signed { key: key.to_owned() })
            }
            _ => Err(format!("{text:?}: expected built-in, dev, or signed: and 16 hex digits")),
        }
    }
}

/// Whom a host agent trusts. By default nobody.
#[derive(Clone, Debug, Default)]
pub struct TrustPolicy {
    /// Digests of `plugin.toml` of the tree's own plugins.
    pub built_in: BTreeSet<String>,
    /// Keys of others.
    pub keys: KeyRing,
}

/// Public keys, by their ids.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    keys: BTreeMap<String, PublicKey>,
}

impl KeyRing {
    /// Every `*.pub` of a folder; one that cannot be read is told and left out. No folder: no keys.
    pub fn load(folder: &Path) -> (Self, Vec<PackageError>) {
        let (mut ring, mut errors) = (Self::default(), Vec::new());
        let Ok(entries) = fs::read_dir(folder) else { return (ring, errors) };
        let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        for path in paths.into_iter().filter(|path| path.extension().is_some_and(|end| end == "pub")) {
            let text = read_bounded(&path, KEY_BYTES).and_then(|text| utf8(&path, text));
            let unusable = |reason: String| PackageError::Key { what: path.display().to_string(), reason };
            match text {
                Ok(text) => errors.extend(ring.add(&text).err().map(unusable)),
                Err(error) => errors.push(unusable(error.to_string())),
            }
        }
        (ring, errors)
    }

    /// Takes a public key in, as minisign writes it. Gives its id; the error is a reason.
    pub fn add(&mut self, public_key: &str) -> Result<String, String> {
        let text = PublicKeyBox::from_string(public_key.trim_end());
        let key = text.and_then(PublicKeyBox::into_public_key).map_err(|error| error.to_string())?;
        let id = key_id(key.keynum());
        self.keys.insert(id.clone(), key);
        Ok(id)
    }

    /// The id of the trusted key that signed this.
    pub fn verify(&self, signed: &[u8], signature: &str) -> Result<String, PackageError> {
        let broken = |reason: String| PackageError::Signature { reason };
        // The library takes the second signature for a whole one.
        if signature.lines().nth(3).is_none_or(|line| line.trim().len() != SECOND_SIGNATURE) {
            return Err(broken("it is cut short".to_owned()));
        }
        let signature = SignatureBox::from_string(signature).map_err(|error| broken(error.to_string()))?;
        let id = key_id(signature.keynum());
        let Some(key) = self.keys.get(&id) else { return Err(PackageError::UnknownKey { key: id }) };
        minisign::verify(key, &signature, Cursor::new(signed), true, false, false)
            .map_err(|error| broken(error.to_string()))?;
        Ok(id)
    }
}

/// As minisign prints it.
fn key_id(keynum: &[u8]) -> String {
    let number = keynum.iter().rev().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    format!("{number:016X}")
}

/// A new pair: the secret key and the public one, as minisign writes them. No password: empty.
pub fn new_key(password: &str) -> Result<(String, String), PackageError> {
    let unusable = |error: minisign::PError| PackageError::Key {
        what: "that was to be made".to_owned(),
        reason: error.to_string(),
    };
    let pair = if password.is_empty() {
        KeyPair::generate_unencrypted_keypair()
    } else {
        KeyPair::generate_encrypted_keypair(Some(password.to_owned()))
    }
    .map_err(unusable)?;
    let secret = pair.sk.to_box(Some("secret key of a k8sctl plugin author")).map_err(unusable)?;
    let public = pair.pk.to_box().map_err(unusable)?;
    Ok((secret.into_string(), public.into_string()))
}

/// Signs a package: writes `plugin.toml.sig`. No password: empty.
pub fn sign(folder: &Path, secret_key: &str, password: &str) -> Result<PathBuf, PackageError> {
    let path = folder.join(MANIFEST_FILE);
    let text = utf8(&path, read_below(folder, MANIFEST_FILE, SIGNED_BYTES)?)?;
    let manifest = Manifest::parse(&text).map_err(|mistakes| PackageError::Mistakes { path, mistakes })?;
    if manifest.binaries.is_empty() {
        return Err(PackageError::NotBuilt { folder: folder.to_owned() });
    }
    let unusable = |error: minisign::PError| PackageError::Key {
        what: "for signing".to_owned(),
        reason: error.to_string(),
    };
    let key = SecretKeyBox::from_string(secret_key).map_err(unusable)?;
    let key = if password.is_empty() {
        key.into_unencrypted_secret_key()
    } else {
        key.into_secret_key(Some(password.to_owned()))
    }
    .map_err(unusable)?;
    let trusted = format!("{} {}", manifest.name, manifest.version);
    let comment = Some("signature of a k8sctl plugin");
    let signature = minisign::sign(None, &key, Cursor::new(text.as_bytes()), Some(&trusted), comment)
        .map_err(unusable)?;
    let path = folder.join(SIGNATURE_FILE);
    let written = place(folder, &path, &signature.into_string());
    written.map_err(|error| PackageError::Build { path: path.clone(), reason: error.to_string() })?;
    Ok(path)
}

/// In the place of what has that name, be it a link to elsewhere.
fn place(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let mode = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".signature-").permissions(mode).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"format = 1\nname = \"beispiel\"\n";

    fn ring_and_signature() -> (KeyRing, String, String) {
        let (secret, public) = new_key("").expect("a pair");
        let mut ring = KeyRing::default();
        let id = ring.add(&public).expect("a key");
        let key = SecretKeyBox::from_string(&secret).expect("a box").into_unencrypted_secret_key();
        let signature = minisign::sign(None, &key.expect("a key"), Cursor::new(TEXT), Some("t"), None);
        (ring, id, signature.expect("signed").into_string())
    }

    #[test]
    fn what_a_trusted_key_signed_is_taken() {
        let (ring, id, signature) = ring_and_signature();
        assert_eq!(ring.verify(TEXT, &signature).expect("it fits"), id);
        let stranger = KeyRing::default().verify(TEXT, &signature).expect_err("nobody knows the key");
        assert!(matches!(&stranger, PackageError::UnknownKey { key } if *key == id), "{stranger:?}");
    }

    #[test]
    fn one_changed_byte_anywhere_is_refused() {
        let (ring, _, signature) = ring_and_signature();
        for at in 0..TEXT.len() {
            let mut text = TEXT.to_vec();
            text[at] ^= 1;
            assert!(ring.verify(&text, &signature).is_err(), "byte {at} of the text");
        }
        // The first line is a comment that nobody signs; the last digit of base64 has bits that say nothing.
        let begin = signature.find('\n').expect("four lines") + 1;
        for (at, byte) in signature.bytes().enumerate().skip(begin).step_by(3) {
            if byte == b'\n' || byte == b'=' || signature.as_bytes().get(at + 1) == Some(&b'=') {
                continue;
            }
            let mut bytes = signature.clone().into_bytes();
            bytes[at] = if byte == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).expect("text");
            assert!(ring.verify(TEXT, &changed).is_err(), "byte {at} of the signature");
        }
    }

    #[test]
    fn a_signature_that_is_cut_anywhere_is_refused() {
        let (ring, _, signature) = ring_and_signature();
        for end in 0..signature.trim_end().len() {
            assert!(ring.verify(TEXT, &signature[..end]).is_err(), "cut at {end}");
        }
        assert!(ring.verify(TEXT, "").is_err() && ring.verify(TEXT, "a\nb\nc\nd\n").is_err());
    }

    #[test]
    fn a_key_with_a_password_needs_it() {
        let (secret, _) = new_key("geheim").expect("a pair");
        let open = |password: &str| {
            let key = SecretKeyBox::from_string(&secret).expect("a box");
            if password.is_empty() {
                key.into_unencrypted_secret_key()
            } else {
                key.into_secret_key(Some(password.to_owned()))
            }
        };
        assert!(open("geheim").is_ok());
        assert!(open("anders").is_err() && open("").is_err());
    }

    #[test]
    fn a_folder_of_keys_is_read_and_what_is_no_key_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let (_, public) = new_key("").expect("a pair");
        fs::write(folder.path().join("good.pub"), &public).expect("written");
        fs::write(folder.path().join("bad.pub"), "no key").expect("written");
        fs::write(folder.path().join("README"), "no key either").expect("written");
        let (ring, errors) = KeyRing::load(folder.path());
        assert_eq!(ring.keys.len(), 1);
        assert_eq!(errors.len(), 1, "{errors:?}");
        let failure = errors[0].failure("any");
        assert!(failure.id == "PLUGIN-KEY" && failure.reason.contains("bad.pub"), "{failure:?}");
        let (none, errors) = KeyRing::load(&folder.path().join("nothing"));
        assert!(none.keys.is_empty() && errors.is_empty());
    }

    #[test]
    fn trust_is_written_and_read() {
        let signed = Trust::Signed { key: "0123456789ABCDEF".to_owned() };
        for (trust, text) in
            [(Trust::BuiltIn, "built-in"), (Trust::Dev, "dev"), (signed, "signed:0123456789ABCDEF")]
        {
            assert_eq!(trust.to_string(), text);
            assert_eq!(text.parse::<Trust>(), Ok(trust));
        }
        assert!("signed:x".parse::<Trust>().is_err() && "".parse::<Trust>().is_err());
    }
}
