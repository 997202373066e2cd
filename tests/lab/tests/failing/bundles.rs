//! Bundles and node images that are not what they should be.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::parts::{self, IMAGE, VERSION, holds_only};
use crate::{Stage, told};

/// `bundle verify|inspect|import` of a file that is no bundle, is cut short, or has other content than it says.
#[test]
fn broken_bundles_are_refused() -> Result<()> {
    let stage = Stage::new("bundle-files")?;
    let _agent = stage.host.host_agent(None)?;
    let file = |name: &str| stage.host.file(name);
    let sound = file("sound.k8sbundle");
    parts::bundle(&sound)?;
    parts::truncated(&sound, &file("truncated"))?;
    parts::changed(&sound, &file("flipped-layer"), "words in the middle")?;
    parts::changed(&sound, &file("flipped-program"), "program kubelet")?;
    // The digest of an image in bundle.toml, which comes first in the file.
    let text = fs::read(&sound)?;
    let text = String::from_utf8_lossy(&text);
    let digest =
        text.split("manifest = \"sha256:").nth(1).and_then(|rest| rest.get(..64)).context("a digest")?;
    parts::changed(&sound, &file("other-digest"), digest)?;
    fs::write(file("no-tar"), "<html>404 Not Found</html>".repeat(100))?;
    fs::write(file("empty"), "")?;
    fs::create_dir(file("directory"))?;
    let store = file("bundles");
    fs::create_dir_all(&store)?;
    for (name, id, said, seen_by_inspect) in [
        ("truncated", "BUNDLE-CORRUPT", "cut short", true),
        ("flipped-layer", "BUNDLE-DIGEST", "images/blobs/sha256/", false),
        ("flipped-program", "BUNDLE-DIGEST", "bin/kubelet: got sha256", false),
        ("other-digest", "BUNDLE-CORRUPT", "k8s/pause:1 is sha256:", false),
        ("no-tar", "BUNDLE-CORRUPT", "not a readable bundle", true),
        ("empty", "BUNDLE-CORRUPT", "it is empty", true),
        ("directory", "BUNDLE-CORRUPT", "no regular file", true),
        ("no-such-file", "BUNDLE-IO", "No such file", true),
    ] {
        let path = file(name).to_string_lossy().into_owned();
        let verified = stage.host.try_k8sctl(&["bundle", "verify", &path])?;
        told(&stage.lab, &verified, 1, id, &[&path, said])?;
        let inspected = stage.host.try_k8sctl(&["bundle", "inspect", &path])?;
        if seen_by_inspect {
            told(&stage.lab, &inspected, 1, id, &[&path])?;
        } else {
            ensure!(inspected.status.success(), "{name}: {}", inspected.err);
        }
        let imported = stage.host.try_k8sctl(&["bundle", "import", &path])?;
        let id = if name == "no-such-file" { "BUNDLE-UNREADABLE" } else { id };
        told(&stage.lab, &imported, 1, id, &[&path])?;
        holds_only(&store, &[])?;
    }
    stage.host.k8sctl(&["bundle", "verify", &sound.to_string_lossy()])?;
    stage.host.k8sctl(&["bundle", "import", &sound.to_string_lossy()])?;
    holds_only(&store, &[&format!("kubernetes-{VERSION}.k8sbundle")])
}

/// A bundle that broke in the store: `up` and `image build` say so, and nothing half-made is left.
#[test]
fn a_bundle_that_broke_in_the_store_is_named() -> Result<()> {
    let mut stage = Stage::new("bundle-store")?;
    let _agent = stage.host.host_agent(None)?;
    let (images, store) = (stage.host.file("images"), stage.host.file("bundles"));
    fs::remove_dir_all(images.join(IMAGE))?;
    fs::create_dir_all(&store)?;
    let installed = store.join(format!("kubernetes-{VERSION}.k8sbundle"));
    let path = installed.to_string_lossy().into_owned();

    let none = stage.up()?;
    told(&stage.lab, &none, 1, "BUNDLE-MISSING", &["k8sctl bundle fetch"])?;
    fs::write(&installed, "no tar")?;
    let no_tar = stage.up()?;
    told(&stage.lab, &no_tar, 1, "BUNDLE-CORRUPT", &[&path])?;
    let built = stage.host.try_k8sctl(&["image", "build"])?;
    told(&stage.lab, &built, 1, "BUNDLE-CORRUPT", &[&path])?;

    let sound = stage.host.file("sound.k8sbundle");
    parts::bundle(&sound)?;
    parts::changed(&sound, &installed, "words in the middle")?;
    let built = stage.host.try_k8sctl(&["image", "build"])?;
    told(&stage.lab, &built, 1, "BUNDLE-DIGEST", &[&path, "images/blobs/sha256/"])?;
    parts::truncated(&sound, &installed)?;
    let built = stage.host.try_k8sctl(&["image", "build"])?;
    told(&stage.lab, &built, 1, "BUNDLE-CORRUPT", &[&path, "cut short"])?;
    holds_only(&images, &[".lock"])?;

    // The bundle is got again, and the image is built of it.
    stage.host.k8sctl(&["bundle", "import", &sound.to_string_lossy()])?;
    let no_image = stage.up()?;
    told(&stage.lab, &no_image, 1, "IMAGE-MISSING", &["k8sctl image build"])?;
    parts::image(&images)?;
    stage.up_succeeds()
}

/// A new cluster whose file names no release is of the newest bundle installed, not of what an older image holds. One
/// that is there keeps its release.
#[test]
fn a_new_cluster_is_of_the_newest_bundle() -> Result<()> {
    let mut stage = Stage::new("newest-bundle")?;
    let _agent = stage.host.host_agent(None)?;
    let import = |stage: &Stage, release: &str| -> Result<()> {
        let file = stage.host.file(release);
        parts::bundle_of(&file, release)?;
        stage.host.k8sctl(&["bundle", "import", &file.to_string_lossy()])?;
        Ok(())
    };
    import(&stage, "v1.34.1")?;
    import(&stage, "v1.33.7")?;
    let newest = stage.up()?;
    let next = "k8sctl image build --bundle kubernetes-v1.34.1 --suite bookworm";
    told(&stage.lab, &newest, 1, "IMAGE-MISSING", &["Kubernetes v1.34.1", next])?;

    fs::remove_dir_all(stage.host.file("bundles"))?;
    stage.up_succeeds()?;
    import(&stage, "v1.34.1")?;
    stage.up_succeeds()
}

/// A file of a node image that is shorter than it was made, or has another content.
#[test]
fn a_damaged_image_is_named() -> Result<()> {
    let mut stage = Stage::new("image")?;
    let _agent = stage.host.host_agent(None)?;
    let disk = stage.host.file("images").join(IMAGE).join("disk.qcow2");
    let path = disk.to_string_lossy().into_owned();
    let whole = fs::read(&disk)?;
    fs::write(&disk, &whole[..whole.len() / 2])?;
    let damaged = stage.up()?;
    told(
        &stage.lab,
        &damaged,
        1,
        "IMAGE-DAMAGED",
        &[&path, "got 5000 bytes, expected 10000", "k8sctl image build"],
    )?;

    // As long as it was made, with another content; a new build mends it.
    let mut changed = whole.clone();
    changed[5000] ^= 1;
    fs::write(&disk, &changed)?;
    for _ in 0..2 {
        let changed = stage.up()?;
        told(&stage.lab, &changed, 1, "IMAGE-DAMAGED", &[&path, "its sha256 is", "k8sctl image build"])?;
    }
    parts::image(&stage.host.file("images"))?;
    stage.up_succeeds()?;

    // Of a cluster that is there already.
    fs::remove_file(&disk)?;
    let gone = stage.up()?;
    told(&stage.lab, &gone, 1, "IMAGE-DAMAGED", &[&path, "No such file"])?;
    fs::write(&disk, &whole)?;
    stage.up_succeeds()?;

    // Another one of the same release takes the place of one that is gone, though nothing else is to be done.
    fs::remove_dir_all(stage.host.file("images").join(IMAGE))?;
    let other = IMAGE.replace('0', "f");
    parts::image_as(&stage.host.file("images"), &other)?;
    stage.up_succeeds()?;
    let status = stage.status()?;
    ensure!(status["image_id"] == other.as_str(), "{status:#}");
    let conditions = status["conditions"].as_array().context("conditions")?;
    let host = conditions.iter().find(|condition| condition["type"] == "HostOK").context("HostOK")?;
    ensure!(host["status"] == "True", "{status:#}");
    Ok(())
}
