//! The one door from what a plugin said to what may be applied. Every rule is a file of its own and adds its refusals; all
//! of them are in the one failure, so that an author corrects a plugin once.
//!
//! - `manifests`: are the manifests ones that it may fetch, and what is in them
//! - `server`, `permission`: is each object one that anybody may write, and one that `plugin.toml` names
//! - `rbac`, `binding`, `account`: what it hands on to its service accounts and to others
//! - `pod`: what reaches into a node
//! - `secret`: tokens of accounts, and names of secrets that stand where values must not be
//! - `webhook`: who would judge or change what others write
//! - [`node`]: what nodes must be
//! - `stage`: in which order all that is applied
//!
//! Called by the host agent before anything is written, by `k8sctl plugin test`, and by the fuzzer.

mod account;
mod binding;
mod manifests;
pub mod node;
mod permission;
mod pod;
mod rbac;
mod secret;
mod server;
mod stage;
mod view;
mod webhook;

#[cfg(test)]
mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use k8sctl_types::failure::Failure;
use plugin_package::Manifest;
use serde_json::{Value, json};

use crate::checked::{CheckedPlan, Planned};
use crate::diagnostic::cut;
use crate::fill::fill;
use crate::hash::{canonical, sha256_hex};
use crate::limits;
use crate::object::ObjectKey;
use crate::readiness;
use crate::unchecked::{Handling, ReadinessRule, ReadyWhen, SecretRef, UncheckedPlan};
use view::View;

/// Lines of a refusal that are shown, and bytes of each.
const LINES: usize = 100;
const LINE_BYTES: usize = 600;

/// What a plan is held against.
#[derive(Clone, Copy, Debug)]
pub struct CheckContext<'a> {
    /// What the plugin may ask for.
    pub manifest: &'a Manifest,
    /// Bodies by digest of all manifests that are at hand.
    pub fetched: &'a BTreeMap<String, Vec<u8>>,
    /// Where a body is missing: go on without it, for an offer, instead of refusing. What only such a body could tell is not
    /// refused then.
    pub without_bodies: bool,
    /// Handles that the config names in fields marked `x-k8sctl-secret`.
    pub secrets: &'a BTreeSet<SecretRef>,
    /// Service accounts that this plugin's inventory has, beside those of the plan: namespace and name.
    pub accounts: &'a BTreeSet<(String, String)>,
}

/// Why a plan is none that may be applied.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    lines: Vec<String>,
    /// Lines that are about a manifest which is none.
    of_content: usize,
}

impl Refusals {
    /// Whatever a plugin calls things, it stays a line of text.
    fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into().replace(char::is_control, " "));
    }

    fn say_of_content(&mut self, line: impl Into<String>) {
        self.of_content += 1;
        self.say(line);
    }

    fn at(&mut self, place: &dyn std::fmt::Display, reasons: Vec<String>) {
        for reason in reasons {
            self.say(format!("{place}: {reason}"));
        }
    }

    fn into_result(self, manifest: &Manifest) -> Result<(), Failure> {
        let Some(first) = self.lines.first() else { return Ok(()) };
        let count = self.lines.len();
        let (id, reason, next) = if self.of_content == count {
            (
                "PLUGIN-REMOTE-CONTENT",
                format!("a manifest is not what its plan expects: {}", cut(first.clone(), LINE_BYTES)),
                "nothing was changed; the plugin's author must pin another manifest, or patch it otherwise",
            )
        } else {
            (
                "PLUGIN-REFUSED",
                format!("its plan was refused for {count} reason(s): {}", cut(first.clone(), LINE_BYTES)),
                "nothing was changed; the plugin's author must declare it in plugin.toml or plan less",
            )
        };
        let mut lines: Vec<_> =
            self.lines.into_iter().take(LINES).map(|line| cut(line, LINE_BYTES)).collect();
        if count > LINES {
            lines.push(format!("and {} more", count - LINES));
        }
        let failure = Failure::new(id, format!("plugin {}", manifest.name), reason, next);
        Err(failure.with_evidence(lines.join("\n")))
    }
}

/// Expands manifests, fills in defaults, checks every object and all else, and puts objects into the order in which they are
/// applied. All that is wrong is in the one failure: `PLUGIN-REFUSED`, or `PLUGIN-REMOTE-CONTENT` where only a manifest is
/// not what the plan expects; a line of evidence for each reason.
pub fn check_plan(plan: UncheckedPlan, context: &CheckContext<'_>) -> Result<CheckedPlan, Failure> {
    let manifest = context.manifest;
    let mut refusals = Refusals::default();
    sizes(&plan, &mut refusals);
    refusals.into_result(manifest)?;

    // What depends on the objects of a manifest would be refused for the wrong reason where that cannot be used.
    let mut refusals = Refusals::default();
    let expanded = manifests::expand_all(&plan, context, &mut refusals);
    refusals.into_result(manifest)?;

    let mut refusals = Refusals::default();
    let is_empty = expanded.objects.is_empty() && plan.node.is_empty() && !expanded.is_partial;
    let objects = keyed(expanded.objects, &mut refusals);
    let view = View::of(&objects, &plan, context, expanded.is_partial);
    for (key, object, handling) in &objects {
        refusals.at(key, object_refusals(&view, key, object, handling));
    }
    rules(&plan.readiness, &mut refusals);
    refusals.at(&"generated secrets", secret::generated_refusals(&plan.secrets));
    refusals.at(&"node requirements", node::refusals(&plan.node, &manifest.node));
    if is_empty {
        refusals.say("there is nothing in it");
    }
    refusals.into_result(manifest)?;

    let staged: Vec<_> = objects.iter().map(|(key, ..)| stage::of(&view, key)).collect();
    drop(view);
    let planned = objects.into_iter().zip(staged).map(|((key, object, handling), stage)| {
        let sha256 = digest(&json!({"handling": handling, "object": object}));
        Planned { key, object, stage, handling, sha256 }
    });
    let mut objects: Vec<_> = planned.collect();
    // Within a stage the plugin's own order holds.
    objects.sort_by_key(|planned| planned.stage);
    let digests: Vec<_> = objects.iter().map(|planned| &planned.sha256).collect();
    let sha256 = digest(&json!({
        "plugin": manifest.name,
        "objects": digests,
        "readiness": plan.readiness,
        "node": plan.node,
        "secrets": plan.secrets,
    }));
    Ok(CheckedPlan {
        plugin: manifest.name.clone(),
        version: manifest.version.to_string(),
        objects,
        readiness: plan.readiness,
        node: plan.node,
        secrets: plan.secrets,
        sha256,
    })
}

fn digest(value: &Value) -> String {
    sha256_hex(canonical(value).as_bytes())
}

fn sizes(plan: &UncheckedPlan, refusals: &mut Refusals) {
    let operations = plan.remotes.iter().flat_map(|remote| &remote.patches);
    let operations =
        operations.map(|patch| patch.operations.as_array().map_or(1, |all| all.len().max(1))).sum::<usize>();
    for (what, count, most) in [
        ("objects", plan.objects.len(), limits::OBJECTS),
        ("manifests", plan.remotes.len(), limits::REMOTES),
        ("operations in patches", operations, limits::PATCHES),
        ("readiness rules", plan.readiness.len(), limits::READINESS),
        ("node requirements", plan.node.len(), limits::NODE_REQUIREMENTS),
        ("generated secrets", plan.secrets.len(), limits::SECRETS),
    ] {
        if count > most {
            refusals.say(format!("it has {count} {what}, expected at most {most}"));
        }
    }
}

/// Objects with their keys, defaults filled in; what has none, or one that is taken, is refused and left out.
fn keyed(objects: Vec<(Value, Handling)>, refusals: &mut Refusals) -> Vec<(ObjectKey, Value, Handling)> {
    let mut keyed = Vec::new();
    let mut seen = BTreeSet::new();
    let mut room = limits::ALL_OBJECT_BYTES;
    let count = objects.len();
    if count > limits::OBJECTS {
        refusals.say(format!(
            "it has {count} objects with those of its manifests, expected at most {}",
            limits::OBJECTS
        ));
        return keyed;
    }
    for (index, (mut object, handling)) in objects.into_iter().enumerate() {
        if !crate::remote::is_within(&object, limits::DEPTH, &mut room) {
            let (depth, bytes) = (limits::DEPTH, limits::ALL_OBJECT_BYTES);
            refusals.say(format!(
                "object {}: nested deeper than {depth} levels, or all objects together larger than {bytes} bytes",
                index + 1
            ));
            continue;
        }
        fill(&mut object);
        match ObjectKey::of(&object) {
            Ok(key) => {
                let same = (key.group.clone(), key.kind.clone(), key.namespace.clone(), key.name.clone());
                if !seen.insert(same) {
                    refusals.say(format!("{key}: planned twice"));
                    continue;
                }
                keyed.push((key, object, handling));
            }
            Err(why) => refusals.say(format!("object {}: {why}", index + 1)),
        }
    }
    keyed
}

fn object_refusals(view: &View<'_>, key: &ObjectKey, object: &Value, handling: &Handling) -> Vec<String> {
    let mut why = permission::refusals(view, key);
    why.extend(server::refusals(key, object));
    why.extend(server::handling_refusals(key, handling));
    if !readiness::has_readiness(key, view.readiness) {
        why.push("there is no rule that says when it is ready".to_owned());
    }
    if !view.manifest.privileged_pods {
        for privilege in pod::privileges(object) {
            why.push(format!("it wants {privilege}, and plugin.toml does not ask for privileged_pods"));
        }
    }
    why.extend(account::refusals(view, key, object));
    why.extend(secret::refusals(view, key, object));
    why.extend(rbac::refusals(view, key, object));
    why.extend(binding::refusals(view, key, object));
    why.extend(webhook::refusals(view, key, object));
    why
}

fn rules(rules: &[ReadinessRule], refusals: &mut Refusals) {
    let mut seen = BTreeSet::new();
    for rule in rules {
        let place = cut(format!("readiness of {} {}", rule.api_version, rule.kind), LINE_BYTES);
        let is_text =
            |text: &str| !text.is_empty() && text.len() <= 253 && text.chars().all(|c| c.is_ascii_graphic());
        if !is_text(&rule.api_version) || !is_text(&rule.kind) {
            refusals.say(format!("{place}: expected an apiVersion and a kind"));
        }
        let is_right = match &rule.is {
            ReadyWhen::Condition(condition) => is_text(condition),
            ReadyWhen::Field { pointer, value } => {
                pointer.starts_with('/')
                    && pointer.len() <= 1024
                    && canonical(value).len() <= limits::TEXT_BYTES
            }
            ReadyWhen::Exists => true,
        };
        if !is_right {
            refusals.say(format!("{place}: expected a condition, or a JSON pointer and a short value"));
        }
        if readiness::is_built_in(&rule.api_version, &rule.kind) {
            refusals.say(format!("{place}: Kubernetes' own kinds have rules of their own"));
        }
        if !seen.insert((&rule.api_version, &rule.kind)) {
            refusals.say(format!("{place}: there are two of them"));
        }
    }
}

#[cfg(test)]
mod tests;
