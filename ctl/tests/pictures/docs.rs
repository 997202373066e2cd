//! The pictures of `docs/dashboard.md`. `make pictures` takes them anew; where nobody asks for that, they are made all the
//! same and thrown away.

use std::path::{Path, PathBuf};

use crate::ansi;
use crate::chromium::Browser;
use crate::fake::scenes::dead_node;
use crate::harness::Bench;
use crate::tmux::Tmux;

/// Names a directory for the pictures; beginning at the workspace where it is relative.
const INTO: &str = "K8SCTL_PICTURES";
const NAMES: [&str; 2] = ["dashboard-terminal.png", "dashboard-web.png"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Width and height, where it is a PNG.
fn size(picture: &[u8]) -> Option<(u32, u32)> {
    let header = picture.strip_prefix(b"\x89PNG\r\n\x1a\n")?.get(8..16)?;
    let number = |at: usize| Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?));
    Some((number(0)?, number(4)?))
}

#[tokio::test]
async fn the_pictures_of_the_docs_are_taken() {
    let bench = Bench::new(dead_node());
    let mut browser = Browser::start().await;
    let tmux = Tmux::run(&bench, &["dashboard"], (120, 40), &[]).await;
    tmux.shows(&["✗  k8s-worker-1", "✓  hello", "Operation: up is running", "step cni: running"]).await;
    browser.write(&ansi::page(&tmux.painted().await)).await;
    browser.shows(&["✗  k8s-worker-1", "step cni: running"]).await;
    let terminal = browser.picture("pre").await;
    let (mut child, url) = bench.served().await;
    browser.open(&url).await;
    browser.shows(&["✗", "up is running", "2 of 2 objects are ready", "step cni: running"]).await;
    let web = browser.picture("html").await;
    child.kill().await.unwrap();
    browser.close().await;

    let [of_terminal, of_web] = [&terminal, &web].map(|picture| size(picture).expect("a PNG"));
    // 120 columns of at least 8 pixels, and 40 rows; the whole page.
    assert!(of_terminal.0 > 960 && of_terminal.1 > 680, "{of_terminal:?}");
    assert!(of_web.0 == 1280 && of_web.1 > 600, "{of_web:?}");
    if let Some(folder) = std::env::var_os(INTO) {
        let folder = root().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, picture) in NAMES.into_iter().zip([terminal, web]) {
            std::fs::write(folder.join(name), picture).unwrap();
        }
    }
}

#[test]
fn the_pictures_of_the_docs_are_there() {
    let page = std::fs::read_to_string(root().join("docs/dashboard.md")).unwrap();
    for name in NAMES {
        assert!(page.contains(&format!("](pictures/{name})")), "docs/dashboard.md does not show {name}");
        let picture = std::fs::read(root().join("docs/pictures").join(name)).unwrap_or_default();
        assert!(size(&picture).is_some(), "docs/pictures/{name} is no picture: make pictures");
    }
}
