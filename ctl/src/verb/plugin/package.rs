//! `k8sctl plugin package`: a package folder as one file, the same bytes each time.

use std::path::PathBuf;

use k8sctl_types::failure::Failure;
use plugin_package::pack;
use serde::Serialize;

use super::source;
use crate::cli::PluginPackageArgs;
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, bytes, styles, visible};

/// `plugin package -o json`.
#[derive(Debug, Serialize)]
struct Packed {
    name: String,
    version: String,
    file: PathBuf,
    size_bytes: u64,
    /// Digest of its `plugin.toml`, which holds all others.
    sha256: String,
    /// `signed:KEYID`, or `dev`: nobody that this host knows signed it.
    trust: String,
}

pub(super) async fn run(context: &Context, args: &PluginPackageArgs) -> Result<Exit, Ended> {
    if args.dir.is_file() {
        let reason = "it is a file; a package is made of a folder";
        let next = "name the package's folder, or its source folder";
        let object = format!("plugin {}", args.dir.display());
        return Err(Failure::new("PLUGIN-BUILD", object, reason, next).into());
    }
    let opened = source::open(context, &args.dir).await?;
    let manifest = &opened.package.manifest;
    let default = || PathBuf::from(format!("{}-{}.tar.zst", manifest.name, manifest.version));
    let file = args.file.clone().unwrap_or_else(default);
    pack(&opened.package.folder, &file).map_err(|error| error.failure(&manifest.name))?;
    let size_bytes = std::fs::metadata(&file).map_or(0, |data| data.len());
    let packed = Packed {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        file,
        size_bytes,
        sha256: opened.package.sha256.clone(),
        trust: opened.package.trust.to_string(),
    };
    if context.format.is_structured() {
        output::document(context, &packed)?;
        return Ok(Exit::Ok);
    }
    let what = format!(
        "packed {} {} into {}, {}",
        packed.name,
        packed.version,
        packed.file.display(),
        bytes(packed.size_bytes)
    );
    context.out.line(context.out.paint(styles::GOOD, visible(&what)))?;
    Ok(Exit::Ok)
}
