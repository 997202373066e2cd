//! The manifests of a plan: may it fetch them, are they what it expects, and what is in them.

use serde_json::Value;

use super::{CheckContext, Refusals};
use crate::diagnostic::cut;
use crate::limits;
use crate::remote::{expand, objects_in};
use crate::scope::Scopes;
use crate::unchecked::{Handling, RemoteManifest, UncheckedPlan};

/// All objects of a plan.
pub(super) struct Expanded {
    pub(super) objects: Vec<(Value, Handling)>,
    /// A body is missing, and that is no refusal.
    pub(super) is_partial: bool,
}

/// Objects of the manifests, then those of the plugin: what it adds to a manifest mostly stands on it.
pub(super) fn expand_all(
    plan: &UncheckedPlan,
    context: &CheckContext<'_>,
    refusals: &mut Refusals,
) -> Expanded {
    let mut is_partial = false;
    let mut room = limits::ALL_OBJECT_BYTES;
    let mut read: Vec<(&RemoteManifest, Vec<Value>)> = Vec::new();
    for remote in &plan.remotes {
        let place = place(remote);
        let why = place_refusals(remote, context);
        if !why.is_empty() {
            refusals.at(&place, why);
            continue;
        }
        match context.fetched.get(&remote.sha256) {
            Some(body) => {
                // Each may be as large as it says; all of them are in memory at once.
                let Some(left) = room.checked_sub(body.len()) else {
                    let most = limits::ALL_OBJECT_BYTES;
                    refusals
                        .say(format!("{place}: with it the manifests have more than {most} bytes together"));
                    break;
                };
                room = left;
                match objects_in(body) {
                    Ok(objects) => read.push((remote, objects)),
                    Err(why) => refusals.say_of_content(format!("{place}: {why}")),
                }
            }
            None if context.without_bodies => is_partial = true,
            None => refusals.say(format!("{place}: it was not fetched")),
        }
    }
    let own = plan.objects.iter().map(|own| &own.object);
    let scopes = Scopes::of(own.chain(read.iter().flat_map(|(_, objects)| objects)));
    let scopes = scopes.with_permissions(context.manifest);
    let mut objects = Vec::new();
    let mut patched = limits::PATCHED;
    for (remote, found) in read {
        match expand(remote, found, &scopes, &mut patched) {
            Ok(found) => objects.extend(found.into_iter().map(|object| (object, remote.handling.clone()))),
            Err(why) => refusals.say_of_content(format!("{}: {why}", place(remote))),
        }
    }
    objects.extend(plan.objects.iter().map(|own| (own.object.clone(), own.handling.clone())));
    Expanded { objects, is_partial }
}

fn place(remote: &RemoteManifest) -> String {
    format!("manifest {}", cut(remote.url.clone(), 300))
}

fn place_refusals(remote: &RemoteManifest, context: &CheckContext<'_>) -> Vec<String> {
    let mut why = Vec::new();
    if let Some(mistake) = plugin_package::manifest::asks::url_mistake(&remote.url) {
        why.push(mistake.to_owned());
    } else if !context.manifest.may_fetch(&remote.url) {
        why.push("it is below no [[remote]] of plugin.toml".to_owned());
    }
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if remote.sha256.len() != 64 || !remote.sha256.chars().all(is_hex) {
        why.push("its sha256 is not 64 hex digits in lower case".to_owned());
    }
    if remote.max_bytes > limits::REMOTE_BYTES {
        let (bytes, most) = (remote.max_bytes, limits::REMOTE_BYTES);
        why.push(format!("its max_bytes is {bytes}, expected at most {most}"));
    }
    if let Some(body) = context.fetched.get(&remote.sha256) {
        let most = if remote.max_bytes == 0 { limits::REMOTE_DEFAULT_BYTES } else { remote.max_bytes };
        if body.len() as u64 > most {
            why.push(format!("it has {} bytes, expected at most {most}", body.len()));
        }
    }
    why
}
