//! From a wish to what shall be applied: which package, with which config, or which revision of before. Called by whoever
//! offers or begins something; of processes it starts only the one that migrates a config.

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::Package;
use plugin_plan::{CheckedPlan, Diagnostic};
use plugin_process::{MigrateAnswer, schema};
use serde_json::{Value, json};

use super::outcome::Lift;
use super::wish::{ClusterAccess, Wish, WishError, WishKind};
use super::{PluginHost, Whose, not_installed, stored_badly};
use crate::records::{Install, OperationKind, Origin, Place, Revision};

/// A wish that says what it means.
pub(super) struct Resolved {
    pub(super) kind: OperationKind,
    /// The plugin as it is installed.
    pub(super) install: Option<Install>,
    pub(super) package: Package,
    pub(super) what: What,
}

/// What shall be applied.
pub(super) enum What {
    /// What the package makes of this config.
    Config(Value),
    /// What was applied once.
    Revision(Box<Old>),
}

/// A revision with its plan.
pub(super) struct Old {
    pub(super) revision: Revision,
    pub(super) plan: CheckedPlan,
    pub(super) config: Value,
}

impl PluginHost {
    /// The plugin that a wish is about.
    pub(super) async fn name_of(&self, wish: &Wish) -> Result<String, Failure> {
        if wish.change != WishKind::Add || !std::path::Path::new(&wish.plugin).is_absolute() {
            return Ok(wish.plugin.clone());
        }
        let (library, source, dev) = (self.inner.library.clone(), wish.plugin.clone(), wish.dev);
        let package = task::blocking(move || library.locate(&source, dev)).await?;
        Ok(package.manifest.name)
    }

    /// See the module. `only_looks`: it is for a person to look at, and will not be begun.
    pub(super) async fn resolve(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        name: &str,
        lift: Lift,
        only_looks: bool,
    ) -> Result<Resolved, WishError> {
        let place = Place::new(&access.cluster_id, name);
        let install = self.install(&place).await?;
        let of_spec = install.as_ref().filter(|install| install.origin == Origin::Spec);
        if of_spec.is_some_and(|install| !only_looks && !starts_anew(wish, install)) {
            return Err(in_spec(name).into());
        }
        if wish.change == WishKind::Add {
            return self.resolve_add(access, wish, install, lift).await;
        }
        let install = install.ok_or_else(|| not_installed(name))?;
        match wish.change {
            WishKind::RollBack => Ok(self.resolve_roll_back(&place, install).await?),
            WishKind::Upgrade => self.resolve_upgrade(access, wish, install, lift).await,
            _ => {
                let package = self.package_of(&install).await?;
                let config = match &wish.config_json {
                    Some(text) => parse(text)?,
                    None => parse(&install.config_json)?,
                };
                self.may_start(&package, lift).await?;
                self.unchanged_where_it_must_be(access, &package, &install, &config).await?;
                let install = Some(install);
                let kind = OperationKind::Configure;
                Ok(Resolved { kind, install, package, what: What::Config(config) })
            }
        }
    }

    async fn resolve_add(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        install: Option<Install>,
        lift: Lift,
    ) -> Result<Resolved, WishError> {
        let package = self.find(&wish.plugin, wish.dev).await?;
        self.may_start(&package, lift).await?;
        let config = parse(wish.config_json.as_deref().unwrap_or_default())?;
        if let Some(install) = &install {
            self.unchanged_where_it_must_be(access, &package, install, &config).await?;
        }
        let kind = kind_of(install.as_ref(), &package);
        Ok(Resolved { kind, install, package, what: What::Config(config) })
    }

    async fn resolve_upgrade(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        install: Install,
        lift: Lift,
    ) -> Result<Resolved, WishError> {
        let source = wish.to.as_deref().filter(|to| !to.is_empty()).unwrap_or(&install.plugin);
        let package = self.find(source, wish.dev).await?;
        let name = &package.manifest.name;
        if *name != install.plugin {
            let reason = format!("the package in {source} is {name}");
            let next = format!("give a package of {}, or add {name} by itself", install.plugin);
            let object = format!("plugin {}", install.plugin);
            return Err(Failure::new("PLUGIN-UNKNOWN", object, reason, next).into());
        }
        self.may_start(&package, lift).await?;
        let config = match wish.config_json.as_deref().filter(|text| !text.trim().is_empty()) {
            Some(text) => {
                let config = parse(text)?;
                self.unchanged_where_it_must_be(access, &package, &install, &config).await?;
                config
            }
            None => self.migrated(access, &package, &install).await?,
        };
        let kind = kind_of(Some(&install), &package);
        Ok(Resolved { kind, install: Some(install), package, what: What::Config(config) })
    }

    async fn resolve_roll_back(&self, place: &Place, install: Install) -> Result<Resolved, Failure> {
        let revisions = self.inner.records.revisions(place).await.map_err(stored_badly(place))?;
        let Some(revision) = revision_before(&install, &revisions) else {
            let reason =
                format!("there is no revision of it before {}", install.revision.max(install.target));
            let next = format!("`k8sctl plugin show {}` lists the revisions that are kept", place.plugin);
            let object = format!("plugin {}", place.plugin);
            return Err(Failure::new("PLUGIN-NO-REVISION", object, reason, next));
        };
        let package = self.stored(&revision.package_sha256).await?;
        let plan = self.plan_of(place, revision.revision).await?;
        let config = serde_json::from_str(&revision.config_json).unwrap_or(Value::Null);
        let old = Old { revision: revision.clone(), plan, config };
        let what = What::Revision(Box::new(old));
        Ok(Resolved { kind: OperationKind::RollBack, install: Some(install), package, what })
    }

    /// The checked plan of a revision.
    pub(super) async fn plan_of(&self, place: &Place, revision: u64) -> Result<CheckedPlan, Failure> {
        let packed = self.inner.records.plan(place, revision).await.map_err(stored_badly(place))?;
        let damaged = |why: String| {
            let reason = format!("the plan of its revision {revision} cannot be read back: {why}");
            let next = "configure or upgrade the plugin: that makes a new revision";
            Failure::new("PLUGIN-STORE", format!("plugin {}", place.plugin), reason, next)
        };
        let packed = packed.ok_or_else(|| damaged("it is not there".to_owned()))?;
        // The plan of a large plugin has some megabytes.
        task::blocking(move || unpack(&packed)).await.map_err(damaged)
    }

    /// The config of an installed plugin as this package has it.
    async fn migrated(
        &self,
        access: &ClusterAccess,
        package: &Package,
        install: &Install,
    ) -> Result<Value, WishError> {
        let (from, to) = (install.config_version, package.manifest.config_version);
        if from == to {
            return parse(&install.config_json);
        }
        if from > to {
            let version = &package.manifest.version;
            let message = format!(
                "its config is of config_version {from}, and version {version} of the plugin knows {to}"
            );
            return Err(mistake("", message, "give a config with --config, or use `k8sctl plugin rollback`"));
        }
        let whose = Whose::new(access, &install.plugin);
        let run = self.inner.runner.migrate(package, from, &install.config_json).await;
        match self.ran(&whose, package, "migrate", run).await? {
            MigrateAnswer::Mistakes(mistakes) => Err(WishError::Config(mistakes)),
            MigrateAnswer::Config { config_json, .. } => parse(&config_json),
        }
    }

    /// Fields that are marked so stay as they were when the plugin was installed.
    async fn unchanged_where_it_must_be(
        &self,
        access: &ClusterAccess,
        package: &Package,
        install: &Install,
        config: &Value,
    ) -> Result<(), WishError> {
        if install.revision == 0 {
            return Ok(());
        }
        let schema = self.schema(package).await?;
        if !schema.to_string().contains("x-k8sctl-immutable") {
            return Ok(());
        }
        let before = match self.migrated(access, package, install).await {
            Ok(before) => before,
            // It cannot be put beside the new one.
            Err(WishError::Config(_)) => return Ok(()),
            Err(error) => return Err(error),
        };
        let changes = immutable_changes(&schema, &before, config);
        if changes.is_empty() { Ok(()) } else { Err(WishError::Config(changes)) }
    }

    /// Keeps a plan as it is stored. Blocks no other task.
    pub(super) async fn packed(&self, place: &Place, plan: &CheckedPlan) -> Result<Vec<u8>, Failure> {
        let plan = plan.clone();
        let packed = task::blocking(move || pack(&plan)).await;
        packed.map_err(|error| {
            let reason = format!("its plan cannot be written down: {error}");
            Failure::new(
                "PLUGIN-STORE",
                format!("plugin {}", place.plugin),
                reason,
                "run the same command again",
            )
        })
    }
}

/// Changes of fields that may not change, as mistakes.
pub(super) fn immutable_changes(schema: &Value, before: &Value, after: &Value) -> Vec<Diagnostic> {
    let filled = |config: &Value| schema::with_defaults(schema, config);
    let changes = schema::immutable_changes(schema, &filled(before), &filled(after));
    changes
        .into_iter()
        .map(|path| {
            let was = filled(before).pointer(&path).cloned().unwrap_or(Value::Null);
            let message = format!("it was {was} when the plugin was installed, and cannot be changed since");
            let hint = "put it back, or remove the plugin and add it anew".to_owned();
            Diagnostic { code: String::new(), path, message, hint, warning: false }
        })
        .collect()
}

/// What a package is for what is installed.
pub(super) fn kind_of(install: Option<&Install>, package: &Package) -> OperationKind {
    match install {
        Some(install) if install.revision == 0 => OperationKind::Install,
        Some(install) if install.package_sha256 == package.sha256 => OperationKind::Configure,
        Some(_) => OperationKind::Upgrade,
        None => OperationKind::Install,
    }
}

/// To which revision a rollback leads: from a try that failed to what is applied, and from there to what was applied
/// before.
fn revision_before<'a>(install: &Install, revisions: &'a [Revision]) -> Option<&'a Revision> {
    let applied = |revision: &&Revision| revision.applied.is_some();
    if install.target != install.revision {
        return revisions.iter().filter(applied).find(|one| one.revision == install.revision);
    }
    // The newest comes first.
    revisions.iter().filter(applied).find(|one| one.revision < install.revision)
}

/// A config as JSON; nothing is `{}`.
pub(super) fn parse(text: &str) -> Result<Value, WishError> {
    if text.trim().is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_str(text).map_err(|error| mistake("", format!("it is not JSON: {error}"), ""))
}

fn mistake(path: &str, message: String, hint: &str) -> WishError {
    let hint = hint.to_owned();
    WishError::Config(vec![Diagnostic { hint, ..Diagnostic::mistake(path, message) }])
}

/// What the file names is the file's.
pub(super) fn in_spec(plugin: &str) -> Failure {
    let next = format!(
        "change it there, then run `k8sctl up`; for another version: `k8sctl plugin upgrade -f FILE {plugin}`"
    );
    let reason = format!("the cluster file has it, in [plugins.{plugin}]");
    Failure::new("PLUGIN-IN-SPEC", format!("plugin {plugin}"), reason, next)
}

/// The wish changes nothing of what the file says, and ends a quarantine, of which a file says nothing.
fn starts_anew(wish: &Wish, install: &Install) -> bool {
    let config = |text: &str| serde_json::from_str::<Value>(text).ok();
    let is_same = |text: &String| config(text) == config(&install.config_json);
    wish.lift_quarantine
        && wish.change == WishKind::Configure
        && wish.config_json.as_ref().is_none_or(is_same)
}

fn pack(plan: &CheckedPlan) -> std::io::Result<Vec<u8>> {
    let json = serde_json::to_vec(plan).map_err(std::io::Error::other)?;
    zstd::encode_all(json.as_slice(), 3)
}

fn unpack(packed: &[u8]) -> Result<CheckedPlan, String> {
    let json = zstd::decode_all(packed).map_err(|error| error.to_string())?;
    serde_json::from_slice(&json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn install(revision: u64, target: u64) -> Install {
        Install { target, ..Install::ready("hello", revision) }
    }

    /// Numbers, the newest first, and whether each was applied.
    fn revisions(of: &[(u64, bool)]) -> Vec<Revision> {
        let revision = |&(revision, applied): &(u64, bool)| Revision {
            revision,
            version: format!("1.0.{revision}"),
            package_sha256: "a".repeat(64),
            config_version: 1,
            config_json: "{}".to_owned(),
            plan_sha256: String::new(),
            ask_sha256: String::new(),
            created: SystemTime::UNIX_EPOCH,
            applied: applied.then_some(SystemTime::UNIX_EPOCH),
        };
        of.iter().map(revision).collect()
    }

    fn before(install: &Install, revisions: &[Revision]) -> Option<u64> {
        revision_before(install, revisions).map(|revision| revision.revision)
    }

    #[test]
    fn a_rollback_leads_to_what_was_applied_last() {
        let all = revisions(&[(3, true), (2, false), (1, true)]);
        assert_eq!(before(&install(3, 3), &all), Some(1));
        assert_eq!(before(&install(1, 1), &all), None);
        // The upgrade to 2 failed: back to 1, of which parts may be applied still.
        assert_eq!(before(&install(1, 2), &revisions(&[(2, false), (1, true)])), Some(1));
        // The very first try failed.
        assert_eq!(before(&install(0, 1), &revisions(&[(1, false)])), None);
    }

    #[test]
    fn of_a_plugin_of_the_file_only_a_quarantine_is_lifted() {
        let install = Install { config_json: r#"{"a":1,"b":2}"#.to_owned(), ..install(1, 1) };
        let wish = |change, config: &str, lift_quarantine| Wish {
            change,
            plugin: "hello".to_owned(),
            config_json: Some(config.to_owned()),
            dev: false,
            lift_quarantine,
            adopt: false,
            to: None,
        };
        let same = r#"{"b": 2, "a": 1}"#;
        assert!(starts_anew(&wish(WishKind::Configure, same, true), &install));
        for (change, config, lifts) in [
            (WishKind::Configure, same, false),
            (WishKind::Configure, r#"{"a": 2}"#, true),
            (WishKind::Upgrade, same, true),
        ] {
            assert!(!starts_anew(&wish(change, config, lifts), &install), "{change:?} {config} {lifts}");
        }
    }

    #[test]
    fn a_config_that_is_no_json_is_the_users_mistake() {
        assert_eq!(parse(" \n").expect("nothing is a config"), json!({}));
        let Err(WishError::Config(mistakes)) = parse("{") else { panic!("it is a mistake") };
        assert!(mistakes[0].message.starts_with("it is not JSON"), "{mistakes:?}");
    }

    #[test]
    fn a_field_that_may_not_change_is_named_with_what_it_was() {
        let schema = json!({
            "type": "object",
            "properties": {
                "path": {"type": "string", "default": "/data", "x-k8sctl-immutable": true},
                "size": {"type": "integer"},
            },
        });
        let same = json!({"path": "/data", "size": 3});
        assert!(immutable_changes(&schema, &json!({}), &same).is_empty());
        let changes = immutable_changes(&schema, &json!({}), &json!({"path": "/other"}));
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].path, "/path");
        assert!(changes[0].message.contains("it was \"/data\""), "{changes:?}");
    }
}
