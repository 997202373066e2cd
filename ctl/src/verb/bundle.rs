//! `k8sctl bundle …`: Kubernetes releases as files. `inspect` and `verify` need no host agent.

use std::path::{Path, PathBuf};

use host_artifacts::bundle::store::{inspect, verify};
use host_artifacts::bundle::{Bundle, Manifest};
use k8sctl_proto::control::v1::{FetchBundleRequest, ImportBundleRequest, ListBundlesRequest};
use k8sctl_types::failure::Failure;
use serde::Serialize;

use crate::agent;
use crate::cli::BundleVerb;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::progress::Ticker;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, bytes, styles, visible};
use crate::view::BundleView;

pub(super) async fn run(context: &Context, verb: BundleVerb) -> Result<Exit, Ended> {
    match verb {
        BundleVerb::Fetch { kubernetes } => fetch(context, kubernetes.unwrap_or_default()).await,
        BundleVerb::Import { file } => import(context, &file).await,
        BundleVerb::List => list(context).await,
        BundleVerb::Inspect { file } => {
            let bundle = read(file, inspect).await?;
            show(context, &bundle, false)
        }
        BundleVerb::Verify { file } => {
            let mut ticker = Ticker::new(context.story());
            ticker.show(&format!("reading {}", file.display()))?;
            let bundle = read(file, verify).await?;
            drop(ticker);
            show(context, &bundle, true)
        }
    }
}

/// Reading is blocking.
async fn read(file: PathBuf, how: fn(&Path) -> Result<Bundle, Failure>) -> Result<Bundle, Ended> {
    let read = tokio::task::spawn_blocking(move || how(&file)).await;
    Ok(read.map_err(|error| Failure::new("HOST-INTERNAL", "k8sctl", error.to_string(), "report this"))??)
}

async fn fetch(context: &Context, kubernetes_version: String) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let mut stream =
        agent.bundles().fetch_bundle(FetchBundleRequest { kubernetes_version }).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let mut made = None;
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
        made = message.bundle.or(made);
    }
    drop(ticker);
    installed(context, made.unwrap_or_default().into(), "fetched")
}

async fn import(context: &Context, file: &Path) -> Result<Exit, Ended> {
    let failure = |reason: String, next: &str| {
        Failure::new("BUNDLE-UNREADABLE", format!("bundle {}", file.display()), reason, next)
    };
    let path = std::fs::canonicalize(file)
        .map_err(|error| failure(format!("cannot find it: {error}"), "name a bundle file"))?;
    let path = path.into_os_string().into_string().map_err(|path| {
        let reason = format!("its path is not UTF-8: {}", path.display());
        failure(reason, "move it to a path in plain letters")
    })?;
    let request = ImportBundleRequest { path };
    let agent = agent::connect(context).await?;
    let mut stream = agent.bundles().import_bundle(request).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let mut made = None;
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
        made = message.bundle.or(made);
    }
    drop(ticker);
    installed(context, made.unwrap_or_default().into(), "imported")
}

fn installed(context: &Context, bundle: BundleView, how: &str) -> Result<Exit, Ended> {
    if context.format.is_structured() {
        output::document(context, &bundle)?;
        return Ok(Exit::Ok);
    }
    let (name, version) = (visible(&bundle.name), visible(&bundle.kubernetes_version));
    let what = format!("{how} {name}: Kubernetes {version}, {}", bytes(bundle.size_bytes));
    context.out.line(context.out.paint(styles::GOOD, what))?;
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let bundles = agent.bundles().list_bundles(ListBundlesRequest {}).await?.into_inner().bundles;
    let bundles: Vec<_> = bundles.into_iter().map(BundleView::from).collect();
    if context.format.is_structured() {
        output::document(context, &bundles)?;
        return Ok(Exit::Ok);
    }
    if bundles.is_empty() {
        let fetch = context.source.command(&["bundle", "fetch"]);
        context.out.line(format!("no bundle is installed; get one with: {fetch}"))?;
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&["BUNDLE", "KUBERNETES", "ARCH", "SIZE", "TRIAL", "FILE"]);
    for bundle in &bundles {
        let name = if bundle.problem.is_some() {
            styled(styles::BAD, "broken")
        } else {
            styled(styles::STRONG, &bundle.name)
        };
        table.row(vec![
            name,
            cell(&bundle.kubernetes_version),
            cell(&bundle.arch),
            cell(bytes(bundle.size_bytes)),
            styled(styles::WARN, if bundle.trial { "trial" } else { "" }),
            cell(&bundle.path),
        ]);
    }
    table.print(&context.out)?;
    ended::print_all(&context.out, bundles.iter().filter_map(|bundle| bundle.problem.as_ref()))?;
    Ok(Exit::Ok)
}

/// `bundle inspect -o json`.
#[derive(Debug, Serialize)]
struct Document<'a> {
    path: &'a Path,
    /// SHA-256 of its `bundle.toml`, which names every other digest.
    digest: &'a str,
    size_bytes: u64,
    /// Every digest was checked.
    verified: bool,
    /// `bundle.toml` as it is.
    manifest: &'a Manifest,
}

fn show(context: &Context, bundle: &Bundle, verified: bool) -> Result<Exit, Ended> {
    let manifest = &bundle.manifest;
    if context.format.is_structured() {
        let (path, digest, size_bytes) = (bundle.path.as_path(), bundle.digest.as_str(), bundle.size);
        let document = Document { path, digest, size_bytes, verified, manifest };
        output::document(context, &document)?;
        return Ok(Exit::Ok);
    }
    let out = &context.out;
    let field = |name: &str, value: &str| {
        out.line(format!("{} {}", out.paint(styles::DIM, format!("{name:<11}")), visible(value)))
    };
    field("bundle", &manifest.name)?;
    field("kubernetes", &manifest.kubernetes.to_string())?;
    field("arch", &manifest.arch)?;
    field("source", &manifest.source)?;
    field("created", manifest.created.as_deref().unwrap_or("-"))?;
    field("digest", &bundle.digest)?;
    field("size", &bytes(bundle.size))?;
    if manifest.trial {
        out.line(out.paint(
            styles::BOX,
            " trial bundle: for trying things out, not for data that you want to keep ",
        ))?;
    }
    if verified {
        let what = format!(
            "verified: {} components and {} images have the digests that they should",
            manifest.components.len(),
            manifest.images.len()
        );
        out.line(out.paint(styles::GOOD, what))?;
        return Ok(Exit::Ok);
    }
    out.line("")?;
    let mut table = Table::new(&["COMPONENT", "VERSION", "SIZE", "PATH"]);
    for part in &manifest.components {
        table.row(vec![cell(&part.name), cell(&part.version), cell(bytes(part.size)), cell(&part.path)]);
    }
    table.print(out)?;
    out.line("")?;
    let mut table = Table::new(&["IMAGE", "SIZE", "MANIFEST"]);
    for image in &manifest.images {
        table.row(vec![cell(&image.name), cell(bytes(image.size)), cell(&image.manifest)]);
    }
    table.print(out)?;
    Ok(Exit::Ok)
}
