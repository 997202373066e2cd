//! `k8sctl plugin build`: a package folder of a plugin's source. The schema of its config comes from the program, which is
//! asked in the same sandbox as on a host; of a plugin that is data it lies in the source folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8sctl_types::failure::Failure;
use plugin_package::{Manifest, PLATFORM, Package, Parts, assemble};
use plugin_process::{Ceilings, Deadlines, RunError, Runner};
use serde::Serialize;
use serde_json::{Value, json};

use super::compile;
use super::source::{self, Given};
use crate::cli::PluginBuildArgs;
use crate::ended::{self, Ended};
use crate::exit::Exit;
use crate::output;
use crate::progress::Ticker;
use crate::terminal::{Context, bytes, styles, visible};

/// The program of plugins that are data.
const GENERIC: &str = plugin_package::assemble::DATA_PROGRAM;
/// Name of the schema.
const SCHEMA: &str = "schema.json";

/// What is to be built of what.
#[derive(Debug)]
pub(super) struct Build<'a> {
    /// The source folder, and what its `plugin.toml` says.
    pub(super) source: &'a Path,
    pub(super) manifest: &'a Manifest,
    /// Its program; `None`: it is made, or found.
    pub(super) program: Option<&'a Path>,
    /// Its schema; `None`: the program is asked.
    pub(super) schema: Option<&'a Path>,
    /// The package folder.
    pub(super) out: PathBuf,
}

impl<'a> Build<'a> {
    /// As it is without flags.
    pub(super) fn of(source: &'a Path, manifest: &'a Manifest) -> Self {
        Self { source, manifest, program: None, schema: None, out: source::built(source) }
    }
}

/// `plugin build -o json`.
#[derive(Debug, Serialize)]
struct Built {
    name: String,
    version: String,
    folder: PathBuf,
    /// Digest of its `plugin.toml`, which holds all others.
    sha256: String,
    /// Size of its program.
    program_bytes: u64,
}

pub(super) async fn run(context: &Context, args: &PluginBuildArgs) -> Result<Exit, Ended> {
    let Given::Source(manifest) = source::look(&args.dir)? else {
        let reason = "it is no source folder: its plugin.toml has digests already, or it is a file";
        let next = "name the folder that the package is made of";
        return Err(Failure::new("PLUGIN-BUILD", object(&args.dir), reason, next).into());
    };
    let wanted = Build {
        program: args.program.as_deref(),
        schema: args.schema.as_deref(),
        out: args.out.clone().unwrap_or_else(|| source::built(&args.dir)),
        ..Build::of(&args.dir, &manifest)
    };
    let package = build(context, &wanted).await?;
    let (binary, _) = package.program().map_err(|error| error.failure(&manifest.name))?;
    let built = Built {
        name: manifest.name.clone(),
        version: manifest.version.to_string(),
        folder: package.folder.clone(),
        sha256: package.sha256.clone(),
        program_bytes: binary.bytes,
    };
    if context.format.is_structured() {
        output::document(context, &built)?;
        return Ok(Exit::Ok);
    }
    let folder = built.folder.display();
    let what =
        format!("built {} {} in {folder}, program {}", built.name, built.version, bytes(built.program_bytes));
    context.out.line(context.out.paint(styles::GOOD, visible(&what)))?;
    Ok(Exit::Ok)
}

/// Builds it.
pub(super) async fn build(context: &Context, build: &Build<'_>) -> Result<Package, Ended> {
    let name = &build.manifest.name;
    let is_data = build.manifest.program.name == GENERIC;
    let program = match build.program {
        Some(program) => program.to_owned(),
        None if is_data => generic_program(name)?,
        None => compile::compile(context, build.source, build.manifest).await?,
    };
    let programs = [(PLATFORM.to_owned(), program)];
    let known = match build.schema {
        Some(file) => Some(read_schema(file)?),
        None if is_data => Some(read_schema(&build.source.join(SCHEMA))?),
        None => None,
    };
    let schema = match &known {
        Some(schema) => schema.clone(),
        None => {
            let scratch = source::scratch()?;
            let out = scratch.path().join("asked");
            let parts = Parts { source: build.source, out: &out, programs: &programs, schema: &json!({}) };
            let asked = without_schema(assemble(&parts).map_err(|error| error.failure(name))?)
                .map_err(|error| cannot_write(&out, &error))?;
            let answer = ask(context, &asked).await?;
            answer.map_err(|error| with_another_way(refused(&error), context, build))?
        }
    };
    let parts = Parts { source: build.source, out: &build.out, programs: &programs, schema: &schema };
    let package = assemble(&parts).map_err(|error| error.failure(name))?;
    // What was not said by the program itself is compared with what it says. A build must be possible without a sandbox.
    if known.is_some() && build.schema.is_none() {
        match ask(context, &package).await? {
            Ok(_) => {}
            Err(error) if error.failure.id == "PLUGIN-SANDBOX" => {
                ended::print(&context.err, "warning", &error.failure)?;
            }
            Err(error) => return Err(refused(&error).into()),
        }
    }
    Ok(package)
}

/// What the program says its config's schema is.
async fn ask(context: &Context, package: &Package) -> Result<Result<Value, RunError>, Ended> {
    let mut ticker = Ticker::new(context.story());
    ticker.show(&format!("asking the program of {} what it is", package.manifest.name))?;
    let runner = Runner::new(Deadlines::default(), Ceilings::default());
    Ok(runner.describe(package).await.map(|run| run.answer.config_schema))
}

/// What went wrong, with what the program said.
pub(super) fn refused(error: &RunError) -> Failure {
    let failure = error.failure.clone();
    if failure.evidence.is_empty() { failure.with_evidence(error.stderr.clone()) } else { failure }
}

/// Where no program can be asked, a person can say what it would.
fn with_another_way(mut failure: Failure, context: &Context, build: &Build<'_>) -> Failure {
    if failure.id != "PLUGIN-SANDBOX" {
        return failure;
    }
    let source = build.source.display().to_string();
    let mut words = vec!["plugin", "build", source.as_str()];
    let program = build.program.map(|program| program.display().to_string());
    words.extend(program.iter().flat_map(|program| ["--program", program.as_str()]));
    words.extend(["--schema", "FILE"]);
    let command = context.source.command(&words);
    let now =
        format!("or write the schema of its config into a file and build it here without asking: {command}");
    failure.next_step = format!("{}; {now}", failure.next_step);
    failure
}

/// A package whose program alone knows the schema.
fn without_schema(mut package: Package) -> io::Result<Package> {
    fs::remove_file(package.folder.join(SCHEMA))?;
    package.manifest.files.retain(|file| file.path != SCHEMA);
    Ok(package)
}

/// The generic program of this release: beside `k8sctl`, or where it is installed.
fn generic_program(name: &str) -> Result<PathBuf, Failure> {
    let exe = std::env::current_exe().ok();
    let beside = exe.iter().filter_map(|exe| exe.parent()).flat_map(|bin| {
        [bin.join(GENERIC), bin.join("..").join(GENERIC), bin.join("../lib/k8s-myhome").join(GENERIC)]
    });
    let installed = Path::new("/usr/lib/k8s-myhome").join(GENERIC);
    let mut places = beside.chain([installed]);
    places.find(|place| place.is_file()).ok_or_else(|| {
        let reason = format!("the program {GENERIC} is neither beside k8sctl nor in /usr/lib/k8s-myhome");
        let next = "install k8sctl as a whole, or name the program with --program FILE";
        Failure::new("PLUGIN-BUILD", format!("plugin {name}"), reason, next)
    })
}

fn read_schema(file: &Path) -> Result<Value, Failure> {
    let unusable = |reason: String| {
        let next = "write the JSON Schema of the config there, an object that is closed";
        Failure::new("PLUGIN-BUILD", format!("schema {}", file.display()), reason, next)
    };
    let text = fs::read_to_string(file).map_err(|error| unusable(format!("cannot read it: {error}")))?;
    serde_json::from_str(&text).map_err(|error| unusable(format!("it is no JSON: {error}")))
}

pub(super) fn object(source: &Path) -> String {
    format!("plugin {}", source.display())
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let reason = format!("cannot write there: {error}");
    Failure::new(
        "PLUGIN-BUILD",
        format!("folder {}", path.display()),
        reason,
        "check that disk and its modes",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn a_schema_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join(SCHEMA);
        let refused = || read_schema(&file).expect_err("it is none");
        assert!(refused().reason.starts_with("cannot read it"), "{:?}", refused());
        fs::write(&file, "{").expect("written");
        assert!(refused().reason.starts_with("it is no JSON"), "{:?}", refused());
        assert!(refused().object.ends_with(SCHEMA) && refused().id == "PLUGIN-BUILD", "{:?}", refused());
        fs::write(&file, "{\"type\": \"object\"}").expect("written");
        assert_eq!(read_schema(&file).expect("JSON")["type"], "object");
    }

    fn manifest() -> Manifest {
        let text = "format = 1\nname = \"x\"\nversion = \"0.2.0\"\nsummary = \"X\"\nprotocol = [1]\n\
                    [program]\nname = \"data-plugin\"\n";
        Manifest::parse(text).expect("sound")
    }

    #[test]
    fn without_flags_it_is_built_beside_its_source() {
        let manifest = manifest();
        let build = Build::of(Path::new("x"), &manifest);
        assert_eq!((build.out, build.program, build.schema), (PathBuf::from("x/target/plugin"), None, None));
    }

    #[test]
    fn without_a_sandbox_a_person_may_say_what_the_program_would() {
        let (manifest, context) = (manifest(), Context::without_command(Format::Table));
        let mut build = Build::of(Path::new("mine"), &manifest);
        build.program = Some(Path::new("p"));
        let lacking = |id| Failure::new(id, "plugin x", "there is no Landlock", "see that");
        let failure = with_another_way(lacking("PLUGIN-SANDBOX"), &context, &build);
        let command = "k8sctl plugin build mine --program p --schema FILE";
        assert!(failure.next_step.starts_with("see that; or "), "{failure:?}");
        assert!(failure.next_step.ends_with(command), "{failure:?}");
        assert_eq!(with_another_way(lacking("PLUGIN-CRASHED"), &context, &build), lacking("PLUGIN-CRASHED"));
    }
}
