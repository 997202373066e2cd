//! Packages from their source folder to the host that opens them: built, signed, changed by somebody, refused.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use common::{MANIFEST, PROGRAM, Place, contents, schema};
use plugin_package::{KeyRing, LockedPlugin, Package, PackageError, Trust, TrustPolicy, new_key, sign};

fn nobody() -> TrustPolicy {
    TrustPolicy::default()
}

#[test]
fn a_source_folder_becomes_a_package_with_the_digest_of_each_file() {
    let place = Place::new();
    for name in ["Cargo.toml", "src/main.rs", "tests/golden.rs", "target/x", ".git/HEAD"] {
        place.write(&format!("source/{name}"), b"not of the package");
    }
    let package = place.assemble("out").expect("it is built");
    let names: Vec<_> = contents(&place.path("out")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["README.md", "bin/x86_64-linux/plugin", "objects/pool.yaml", "plugin.toml", "schema.json"]
    );
    package.verify().expect("it is what it says");
    let text = package.manifest_text().expect("text");
    assert!(text.starts_with("# This comment stays.") && text.contains("# and so does this one"), "{text}");

    let (binary, program) = package.program().expect("one for this machine");
    assert_eq!((binary.bytes, fs::read(&program).expect("a file")), (PROGRAM.len() as u64, PROGRAM.to_vec()));
    let mode = |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(
        (mode(&program), mode(&place.path("out/schema.json")), mode(&place.path("out"))),
        (0o755, 0o644, 0o755)
    );
    assert_eq!(package.config_schema().expect("a schema"), schema());
    let files: Vec<_> = package.files().expect("files").into_iter().map(|(path, _)| path).collect();
    assert_eq!(files, ["README.md", "objects/pool.yaml", "schema.json"]);
    assert_eq!(package.trust, Trust::Dev);
}

#[test]
fn the_same_source_gives_the_same_package() {
    let place = Place::new();
    let first = place.assemble("first").expect("it is built");
    let second = place.assemble("second").expect("it is built");
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(contents(&place.path("first")), contents(&place.path("second")));
    place.write("program", b"another one");
    let third = place.assemble("first").expect("it replaces what was there");
    assert_ne!(third.sha256, second.sha256);
    assert_eq!(LockedPlugin::of_package(&third, "path").binaries.len(), 1);
}

#[test]
fn a_data_plugin_gets_a_file_that_says_whose_it_is() {
    let place = Place::new();
    let manifest = MANIFEST.replace("[program]\nname = \"beispiel\"", "[program]\nname = \"data-plugin\"");
    place.write("source/plugin.toml", manifest.as_bytes());
    let package = place.assemble("out").expect("it is built");
    let files = package.files().expect("files");
    let (_, about) = files.iter().find(|(path, _)| path == "package.json").expect("it is there");
    let about: serde_json::Value = serde_json::from_slice(about).expect("JSON");
    assert_eq!(
        about,
        serde_json::json!({"name": "beispiel", "version": "1.2.3", "summary": "An example", "config_version": 1})
    );
}

#[test]
fn nothing_but_a_package_is_replaced() {
    let place = Place::new();
    place.write("home/letter.txt", b"dear");
    for out in ["home", "source", "."] {
        let error = place.assemble(out).expect_err(out);
        assert_eq!(error.failure("beispiel").id, "PLUGIN-BUILD", "{out}: {error}");
    }
    assert!(place.path("home/letter.txt").exists() && place.path("source/README.md").exists());
    fs::create_dir(place.path("empty")).expect("a folder");
    place.assemble("empty").expect("an empty folder is fine");
    place.assemble("source/dist").expect("within the source");
    let again = place.assemble("source/dist").expect("and again");
    assert!(again.manifest.files.iter().all(|file| !file.path.starts_with("dist")), "it is not in itself");
}

#[test]
fn a_source_that_brings_what_the_build_makes_is_refused() {
    let place = Place::new();
    place.write("source/bin/x86_64-linux/plugin", b"mine");
    let error = place.assemble("out").expect_err("two of one name");
    assert!(error.to_string().contains("call the file otherwise"), "{error}");
    assert!(!place.path("out").exists(), "nothing is half made");

    let place = Place::new();
    let built = place.assemble("out").expect("it is built").manifest_text().expect("text");
    place.write("source/plugin.toml", built.as_bytes());
    let error = place.assemble("again").expect_err("it is a package's file");
    assert!(error.to_string().contains("the build writes them"), "{error}");
}

#[test]
fn a_secret_key_does_not_become_a_part_of_the_package() {
    for password in ["", "geheim"] {
        let place = Place::new();
        let (secret, public) = new_key(password).expect("a pair");
        place.write("source/mine.key.pub", public.as_bytes());
        place.assemble("out").expect("the public one may be known");
        place.write("source/keys/mine.key", secret.as_bytes());
        let failure = place.assemble("out").expect_err("it is secret").failure("beispiel");
        assert_eq!(failure.id, "PLUGIN-BUILD");
        assert!(failure.reason.contains("keys/mine.key is a secret key"), "{failure:?}");
        assert!(!place.path("out/keys").exists(), "what was built before stays");
    }
}

#[test]
fn whoever_signed_it_is_known_by_the_key() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    let unsigned = Package::open(&package.folder, &nobody(), false).expect_err("nobody vouches for it");
    assert_eq!(unsigned.failure("beispiel").id, "PLUGIN-UNSIGNED");

    let (secret, public) = new_key("").expect("a pair");
    sign(&package.folder, &secret, "").expect("signed");
    let mut keys = KeyRing::default();
    let key = keys.add(&public).expect("a key");
    let policy = TrustPolicy { keys, ..nobody() };
    let opened = Package::open(&package.folder, &policy, false).expect("signed");
    assert_eq!(opened.trust, Trust::Signed { key });
    opened.verify().expect("the signature is no strange file");
    let stranger = Package::open(&package.folder, &nobody(), false).expect_err("nobody knows the key");
    assert_eq!(stranger.failure("beispiel").id, "PLUGIN-SIGNATURE");
    assert_eq!(Package::open(&package.folder, &nobody(), true).expect("dev").trust, Trust::Dev);

    let text = opened.manifest_text().expect("text").replace("An example", "An Example");
    place.write("out/plugin.toml", text.as_bytes());
    for dev in [false, true] {
        let changed = Package::open(&package.folder, &policy, dev).expect_err("somebody changed it");
        assert_eq!(changed.failure("beispiel").id, "PLUGIN-SIGNATURE", "dev {dev}");
    }
}

#[test]
fn a_signature_takes_the_place_of_a_link_and_not_of_what_it_leads_to() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    place.write("letter.txt", b"dear");
    symlink(place.path("letter.txt"), place.path("out/plugin.toml.sig")).expect("a link");
    let (secret, _) = new_key("").expect("a pair");
    let path = sign(&package.folder, &secret, "").expect("signed");
    assert!(path.symlink_metadata().expect("it is there").is_file());
    assert_eq!(fs::read(place.path("letter.txt")).expect("a file"), b"dear");
    package.verify().expect("nothing else is left in it");
}

#[test]
fn the_tree_s_own_are_known_by_their_digest() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    let policy = TrustPolicy { built_in: [package.sha256.clone()].into(), ..nobody() };
    assert_eq!(Package::open(&package.folder, &policy, false).expect("it is").trust, Trust::BuiltIn);
}

#[test]
fn what_was_changed_behind_plugin_toml_is_found() {
    type Change = fn(&Place);
    let changes: [(&str, &str, Change); 6] = [
        ("PLUGIN-DIGEST", "the same size", |place| place.write("out/README.md", b"# Beispiel!")),
        ("PLUGIN-DIGEST", "another size", |place| place.write("out/README.md", b"# Beispiel, and more\n")),
        ("PLUGIN-DIGEST", "the program", |place| {
            place.write("out/bin/x86_64-linux/plugin", b"\x7fELF and so in")
        }),
        ("PLUGIN-MANIFEST", "does not list", |place| place.write("out/objects/more.yaml", b"kind: More\n")),
        ("PLUGIN-MANIFEST", "is not there", |place| {
            fs::remove_file(place.path("out/README.md")).expect("gone")
        }),
        ("PLUGIN-MANIFEST", "no regular file", |place| {
            fs::remove_file(place.path("out/README.md")).expect("gone");
            symlink(place.path("source/README.md"), place.path("out/README.md")).expect("a link");
        }),
    ];
    for (id, what, change) in changes {
        let place = Place::new();
        let folder = place.assemble("out").expect("it is built").folder;
        change(&place);
        let opened = Package::open(&folder, &nobody(), true).and_then(|package| package.verify());
        let error = opened.expect_err(what);
        assert_eq!(error.failure("beispiel").id, id, "{what}: {error}");
    }
}

#[test]
fn what_changes_after_it_was_opened_is_found_too() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    // The same content, out of another folder.
    fs::rename(place.path("out/objects"), place.path("elsewhere")).expect("moved");
    symlink(place.path("elsewhere"), place.path("out/objects")).expect("a link");
    assert!(matches!(package.files(), Err(PackageError::NotPlain { .. })));
    assert!(matches!(package.open_file("objects/pool.yaml"), Err(PackageError::NotPlain { .. })));
    let opened = Package::open(&package.folder, &nobody(), true);
    assert!(matches!(opened, Err(PackageError::NotPlain { .. })), "{opened:?}");
    fs::remove_file(place.path("out/objects")).expect("gone");
    fs::rename(place.path("elsewhere"), place.path("out/objects")).expect("back again");
    package.files().expect("as it was");

    place.write("out/schema.json", b"{}");
    assert!(matches!(package.config_schema(), Err(PackageError::Digest { .. })));
    assert!(matches!(package.files(), Err(PackageError::Digest { .. })));
    let text = fs::read_to_string(place.path("out/plugin.toml")).expect("text");
    place.write("out/plugin.toml", format!("{text}\n").as_bytes());
    assert!(matches!(package.manifest_text(), Err(PackageError::Digest { .. })));
    assert!(matches!(package.verify(), Err(PackageError::Digest { .. })));
}

#[test]
fn a_program_for_another_machine_is_none_for_this_one() {
    let place = Place::new();
    let mut package = place.assemble("out").expect("it is built");
    package.manifest.binaries[0].platform = "aarch64-linux".to_owned();
    let failure = package.program().expect_err("none").failure("beispiel");
    assert!(failure.id == "PLUGIN-PLATFORM" && failure.reason.contains("aarch64-linux"), "{failure:?}");
}

#[test]
fn a_source_folder_with_its_program_beside_it_is_for_who_develops() {
    let place = Place::new();
    let folder = place.path("source");
    let error = Package::open(&folder, &nobody(), false).expect_err("it is not built");
    assert!(matches!(error, PackageError::NotBuilt { .. }), "{error}");
    let error = Package::open(&folder, &nobody(), true).expect_err("it has no program");
    assert!(matches!(error, PackageError::Missing { .. }), "{error}");
    place.write("source/beispiel", PROGRAM);
    let package = Package::open(&folder, &nobody(), true).expect("it has one");
    assert_eq!(package.program().expect("it").1, folder.join("beispiel"));
    package.verify().expect("there is nothing to compare");
    assert!(package.files().expect("none").is_empty());
    assert!(matches!(package.config_schema(), Err(PackageError::Schema { .. })));
    let unsigned = sign(&folder, "", "").expect_err("a source folder is not signed");
    assert!(matches!(unsigned, PackageError::NotBuilt { .. }), "{unsigned}");
}

#[test]
fn a_manifest_that_is_none_names_its_file() {
    let place = Place::new();
    place.write("source/plugin.toml", b"name = \"beispiel\"\n");
    let failure =
        Package::open(&place.path("source"), &nobody(), true).expect_err("no format").failure("beispiel");
    assert!(failure.id == "PLUGIN-MANIFEST" && failure.reason.contains("plugin.toml"), "{failure:?}");
    place.write("source/plugin.toml", &vec![b'#'; 300 << 10]);
    let error = Package::open(&place.path("source"), &nobody(), true).expect_err("too large");
    assert!(matches!(error, PackageError::TooLarge { .. }), "{error}");
    place.write("source/plugin.toml", b"\xff\xfe");
    let error = Package::open(&place.path("source"), &nobody(), true).expect_err("no text");
    assert!(matches!(error, PackageError::Mistakes { .. }), "{error}");
}
