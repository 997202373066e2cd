//! The bundle format against friends and strangers.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use host_artifacts::bundle::write::{self, IndexEntry};
use host_artifacts::bundle::{BundleStore, Component, ImageEntry, Manifest, Role, store};
use host_artifacts::digest::sha256;

const PROGRAMS: [&str; 7] =
    ["containerd", "containerd-shim-runc-v2", "ctr", "kubeadm", "kubectl", "kubelet", "runc"];

/// Writes a small, sound bundle named `name` and returns its path.
fn sound(dir: &Path, name: &str, version: &str, trial: bool) -> PathBuf {
    let work = dir.join("parts");
    fs::create_dir_all(&work).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = work.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let mut files = BTreeMap::new();
    let mut components = Vec::new();
    for program in PROGRAMS {
        let bytes = format!("program {program}").into_bytes();
        files.insert(format!("bin/{program}"), put(program, &bytes));
        components.push(Component {
            name: program.to_owned(),
            version: version.to_owned(),
            path: format!("bin/{program}"),
            sha256: sha256(&bytes),
            size: bytes.len() as u64,
        });
    }
    let (layer, config) = (b"layer".as_slice(), b"{}".as_slice());
    let part = |bytes: &[u8]| {
        format!(r#"{{"mediaType":"x","digest":"sha256:{}","size":{}}}"#, sha256(bytes), bytes.len())
    };
    let image =
        format!(r#"{{"schemaVersion":2,"config":{},"layers":[{}]}}"#, part(config), part(layer)).into_bytes();
    let blobs = [layer, config, &image].map(|bytes| (sha256(bytes), put(&sha256(bytes), bytes)));
    let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
    let index = IndexEntry {
        name: "k8s/pause:1".to_owned(),
        media_type,
        sha256: sha256(&image),
        size: image.len() as u64,
    };
    let manifest = Manifest {
        format: 1,
        kubernetes: version.parse().unwrap(),
        arch: "x86_64".to_owned(),
        name: name.to_owned(),
        trial,
        source: "a test".to_owned(),
        created: None,
        components,
        images: vec![ImageEntry {
            name: "k8s/pause:1".to_owned(),
            role: Role::Pause,
            manifest: format!("sha256:{}", sha256(&image)),
            size: 7,
        }],
    };
    let path = dir.join(format!("{name}.k8sbundle"));
    write::write(File::create(&path).unwrap(), &manifest, &files, &[index], &blobs.into()).unwrap();
    path
}

/// Copies a bundle entry by entry; `change` may replace, drop or multiply entries.
fn rewritten(
    path: &Path,
    mut change: impl FnMut(tar::Header, String, Vec<u8>) -> Vec<(tar::Header, String, Vec<u8>)>,
) -> PathBuf {
    let target = path.with_extension("changed");
    let mut output = tar::Builder::new(File::create(&target).unwrap());
    let mut input = tar::Archive::new(File::open(path).unwrap());
    for entry in input.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        for (mut header, name, bytes) in change(entry.header().clone(), name, bytes) {
            header.set_size(bytes.len() as u64);
            // As raw bytes: a hostile writer does not ask the library.
            let field = &mut header.as_old_mut().name;
            field.fill(0);
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            output.append(&header, bytes.as_slice()).unwrap();
        }
    }
    output.into_inner().unwrap();
    target
}

fn assert_refused(path: &Path, id: &str, words: &str) {
    let failure = store::verify(path).unwrap_err();
    assert_eq!(failure.id, id, "{failure}");
    assert!(failure.reason.contains(words), "{words:?} is not in {failure}");
    assert!(failure.object.contains(path.to_str().unwrap()) && !failure.next_step.is_empty(), "{failure:?}");
    // What is refused is not imported either, and leaves nothing.
    let store_dir = path.with_extension("store");
    BundleStore::new(&store_dir).import(path, |_| ()).unwrap_err();
    assert_eq!(fs::read_dir(&store_dir).unwrap().count(), 0);
}

#[test]
fn a_sound_bundle_is_verified_and_imported() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let verified = store::verify(&path).unwrap();
    let bundles = BundleStore::new(dir.path().join("store"));
    let imported = bundles.import(&path, |_| ()).unwrap();
    assert_eq!(imported.digest, verified.digest);
    assert_eq!(fs::read(&imported.path).unwrap(), fs::read(&path).unwrap());
    assert_eq!(bundles.by_version(&"v1.30.1".parse().unwrap()).unwrap().manifest.name, "sound");
}

#[test]
fn the_newest_is_by_number_and_trials_come_last() {
    let dir = tempfile::tempdir().unwrap();
    for (name, version, trial) in
        [("a", "v1.9.0", false), ("b", "v1.30.0", true), ("c", "v1.30.0", false), ("d", "v1.29.14", false)]
    {
        sound(dir.path(), name, version, trial);
    }
    fs::write(dir.path().join("kubernetes-v1.40.0.k8sbundle"), "rubbish").unwrap();
    let bundles = BundleStore::new(dir.path());
    let names: Vec<_> =
        bundles.list().unwrap().bundles.into_iter().map(|bundle| bundle.manifest.name).collect();
    assert_eq!(names, ["c", "b", "d", "a"]);
    assert_eq!(bundles.newest().unwrap().unwrap().manifest.name, "c");
    assert_eq!(bundles.by_name("d").unwrap().manifest.name, "d");
    assert_eq!(bundles.by_version(&"v1.40.0".parse().unwrap()).unwrap_err().id, "BUNDLE-CORRUPT");
    let missing = bundles.by_version(&"v1.31.0".parse().unwrap()).unwrap_err();
    assert_eq!(missing.id, "BUNDLE-MISSING");
    assert!(missing.next_step.contains("k8sctl bundle fetch --kubernetes v1.31.0"), "{missing:?}");
}

#[test]
fn changed_content_is_named_with_both_digests() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let changed = rewritten(&path, |header, name, mut bytes| {
        if name == "bin/kubelet" {
            bytes[0] ^= 1;
        }
        vec![(header, name, bytes)]
    });
    assert_refused(&changed, "BUNDLE-DIGEST", "bin/kubelet: got sha256 ");
    let changed = rewritten(&path, |header, name, mut bytes| {
        if bytes == b"layer" {
            bytes[0] ^= 1;
        }
        vec![(header, name, bytes)]
    });
    assert_refused(&changed, "BUNDLE-DIGEST", "images/blobs/sha256/");
}

#[test]
fn missing_extra_double_and_misplaced_entries_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let without = |gone: &'static str| {
        rewritten(&path, move |header, name, bytes| {
            if name == gone || bytes == gone.as_bytes() { vec![] } else { vec![(header, name, bytes)] }
        })
    };
    assert_refused(&without("bin/runc"), "BUNDLE-CORRUPT", "bin/runc is missing");
    assert_refused(&without("layer"), "BUNDLE-CORRUPT", "is missing");
    assert_refused(&without("bundle.toml"), "BUNDLE-CORRUPT", "first entry");
    let with = |extra: &'static str, after: &'static str| {
        rewritten(&path, move |header, name, bytes| {
            let added = (header.clone(), extra.to_owned(), b"extra".to_vec());
            let stays = (header, name.clone(), bytes);
            if name == after { vec![stays, added] } else { vec![stays] }
        })
    };
    assert_refused(&with("bin/sh", "bin/runc"), "BUNDLE-CORRUPT", "not listed");
    assert_refused(&with("bin/runc", "bin/runc"), "BUNDLE-CORRUPT", "twice");
    assert_refused(&with("bin/ctr", "images/index.json"), "BUNDLE-CORRUPT", "out of order");
    assert_refused(&with("/etc/passwd", "bin/runc"), "BUNDLE-CORRUPT", "does not belong");
    assert_refused(&with("bin/../../etc/passwd", "bin/runc"), "BUNDLE-CORRUPT", "not listed");
    assert_refused(&with("../x", "bin/runc"), "BUNDLE-CORRUPT", "does not belong");
}

#[test]
fn links_and_long_names_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Directory,
        tar::EntryType::GNULongName,
    ] {
        let changed = rewritten(&path, |mut header, name, mut bytes| {
            if name == "bin/kubelet" {
                header.set_entry_type(kind);
                bytes.clear();
            }
            vec![(header, name, bytes)]
        });
        assert_refused(&changed, "BUNDLE-CORRUPT", "not a plain file");
    }
}

#[test]
fn a_size_that_is_not_the_listed_one_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let changed = rewritten(&path, |header, name, mut bytes| {
        if name == "bin/kubelet" {
            bytes.resize(100_000, 0);
        }
        vec![(header, name, bytes)]
    });
    assert_refused(&changed, "BUNDLE-CORRUPT", "has 100000 bytes, expected 15");
}

#[test]
fn a_cut_file_and_a_tail_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let bytes = fs::read(&path).unwrap();
    for length in [0, 100, 600, bytes.len() / 2] {
        let cut = dir.path().join("cut");
        fs::write(&cut, &bytes[..length]).unwrap();
        assert_eq!(store::verify(&cut).unwrap_err().id, "BUNDLE-CORRUPT", "{length}");
    }
    let tail = dir.path().join("tail");
    fs::write(&tail, [bytes.as_slice(), b"more"].concat()).unwrap();
    assert_refused(&tail, "BUNDLE-CORRUPT", "after the end");
}

/// What a copy that broke off leaves in the store is not taken for the bundle.
#[test]
fn a_file_without_its_end_is_no_bundle_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    let bytes = fs::read(&path).unwrap();
    let store_dir = dir.path().join("store");
    let bundles = BundleStore::new(&store_dir);
    fs::create_dir(&store_dir).unwrap();
    let copy = store_dir.join("a.k8sbundle");
    // In a program, between two entries, and within the zeros.
    for length in [bytes.len() / 2 / 512 * 512, bytes.len() - 1024, bytes.len() - 512, bytes.len() - 1] {
        fs::write(&copy, &bytes[..length]).unwrap();
        let listing = bundles.list().unwrap();
        assert!(listing.bundles.is_empty(), "{length}");
        let [broken] = <[_; 1]>::try_from(listing.broken).unwrap();
        assert_eq!(broken.id, "BUNDLE-CORRUPT");
        assert!(broken.reason.contains("cut short"), "{broken}");
        assert_eq!(store::verify(&copy).unwrap_err().id, "BUNDLE-CORRUPT", "{length}");
        let imported = BundleStore::new(dir.path().join("other")).import(&copy, |_| ());
        assert_eq!(imported.unwrap_err().id, "BUNDLE-CORRUPT", "{length}");
    }
    assert!(BundleStore::new(dir.path().join("other")).list().unwrap().bundles.is_empty());
    fs::write(store_dir.join("sound.k8sbundle"), &bytes).unwrap();
    assert_eq!(bundles.newest().unwrap().unwrap().path, store_dir.join("sound.k8sbundle"));
    // Other writers fill up to a record of 20 blocks, and a file may have any name.
    fs::write(&copy, [bytes.as_slice(), &[0_u8; 20 * 512]].concat()).unwrap();
    assert_eq!(bundles.list().unwrap().bundles.len(), 2);
    assert_eq!(bundles.newest().unwrap().unwrap().path, store_dir.join("sound.k8sbundle"));
    assert_eq!(bundles.by_name("sound").unwrap().path, store_dir.join("sound.k8sbundle"));
}

#[test]
fn what_is_no_regular_file_is_refused_unopened() {
    let dir = tempfile::tempdir().unwrap();
    let store_dir = dir.path().join("store");
    fs::create_dir_all(store_dir.join("directory.k8sbundle")).unwrap();
    let pipe = store_dir.join("pipe.k8sbundle");
    rustix::fs::mkfifoat(rustix::fs::CWD, pipe.as_path(), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let bundles = BundleStore::new(&store_dir);
    let broken = bundles.list().unwrap().broken;
    assert_eq!(broken.len(), 2);
    for failure in
        [bundles.import(&pipe, |_| ()).unwrap_err(), store::verify(&pipe).unwrap_err()].iter().chain(&broken)
    {
        assert_eq!(
            (failure.id.as_str(), failure.reason.as_str()),
            ("BUNDLE-CORRUPT", "it is no regular file")
        );
    }
}

#[test]
fn unknown_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = sound(dir.path(), "sound", "v1.30.1", false);
    for (from, to, words) in [("format = 1", "format = 2", "format is 2"), ("trial = ", "tria = ", "tria")] {
        let changed = rewritten(&path, |header, name, bytes| {
            let text = String::from_utf8_lossy(&bytes).replacen(from, to, 1);
            let bytes = if name == "bundle.toml" { text.into_bytes() } else { bytes };
            vec![(header, name, bytes)]
        });
        assert_refused(&changed, "BUNDLE-CORRUPT", words);
    }
}

#[test]
fn a_bundle_of_another_writer_is_read() {
    // The lab's bundle, where it was built: the format's second writer.
    let folder = |name: &str| std::env::var(name).ok().filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = folder("K8S_MYHOME_CACHE")
        .or_else(|| {
            Some(
                folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?.join("k8s-myhome"),
            )
        })
        .unwrap();
    let path = cache.join("bundles/kubernetes-v1.20.2-lab.k8sbundle");
    assert!(path.exists(), "no lab bundle at {}: tests/lab/prepare makes it", path.display());
    let bundle = store::inspect(&path).unwrap();
    assert!(bundle.manifest.trial && bundle.manifest.image(Role::Coredns).is_none());
}
