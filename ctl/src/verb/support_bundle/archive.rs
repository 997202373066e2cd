//! The file itself: a tar archive, compressed, for its owner only. Every part is without secrets and within bounds, and
//! the manifest, which comes last, names every part that was asked for, or says how many there are beyond the bounds.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use k8sctl_types::failure::Failure;
use k8sctl_types::redact::redact;
use tempfile::NamedTempFile;

use crate::view::{PartView, SupportBundleView};

/// Most of one part, in bytes.
pub(super) const PART_BYTES: usize = 8 * 1024 * 1024;
/// Most of all parts together.
const TOTAL_BYTES: usize = 128 * 1024 * 1024;
/// Most parts, those included of which there is only the name.
const PARTS: usize = 2000;
/// Of zstd.
const LEVEL: i32 = 3;

/// Something that was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Part {
    /// Where it is in the archive.
    pub path: String,
    /// What was had of it.
    pub content: Option<String>,
    /// Why that is not all.
    pub failure: Option<Failure>,
    /// It is the end only, or the first of a list.
    pub cut: bool,
}

impl Part {
    /// A part that is whole or not there.
    pub(super) fn new(path: impl Into<String>, content: Result<String, Failure>) -> Self {
        let path = path.into();
        match content {
            Ok(content) => Self { path, content: Some(content), ..Self::default() },
            Err(failure) => Self { path, failure: Some(failure), ..Self::default() },
        }
    }
}

/// An archive that is being written, beside the place that it gets.
pub(super) struct Archive {
    tar: tar::Builder<Packer>,
    temporary: NamedTempFile,
    path: PathBuf,
    root: String,
    created: Timestamp,
    most: usize,
    left: usize,
    parts: Vec<PartView>,
    /// Parts for which there was no room.
    left_out: usize,
}

impl Archive {
    /// Begins one that is to be at `path`, or under a name of its own in this directory.
    pub(super) fn begin(path: Option<&Path>) -> Result<Self, Failure> {
        let created = Timestamp::now();
        let root = format!("k8sctl-support-{}", created.strftime("%Y%m%dT%H%M%SZ"));
        let path = path.map_or_else(|| PathBuf::from(format!("{root}.tar.zst")), Path::to_owned);
        if path.exists() {
            return Err(failed(&path, "it is there already"));
        }
        let unusable = |error: io::Error| failed(&path, &error.to_string());
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // For its owner only, from the first byte on.
        let temporary =
            tempfile::Builder::new().prefix(".k8sctl-support-").tempfile_in(dir).map_err(unusable)?;
        let file = temporary.as_file().try_clone().map_err(unusable)?;
        let tar = tar::Builder::new(Packer::new(file, &path).map_err(unusable)?);
        let (most, left) = (PART_BYTES, TOTAL_BYTES);
        Ok(Self { tar, temporary, root, created, most, left, parts: Vec::new(), left_out: 0, path })
    }

    /// Adds a part, or that it could not be had.
    pub(super) fn add(&mut self, part: Part) -> Result<(), Failure> {
        if self.parts.len() >= PARTS {
            self.left_out += 1;
            return Ok(());
        }
        let mut view = PartView {
            path: safe(&part.path),
            size_bytes: None,
            cut: false,
            error: part.failure.as_ref().map(|failure| (&redacted(failure)).into()),
        };
        while self.parts.iter().any(|known| known.path == view.path) {
            view.path.push('_');
        }
        if let Some(content) = &part.content {
            let clean = redact(content);
            let kept = end_of(&clean, self.most.min(self.left));
            (view.size_bytes, view.cut) = (Some(kept.len() as u64), part.cut || kept.len() < clean.len());
            self.left -= kept.len();
            self.write(&view.path, kept.as_bytes())?;
        }
        self.parts.push(view);
        Ok(())
    }

    /// Writes the manifest and gives the archive its place.
    pub(super) fn finish(mut self) -> Result<SupportBundleView, Failure> {
        if self.left_out > 0 {
            self.parts.push(left_out(self.left_out));
        }
        let mut view = SupportBundleView {
            path: None,
            created: self.created.to_string(),
            k8sctl_version: env!("CARGO_PKG_VERSION").to_owned(),
            parts: std::mem::take(&mut self.parts),
        };
        let path = self.path.clone();
        let unusable = |error: io::Error| failed(&path, &error.to_string());
        let manifest = serde_json::to_vec_pretty(&view).map_err(|error| unusable(error.into()))?;
        self.write("manifest.json", &manifest)?;
        let Self { tar, temporary, path, .. } = self;
        let mut file = tar.into_inner().and_then(Packer::finish).map_err(unusable)?;
        file.flush().and_then(|()| file.sync_all()).map_err(unusable)?;
        temporary.persist_noclobber(&path).map_err(|error| unusable(error.error))?;
        view.path = Some(path.display().to_string());
        Ok(view)
    }

    fn write(&mut self, path: &str, content: &[u8]) -> Result<(), Failure> {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.created.as_second()).unwrap_or_default());
        let place = format!("{}/{path}", self.root);
        let written = self.tar.append_data(&mut header, place, content);
        written.map_err(|error| failed(&self.path, &error.to_string()))
    }
}

/// Compresses: with zstd, or with gzip where the name of the file says that.
enum Packer {
    Zstd(zstd::Encoder<'static, File>),
    Gzip(GzEncoder<File>),
}

impl Packer {
    fn new(file: File, path: &Path) -> io::Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name.ends_with(".gz") || name.ends_with(".tgz") {
            return Ok(Self::Gzip(GzEncoder::new(file, Compression::default())));
        }
        zstd::Encoder::new(file, LEVEL).map(Self::Zstd)
    }

    fn finish(self) -> io::Result<File> {
        match self {
            Self::Zstd(packer) => packer.finish(),
            Self::Gzip(packer) => packer.finish(),
        }
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(packer) => packer.write(bytes),
            Self::Gzip(packer) => packer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Zstd(packer) => packer.flush(),
            Self::Gzip(packer) => packer.flush(),
        }
    }
}

fn failed(path: &Path, reason: &str) -> Failure {
    Failure::new(
        "HOST-SUPPORT-FILE",
        format!("file {}", path.display()),
        format!("cannot make the support bundle: {reason}"),
        "name another file with `k8sctl support-bundle -f FILE`, on a disk with room",
    )
}

/// Stands for all parts for which there was no room: there may be any number of them.
fn left_out(count: usize) -> PartView {
    let failure = Failure::new(
        "HOST-SUPPORT-PART",
        format!("{count} further parts"),
        format!("a support bundle has {PARTS} parts at most"),
        "name the cluster that it is about: `k8sctl support-bundle NAME`",
    );
    PartView { path: "left-out".to_owned(), size_bytes: None, cut: false, error: Some((&failure).into()) }
}

/// What a failure says may hold what a program printed.
fn redacted(failure: &Failure) -> Failure {
    let clean = |text: &str| redact(text).into_owned();
    Failure {
        id: failure.id.clone(),
        object: clean(&failure.object),
        reason: clean(&failure.reason),
        next_step: clean(&failure.next_step),
        evidence: clean(&failure.evidence),
    }
}

/// The last bytes, from the begin of a line on where it has lines.
fn end_of(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let begin = text.len() - limit;
    let begin = (begin..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let end = &text[begin..];
    end.split_once('\n').map_or(end, |(_, rest)| rest)
}

/// A path that leads nowhere else: names in it come from strangers.
fn safe(path: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = |part: &str| -> String {
        let plain: String = part.chars().take(80).map(|c| if is_plain(c) { c } else { '_' }).collect();
        // Names of dots alone lead elsewhere.
        if plain.chars().all(|c| c == '.') { "_".repeat(plain.len().max(1)) } else { plain }
    };
    path.split('/').filter(|part| !part.is_empty()).take(8).map(name).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn read(path: &Path) -> BTreeMap<String, String> {
        let file = File::open(path).expect("it is there");
        let mut archive = tar::Archive::new(zstd::Decoder::new(file).expect("zstd"));
        let entries = archive.entries().expect("a tar");
        let text = |entry: io::Result<tar::Entry<'_, zstd::Decoder<'static, io::BufReader<File>>>>| {
            let mut entry = entry.expect("an entry");
            let path = entry.path().expect("a path").display().to_string();
            let mut text = String::new();
            entry.read_to_string(&mut text).expect("text");
            (path.split_once('/').expect("below the root").1.to_owned(), text)
        };
        entries.map(text).collect()
    }

    #[test]
    fn a_bundle_has_its_parts_and_says_what_it_lacks() {
        const CANARY: &str = "kanarienvogel0123456789";
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bundle.tar.zst");
        let mut archive = Archive::begin(Some(&path)).expect("begun");
        archive.add(Part::new("a/b.txt", Ok(format!("password: {CANARY}\nline\n")))).expect("added");
        archive.add(Part::new("../../etc/passwd", Ok("x".to_owned()))).expect("added");
        let missing = Failure::new("KUBERNETES-API", "cluster home", format!("token={CANARY}"), "wait");
        archive.add(Part::new("pods.json", Err(missing))).expect("added");
        archive.most = 1000;
        let long = format!("first\n{}", "y\n".repeat(500));
        archive.add(Part::new("long.txt", Ok(long))).expect("added");
        assert!(!path.exists(), "it is not there before it is whole");
        let view = archive.finish().expect("finished");
        assert_eq!(view.path, Some(path.display().to_string()));

        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = read(&path);
        assert_eq!(files["a/b.txt"], "password: (redacted)\nline\n");
        assert_eq!(files["__/__/etc/passwd"], "x");
        assert!(files["long.txt"].len() == 998 && files["long.txt"].starts_with("y\n"));
        assert!(!files.contains_key("pods.json"));
        assert!(files.values().all(|text| !text.contains(CANARY)), "a secret got out");
        let manifest: serde_json::Value = serde_json::from_str(&files["manifest.json"]).expect("JSON");
        let parts = manifest["parts"].as_array().expect("parts");
        let of = |name: &str| parts.iter().find(|part| part["path"] == name).expect("it is named");
        assert_eq!(of("pods.json")["error"]["id"], "KUBERNETES-API");
        assert_eq!((&of("long.txt")["cut"], &of("a/b.txt")["cut"]), (&true.into(), &false.into()));

        let again = Archive::begin(Some(&path)).err().expect("nothing is overwritten");
        assert_eq!(again.id, "HOST-SUPPORT-FILE");
    }

    #[test]
    fn what_is_named_gzip_is_gzip() {
        let dir = tempfile::tempdir().expect("a directory");
        for name in ["b.tar.gz", "b.TGZ"] {
            let path = dir.path().join(name);
            let mut archive = Archive::begin(Some(&path)).expect("begun");
            archive.add(Part::new("a.txt", Ok("x\n".to_owned()))).expect("added");
            archive.finish().expect("finished");
            let unpacked = flate2::read::GzDecoder::new(File::open(&path).expect("it is there"));
            let mut archive = tar::Archive::new(unpacked);
            let names = archive.entries().expect("a tar").map(|entry| {
                let entry = entry.expect("an entry");
                entry.path().expect("a path").file_name().expect("a name").to_string_lossy().into_owned()
            });
            assert_eq!(names.collect::<Vec<_>>(), ["a.txt", "manifest.json"], "{name}");
        }
    }

    #[test]
    fn all_of_it_is_bounded() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut archive = Archive::begin(Some(&dir.path().join("b"))).expect("begun");
        archive.left = 1000;
        for number in 0..4 {
            archive.add(Part::new(format!("{number}"), Ok("z\n".repeat(200)))).expect("added");
        }
        let view = archive.finish().expect("finished");
        let sizes: Vec<_> = view.parts.iter().map(|part| (part.size_bytes, part.cut)).collect();
        assert_eq!(sizes, [(Some(400), false), (Some(400), false), (Some(198), true), (Some(0), true)]);
    }

    #[test]
    fn parts_for_which_there_is_no_room_are_counted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("bundle.tar.zst");
        let mut archive = Archive::begin(Some(&path)).expect("begun");
        for number in 0..PARTS + 3 {
            archive.add(Part::new(format!("{number}"), Ok(String::new()))).expect("added");
        }
        let view = archive.finish().expect("finished");
        assert_eq!(view.parts.len(), PARTS + 1);
        let last = view.parts.last().expect("it has parts");
        let error = last.error.as_ref().expect("it is not there");
        assert_eq!((last.path.as_str(), last.size_bytes), ("left-out", None));
        assert_eq!((error.id.as_str(), error.object.as_str()), ("HOST-SUPPORT-PART", "3 further parts"));
        assert!(read(&path)["manifest.json"].contains("3 further parts"));
    }

    #[test]
    fn of_a_long_text_the_end_is_kept_in_whole_lines() {
        assert_eq!(end_of("one\ntwo\nthree", 9), "three");
        assert_eq!(end_of("ä".repeat(10).as_str(), 3), "ä");
        assert_eq!(end_of("short", 9), "short");
        assert_eq!(end_of("anything\n", 0), "");
    }
}
