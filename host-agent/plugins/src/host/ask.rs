//! One process, one plan: what a package makes of a config on a cluster, checked against what it may ask for. Called by
//! whoever offers, begins or proposes something; writes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::{Manifest, Package, Requirement};
use plugin_plan::{
    CheckContext, CheckedPlan, Diagnostic, RemoteManifest, SecretRef, UncheckedPlan, check_plan, hash,
};
use plugin_process::{ClusterFacts, Dependency, PlanAnswer, PlanAsk, schema};
use serde_json::{Value, json};

use super::wish::{ClusterAccess, WishError};
use super::{PluginHost, Whose};
use crate::dag::{self, Part};
use crate::engine::Progress;
use crate::inventory::store_failure;
use crate::records::Install;
use crate::vault;

/// A package with a config on a cluster.
pub(super) struct Question {
    pub(super) whose: Whose,
    pub(super) package: Package,
    pub(super) config: Value,
    pub(super) ask: PlanAsk,
    /// ServiceAccounts in its inventory.
    pub(super) accounts: BTreeSet<(String, String)>,
}

/// What the plugin made of it.
pub(super) struct Answer {
    pub(super) plan: UncheckedPlan,
    pub(super) plan_sha256: String,
    pub(super) warnings: Vec<Diagnostic>,
    /// Secrets that the config names.
    pub(super) secrets: BTreeSet<SecretRef>,
}

impl Question {
    /// Digest of what is asked, with these secrets beside those that are kept already.
    pub(super) fn sha256(&self, made_up: &[SecretRef]) -> String {
        let PlanAsk { facts, dependencies, secrets, .. } = &self.ask;
        let secrets: Vec<_> = secrets.iter().chain(made_up).cloned().collect();
        ask_sha256(&self.config, facts, dependencies, &secrets)
    }
}

impl PluginHost {
    /// What is asked about a package on a cluster where these are installed.
    pub(super) async fn question(
        &self,
        access: &ClusterAccess,
        package: Package,
        config: Value,
        installs: &[Install],
    ) -> Result<Question, Failure> {
        let name = package.manifest.name.clone();
        let whose = Whose::new(access, &name);
        let secrets = self.kept_secrets(&access.cluster_id, &name).await;
        let accounts = self.inventory(&whose.place).accounts().await;
        let ask = PlanAsk {
            config_json: config.to_string(),
            facts: access.facts.clone(),
            dependencies: self.dependencies(&package.manifest.requires, installs).await,
            secrets,
        };
        let accounts = accounts.map_err(|error| store_failure(&name, &error))?;
        Ok(Question { whose, package, config, ask, accounts })
    }

    /// Starts the plugin. Mistakes in the config are an error; with `twice`, so are two answers.
    pub(super) async fn answer(&self, question: &Question, twice: bool) -> Result<Answer, WishError> {
        let Question { whose, package, config, ask, .. } = question;
        let schema = self.schema(package).await?;
        let runner = &self.inner.runner;
        // In a box: a conversation is much to be moved about on the stack.
        let run = if twice {
            Box::pin(runner.plan_twice(package, ask)).await
        } else {
            Box::pin(runner.plan(package, ask)).await
        };
        match self.ran(whose, package, "plan", run).await? {
            PlanAnswer::Mistakes(mistakes) => Err(WishError::Config(mistakes)),
            PlanAnswer::Plan { plan, warnings, .. } => Ok(Answer {
                plan_sha256: hash::unchecked_digest(&plan),
                secrets: schema::secrets_in(&schema, config),
                plan,
                warnings,
            }),
        }
    }

    /// Checks the plan with these bodies of manifests; with `without_bodies` it goes on without those that are not among
    /// them.
    pub(super) async fn check(
        &self,
        question: &Question,
        plan: UncheckedPlan,
        secrets: &BTreeSet<SecretRef>,
        fetched: BTreeMap<String, Vec<u8>>,
        without_bodies: bool,
    ) -> Result<CheckedPlan, Failure> {
        let manifest = question.package.manifest.clone();
        let (secrets, accounts) = (secrets.clone(), question.accounts.clone());
        // Thousands of objects of a megabyte each.
        task::blocking(move || {
            let context = CheckContext {
                manifest: &manifest,
                fetched: &fetched,
                without_bodies,
                secrets: &secrets,
                accounts: &accounts,
            };
            check_plan(plan, &context)
        })
        .await
    }

    /// Bodies of these manifests that are in the store, by digest, and the URLs of the others.
    pub(super) async fn bodies_at_hand(
        &self,
        remotes: &[RemoteManifest],
    ) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
        let (mut bodies, mut missing) = (BTreeMap::new(), Vec::new());
        for remote in remotes {
            match self.inner.manifests.stored(&remote.sha256).await {
                Some(body) => {
                    bodies.insert(remote.sha256.clone(), body);
                }
                None => missing.push(remote.url.clone()),
            }
        }
        (bodies, missing)
    }

    /// Bodies of all of them, from the store or from upstream.
    pub(super) async fn bodies(
        &self,
        manifest: &Manifest,
        remotes: &[RemoteManifest],
        progress: &Progress,
    ) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
        let mut bodies = BTreeMap::new();
        let may_fetch = |url: &str| manifest.may_fetch(url);
        for remote in remotes {
            if bodies.contains_key(&remote.sha256) {
                continue;
            }
            progress.say(format!("getting {}", remote.url));
            let body = self.inner.manifests.get(&manifest.name, remote, &may_fetch).await?;
            bodies.insert(remote.sha256.clone(), body);
        }
        Ok(bodies)
    }

    /// Whether the package fits the cluster and what else is installed there.
    pub(super) async fn fits(
        &self,
        facts: &ClusterFacts,
        package: &Package,
        installs: &[Install],
    ) -> Result<(), Failure> {
        let manifest = &package.manifest;
        if let Some(failure) = wrong_kubernetes(manifest, &facts.kubernetes_version) {
            return Err(failure);
        }
        let parts = self.parts(installs).await;
        let before = dag::mistakes(&parts);
        let others = parts.into_iter().filter(|part| part.name != manifest.name);
        let after: Vec<_> = others.chain([part_of(manifest)]).collect();
        // What was wrong before is nothing that this one brings.
        let new = dag::mistakes(&after).into_iter().find(|mistake| !before.contains(mistake));
        new.map_or(Ok(()), |mistake| {
            let object = format!("plugin {}", mistake.plugin);
            Err(Failure::new(mistake.id, object, mistake.message, mistake.hint))
        })
    }

    /// The plugins of a cluster, as they depend on each other. One whose package is not at hand brings and needs nothing.
    pub(super) async fn parts(&self, installs: &[Install]) -> Vec<Part> {
        let mut parts = Vec::new();
        for install in installs {
            parts.push(match self.manifest_of(install).await {
                Some(manifest) => part_of(&manifest),
                None => Part {
                    name: install.plugin.clone(),
                    version: semver::Version::new(0, 0, 0),
                    provides: Vec::new(),
                    requires: Vec::new(),
                    conflicts: Vec::new(),
                },
            });
        }
        parts
    }

    /// The manifest of an installed plugin; `None`: its package is not at hand.
    pub(super) async fn manifest_of(&self, install: &Install) -> Option<Arc<Manifest>> {
        let sha256 = &install.package_sha256;
        if let Some(manifest) = self.inner.memory.manifest(sha256) {
            return Some(manifest);
        }
        let package = self.package_of(install).await.ok()?;
        Some(self.inner.memory.keep_manifest(&package.sha256, package.manifest))
    }

    /// What the plugin is told of those that it requires: each under the name by which it requires it.
    pub(super) async fn dependencies(
        &self,
        requires: &[Requirement],
        installs: &[Install],
    ) -> Vec<Dependency> {
        let mut dependencies = Vec::new();
        for required in requires {
            let what = &required.what;
            let mut found = installs.iter().find(|install| install.plugin == *what);
            if found.is_none() {
                for install in installs {
                    let manifest = self.manifest_of(install).await;
                    if manifest.is_some_and(|manifest| manifest.provides.contains(what)) {
                        found = Some(install);
                        break;
                    }
                }
            }
            let found = found.filter(|install| install.revision != 0);
            dependencies.push(Dependency {
                name: what.clone(),
                version: found.map(|install| install.version.clone()).unwrap_or_default(),
                outputs: found.map(|install| install.outputs.clone()).unwrap_or_default(),
            });
        }
        dependencies
    }

    /// Secrets of a plugin of which a value is kept.
    pub(super) async fn kept_secrets(&self, cluster_id: &str, plugin: &str) -> Vec<SecretRef> {
        let (vault, cluster, plugin) = (self.inner.vault.clone(), cluster_id.to_owned(), plugin.to_owned());
        task::blocking(move || vault.names(&cluster, &plugin)).await
    }

    /// The schema of a package's config.
    pub(super) async fn schema(&self, package: &Package) -> Result<Value, Failure> {
        let package = package.clone();
        task::blocking(move || package.config_schema().map_err(|error| error.failure(&package.manifest.name)))
            .await
    }
}

/// Secrets that the config names and of which no value is kept, as mistakes.
pub(super) fn lacking_secrets(question: &Question, answer: &Answer) -> Vec<Diagnostic> {
    let made_up = made_up(&answer.plan);
    let is_there = |secret: &&SecretRef| question.ask.secrets.contains(secret) || made_up.contains(secret);
    let lacking = answer.secrets.iter().filter(|secret| !is_there(secret));
    lacking
        .map(|secret| {
            let plugin = &question.package.manifest.name;
            let Failure { id, reason, next_step, .. } = vault::missing(plugin, secret);
            Diagnostic { code: id, path: String::new(), message: reason, hint: next_step, warning: false }
        })
        .collect()
}

/// Secrets of a plan that the host makes up.
pub(super) fn made_up(plan: &UncheckedPlan) -> Vec<SecretRef> {
    let secrets = plan.secrets.iter();
    secrets.map(|one| SecretRef { handle: one.handle.clone(), key: one.key.clone() }).collect()
}

/// The package runs on other versions of Kubernetes only.
pub(super) fn wrong_kubernetes(manifest: &Manifest, kubernetes: &str) -> Option<Failure> {
    let range = manifest.kubernetes.as_ref().filter(|_| !manifest.runs_on(kubernetes))?;
    Some(Failure::new(
        "PLUGIN-KUBERNETES",
        format!("plugin {}", manifest.name),
        format!("version {} is for Kubernetes {range}, and the cluster has {kubernetes}", manifest.version),
        "use another version of the plugin, or of Kubernetes",
    ))
}

/// A plugin as it depends on others.
pub(super) fn part_of(manifest: &Manifest) -> Part {
    Part {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        provides: manifest.provides.clone(),
        requires: manifest.requires.clone(),
        conflicts: manifest.conflicts.clone(),
    }
}

/// Digest of all that a plugin is asked with. The same again has the same answer.
pub(super) fn ask_sha256(
    config: &Value,
    facts: &ClusterFacts,
    dependencies: &[Dependency],
    secrets: &[SecretRef],
) -> String {
    let dependencies: Vec<_> = dependencies
        .iter()
        .map(|one| json!({"name": one.name, "version": one.version, "outputs": one.outputs}))
        .collect();
    let secrets: BTreeSet<String> = secrets.iter().map(vault::name).collect();
    let asked = json!({
        "config": config, "facts": facts_json(facts), "dependencies": dependencies, "secrets": secrets,
    });
    hash::sha256_hex(hash::canonical(&asked).as_bytes())
}

/// The facts with their maps in order. Every one of them: a new one does not compile before it is here.
fn facts_json(facts: &ClusterFacts) -> Value {
    let ClusterFacts {
        cluster_name,
        kubernetes_version,
        pod_cidr,
        service_cidr,
        node_cidr,
        node_names,
        load_balancer_first,
        load_balancer_last,
        images,
        nodes,
        dhcp_first,
        dhcp_last,
        gateway,
        cluster_dns,
        has_dns,
        api_endpoint,
    } = facts;
    let nodes: Vec<_> = nodes
        .iter()
        .map(|node| {
            let labels: BTreeMap<_, _> = node.labels.iter().collect();
            json!([node.name, node.role, node.ip, node.arch, labels])
        })
        .collect();
    let images: BTreeMap<_, _> = images.iter().collect();
    json!({
        "cluster_name": cluster_name,
        "kubernetes_version": kubernetes_version,
        "pod_cidr": pod_cidr,
        "service_cidr": service_cidr,
        "node_cidr": node_cidr,
        "node_names": node_names,
        "load_balancer": [load_balancer_first, load_balancer_last],
        "images": images,
        "nodes": nodes,
        "dhcp": [dhcp_first, dhcp_last],
        "gateway": gateway,
        "cluster_dns": cluster_dns,
        "has_dns": has_dns,
        "api_endpoint": api_endpoint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_question_has_one_digest_whatever_the_order_of_its_maps() {
        let facts = |reverse: bool| {
            let mut names = ["a", "b", "c", "d"];
            if reverse {
                names.reverse();
            }
            let images = names.map(|name| (name.to_owned(), format!("image-{name}"))).into_iter().collect();
            ClusterFacts { images, ..ClusterFacts::default() }
        };
        let secret = |key: &str| SecretRef { handle: "h".to_owned(), key: key.to_owned() };
        let config = json!({"replicas": 2});
        let digest = |facts: &ClusterFacts, secrets: &[SecretRef]| ask_sha256(&config, facts, &[], secrets);
        let first = digest(&facts(false), &[secret("a"), secret("b")]);
        assert_eq!(first, digest(&facts(true), &[secret("b"), secret("a"), secret("a")]));
        assert_ne!(first, digest(&facts(false), &[secret("a")]));
        let other = ClusterFacts { has_dns: true, ..facts(false) };
        assert_ne!(first, digest(&other, &[secret("a"), secret("b")]));
    }
}
