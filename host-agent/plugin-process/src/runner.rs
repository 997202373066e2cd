//! One operation with a plugin: its program, a process, the conversation, the end. Called by the host agent and by the
//! tools of authors; knows nothing of clusters, and decides nothing about a plan.

use std::sync::Arc;

use k8sctl_types::failure::Failure;
use plugin_package::PackageError;
use plugin_package::folder::{Package, SCHEMA_FILE};
use plugin_plan::{ObjectKey, UncheckedPlan, hash};
use serde_json::Value;
use tokio::time::Instant;

use crate::conversation::{
    self, AssessAsk, Assessment, ConversationError, Description, MigrateAnswer, Opening, PlanAnswer, PlanAsk,
    Talk,
};
use crate::launch::{Ceilings, Cgroups, Deadlines, Ended, Launcher, Programs, Sealed, Started};
use crate::run::{
    Run, RunError, RunErrorKind, broken_failure, launch_failure, program_failure, unstable_failure,
};
use crate::schema;

/// Starts plugin processes. Clones share the sealed programs that are kept.
#[derive(Clone, Debug)]
pub struct Runner {
    launcher: Launcher,
    programs: Arc<Programs>,
}

/// What a process is started with.
struct Prepared {
    program: Sealed,
    files: Vec<(String, Vec<u8>)>,
    schema: Option<Value>,
}

impl Runner {
    /// With these bounds for every process.
    pub fn new(deadlines: Deadlines, ceilings: Ceilings) -> Self {
        Self { launcher: Launcher { deadlines, ceilings, cgroups: None }, programs: Arc::default() }
    }

    /// Gives each process a control group in what [`Cgroups::claim`] found, once, at the start of the program; without,
    /// processes have limits of their own.
    pub fn with_cgroups(mut self, cgroups: Option<Cgroups>) -> Self {
        self.launcher.cgroups = cgroups;
        self
    }

    /// Handshake and Describe; compared with plugin.toml and, where the package lists one, schema.json.
    pub async fn describe(&self, package: &Package) -> Result<Run<Description>, RunError> {
        self.ask(package, |talk| async move { Ok(talk.description) }).await
    }

    /// Describe, schema, ValidateConfig, Plan. Mistakes of the user are an answer.
    pub async fn plan(&self, package: &Package, ask: &PlanAsk) -> Result<Run<PlanAnswer>, RunError> {
        self.ask(package, move |talk| plan(talk, ask)).await
    }

    /// The same in two fresh processes; other plans are [`RunErrorKind::Unstable`].
    pub async fn plan_twice(&self, package: &Package, ask: &PlanAsk) -> Result<Run<PlanAnswer>, RunError> {
        let (one, other) = tokio::try_join!(self.plan(package, ask), self.plan(package, ask))?;
        let Some(what) = difference(&one.answer, &other.answer) else { return Ok(one) };
        let failure = unstable_failure(&package.manifest.name, &what).with_evidence(one.stderr.clone());
        Err(RunError {
            kind: RunErrorKind::Unstable,
            failure,
            stderr: one.stderr,
            took: one.took.max(other.took),
        })
    }

    /// Turns a config of an older config_version into one of the package's, which its schema takes.
    pub async fn migrate(
        &self,
        package: &Package,
        from: u32,
        config_json: &str,
    ) -> Result<Run<MigrateAnswer>, RunError> {
        self.ask(package, move |talk| migrate(talk, from, config_json)).await
    }

    /// Asks for a judgement of live objects.
    pub async fn assess(&self, package: &Package, ask: &AssessAsk) -> Result<Run<Assessment>, RunError> {
        self.ask(package, move |mut talk: Talk| async move { talk.assess(ask).await }).await
    }

    /// One conversation in which the caller asks what it likes, behind Handshake and Describe; for conformance and
    /// benches.
    pub async fn converse<T, F>(
        &self,
        package: &Package,
        talk: impl FnOnce(Talk) -> F + Send,
    ) -> Result<Run<T>, RunError>
    where
        F: Future<Output = Result<T, ConversationError>> + Send,
    {
        let began = Instant::now();
        let prepared = self.prepare(package, began).await?;
        let opening = Opening {
            manifest: &package.manifest,
            files: &prepared.files,
            schema: prepared.schema.as_ref(),
            deadlines: self.launcher.deadlines,
        };
        let opening = &opening;
        let conversation =
            move |started| async move { talk(conversation::open(started, opening).await?).await };
        self.launch(package, began, &prepared, conversation).await
    }

    /// One process and its bare socket, with nothing said yet; for conformance.
    pub async fn bare<T, F>(
        &self,
        package: &Package,
        talk: impl FnOnce(Started) -> F + Send,
    ) -> Result<Run<T>, RunError>
    where
        F: Future<Output = Result<T, ConversationError>> + Send,
    {
        let began = Instant::now();
        let prepared = self.prepare(package, began).await?;
        self.launch(package, began, &prepared, talk).await
    }

    /// As [`Self::converse`], and once more in a fresh process where the first one was late: a machine may be busy.
    async fn ask<T, F>(
        &self,
        package: &Package,
        talk: impl Fn(Talk) -> F + Send + Sync,
    ) -> Result<Run<T>, RunError>
    where
        F: Future<Output = Result<T, ConversationError>> + Send,
    {
        match self.converse(package, &talk).await {
            Err(error) if error.kind == RunErrorKind::Deadline => {
                tracing::warn!(
                    plugin.name = package.manifest.name,
                    "a plugin was late, and is asked once more"
                );
                self.converse(package, &talk).await
            }
            ended => ended,
        }
    }

    async fn prepare(&self, package: &Package, began: Instant) -> Result<Prepared, RunError> {
        let (package, programs) = (package.clone(), self.programs.clone());
        let prepared = k8sctl_rpc::task::blocking(move || prepare(&package, &programs)).await;
        prepared.map_err(|failure| not_launched(failure, began))
    }

    async fn launch<T, F>(
        &self,
        package: &Package,
        began: Instant,
        prepared: &Prepared,
        talk: impl FnOnce(Started) -> F + Send,
    ) -> Result<Run<T>, RunError>
    where
        F: Future<Output = Result<T, ConversationError>> + Send,
    {
        let plugin = package.manifest.name.as_str();
        let Ended { result, stderr } = match self.launcher.run(plugin, &prepared.program, talk).await {
            Ok(ended) => ended,
            Err(error) => return Err(not_launched(launch_failure(plugin, &error), began)),
        };
        let took = began.elapsed();
        match result {
            Ok(answer) => Ok(Run { answer, stderr, took }),
            Err(broken) => {
                let Launcher { deadlines, ceilings, .. } = self.launcher;
                let (kind, failure) = broken_failure(plugin, &broken, deadlines, ceilings);
                Err(RunError { kind, failure: failure.with_evidence(stderr.clone()), stderr, took })
            }
        }
    }
}

fn not_launched(failure: Failure, began: Instant) -> RunError {
    RunError { kind: RunErrorKind::Launch, failure, stderr: String::new(), took: began.elapsed() }
}

/// Reads what a process is started with. Blocks.
fn prepare(package: &Package, programs: &Programs) -> Result<Prepared, Failure> {
    let plugin = package.manifest.name.as_str();
    let failed = |error: PackageError| error.failure(plugin);
    let (binary, path) = package.program().map_err(failed)?;
    let program = programs.get(&path, &binary.sha256).map_err(|error| program_failure(plugin, &error))?;
    let files = package.files().map_err(failed)?;
    let has_schema = package.manifest.files.iter().any(|file| file.path == SCHEMA_FILE);
    let schema = has_schema.then(|| package.config_schema()).transpose().map_err(failed)?;
    Ok(Prepared { program, files, schema })
}

/// A config that breaks the schema is never shown to the plugin.
async fn plan(mut talk: Talk, ask: &PlanAsk) -> Result<PlanAnswer, ConversationError> {
    let mistakes = schema::mistakes(&talk.description.config_schema, &ask.config_json).await;
    let mistakes = mistakes.map_err(ConversationError::Contract)?;
    if mistakes.is_empty() { talk.plan(ask).await } else { Ok(PlanAnswer::Mistakes(mistakes)) }
}

async fn migrate(mut talk: Talk, from: u32, config_json: &str) -> Result<MigrateAnswer, ConversationError> {
    let answer = talk.migrate(from, config_json).await?;
    if let MigrateAnswer::Config { config_json, .. } = &answer {
        let mistakes = schema::mistakes(&talk.description.config_schema, config_json).await;
        if let Some(first) = mistakes.map_err(ConversationError::Contract)?.first() {
            let (path, message) = (&first.path, &first.message);
            let reason =
                format!("it migrated a config to one that its own schema refuses, at {path:?}: {message}");
            return Err(ConversationError::Contract(reason));
        }
    }
    Ok(answer)
}

/// In what two answers to the same question differ first; `None`: in nothing.
pub fn difference(one: &PlanAnswer, other: &PlanAnswer) -> Option<String> {
    match (one, other) {
        (PlanAnswer::Mistakes(one), PlanAnswer::Mistakes(other)) => {
            (one != other).then(|| "they name other mistakes of the config".to_owned())
        }
        (
            PlanAnswer::Plan { plan: one, effective_config: before, .. },
            PlanAnswer::Plan { plan: other, effective_config: after, .. },
        ) => {
            if hash::unchecked_digest(one) != hash::unchecked_digest(other) {
                return Some(first_object(one, other));
            }
            (as_json(before) != as_json(after))
                .then(|| "they fill in other defaults of the config".to_owned())
        }
        _ => Some("one is a plan, the other names mistakes of the config".to_owned()),
    }
}

fn as_json(config: &Option<String>) -> Option<Value> {
    // What is no JSON has been refused.
    config.as_ref().and_then(|text| serde_json::from_str(text).ok())
}

fn first_object(one: &UncheckedPlan, other: &UncheckedPlan) -> String {
    let (count, others) = (one.objects.len(), other.objects.len());
    if count != others {
        return format!("one has {count} objects, the other {others}");
    }
    let differ = one.objects.iter().zip(&other.objects).position(|(one, other)| one != other);
    let Some(place) = differ else {
        return "they differ in manifests, readiness rules, node requirements or secrets".to_owned();
    };
    match ObjectKey::of(&one.objects[place].object) {
        Ok(key) => format!("{key} differs"),
        Err(_) => format!("object {} differs", place + 1),
    }
}

#[cfg(test)]
mod tests {
    use plugin_plan::{Diagnostic, UncheckedObject};
    use serde_json::json;

    use super::*;

    fn answer(objects: &[Value], effective_config: Option<&str>) -> PlanAnswer {
        let object =
            |object: &Value| UncheckedObject { object: object.clone(), handling: Default::default() };
        let plan =
            UncheckedPlan { objects: objects.iter().map(object).collect(), ..UncheckedPlan::default() };
        PlanAnswer::Plan { plan, warnings: Vec::new(), effective_config: effective_config.map(str::to_owned) }
    }

    fn config_map(name: &str, value: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}, "data": {"k": value}})
    }

    #[test]
    fn the_first_difference_is_named() {
        let one = answer(&[config_map("a", "x"), config_map("b", "x")], Some("{\"a\": 1, \"b\": 2}"));
        let same = answer(&[config_map("a", "x"), config_map("b", "x")], Some("{\"b\": 2, \"a\": 1}"));
        assert_eq!(difference(&one, &same), None);
        let mistakes = |message: &str| PlanAnswer::Mistakes(vec![Diagnostic::mistake("/a", message)]);
        for (other, says) in [
            (answer(&[config_map("a", "x"), config_map("b", "y")], None), "v1 ConfigMap n/b differs"),
            (answer(&[config_map("a", "x")], None), "one has 2 objects, the other 1"),
            (answer(&[config_map("a", "x"), config_map("b", "x")], None), "other defaults"),
            (mistakes("m"), "the other names mistakes"),
        ] {
            let what = difference(&one, &other).expect("they differ");
            assert!(what.contains(says), "{what}");
        }
        assert_eq!(difference(&mistakes("m"), &mistakes("m")), None);
        assert!(difference(&mistakes("m"), &mistakes("n")).is_some());
    }
}
