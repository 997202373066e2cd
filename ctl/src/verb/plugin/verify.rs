//! `k8sctl plugin verify`: every digest and signature, of the host's packages by the host agent, of a folder or an archive
//! right here.

use std::path::Path;

use k8sctl_proto::control::v1::VerifyPluginsRequest;
use k8sctl_types::failure::Failure;

use super::source::{self, Given};
use crate::agent;
use crate::cli::PluginVerifyArgs;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::lock_file::{self, Lock};
use crate::output;
use crate::table::{Table, cell, styled};
use crate::terminal::{Context, styles};
use crate::view::VerifiedView;

/// As the host agent says it of what it is given by its path.
const GIVEN: &str = "given";

pub(super) async fn run(context: &Context, args: &PluginVerifyArgs) -> Result<Exit, Ended> {
    let lock_text = match &args.file {
        None => String::new(),
        Some(file) => lock_beside(file)?,
    };
    let verified = match args.name.as_deref().filter(|name| source::is_path(name)) {
        Some(path) if args.file.is_none() => vec![here(context, Path::new(path)).await?],
        _ => {
            let agent = agent::connect(context).await?;
            let plugin = match &args.name {
                Some(name) => source::for_the_host(context, name, false).await?,
                None => String::new(),
            };
            let request = VerifyPluginsRequest { plugin, lock_text };
            let found = agent.plugins().verify_plugins(request).await?.into_inner().plugins;
            found.into_iter().map(VerifiedView::from).collect()
        }
    };
    if context.format.is_structured() {
        output::document(context, &verified)?;
    } else if verified.is_empty() {
        context.out.line("there is no plugin to verify")?;
    } else {
        table(&verified).print(&context.out)?;
        ended::print_all(&context.out, verified.iter().filter_map(|one| one.problem.as_ref()))?;
    }
    let is_well = verified.iter().all(|one| one.problem.is_none());
    Ok(if is_well { Exit::Ok } else { Exit::Failed })
}

/// Whoever wants a comparison with a lock file is told where there is none.
fn lock_beside(file: &Path) -> Result<String, Ended> {
    let lock = Lock::beside(file)?.ok_or_else(lock_file::of_standard_input)?;
    if lock.text().is_empty() {
        let object = format!("file {}", file.with_file_name(lock_file::NAME).display());
        let next = "an up with the cluster file beside it writes one: k8sctl up -f FILE";
        return Err(Failure::new("PLUGIN-LOCK", object, "there is none to compare with", next).into());
    }
    Ok(lock.text().to_owned())
}

/// What was changed after it was built is a problem of it, and not of the run.
async fn here(context: &Context, path: &Path) -> Result<VerifiedView, Ended> {
    // Of a source folder there are no digests: it is built, and that compares what can be.
    let is_package = matches!(source::look(path)?, Given::Package | Given::Archive);
    match source::open(context, path).await {
        Ok(opened) => {
            let package = &opened.package;
            Ok(VerifiedView {
                name: package.manifest.name.clone(),
                version: package.manifest.version.to_string(),
                sha256: package.sha256.clone(),
                trust: package.trust.to_string(),
                found: GIVEN.to_owned(),
                path: Some(source::absolute(path)?),
                problem: None,
            })
        }
        Err(Ended::Problem(problem)) if is_package => Ok(VerifiedView {
            name: path.display().to_string(),
            version: String::new(),
            sha256: String::new(),
            trust: String::new(),
            found: GIVEN.to_owned(),
            path: Some(source::absolute(path)?),
            problem: Some((&problem.failure).into()),
        }),
        Err(other) => Err(other),
    }
}

/// In the store it lies under its digest, which is shown already.
fn place(one: &VerifiedView) -> String {
    let path = one.path.clone().unwrap_or_default();
    match one.found.as_str() {
        "store" => "the host's store".to_owned(),
        "lock-file" => format!("{path} (k8sctl.lock)"),
        _ => path,
    }
}

fn table(verified: &[VerifiedView]) -> Table {
    let mut table = Table::new(&["PLUGIN", "VERSION", "VERIFIED", "TRUST", "SHA256", "FOUND IN"]);
    for one in verified {
        let sound =
            if one.problem.is_none() { styled(styles::GOOD, "yes") } else { styled(styles::BAD, "no") };
        let trust = if one.trust == "dev" { styled(styles::WARN, "dev") } else { cell(&one.trust) };
        table.row(vec![
            styled(styles::STRONG, &one.name),
            cell(&one.version),
            sound,
            trust,
            cell(one.sha256.chars().take(12).collect::<String>()),
            cell(place(one)),
        ]);
    }
    table
}
