//! Pure: how plugins depend on each other. What is wrong with a set of them, which waits for which, and which needs
//! which. Called by the host; knows nothing of clusters or packages.

use std::collections::BTreeSet;

use plugin_package::Requirement;

/// What a cluster has without any plugin.
pub const BUILT_IN: [&str; 1] = ["cni"];
/// Of what there may be one in a cluster.
pub const EXCLUSIVE: [&str; 2] = ["cni", "default-storage-class"];

/// A plugin among others.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// Capabilities that it brings.
    pub provides: Vec<String>,
    /// Plugins and capabilities that it needs.
    pub requires: Vec<Requirement>,
    /// Plugins and capabilities beside which it cannot be.
    pub conflicts: Vec<String>,
}

impl Part {
    fn gives(&self, what: &str) -> bool {
        self.name == what || self.provides.iter().any(|one| one == what)
    }
}

/// What is wrong with a set of plugins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DagMistake {
    /// The plugin at which it is told.
    pub plugin: String,
    /// `PLUGIN-REQUIRES`, `PLUGIN-CYCLE`, `PLUGIN-EXCLUSIVE`.
    pub id: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

/// What is wrong with these together: missing, wrong version, cycle, two of one that there may be one of.
pub fn mistakes(parts: &[Part]) -> Vec<DagMistake> {
    let mut mistakes = Vec::new();
    for part in parts {
        mistakes.extend(part.requires.iter().filter_map(|required| unmet(parts, part, required)));
        mistakes.extend(part.conflicts.iter().filter_map(|other| conflict(parts, part, other)));
    }
    for what in EXCLUSIVE {
        let providers: Vec<_> = parts.iter().filter(|part| part.provides.iter().any(|p| p == what)).collect();
        if let [_, second, ..] = providers.as_slice() {
            let names: Vec<_> = providers.iter().map(|part| part.name.as_str()).collect();
            mistakes.push(DagMistake {
                plugin: second.name.clone(),
                id: "PLUGIN-EXCLUSIVE",
                message: format!("{} provide {what}, and there may be one in a cluster", names.join(" and ")),
                hint: "keep one of them".to_owned(),
            });
        }
    }
    if let Some(cycle) = cycle(&waits_for(parts)) {
        let names: Vec<_> = cycle.iter().map(|&index| parts[index].name.as_str()).collect();
        mistakes.push(DagMistake {
            plugin: names[0].to_owned(),
            id: "PLUGIN-CYCLE",
            message: format!("plugins that wait for each other: {} → {}", names.join(" → "), names[0]),
            hint: "leave one of them out, and report this to its author".to_owned(),
        });
    }
    mistakes
}

fn unmet(parts: &[Part], part: &Part, required: &Requirement) -> Option<DagMistake> {
    let what = required.what.as_str();
    let mistake = |message: String, hint: String| {
        let why = if required.why.is_empty() { String::new() } else { format!(": {}", required.why) };
        let message = format!("{message}{why}");
        Some(DagMistake { plugin: part.name.clone(), id: "PLUGIN-REQUIRES", message, hint })
    };
    let found: Vec<_> = parts.iter().filter(|other| other.gives(what)).collect();
    if found.is_empty() {
        if required.optional || BUILT_IN.contains(&what) {
            return None;
        }
        return mistake(
            format!("it requires {what}, which no plugin of this cluster is or provides"),
            format!("add {what}, or a plugin that provides it"),
        );
    }
    // Capabilities have no versions.
    let named = found.iter().find(|other| other.name == what)?;
    let range = required.version.as_ref()?;
    if range.matches(&released(&named.version)) {
        return None;
    }
    mistake(
        format!("it requires {what} {range}, and there is {}", named.version),
        format!("k8sctl plugin upgrade {what}"),
    )
}

/// The same version without what marks it as one of before its release: ranges leave those out otherwise.
fn released(version: &semver::Version) -> semver::Version {
    semver::Version::new(version.major, version.minor, version.patch)
}

fn conflict(parts: &[Part], part: &Part, other: &str) -> Option<DagMistake> {
    let found = parts.iter().find(|one| one.name != part.name && one.gives(other))?;
    let what = if found.name == other { String::new() } else { format!(", which provides {other}") };
    Some(DagMistake {
        plugin: part.name.clone(),
        id: "PLUGIN-EXCLUSIVE",
        message: format!("it cannot be beside {}{what}", found.name),
        hint: "keep one of them".to_owned(),
    })
}

/// Indices of `parts` that each waits for.
pub fn waits_for(parts: &[Part]) -> Vec<Vec<usize>> {
    let of = |index: usize, part: &Part| -> Vec<usize> {
        let gives = |other: &usize| part.requires.iter().any(|required| parts[*other].gives(&required.what));
        // What it brings itself it does not wait for.
        (0..parts.len()).filter(|other| *other != index && gives(other)).collect()
    };
    parts.iter().enumerate().map(|(index, part)| of(index, part)).collect()
}

/// Those that need `name`, first to be removed first.
pub fn dependents(parts: &[Part], name: &str) -> Vec<String> {
    let mut needing = BTreeSet::from([name]);
    // Each round adds those that need one of them; there are no more rounds than plugins.
    loop {
        let more = parts.iter().filter(|part| !needing.contains(part.name.as_str()));
        let more: Vec<_> = more.filter(|part| needs_one_of(parts, part, &needing)).collect();
        if more.is_empty() {
            break;
        }
        needing.extend(more.into_iter().map(|part| part.name.as_str()));
    }
    let among: Vec<_> = parts.iter().filter(|part| needing.contains(part.name.as_str())).cloned().collect();
    let mut names: Vec<_> = order(&among).into_iter().map(|index| among[index].name.clone()).collect();
    names.reverse();
    names.retain(|one| one != name);
    names
}

/// Whether the plugin has a requirement that nothing would meet any more without these.
fn needs_one_of(parts: &[Part], part: &Part, gone: &BTreeSet<&str>) -> bool {
    part.requires.iter().filter(|required| !required.optional).any(|required| {
        let what = required.what.as_str();
        let (lost, left): (Vec<_>, Vec<_>) = parts
            .iter()
            .filter(|other| other.gives(what))
            .partition(|other| gone.contains(other.name.as_str()));
        !lost.is_empty() && left.is_empty() && !BUILT_IN.contains(&what)
    })
}

/// Indices, each behind all that it waits for; of a cycle in the order in which they are given.
fn order(parts: &[Part]) -> Vec<usize> {
    let waits = waits_for(parts);
    let mut done: Vec<usize> = Vec::new();
    while done.len() < parts.len() {
        let left = (0..parts.len()).filter(|index| !done.contains(index));
        let free = left.clone().find(|&index| waits[index].iter().all(|other| done.contains(other)));
        let Some(next) = free.or_else(|| left.clone().next()) else { break };
        done.push(next);
    }
    done
}

/// The first cycle that there is, as indices.
fn cycle(waits: &[Vec<usize>]) -> Option<Vec<usize>> {
    (0..waits.len()).find_map(|start| way_back(waits, start))
}

/// The shortest way from a plugin to itself.
fn way_back(waits: &[Vec<usize>], start: usize) -> Option<Vec<usize>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for &next in way.last().map(|&last| waits[last].as_slice()).unwrap_or_default() {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next) {
                    longer.push(way.iter().copied().chain([next]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

#[cfg(test)]
mod tests;
