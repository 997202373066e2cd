//! Archives: the same bytes each time, and what a stranger might put into one.

mod common;

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use common::{Place, contents};
use plugin_package::{Package, TrustPolicy, pack, unpack};
use tar::EntryType;

#[test]
fn a_package_survives_its_archive() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    let archive = place.path("beispiel-1.2.3.tar.zst");
    pack(&package.folder, &archive).expect("packed");
    let folder = unpack(&archive, &place.path("store")).expect("unpacked");
    assert_eq!(contents(&folder), contents(&package.folder));
    let opened = Package::open(&folder, &TrustPolicy::default(), true).expect("a package");
    opened.verify().expect("it is what it says");
    assert_eq!(opened.sha256, package.sha256);
    let again = unpack(&archive, &place.path("store")).expect("unpacked again");
    assert_ne!(again, folder, "each time into a new folder");
}

#[test]
fn the_same_package_gives_the_same_bytes() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    // Modes and times of the files say nothing.
    let other = place.assemble("other").expect("it is built");
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    let file = File::options().write(true).open(other.folder.join("README.md")).expect("a file");
    file.set_modified(old).expect("it is old now");
    pack(&package.folder, &place.path("a.tar.zst")).expect("packed");
    pack(&other.folder, &place.path("b.tar.zst")).expect("packed");
    let bytes = |name: &str| fs::read(place.path(name)).expect("a file");
    assert!(bytes("a.tar.zst") == bytes("b.tar.zst"), "two archives of one package differ");
}

#[test]
fn only_a_package_is_packed() {
    let place = Place::new();
    place.write("source/beispiel", b"a program");
    let error = pack(&place.path("source"), &place.path("a.tar.zst")).expect_err("it is a source folder");
    assert!(error.to_string().contains("source"), "{error}");
    let package = place.assemble("out").expect("it is built");
    place.write("out/README.md", b"# Beispiel!");
    let error = pack(&package.folder, &place.path("a.tar.zst")).expect_err("it was changed");
    assert_eq!(error.failure("beispiel").id, "PLUGIN-DIGEST");
    assert!(!place.path("a.tar.zst").exists(), "nothing is half made");
}

/// An archive that nobody but a stranger would make.
struct Hostile {
    tar: tar::Builder<zstd::Encoder<'static, File>>,
    path: PathBuf,
}

impl Hostile {
    fn new(dir: &Path) -> Self {
        let path = dir.join("hostile.tar.zst");
        let encoder = zstd::Encoder::new(File::create(&path).expect("a file"), 1).expect("an encoder");
        Self { tar: tar::Builder::new(encoder), path }
    }

    /// An entry with any name: the library itself would refuse some.
    fn entry(mut self, name: &str, kind: EntryType, size: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        let field = &mut header.as_gnu_mut().expect("it is one").name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o6777);
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            header.set_link_name_literal("/etc/passwd").expect("it is short");
        }
        header.set_cksum();
        self.tar.append(&header, io::repeat(0).take(size)).expect("appended");
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(name, EntryType::Regular, 3)
    }

    fn finish(self) -> PathBuf {
        self.tar.into_inner().expect("written").finish().expect("compressed");
        self.path
    }
}

/// Why this archive is refused; nothing of it may be left behind.
fn refusal(make: impl Fn(Hostile) -> Hostile) -> String {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = make(Hostile::new(dir.path())).finish();
    let store = dir.path().join("store");
    let failure = unpack(&archive, &store).expect_err("it is hostile").failure("x");
    assert_eq!(failure.id, "PLUGIN-ARCHIVE");
    assert_eq!(
        fs::read_dir(&store).expect("a folder").count(),
        0,
        "something of it is left: {}",
        failure.reason
    );
    failure.reason
}

#[test]
fn what_a_stranger_puts_into_an_archive_is_refused() {
    let odd = [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Block, EntryType::Fifo];
    for kind in odd {
        let why = refusal(|archive| archive.file("x-1/a").entry("x-1/b", kind, 0));
        assert!(why.contains("neither a file nor a folder"), "{kind:?}: {why}");
    }
    for name in
        ["/etc/cron.d/x", "../x", "x-1/../../x", "x-1/./a", "x-1//a", "x-1/a\\b", "x-1/a\nb", "./x-1/a"]
    {
        let why = refusal(|archive| archive.file(name));
        assert!(why.contains("expected a plain path"), "{name}: {why}");
    }
    for (name, said) in [("a", "lies in no folder"), ("y-2/a", "does not lie in the folder")] {
        let why = refusal(|archive| archive.file("x-1/plugin.toml").file(name));
        assert!(why.contains(said), "{name}: {why}");
    }
    let why = refusal(|archive| archive.file("x-1/a").file("x-1/a"));
    assert!(why.contains("is there twice"), "{why}");
    let why = refusal(|archive| archive.file("x-1/a").file("x-1/a/b"));
    assert!(why.contains("x-1/a/b"), "a file is no folder: {why}");
    let why = refusal(|archive| archive);
    assert!(why.contains("there is no file in it"), "{why}");
}

#[test]
fn an_archive_has_an_end() {
    let many = |count: usize| {
        move |archive: Hostile| {
            (0..count).fold(archive, |archive, number| archive.file(&format!("x-1/{number}")))
        }
    };
    assert!(refusal(many(203)).contains("more than 200 files"));
    let folders = |archive: Hostile| {
        (0..500).fold(archive, |archive, number| {
            archive.entry(&format!("x-1/{number}/"), EntryType::Directory, 0)
        })
    };
    assert!(refusal(folders).contains("entries"));
    let zeros = |archive: Hostile| archive.entry("x-1/zeros", EntryType::Regular, (128 << 20) + 1);
    assert!(refusal(zeros).contains("bytes unpacked"), "a bomb of zeros");
    // The name itself is the bomb: it is read before anything can be said about the entry.
    refusal(|archive| archive.entry("././@LongLink", EntryType::GNULongName, 200 << 20).file("x-1/a"));
}

#[test]
fn an_archive_that_is_cut_or_none_is_refused() {
    let place = Place::new();
    let package = place.assemble("out").expect("it is built");
    let archive = place.path("a.tar.zst");
    pack(&package.folder, &archive).expect("packed");
    let bytes = fs::read(&archive).expect("a file");
    for end in [0, 1, 10, bytes.len() / 2, bytes.len() - 1] {
        place.write("cut.tar.zst", &bytes[..end]);
        let error = unpack(&place.path("cut.tar.zst"), &place.path("store")).expect_err("it is cut");
        assert_eq!(error.failure("x").id, "PLUGIN-ARCHIVE", "cut at {end}");
    }
    place.write("none.tar.zst", b"this is no archive at all");
    unpack(&place.path("none.tar.zst"), &place.path("store")).expect_err("it is none");
    unpack(&place.path("out"), &place.path("store")).expect_err("it is a folder");
    unpack(&place.path("nothing"), &place.path("store")).expect_err("it is not there");
}
