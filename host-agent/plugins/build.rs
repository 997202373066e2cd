//! Takes down which packages were built from this tree: they are trusted without a signature.
//!
//! `K8SCTL_TREE_PLUGINS` names a file with a line `SHA256 NAME` of each. Where it is not set, or not there yet, none are
//! trusted so: the packages are built by a program of this workspace, and then the host agent once more.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::{env, fs};

const VARIABLE: &str = "K8SCTL_TREE_PLUGINS";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let list = env::var_os(VARIABLE).map(|path| read(&PathBuf::from(path))).unwrap_or_default();
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    fs::write(Path::new(&out).join("tree-plugins"), list).expect("OUT_DIR is writable");
}

fn read(path: &Path) -> String {
    println!("cargo::rerun-if-changed={}", path.display());
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return String::new(),
        Err(error) => panic!("{VARIABLE}: {}: {error}", path.display()),
    };
    for (number, line) in text.lines().enumerate() {
        let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut words = line.split_whitespace();
        let (digest, name) = (words.next().unwrap_or_default(), words.next());
        assert!(
            is_digest(digest) && name.is_some() && words.next().is_none(),
            "{VARIABLE}: {}:{}: {line:?}, expected the SHA-256 of a plugin.toml and a name",
            path.display(),
            number + 1
        );
    }
    text
}
