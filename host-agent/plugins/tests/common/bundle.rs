//! The servers' programs out of a bundle's images, for tests on another Kubernetes than the lab's (`LAB_BUNDLE=FILE`).
//! Unpacked once for each bundle, into cargo's own folder for tests.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Images by their role, and the programs in them.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kube-controller-manager"];

/// The folder of the unpacked programs.
pub fn programs(bundle: &Path) -> PathBuf {
    let about = fs::metadata(bundle).unwrap_or_else(|error| panic!("{}: {error}", bundle.display()));
    let name = bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let tests = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let folder = tests.join(format!("{name}-{}", about.len()));
    if PROGRAMS.iter().all(|program| folder.join(program).is_file()) {
        return folder;
    }
    let work = tempfile::tempdir_in(&tests).expect("a folder");
    let description = read(bundle, |path| path == "bundle.toml").pop_first().expect("a description").1;
    let description: toml::Table =
        toml::from_str(&String::from_utf8(description).expect("text")).expect("a description");
    let images = description["image"].as_array().expect("images");
    for program in PROGRAMS {
        let is_it = |image: &&toml::Value| image["role"].as_str() == Some(program);
        let image = images.iter().find(is_it).unwrap_or_else(|| panic!("no image of {program}"));
        let digest = image["manifest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
        let manifest = blobs(bundle, &[digest]).pop_first().expect("a manifest").1;
        let manifest: Value = serde_json::from_slice(&manifest).expect("a manifest");
        let digest = |layer: &Value| {
            layer["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned()
        };
        let layers: Vec<String> = manifest["layers"].as_array().expect("layers").iter().map(digest).collect();
        let unpacked = blobs(bundle, &layers).into_values().any(|layer| unpack(&layer, program, work.path()));
        assert!(unpacked, "no layer of {program}'s image has usr/local/bin/{program}");
    }
    // Another test may have been faster.
    if fs::rename(work.path(), &folder).is_ok() {
        let _ = work.keep();
    }
    folder
}

fn blobs(bundle: &Path, digests: &[String]) -> BTreeMap<String, Vec<u8>> {
    let paths: Vec<String> = digests.iter().map(|digest| format!("images/blobs/sha256/{digest}")).collect();
    read(bundle, |path| paths.iter().any(|one| one == path))
}

fn read(bundle: &Path, is_wanted: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(File::open(bundle).expect("the bundle opens"));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a name").to_string_lossy().into_owned();
        if is_wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("it is read");
            found.insert(path, bytes);
        }
    }
    found
}

/// `false`: this layer does not have the program.
fn unpack(layer: &[u8], program: &str, into: &Path) -> bool {
    let is_packed = layer.starts_with(&[0x1f, 0x8b]);
    let layer: Box<dyn Read + '_> =
        if is_packed { Box::new(flate2::read::MultiGzDecoder::new(layer)) } else { Box::new(layer) };
    let mut archive = tar::Archive::new(layer);
    for entry in archive.entries().expect("entries") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a name").to_string_lossy().into_owned();
        if path.trim_start_matches("./") == format!("usr/local/bin/{program}") {
            entry.unpack(into.join(program)).expect("it is unpacked");
            return true;
        }
    }
    false
}
