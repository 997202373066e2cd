//! `k8sctl image …`: node images.

use k8sctl_proto::control::v1::{BuildImageRequest, ListImagesRequest, RemoveImageRequest};
use serde::Serialize;

use crate::agent;
use crate::cli::ImageVerb;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::progress::Ticker;
use crate::spec_file::SpecFile;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, bytes, duration, styles, visible};
use crate::view::{ImageView, seconds_since};

/// How much of an id is shown to people; enough to remove it by.
const SHORT: usize = 12;

pub(super) async fn run(context: &Context, verb: ImageVerb) -> Result<Exit, Ended> {
    match verb {
        ImageVerb::Build { file, bundle, suite, refresh, debug_unit } => {
            let spec = match file {
                Some(file) => Some(SpecFile::read(&file)?.check(context)?.spec),
                None => None,
            };
            let (kubernetes, of_file) =
                spec.map_or((None, None), |spec| (spec.kubernetes, Some(spec.image.suite)));
            let request = BuildImageRequest {
                bundle: bundle.unwrap_or_default(),
                suite: suite.or(of_file).unwrap_or_default(),
                refresh,
                debug_unit,
                kubernetes_version: kubernetes.map(|version| version.to_string()).unwrap_or_default(),
            };
            build(context, request).await
        }
        ImageVerb::List => list(context).await,
        ImageVerb::Remove { id } => {
            let agent = agent::connect(context).await?;
            let removed = agent.images().remove_image(RemoveImageRequest { id }).await?.into_inner();
            if context.format.is_structured() {
                output::document(context, &Removed { image: removed.id })?;
            } else {
                context.out.line(format!("removed image {}", visible(&removed.id)))?;
            }
            Ok(Exit::Ok)
        }
    }
}

/// `image remove -o json`.
#[derive(Debug, Serialize)]
struct Removed {
    /// Full id of the image that is gone.
    image: String,
}

fn short(id: &str) -> String {
    id.chars().take(SHORT).collect()
}

async fn build(context: &Context, request: BuildImageRequest) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let mut stream = agent.images().build_image(request).await?.into_inner();
    let mut ticker = Ticker::new(context.story());
    let mut made = None;
    while let Some(message) = stream.message().await? {
        ticker.show(&message.progress)?;
        made = message.image.or(made);
    }
    drop(ticker);
    let image = ImageView::from(made.unwrap_or_default());
    if context.format.is_structured() {
        output::document(context, &image)?;
        return Ok(Exit::Ok);
    }
    let (id, version, suite) = (short(&image.id), &image.kubernetes_version, &image.suite);
    let what = visible(&format!("image {id}: Kubernetes {version} on {suite}, {}", bytes(image.size_bytes)));
    context.out.line(context.out.paint(styles::GOOD, what))?;
    Ok(Exit::Ok)
}

async fn list(context: &Context) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let images = agent.images().list_images(ListImagesRequest {}).await?.into_inner().images;
    let images: Vec<_> = images.into_iter().map(ImageView::from).collect();
    if context.format.is_structured() {
        output::document(context, &images)?;
        return Ok(Exit::Ok);
    }
    if images.is_empty() {
        let build = context.source.command(&["image", "build"]);
        context.out.line(format!("no image is built; build one with: {build}"))?;
        return Ok(Exit::Ok);
    }
    let mut table =
        Table::new(&["IMAGE", "KUBERNETES", "SUITE", "BUNDLE", "SIZE", "AGE", "TRIAL", "USED BY"]);
    for image in &images {
        let style = if image.problem.is_some() { styles::BAD } else { styles::STRONG };
        let size = if image.problem.is_some() { "damaged".to_owned() } else { bytes(image.size_bytes) };
        let age = seconds_since(image.created.as_deref()).map(duration).unwrap_or_default();
        table.row(vec![
            styled(style, short(&image.id)),
            cell(&image.kubernetes_version),
            cell(&image.suite),
            cell(&image.bundle),
            cell(size),
            cell(age),
            styled(styles::WARN, if image.trial { "trial" } else { "" }),
            cell(image.used_by.join(",")),
        ]);
    }
    table.print(&context.out)?;
    ended::print_all(&context.out, images.iter().filter_map(|image| image.problem.as_ref()))?;
    Ok(Exit::Ok)
}
