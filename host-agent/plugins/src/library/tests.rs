use std::fs;
use std::path::PathBuf;

use plugin_package::{PLATFORM, Package, Parts, archive, assemble};
use serde_json::json;
use tempfile::TempDir;

use super::*;

/// A plugin path and a store, and where packages are made.
struct Shelf {
    library: Library,
    folder: TempDir,
}

impl Shelf {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let path = vec![at("path"), at("second")];
        Self { library: Library::new(path, at("store"), TrustPolicy::default()), folder }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A package that does nothing, in a folder of that name.
    fn package(&self, place: &str, name: &str, version: &str) -> Package {
        let source = tempfile::tempdir().expect("a source folder");
        let manifest = format!(
            "format = 1\nname = \"{name}\"\nversion = \"{version}\"\nsummary = \"Nothing\"\nprotocol = [1]\n\
             [program]\nname = \"nothing\"\n"
        );
        fs::write(source.path().join("plugin.toml"), manifest).expect("written");
        fs::write(source.path().join("notes.txt"), "notes").expect("written");
        let program = source.path().join("target");
        fs::write(&program, "a program").expect("written");
        let out = self.at(place);
        fs::create_dir_all(out.parent().expect("it has a parent")).expect("made");
        let schema = json!({"type": "object", "additionalProperties": false});
        let programs = [(PLATFORM.to_owned(), program)];
        let parts = Parts { source: source.path(), out: &out, programs: &programs, schema: &schema };
        assemble(&parts).unwrap_or_else(|error| panic!("{}", error.failure(name)))
    }

    fn stored(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at("store")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

fn program(package: &Package) -> PathBuf {
    package.program().map(|(_, path)| path).unwrap_or_else(|error| panic!("{}", error.failure("it")))
}

#[test]
fn the_newest_of_a_name_counts_and_one_that_cannot_be_read_is_told() {
    let shelf = Shelf::new();
    shelf.package("path/hello-1", "hello", "0.9.0");
    shelf.package("second/hello", "hello", "0.10.0");
    shelf.package("second/zebra", "zebra", "1.0.0");
    fs::create_dir_all(shelf.at("path/broken")).expect("made");
    fs::write(shelf.at("path/broken/plugin.toml"), "name = 7").expect("written");
    fs::create_dir_all(shelf.at("path/no-plugin")).expect("made");
    let (found, failures) = shelf.library.scan();
    let found: Vec<_> =
        found.iter().map(|it| format!("{} {}", it.manifest.name, it.manifest.version)).collect();
    assert_eq!(found, ["hello 0.10.0", "zebra 1.0.0"]);
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].id.as_str(), failures[0].object.as_str()), ("PLUGIN-MANIFEST", "plugin broken"));
    // By its name it fails for what is wrong with it.
    assert_eq!(shelf.library.find("broken", true).expect_err("it is broken").id, "PLUGIN-MANIFEST");
    let unknown = shelf.library.find("metallb", true).expect_err("there is none");
    assert_eq!(unknown.id, "PLUGIN-UNKNOWN");
    assert!(unknown.reason.contains("there are: hello, zebra"), "{unknown}");
    assert_eq!(shelf.library.find("/nowhere/at/all", true).expect_err("no file").id, "PLUGIN-UNKNOWN");
}

#[test]
fn what_nobody_signed_is_taken_only_where_a_person_says_so() {
    let shelf = Shelf::new();
    let made = shelf.package("path/hello", "hello", "1.0.0");
    let refused = shelf.library.find("hello", false).expect_err("nobody signed it");
    assert_eq!(refused.id, "PLUGIN-UNSIGNED", "{refused}");
    let found = shelf.library.find("hello", true).expect("as development");
    assert_eq!((found.trust.to_string().as_str(), &found.sha256), ("dev", &made.sha256));
    // The same package, built with this host agent.
    let policy = TrustPolicy { built_in: [made.sha256].into(), ..TrustPolicy::default() };
    let library = Library::new(vec![shelf.at("path")], shelf.at("store"), policy);
    assert_eq!(library.find("hello", false).expect("it is the tree's").trust.to_string(), "built-in");
}

#[test]
fn a_file_that_is_not_what_was_listed_is_found_out() {
    let shelf = Shelf::new();
    let made = shelf.package("path/hello", "hello", "1.0.0");
    fs::write(program(&made), "b program").expect("written");
    let refused = shelf.library.find("hello", true).expect_err("its digest is another");
    assert_eq!(refused.id, "PLUGIN-DIGEST", "{refused}");
}

#[test]
fn a_package_that_changes_after_it_was_looked_at_does_not_come_in() {
    let shelf = Shelf::new();
    let made = shelf.package("path/hello", "hello", "1.0.0");
    let found = shelf.library.find("hello", true).expect("it is whole");
    fs::write(program(&made), "b program").expect("written");
    let refused = shelf.library.take_in(&found).expect_err("its program is another");
    assert_eq!(refused.id, "PLUGIN-DIGEST", "{refused}");
    assert_eq!(shelf.stored(), Vec::<String>::new());

    // Also where all of it fits together again.
    shelf.package("path/hello", "hello", "1.0.1");
    let refused = shelf.library.take_in(&found).expect_err("it is another package");
    assert_eq!(refused.id, "PLUGIN-DIGEST", "{refused}");
    assert_eq!(shelf.stored(), Vec::<String>::new());
}

/// The host agent may read what nobody else may: whoever can change a package does not choose what that is.
#[test]
fn what_became_a_link_after_it_was_looked_at_is_not_followed() {
    for name in ["notes.txt", "bin", "plugin.toml"] {
        let shelf = Shelf::new();
        shelf.package("path/hello", "hello", "1.0.0");
        let found = shelf.library.find("hello", true).expect("it is whole");
        // The same content, so that no digest tells it.
        fs::rename(shelf.at("path/hello").join(name), shelf.at("elsewhere")).expect("moved");
        std::os::unix::fs::symlink(shelf.at("elsewhere"), shelf.at("path/hello").join(name)).expect("a link");
        let refused = shelf.library.take_in(&found).expect_err(name);
        assert!(refused.id == "PLUGIN-MANIFEST" && refused.reason.contains("no regular file"), "{refused}");
        assert_eq!(shelf.stored(), Vec::<String>::new());
    }
}

#[test]
fn what_was_taken_in_stays_when_its_folder_goes() {
    let shelf = Shelf::new();
    let made = shelf.package("path/hello", "hello", "1.0.0");
    let stored = shelf.library.take_in(&made).expect("it comes in");
    assert_eq!(stored.folder, shelf.at("store").join(&made.sha256));
    assert_eq!(shelf.library.take_in(&stored).expect("again").folder, stored.folder);
    fs::remove_dir_all(shelf.at("path/hello")).expect("removed");
    let again = shelf.library.stored(&made.sha256).expect("it is there");
    assert!(again.verify().is_ok());
    assert_eq!(shelf.stored(), std::slice::from_ref(&made.sha256));

    // A damaged one is replaced by a whole one.
    let whole = shelf.package("path/hello", "hello", "1.0.0");
    assert_eq!(whole.sha256, made.sha256);
    fs::write(program(&stored), "damage").expect("written");
    let mended = shelf.library.take_in(&whole).expect("it comes in again");
    assert!(mended.verify().is_ok());

    shelf.library.forget(std::slice::from_ref(&made.sha256));
    assert_eq!(shelf.library.stored(&made.sha256).expect_err("it is gone").id, "PLUGIN-UNKNOWN");
    assert_eq!(shelf.library.stored("../path").expect_err("no digest").id, "PLUGIN-UNKNOWN");
}

#[test]
fn an_archive_is_the_package_that_was_packed() {
    let shelf = Shelf::new();
    let made = shelf.package("made/hello", "hello", "1.0.0");
    let file = shelf.at("hello-1.0.0.tar.zst");
    archive::pack(&made.folder, &file).unwrap_or_else(|error| panic!("{}", error.failure("hello")));
    let source = file.display().to_string();
    assert_eq!(shelf.library.find(&source, false).expect_err("unsigned").id, "PLUGIN-UNSIGNED");
    let found = shelf.library.find(&source, true).expect("it is whole");
    assert_eq!((&found.sha256, found.folder.parent()), (&made.sha256, Some(shelf.at("store").as_path())));
    assert_eq!(shelf.library.find(&source, true).expect("again").folder, found.folder);
    assert_eq!(shelf.stored(), [made.sha256]);

    fs::write(shelf.at("noise.tar.zst"), "noise").expect("written");
    let noise = shelf.library.find(&shelf.at("noise.tar.zst").display().to_string(), true);
    assert_eq!(noise.expect_err("it is no archive").id, "PLUGIN-ARCHIVE");
}

#[test]
fn fifty_packages_are_listed_in_a_moment() {
    let shelf = Shelf::new();
    for number in 0..50 {
        shelf.package(&format!("path/p{number}"), &format!("p{number}"), "1.0.0");
    }
    // The fastest of a few: others may have the processor.
    let times = (0..5).map(|_| {
        let begun = std::time::Instant::now();
        let (found, failures) = shelf.library.scan();
        assert_eq!((found.len(), failures.len()), (50, 0));
        begun.elapsed()
    });
    let took = times.min().expect("five times");
    assert!(took < std::time::Duration::from_millis(100), "{took:?}");
}

#[test]
fn the_trees_digests_are_digests() {
    let all = Library::tree_policy(KeyRing::default()).built_in;
    assert!(all.iter().all(|one| one.len() == 64), "{all:?}");
}
