//! The tables of `plugin.toml` with which a plugin asks for something, each with the line that a person reads before
//! approving it. What they allow is decided in `plugin-plan`; here is only what they say.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SYSTEM_NAMESPACES;

/// `[[permission]]`: objects of one kind that a plugin may plan.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// API group; empty: the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// `get`, `create`, `patch`, `delete`.
    pub verbs: Vec<String>,
    /// Namespaces in which; empty: the kind has none.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Names; empty: any.
    #[serde(default)]
    pub names: Vec<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl Permission {
    /// Whether objects of this kind reach so far that each has to be named.
    pub fn needs_names(&self) -> bool {
        let reaches_all = match self.group.as_str() {
            "admissionregistration.k8s.io" => true,
            "rbac.authorization.k8s.io" => {
                matches!(self.kind.as_str(), "ClusterRole" | "ClusterRoleBinding")
            }
            "apiextensions.k8s.io" => self.kind == "CustomResourceDefinition",
            "apiregistration.k8s.io" => self.kind == "APIService",
            "storage.k8s.io" => self.kind == "StorageClass",
            "scheduling.k8s.io" => self.kind == "PriorityClass",
            _ => false,
        };
        reaches_all || self.namespaces.iter().any(|namespace| SYSTEM_NAMESPACES.contains(&namespace.as_str()))
    }

    /// Whether it is about this object, whatever is done with it.
    pub fn covers(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        let placed = if self.namespaces.is_empty() {
            namespace.is_empty()
        } else {
            self.namespaces.iter().any(|has| has == namespace)
        };
        let named = if self.names.is_empty() {
            !self.needs_names()
        } else {
            self.names.iter().any(|has| has == name)
        };
        self.group == group && self.kind == kind && placed && named
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verbs.join(","), self.kind)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        write_names(f, &self.names)?;
        write_place(f, &self.namespaces)?;
        write_why(f, &self.why)
    }
}

/// `[[grant]]`: what Roles and ClusterRoles of a plan may hold. `*` stands for everything.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// API groups; empty text: the core group.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Resources, `pods`, `pods/log`.
    #[serde(default)]
    pub resources: Vec<String>,
    /// What may be done with them.
    pub verbs: Vec<String>,
    /// Names; empty: any.
    #[serde(default)]
    pub resource_names: Vec<String>,
    /// Only in Roles of these; empty: in the whole cluster.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Paths of the API that are no resources, instead of groups and resources.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl Grant {
    /// What a person must not overlook, in capitals.
    fn warnings(&self) -> Vec<&'static str> {
        let any = |list: &[String], wanted: &[&str]| list.iter().any(|has| wanted.contains(&has.as_str()));
        let (groups, resources, verbs) = (&self.groups, &self.resources, &self.verbs);
        if any(groups, &["*"]) && any(resources, &["*"]) && any(verbs, &["*"]) {
            return vec!["EVERYTHING"];
        }
        let mut warnings = Vec::new();
        let everywhere = self.namespaces.is_empty() && self.resource_names.is_empty();
        let secrets = any(groups, &["", "*"]) && any(resources, &["secrets", "*"]);
        if everywhere && secrets && any(verbs, &["get", "list", "watch", "*"]) {
            warnings.push("EVERY SECRET");
        }
        let roles = any(groups, &["rbac.authorization.k8s.io", "*"])
            && any(resources, &["roles", "clusterroles", "*"])
            && any(verbs, &["*"]);
        // Who makes tokens of accounts is each of them.
        let tokens = any(groups, &["", "*"])
            && any(resources, &["serviceaccounts/token", "*"])
            && any(verbs, &["create", "*"]);
        // And so is who runs something in pods of others, which a GET can do as well.
        const INSIDE: [&str; 5] =
            ["pods/exec", "pods/attach", "pods/ephemeralcontainers", "nodes/proxy", "*"];
        let inside = everywhere
            && any(groups, &["", "*"])
            && any(resources, &INSIDE)
            && any(verbs, &["get", "create", "patch", "update", "*"]);
        if any(verbs, &["escalate", "bind", "impersonate"]) || roles || tokens || inside {
            warnings.push("ESCALATE");
        }
        const MAKERS: [&str; 9] = [
            "pods",
            "deployments",
            "daemonsets",
            "statefulsets",
            "jobs",
            "cronjobs",
            "replicasets",
            "replicationcontrollers",
            "*",
        ];
        let makes = any(groups, &["", "apps", "batch", "*"]) && any(resources, &MAKERS);
        // Of any kind is also what they are made into.
        if makes && any(verbs, &["create", "patch", "update", "*"]) {
            warnings.push("PODS OF ANY KIND");
        }
        warnings
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in self.warnings() {
            write!(f, "{warning}: ")?;
        }
        write!(f, "its service accounts may {} ", self.verbs.join(","))?;
        if self.urls.is_empty() {
            f.write_str(&self.resources.join(","))?;
            if self.groups.iter().any(|group| !group.is_empty()) {
                let named = |group: &String| if group.is_empty() { "core".to_owned() } else { group.clone() };
                write!(f, " of {}", self.groups.iter().map(named).collect::<Vec<_>>().join(","))?;
            }
            write_names(f, &self.resource_names)?;
            write_place(f, &self.namespaces)?;
        } else {
            write!(f, "the URLs {}", self.urls.join(","))?;
        }
        write_why(f, &self.why)
    }
}

/// `[[bind]]`: a binding that is not of the plugin's own role to its own service account.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// `ClusterRole NAME`, or `Role NAME` in the binding's namespace.
    pub role: String,
    /// `ServiceAccount NAMESPACE/NAME`, `Group NAME` or `User NAME`; `None`: the plugin's own accounts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = self.subject.as_deref().unwrap_or("its own service accounts");
        write!(f, "binds {} to {subject}", self.role)?;
        write_why(f, &self.why)
    }
}

/// `[[aggregate]]`: ClusterRoles of the plan that add to roles which others hold already.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// `view`, `edit`, `admin`.
    pub to: Vec<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adds to the roles {}", self.to.join(","))?;
        write_why(f, &self.why)
    }
}

/// `[[webhook]]`: what admission webhooks and policies of the plan may see or change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Whether they judge or change.
    pub kind: WebhookKind,
    /// API groups; empty text: the core group, `*`: all.
    pub groups: Vec<String>,
    /// Resources; `*`: all of the groups.
    pub resources: Vec<String>,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

/// What an admission webhook does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookKind {
    /// Says yes or no.
    Validating,
    /// Changes what is written.
    Mutating,
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |group: &String, resource: &String| {
            if group.is_empty() { resource.clone() } else { format!("{resource}.{group}") }
        };
        let of_group = |group: &String| -> Vec<String> {
            self.resources.iter().map(|resource| named(group, resource)).collect()
        };
        let what = self.groups.iter().flat_map(of_group).collect::<Vec<_>>().join(",");
        match self.kind {
            WebhookKind::Validating => write!(f, "validates {what}")?,
            WebhookKind::Mutating => write!(f, "MAY CHANGE: {what}")?,
        }
        write_why(f, &self.why)
    }
}

/// `[[remote]]`: a place from which manifests may come.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// https, ends with `/`.
    pub prefix: String,
    /// Why, for the admin who approves.
    #[serde(default)]
    pub why: String,
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fetches manifests below {}", self.prefix)?;
        write_why(f, &self.why)
    }
}

/// `[node]`: what a plugin may ask of nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeAsks {
    /// To be the pod network.
    #[serde(default)]
    pub external_cni: bool,
    /// Exact keys.
    #[serde(default)]
    pub sysctls: Vec<String>,
    /// Kernel modules.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Exact hosts, with their ports.
    #[serde(default)]
    pub registries: Vec<String>,
}

impl NodeAsks {
    /// A line for each.
    pub fn lines(&self) -> Vec<String> {
        let cni = self.external_cni.then(|| "takes over the pod network of all nodes".to_owned());
        let sysctls = self.sysctls.iter().map(|key| format!("sets the sysctl {key} on all nodes"));
        let modules = self.modules.iter().map(|name| format!("loads the kernel module {name} on all nodes"));
        let registries =
            self.registries.iter().map(|host| format!("trusts the registry {host} on all nodes"));
        cni.into_iter().chain(sysctls).chain(modules).chain(registries).collect()
    }
}

fn write_names(f: &mut fmt::Formatter<'_>, names: &[String]) -> fmt::Result {
    if names.is_empty() { Ok(()) } else { write!(f, " named {}", names.join(",")) }
}

fn write_place(f: &mut fmt::Formatter<'_>, namespaces: &[String]) -> fmt::Result {
    match namespaces {
        [] => f.write_str(" in the whole cluster"),
        namespaces => write!(f, " in namespace {}", namespaces.join(",")),
    }
}

fn write_why(f: &mut fmt::Formatter<'_>, why: &str) -> fmt::Result {
    if why.is_empty() { Ok(()) } else { write!(f, ": {why}") }
}

/// Why this is no URL from which a manifest may come; `None`: it is one, if a prefix covers it. What libraries would read
/// as another place than a person does is refused: users, dots and slashes in disguise.
pub fn url_mistake(url: &str) -> Option<&'static str> {
    let Some(rest) = url.strip_prefix("https://") else { return Some("it is not https") };
    if url.chars().any(|c| !c.is_ascii_graphic() || "\\\"<>^`{|}".contains(c)) {
        return Some("it has characters that no URL has");
    }
    if url.contains('#') {
        return Some("it has a fragment");
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Some("it has a user");
    }
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if authority.is_empty() || !authority.chars().all(is_host) {
        return Some("it has no host");
    }
    let path = rest[authority.len()..].split('?').next().unwrap_or_default().to_ascii_lowercase();
    if path.contains("%2f") || path.contains("%5c") {
        return Some("it has a slash in disguise");
    }
    let is_dots = |segment: &str| matches!(segment.replace("%2e", ".").as_str(), "." | "..");
    path.split('/').any(is_dots).then_some("it has . or .. in its path")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(groups: &[&str], resources: &[&str], verbs: &[&str]) -> Grant {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        Grant {
            groups: owned(groups),
            resources: owned(resources),
            verbs: owned(verbs),
            resource_names: Vec::new(),
            namespaces: Vec::new(),
            urls: Vec::new(),
            why: "why".to_owned(),
        }
    }

    #[test]
    fn what_must_not_be_overlooked_stands_in_capitals_in_front() {
        for (groups, resources, verbs, line) in [
            (
                &["*"][..],
                &["*"][..],
                &["*"][..],
                "EVERYTHING: its service accounts may * * of * in the whole cluster: why",
            ),
            (
                &[""],
                &["secrets"],
                &["list"],
                "EVERY SECRET: its service accounts may list secrets in the whole cluster: why",
            ),
            (
                &["rbac.authorization.k8s.io"],
                &["clusterroles"],
                &["bind"],
                "ESCALATE: its service accounts may bind clusterroles of rbac.authorization.k8s.io in the whole \
                 cluster: why",
            ),
            (
                &["", "apps"],
                &["pods", "deployments"],
                &["create"],
                "PODS OF ANY KIND: its service accounts may create pods,deployments of core,apps in the whole \
                 cluster: why",
            ),
            (
                &["*"],
                &["*"],
                &["get", "delete"],
                "EVERY SECRET: ESCALATE: its service accounts may get,delete * of * in the whole cluster: why",
            ),
            (
                &[""],
                &["pods/exec"],
                &["get"],
                "ESCALATE: its service accounts may get pods/exec in the whole cluster: why",
            ),
            (
                &["apps"],
                &["daemonsets"],
                &["patch"],
                "PODS OF ANY KIND: its service accounts may patch daemonsets of apps in the whole cluster: why",
            ),
            (
                &[""],
                &["serviceaccounts/token"],
                &["create"],
                "ESCALATE: its service accounts may create serviceaccounts/token in the whole cluster: why",
            ),
            (&[""], &["pods"], &["get"], "its service accounts may get pods in the whole cluster: why"),
        ] {
            assert_eq!(grant(groups, resources, verbs).to_string(), line);
        }
        let mut own = grant(&[""], &["secrets"], &["get"]);
        own.namespaces = vec!["own".to_owned()];
        assert_eq!(own.to_string(), "its service accounts may get secrets in namespace own: why");
    }

    #[test]
    fn a_url_that_is_none_says_why() {
        assert_eq!(url_mistake("https://github.com/a/b/releases/download/v1/x.yaml"), None);
        assert_eq!(url_mistake("https://[::1]:8443/x"), None);
        for (url, why) in [
            ("http://github.com/x", "it is not https"),
            ("https:///x", "it has no host"),
            ("https://", "it has no host"),
            ("https://user:secret@github.com/x", "it has a user"),
            ("https://github.com/x#y", "it has a fragment"),
            ("https://github.com/x y", "it has characters that no URL has"),
            ("https://github.com/ü", "it has characters that no URL has"),
            ("https://github.com/a/../x", "it has . or .. in its path"),
            ("https://github.com/a/%2E%2e/x", "it has . or .. in its path"),
            ("https://github.com/a/./x", "it has . or .. in its path"),
            ("https://github.com/a%2F..%2fx", "it has a slash in disguise"),
            ("https://git*hub.com/x", "it has no host"),
        ] {
            assert_eq!(url_mistake(url), Some(why), "{url}");
        }
    }
}
