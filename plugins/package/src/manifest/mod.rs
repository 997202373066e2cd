//! `plugin.toml`: what a plugin is and what it may ask for, read without starting it. One format for the source folder,
//! where `[program]` names the program, and for the package, where `plugin build` has added digests of all that is in it.
//!
//! [`asks`] has the tables of what it asks for, [`approval`] what a person reads of them. Called by
//! [`crate::folder::Package`], `k8sctl plugin build` and tests; looks at no other file.

pub mod approval;
pub mod asks;
mod mistakes;

use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};

use approval::Approval;
use asks::{Aggregate, Bind, Grant, NodeAsks, Permission, Remote, Webhook, url_mistake};

pub(crate) use mistakes::{is_digest, is_path};

/// Version of the format of `plugin.toml` and `k8sctl.lock`.
pub const FORMAT: u32 = 1;

/// Namespaces that belong to Kubernetes: what lies in them is asked for by name.
pub const SYSTEM_NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];

/// The contents of `plugin.toml`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format.
    pub format: u32,
    /// Name: lower case letters, digits and dashes.
    pub name: String,
    /// Semantic version.
    pub version: Version,
    /// One line.
    pub summary: String,
    /// SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Where its project lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// Versions of `k8sctl.plugin` that the program speaks.
    pub protocol: Vec<u32>,
    /// Counts up with each change of the schema that old configs do not survive.
    #[serde(default = "first_config_version")]
    pub config_version: u32,
    /// Versions of Kubernetes that it runs on; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<VersionReq>,
    /// Capabilities that it gives: `loadbalancer`.
    #[serde(default)]
    pub provides: Vec<String>,
    /// What must be there before it.
    #[serde(default)]
    pub requires: Vec<Requirement>,
    /// Plugins and capabilities beside which it cannot be.
    #[serde(default)]
    pub conflicts: Vec<String>,
    /// May its pods reach into the node: privileged, host namespaces, hostPath?
    #[serde(default)]
    pub privileged_pods: bool,
    /// The program.
    pub program: ProgramName,
    /// Objects that it may plan.
    #[serde(default, rename = "permission")]
    pub permissions: Vec<Permission>,
    /// What its Roles and ClusterRoles may hold.
    #[serde(default, rename = "grant")]
    pub grants: Vec<Grant>,
    /// Bindings that are not of its own role to its own service account.
    #[serde(default, rename = "bind")]
    pub binds: Vec<Bind>,
    /// The cluster's roles that its ClusterRoles add to.
    #[serde(default, rename = "aggregate")]
    pub aggregates: Vec<Aggregate>,
    /// What its admission webhooks may see or change.
    #[serde(default, rename = "webhook")]
    pub webhooks: Vec<Webhook>,
    /// Places from which manifests may come.
    #[serde(default, rename = "remote")]
    pub remotes: Vec<Remote>,
    /// Manifests that it pins, so that they can be fetched beforehand.
    #[serde(default, rename = "manifest")]
    pub manifests: Vec<PinnedManifest>,
    /// What it may ask of nodes.
    #[serde(default)]
    pub node: NodeAsks,
    /// What its pods run; for people and mirrors.
    #[serde(default, rename = "image")]
    pub images: Vec<ImageName>,
    /// Programs of the package, one per platform. Written by `plugin build`.
    #[serde(default, rename = "binary")]
    pub binaries: Vec<Binary>,
    /// Every other file of the package. Written by `plugin build`.
    #[serde(default, rename = "file")]
    pub files: Vec<FileEntry>,
}

/// `[program]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramName {
    /// What its build makes; `data-plugin`: the generic one.
    pub name: String,
}

/// `[[requires]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// A plugin or a capability.
    pub what: String,
    /// Of a plugin; `None`: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<VersionReq>,
    /// Only orders the two, where the other one is there.
    #[serde(default)]
    pub optional: bool,
    /// Why.
    #[serde(default)]
    pub why: String,
}

/// `[[manifest]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedManifest {
    /// Below a prefix of a `[[remote]]`.
    pub url: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// `[[image]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ImageName {
    /// `quay.io/metallb/controller:v0.16.1`
    pub name: String,
}

/// `[[binary]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Binary {
    /// `x86_64-linux`
    pub platform: String,
    /// Within the package.
    pub path: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// `[[file]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Within the package.
    pub path: String,
    /// 64 hex digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

fn first_config_version() -> u32 {
    1
}

/// What every format of the file has.
#[derive(Deserialize)]
struct Head {
    format: Option<u32>,
}

impl Manifest {
    /// Reads `plugin.toml`; the error holds every mistake.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        // A later format has other keys, which would be told as mistakes of this one.
        if let Ok(Head { format: Some(format) }) = toml::from_str(text)
            && format != FORMAT
        {
            return Err(vec![format!("format {format}: this release reads format {FORMAT}")]);
        }
        let manifest: Self =
            toml::from_str(text).map_err(|error| vec![error.to_string().trim_end().to_owned()])?;
        let mistakes = mistakes::of(&manifest);
        if mistakes.is_empty() { Ok(manifest) } else { Err(mistakes) }
    }

    /// What a person approves.
    pub fn approval(&self) -> Approval {
        approval::of(self)
    }

    /// Whether one permission has all these verbs for this object.
    pub fn permits(&self, verb_set: &[&str], group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        self.permissions.iter().any(|permission| {
            permission.covers(group, kind, namespace, name)
                && verb_set.iter().all(|verb| permission.verbs.iter().any(|has| has == verb))
        })
    }

    /// Whether this URL is below a declared prefix.
    pub fn may_fetch(&self, url: &str) -> bool {
        url_mistake(url).is_none() && self.remotes.iter().any(|remote| url.starts_with(&remote.prefix))
    }

    /// Whether it runs on this version of Kubernetes, `v1.29.3`. What its distribution adds to that does not count.
    pub fn runs_on(&self, kubernetes: &str) -> bool {
        let Some(wanted) = &self.kubernetes else { return true };
        let bare = kubernetes.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
        Version::parse(bare).is_ok_and(|version| wanted.matches(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest with every table in it.
    pub(super) const WHOLE: &str = include_str!("../../tests/manifests/whole.toml");

    pub(super) fn whole() -> Manifest {
        Manifest::parse(WHOLE).expect("it has no mistakes")
    }

    #[test]
    fn every_table_is_read_and_written_again() {
        let manifest = whole();
        assert_eq!((manifest.name.as_str(), manifest.config_version), ("beispiel", 2));
        assert_eq!(manifest.requires[1].version, Some(VersionReq::parse(">=0.1").expect("a range")));
        assert_eq!((manifest.grants.len(), manifest.binds.len(), manifest.webhooks.len()), (3, 2, 2));
        let again = toml::to_string(&manifest).expect("it is TOML");
        assert_eq!(Manifest::parse(&again), Ok(manifest));
    }

    #[test]
    fn what_is_optional_may_be_left_out() {
        let text = "format = 1\nname = \"a\"\nversion = \"0.1.0\"\nsummary = \"s\"\nprotocol = [1]\n\
                    [program]\nname = \"a\"\n";
        let manifest = Manifest::parse(text).expect("it has no mistakes");
        assert_eq!((manifest.config_version, manifest.privileged_pods), (1, false));
        assert_eq!(manifest.approval().lines, Vec::<String>::new());
    }

    #[test]
    fn another_format_is_told_before_its_keys_are() {
        let text = WHOLE.replace("format = 1", "format = 2\nnew_key = true");
        assert_eq!(Manifest::parse(&text), Err(vec!["format 2: this release reads format 1".to_owned()]));
        let why = Manifest::parse(&WHOLE.replace("license", "licence")).expect_err("no such key");
        assert!(why[0].contains("licence"), "{why:?}");
    }

    #[test]
    fn an_object_needs_one_permission_with_all_the_verbs() {
        let manifest = whole();
        let permits = |kind: &str, namespace: &str, name: &str| {
            manifest.permits(&["get", "create", "patch"], "apps", kind, namespace, name)
        };
        assert!(permits("Deployment", "beispiel", "controller"));
        assert!(!permits("Deployment", "beispiel", "another"), "the permission names one");
        assert!(!permits("Deployment", "kube-system", "controller"));
        assert!(!permits("Deployment", "", "controller"), "it has no namespace");
        assert!(!permits("DaemonSet", "beispiel", "controller"));
        assert!(!manifest.permits(&["watch"], "apps", "Deployment", "beispiel", "controller"));
    }

    #[test]
    fn what_reaches_all_of_a_cluster_is_permitted_by_name_only() {
        let mut manifest = whole();
        for permission in &mut manifest.permissions {
            permission.names.clear();
        }
        let rbac = "rbac.authorization.k8s.io";
        assert!(!manifest.permits(&["get"], rbac, "ClusterRole", "", "beispiel"));
        assert!(!manifest.permits(&["get"], rbac, "RoleBinding", "kube-system", "beispiel"));
        assert!(manifest.permits(&["get"], "apps", "Deployment", "beispiel", "anything"));
    }

    #[test]
    fn manifests_come_from_below_a_prefix() {
        let manifest = whole();
        let at = |rest: &str| format!("https://raw.githubusercontent.com/beispiel/{rest}");
        assert!(manifest.may_fetch(&at("beispiel/v1/install.yaml")));
        assert!(manifest.may_fetch(&at("beispiel/v1/install.yaml?token=a%2Fb")));
        for url in [
            at("anderes/v1/install.yaml"),
            at("beispiel/../anderes/install.yaml"),
            at("beispiel/%2e%2E/anderes/install.yaml"),
            at("beispiel/.%2e/anderes/install.yaml"),
            at("beispiel/..%2fanderes/install.yaml"),
            at("beispiel\\..\\anderes/install.yaml"),
            at("beispiel/v1/install.yaml#part"),
            at("beispiel/v1/in\nstall.yaml"),
            "http://raw.githubusercontent.com/beispiel/beispiel/x".to_owned(),
            "https://raw.githubusercontent.com@evil.example/beispiel/beispiel/x".to_owned(),
            "https://raw.githubusercontent.com.evil.example/beispiel/beispiel/x".to_owned(),
        ] {
            assert!(!manifest.may_fetch(&url), "{url}");
        }
    }

    #[test]
    fn a_range_of_kubernetes_does_not_look_at_what_a_distribution_adds() {
        let mut manifest = whole();
        for (version, runs) in [
            ("v1.20.2", true),
            ("1.33.0", true),
            ("v1.29.3+k3s1", true),
            ("v1.20.0-rc.1", true),
            ("v1.19.16", false),
        ] {
            assert_eq!(manifest.runs_on(version), runs, "{version}");
        }
        assert!(!manifest.runs_on("unknown"));
        manifest.kubernetes = None;
        assert!(manifest.runs_on("unknown"), "any will do");
    }
}
