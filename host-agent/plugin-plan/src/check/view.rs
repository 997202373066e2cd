//! What the rules look up: all that the plan has beside the one object that a rule is about.

use std::collections::{BTreeMap, BTreeSet};

use plugin_package::Manifest;
use serde_json::Value;

use super::CheckContext;
use crate::object::ObjectKey;
use crate::scope::Scopes;
use crate::unchecked::{Handling, ReadinessRule, SecretRef, UncheckedPlan};

/// The plan as a whole.
pub(super) struct View<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) readiness: &'a [ReadinessRule],
    pub(super) scopes: Scopes,
    /// A body is missing: what is not here may be in it.
    pub(super) is_partial: bool,
    /// Own service accounts: namespace and name.
    accounts: BTreeSet<(&'a str, &'a str)>,
    /// Keys of all objects without their versions: group, kind, namespace and name.
    objects: BTreeSet<(&'a str, &'a str, &'a str, &'a str)>,
    secrets: BTreeSet<&'a SecretRef>,
    generated: BTreeSet<(&'a str, &'a str)>,
    /// Kinds that the plan defines: group and kind, with the definition.
    definitions: BTreeMap<(&'a str, &'a str), &'a Value>,
    /// Webhook configurations of the plan.
    webhooks: Vec<&'a Value>,
}

impl<'a> View<'a> {
    pub(super) fn of(
        objects: &'a [(ObjectKey, Value, Handling)],
        plan: &'a UncheckedPlan,
        context: &CheckContext<'a>,
        is_partial: bool,
    ) -> Self {
        let mut view = Self {
            manifest: context.manifest,
            readiness: &plan.readiness,
            scopes: Scopes::of(objects.iter().map(|(_, object, _)| object)),
            is_partial,
            accounts: BTreeSet::new(),
            objects: BTreeSet::new(),
            secrets: context.secrets.iter().collect(),
            generated: plan.secrets.iter().map(|made| (made.handle.as_str(), made.key.as_str())).collect(),
            definitions: BTreeMap::new(),
            webhooks: Vec::new(),
        };
        for (namespace, name) in context.accounts {
            view.accounts.insert((namespace, name));
        }
        for (key, object, _) in objects {
            view.objects.insert((&key.group, &key.kind, &key.namespace, &key.name));
            match (key.group.as_str(), key.kind.as_str()) {
                ("", "ServiceAccount") => {
                    view.accounts.insert((&key.namespace, &key.name));
                }
                ("admissionregistration.k8s.io", _) => view.webhooks.push(object),
                _ if key.is_definition() => {
                    let text =
                        |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
                    view.definitions.insert((text("/spec/group"), text("/spec/names/kind")), object);
                }
                _ => {}
            }
        }
        view
    }

    /// Whether the plan has this object, in any version of the API.
    pub(super) fn has(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        self.objects.contains(&(group, kind, namespace, name))
    }

    /// Whether this service account is the plugin's own.
    pub(super) fn has_account(&self, namespace: &str, name: &str) -> bool {
        self.accounts.contains(&(namespace, name))
    }

    /// Whether a service account of this name is the plugin's own, in whichever namespace.
    pub(super) fn has_account_somewhere(&self, name: &str) -> bool {
        self.accounts.iter().any(|(_, has)| *has == name)
    }

    /// Whether the plugin may name this secret.
    pub(super) fn may_use(&self, secret: &SecretRef) -> bool {
        self.secrets.contains(secret)
            || self.generated.contains(&(secret.handle.as_str(), secret.key.as_str()))
    }

    /// The plan's definition of a kind.
    pub(super) fn definition(&self, key: &ObjectKey) -> Option<&'a Value> {
        self.definitions.get(&(key.group.as_str(), key.kind.as_str())).copied()
    }

    /// Webhook configurations of the plan.
    pub(super) fn webhooks(&self) -> impl Iterator<Item = &'a Value> {
        self.webhooks.iter().copied()
    }
}
