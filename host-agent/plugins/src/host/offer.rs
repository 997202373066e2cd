//! What a wish would do, for a person to look at: permissions, objects, differences. Starts the plugin once and writes
//! nothing, neither to the cluster nor to the database.

use k8sctl_types::failure::Failure;
use plugin_package::Package;
use plugin_plan::{CheckedPlan, Diagnostic};

use super::ask::lacking_secrets;
use super::outcome::Lift;
use super::resolve::{Resolved, What, parse};
use super::wish::{ClusterAccess, ObjectDiffView, Offer, Wish, WishError, WishKind};
use super::{PluginHost, stored_badly};
use crate::engine::{DiffAction, Progress};
use crate::inventory::store_failure;
use crate::records::{Install, Place};
use crate::requirements;

/// A plan to look at.
struct Seen {
    plan: CheckedPlan,
    plan_sha256: String,
    warnings: Vec<Diagnostic>,
    /// URLs of manifests that are not at hand.
    missing: Vec<String>,
}

impl PluginHost {
    /// What the wish would do. Writes nothing. With `diff`, which is only looked at, also of a plugin of the cluster file.
    pub async fn offer(&self, access: &ClusterAccess, wish: &Wish, diff: bool) -> Result<Offer, WishError> {
        let name = self.name_of(wish).await?;
        let lift = if wish.lift_quarantine { Lift::ForThis } else { Lift::No };
        let resolved = self.resolve(access, wish, &name, lift, diff).await?;
        let installs = self.installs(&access.cluster_id).await?;
        self.fits(&access.facts, &resolved.package, &installs).await?;
        let Resolved { install, package, what, .. } = resolved;
        let replaced = replaced(wish, install.as_ref(), &what);
        let seen = match what {
            What::Revision(old) => Seen {
                plan: old.plan,
                plan_sha256: old.revision.plan_sha256,
                warnings: Vec::new(),
                missing: Vec::new(),
            },
            What::Config(config) => {
                let question = self.question(access, package.clone(), config, &installs).await?;
                let answer = self.answer(&question, false).await?;
                let lacking = lacking_secrets(&question, &answer);
                if !lacking.is_empty() {
                    return Err(WishError::Config(lacking));
                }
                let (bodies, missing) = self.bodies_at_hand(&answer.plan.remotes).await;
                let plan = self.check(&question, answer.plan, &answer.secrets, bodies, true).await?;
                Seen { plan, plan_sha256: answer.plan_sha256, warnings: answer.warnings, missing }
            }
        };
        // Without its manifests it is half a plan: of a whole one nothing that they hold would be deleted or missing.
        let is_whole = seen.missing.is_empty();
        let diffs = if diff && is_whole { self.diffs(access, &name, &seen.plan).await? } else { Vec::new() };
        let place = Place::new(&access.cluster_id, &name);
        let approved = self.inner.records.approved(&place).await.map_err(stored_badly(&place));
        let mut remarks = self.remarks(&place, &package, &seen, &diffs).await?;
        remarks.extend(replaced);
        let is_new = install.as_ref().is_none_or(|install| install.revision == 0);
        remarks.extend(requirements::restart(&seen.plan.node).filter(|_| is_new));
        let approval = package.manifest.approval();
        Ok(Offer {
            name,
            version: package.manifest.version.to_string(),
            from_version: install.map(|install| install.version),
            new_permissions: approval.beyond(&approved?),
            permissions: approval.lines,
            permissions_digest: approval.digest,
            trust: package.trust,
            objects: seen.plan.objects.iter().map(|planned| planned.key.to_string()).collect(),
            node: seen.plan.node.iter().map(requirements::line).collect(),
            remarks,
            plan_digest: seen.plan_sha256,
            warnings: seen.warnings,
            diffs,
        })
    }

    async fn diffs(
        &self,
        access: &ClusterAccess,
        plugin: &str,
        plan: &CheckedPlan,
    ) -> Result<Vec<ObjectDiffView>, Failure> {
        let engine = self.engine(access, plugin, self.inner.limits, Progress::new());
        let diffs = engine.diff(plan).await?;
        let view = |diff: crate::engine::ObjectDiff| ObjectDiffView {
            action: diff.action,
            object: diff.key.to_string(),
            text: diff.text,
        };
        Ok(diffs.into_iter().map(view).collect())
    }

    /// How much would change, and what cannot be said.
    async fn remarks(
        &self,
        place: &Place,
        package: &Package,
        seen: &Seen,
        diffs: &[ObjectDiffView],
    ) -> Result<Vec<String>, Failure> {
        let mut remarks = Vec::new();
        if diffs.is_empty() {
            let entries = self.inventory(place).entries().await;
            let entries = entries.map_err(|error| store_failure(&place.plugin, &error))?;
            let planned = seen.plan.keys();
            let new =
                planned.iter().filter(|key| !entries.iter().any(|entry| entry.key.same_object(key))).count();
            let old =
                entries.iter().filter(|entry| !planned.iter().any(|key| key.same_object(&entry.key))).count();
            let old =
                if seen.missing.is_empty() { format!("; {old} no longer planned") } else { String::new() };
            remarks.push(format!("{}, {new} of them new{old}", objects(planned.len())));
        } else {
            let of =
                |wanted: fn(&DiffAction) -> bool| diffs.iter().filter(|diff| wanted(&diff.action)).count();
            let (create, change) =
                (of(|it| matches!(it, DiffAction::Create)), of(|it| matches!(it, DiffAction::Change)));
            let delete = of(|it| matches!(it, DiffAction::Delete));
            remarks.push(format!("create {create}, change {change}, delete {delete}"));
        }
        if !seen.missing.is_empty() {
            remarks.push(format!(
                "not counted, since they are not in the store yet: {}; `k8sctl plugin vendor {}` gets them",
                seen.missing.join(", "),
                package.manifest.name
            ));
        }
        Ok(remarks)
    }
}

/// Who adds what is there already may not know that the config is then another, as a whole.
fn replaced(wish: &Wish, install: Option<&Install>, what: &What) -> Option<String> {
    let (Some(install), What::Config(config)) = (install, what) else { return None };
    let before = parse(&install.config_json).ok()?;
    if wish.change != WishKind::Add || install.revision == 0 || before == *config {
        return None;
    }
    let plugin = &install.plugin;
    Some(format!(
        "it is installed with another config, which this one replaces as a whole; `k8sctl plugin config {plugin}` shows \
         the one that it has"
    ))
}

/// `1 object`, `31 objects`
pub(super) fn objects(count: usize) -> String {
    match count {
        1 => "1 object".to_owned(),
        count => format!("{count} objects"),
    }
}
