//! Builds a node image by hand: `build_image BUNDLE NODE_AGENT IMAGE_DIR [SUITE] [--debug-unit]`.
//!
//! For scripts and for trying things without a host agent. Needs root. Prints the image's directory.

use std::path::{Path, PathBuf};

use anyhow::Context;
use host_artifacts::bundle::store::inspect;
use host_artifacts::image::{BuildInputs, ImageStore, Packages};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let debug_unit = args.iter().any(|arg| arg == "--debug-unit");
    args.retain(|arg| arg != "--debug-unit");
    let [bundle, node_agent, dir, suite @ ..] = args.as_slice() else {
        anyhow::bail!("usage: build_image BUNDLE NODE_AGENT IMAGE_DIR [SUITE] [--debug-unit]");
    };
    let inputs = BuildInputs {
        bundle: inspect(Path::new(bundle))?,
        suite: suite.first().map_or("bookworm", String::as_str).to_owned(),
        node_agent: PathBuf::from(node_agent),
        debug_unit,
    };
    let (sender, mut progress) = tokio::sync::mpsc::channel(256);
    let dir = std::path::absolute(dir).context("the image directory is no path")?;
    let store = ImageStore::new(dir);
    let build = store.build(inputs, Packages::AsBuilt, sender);
    let print = async {
        while let Some(line) = progress.recv().await {
            eprintln!("{line}");
        }
    };
    let (image, ()) = tokio::join!(build, print);
    match image {
        Ok(image) => println!("{}", image.dir.display()),
        Err(failure) => anyhow::bail!("{failure}\n{}\n{}", failure.next_step, failure.evidence),
    }
    Ok(())
}
