use super::*;
use crate::digest::sha256;

/// A store with images of these ids, as far as listing and removing go.
fn store_with(ids: &[&str]) -> (tempfile::TempDir, ImageStore) {
    let dir = tempfile::tempdir().expect("a directory");
    for id in ids {
        let image = dir.path().join(id);
        fs::create_dir(&image).expect("it is made");
        for name in ["disk.qcow2", "vmlinuz", "initrd.img"] {
            fs::write(image.join(name), "1234").expect("it is written");
        }
        let description = Description {
            id: (*id).to_owned(),
            inputs: id[..2].to_owned(),
            base: id[2..].to_owned(),
            kubernetes: "v1.30.0".parse().expect("a version"),
            bundle: "kubernetes-v1.30.0".to_owned(),
            bundle_digest: String::new(),
            trial: false,
            suite: "bookworm".to_owned(),
            node_agent_sha256: String::new(),
            debug_unit: false,
            images: BTreeMap::from([(Role::Pause, "k8s/pause:1".to_owned())]),
            cmdline: CMDLINE.to_owned(),
            files: FILES
                .map(|name| (name.to_owned(), FileFacts { bytes: 4, sha256: sha256(b"1234") }))
                .into(),
        };
        fs::write(image.join(DESCRIPTION), toml::to_string(&description).expect("toml"))
            .expect("it is written");
    }
    let store = ImageStore::new(dir.path());
    (dir, store)
}

#[test]
fn whole_images_are_listed_and_halves_are_not() {
    let (dir, store) = store_with(&["aa11", "bb22"]);
    fs::remove_file(dir.path().join("bb22/vmlinuz")).expect("it is there");
    fs::create_dir(dir.path().join(".build-x")).expect("it is made");
    fs::write(dir.path().join("base-0.tar"), "").expect("it is written");
    let images = store.list().expect("it lists");
    assert_eq!(images.iter().map(|image| image.id.as_str()).collect::<Vec<_>>(), ["aa11"]);
    assert_eq!(images[0].size, 12);
}

#[test]
fn a_file_of_another_length_is_named() {
    let (dir, store) = store_with(&["aa11", "bb22"]);
    assert!(store.damaged().is_empty());
    fs::write(dir.path().join("bb22/disk.qcow2"), "12").expect("it is written");
    assert_eq!(store.list().expect("it lists").len(), 1);
    let damaged = store.damaged();
    let [one] = damaged.as_slice() else { panic!("{damaged:?}") };
    assert_eq!((one.id.as_str(), one.failure.id.as_str()), ("bb22", "IMAGE-DAMAGED"));
    assert_eq!(one.made_of.as_ref().map(|made| made.bundle.as_str()), Some("kubernetes-v1.30.0"));
    assert!(one.failure.reason.contains("disk.qcow2: got 2 bytes, expected 4"), "{}", one.failure.reason);
}

#[test]
fn another_content_of_the_same_length_is_found_by_reading() {
    let (dir, store) = store_with(&["aa11", "bb22"]);
    store.verify("aa11").expect("it is as it was made");
    fs::write(dir.path().join("bb22/vmlinuz"), "1235").expect("it is written");
    assert_eq!(store.list().expect("it lists").len(), 2, "a look at the lengths sees nothing");
    let failure = store.verify("bb22").expect_err("it was changed");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("IMAGE-DAMAGED", "image bb22"));
    assert!(failure.reason.contains("bb22/vmlinuz: its sha256 is "), "{}", failure.reason);
    assert_eq!(store.list().expect("it lists").len(), 1, "from now on it counts as damaged");
    assert_eq!(store.damaged()[0].failure.reason, failure.reason);
}

fn used_by(id: &str, clusters: &[&str]) -> BTreeMap<String, Vec<String>> {
    BTreeMap::from([(id.to_owned(), clusters.iter().map(|&name| name.to_owned()).collect())])
}

#[test]
fn removing_takes_a_prefix_and_spares_what_is_used() {
    let (dir, store) = store_with(&["aa11", "aa22", "bb33"]);
    let id = |result: Result<String, Failure>| result.map_err(|failure| failure.id);
    let used = used_by("bb33", &["home"]);
    assert_eq!(id(store.remove("aa", &used)), Err("IMAGE-UNKNOWN".to_owned()));
    assert_eq!(id(store.remove("", &used)), Err("IMAGE-UNKNOWN".to_owned()));
    let failure = store.remove("bb", &used).expect_err("it is used");
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("IMAGE-IN-USE", "image bb33"));
    assert_eq!(failure.reason, "a cluster's nodes run on it: home");
    let failure = store.remove("bb", &used_by("bb33", &["home", "lab"])).expect_err("it is used");
    assert_eq!(failure.reason, "nodes of several clusters run on it: home, lab");
    assert_eq!(id(store.remove("aa1", &used)), Ok("aa11".to_owned()));
    assert!(!dir.path().join("aa11").exists() && dir.path().join("bb33").exists());
}

#[test]
fn what_is_damaged_is_named_and_can_be_removed() {
    let (dir, store) = store_with(&["aa11", "bb22", "cc33"]);
    fs::remove_file(dir.path().join("aa11/disk.qcow2")).expect("it is there");
    fs::write(dir.path().join("bb22").join(DESCRIPTION), "id = 7").expect("it is written");
    fs::remove_file(dir.path().join("cc33").join(DESCRIPTION)).expect("it is there");
    fs::create_dir(dir.path().join("lost+found")).expect("it is made");
    fs::write(dir.path().join("base-0.tar"), "").expect("it is written");
    let damaged = store.damaged();
    let found: Vec<_> = damaged.iter().map(|one| (one.id.as_str(), one.made_of.is_some())).collect();
    assert_eq!(found, [("aa11", true), ("bb22", false), ("cc33", false)]);
    assert!(damaged[1].failure.reason.contains("bb22/image.toml: it is no description"), "{damaged:?}");
    for id in ["aa11", "bb22", "cc33"] {
        assert_eq!(store.remove(id, &used_by(id, &["home"])).expect_err("it is used").id, "IMAGE-IN-USE");
        assert_eq!(store.remove(&id[..2], &BTreeMap::new()).expect("it goes"), id);
    }
    assert!(store.damaged().is_empty() && dir.path().join("lost+found").exists());
}

#[test]
fn what_is_asked_for_again_is_the_newest() {
    let (dir, store) = store_with(&["aa11", "bb22"]);
    let old = File::options().append(true).open(dir.path().join("aa11").join(DESCRIPTION));
    old.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("it is dated back");
    let built = |id: &str| store.load(id).expect("it is there").built;
    assert!(built("aa11") < built("bb22"));
    assert!(store.load_as_newest("aa11").expect("it is dated").is_some());
    assert!(built("aa11") >= built("bb22"));
    assert!(store.load_as_newest("cc33").expect("nothing to date").is_none());
}

#[test]
fn the_same_inputs_are_the_image_of_the_newest_packages() {
    let (dir, store) = store_with(&["aa11", "aa22", "bb33"]);
    let old = File::options().append(true).open(dir.path().join("aa11").join(DESCRIPTION));
    old.and_then(|file| file.set_modified(SystemTime::UNIX_EPOCH)).expect("it is dated back");
    let built = |inputs| store.load_built(inputs).expect("it is dated").map(|image| image.id);
    assert_eq!(built("aa").as_deref(), Some("aa22"));
    assert_eq!(built("cc"), None);
    // Built again, rather than going back to older packages.
    fs::remove_file(dir.path().join("aa22/vmlinuz")).expect("it is there");
    assert_eq!(built("aa"), None);
}

#[test]
fn what_undoes_the_compression_of_modules_is_missed_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().to_str().expect("a path");
    for program in ["mmdebstrap", "mke2fs", "qemu-img", "tar", "unshare", "chroot", "gzip", "xz"] {
        fs::write(dir.path().join(program), "").expect("it is written");
    }
    let failure = Failure::from(check_tools([path].into_iter()).expect_err("there is no zstd"));
    assert_eq!((failure.id.as_str(), failure.object.as_str()), ("IMAGE-TOOL-MISSING", "program zstd"));
    fs::write(dir.path().join("zstd"), "").expect("it is written");
    check_tools([path].into_iter()).expect("all is there");
}

#[test]
fn leftovers_of_killed_builds_go() {
    let (dir, store) = store_with(&["aa11"]);
    fs::create_dir_all(dir.path().join(".build-old/root/etc")).expect("it is made");
    store.sweep();
    assert!(!dir.path().join(".build-old").exists() && dir.path().join("aa11").exists());
}

#[test]
fn qemus_user_can_read_a_new_image() {
    let (dir, _store) = store_with(&["aa11"]);
    let mode = |name: &str| {
        let path = dir.path().join("aa11").join(name);
        fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    for name in FILES {
        // As the host agent's umask has them made.
        let path = dir.path().join("aa11").join(name);
        fs::set_permissions(path, Permissions::from_mode(0o600)).expect("a mode");
    }
    finish(&dir.path().join("aa11")).expect("it is finished");
    assert_eq!(FILES.map(mode), [0o644; 3]);
}

#[test]
fn ids_follow_the_inputs() {
    let dir = tempfile::tempdir().expect("a directory");
    let agent = dir.path().join("agent");
    let manifest = "format = 1\nkubernetes = \"v1.30.0\"\narch = \"x86_64\"\nname = \"x\"\ntrial = false\n\
        source = \"\"\nimage = []\ncomponent = []\n";
    let bundle = |digest: &str| crate::bundle::Bundle {
        path: PathBuf::new(),
        digest: digest.to_owned(),
        size: 0,
        manifest: toml::from_str(manifest).expect("a manifest"),
    };
    let inputs = |digest: &str, debug_unit| BuildInputs {
        bundle: bundle(digest),
        suite: "bookworm".to_owned(),
        node_agent: agent.clone(),
        debug_unit,
    };
    let id = |digest, debug_unit| identify(&inputs(digest, debug_unit)).expect("an id").0;
    fs::write(&agent, "one").expect("it is written");
    let first = id("d", false);
    assert_eq!((first.len(), id("d", false)), (32, first.clone()));
    let others = [id("e", false), id("d", true), {
        fs::write(&agent, "two").expect("it is written");
        id("d", false)
    }];
    assert!(!others.contains(&first), "{first} {others:?}");
    // Of the same inputs, another day's packages are another image.
    let of = |base| inputs::image_id(&first, base);
    assert_eq!((of("monday").len(), of("monday")), (32, of("monday")));
    assert!(of("monday") != of("tuesday") && of("monday") != inputs::image_id(&others[0], "monday"));
}
