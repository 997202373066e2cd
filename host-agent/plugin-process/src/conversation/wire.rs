//! Where the wire types of `k8sctl.plugin` stop: each becomes a value of our own, or says what is wrong with it. What a
//! plan may be is not decided here, only what each item of it means. Pure.

use k8sctl_proto::plugin::v1::{self as wire, node_requirement};
use plugin_plan::limits::{REMOTE_DEFAULT_BYTES, TEXT_BYTES};
use plugin_plan::{
    Alphabet, Diagnostic, Drift, GeneratedSecret, Handling, ManifestPatch, NodeRequirement, NodeWant,
    ObjectSelector, ReadinessRule, ReadyWhen, RemoteManifest, SecretRef,
};
use serde_json::Value;

use super::plan::Dependency;

/// Behind a text that was cut.
const MARK: &str = " …(cut)";

/// A text of a plugin's, not longer than people read.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= TEXT_BYTES {
        return text.to_owned();
    }
    let end = TEXT_BYTES - MARK.len();
    let end = (0..=end).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
    format!("{}{MARK}", &text[..end])
}

pub(super) fn dependencies(all: &[Dependency]) -> Vec<wire::Dependency> {
    let one = |it: &Dependency| wire::Dependency {
        name: it.name.clone(),
        version: it.version.clone(),
        outputs: it.outputs.clone().into_iter().collect(),
    };
    all.iter().map(one).collect()
}

pub(super) fn secret_names(all: &[SecretRef]) -> Vec<wire::SecretName> {
    all.iter().map(|it| wire::SecretName { handle: it.handle.clone(), key: it.key.clone() }).collect()
}

/// A code that is none is not shown, and a path that is none leads to the whole config: it is the user who reads this, and
/// not the author.
pub(super) fn diagnostic(said: wire::Diagnostic) -> Diagnostic {
    let wire::Diagnostic { path, message, hint, warning, code } = said;
    let path = if path.starts_with('/') { path } else { String::new() };
    Diagnostic { code, path, message, hint, warning }.cut()
}

pub(super) fn handling(said: Option<wire::Handling>) -> Result<Handling, String> {
    let Some(wire::Handling { drift, leave, replace, keep, may_be_empty }) = said else {
        return Ok(Handling::default());
    };
    let drift = match wire::Drift::try_from(drift) {
        Ok(wire::Drift::Unspecified | wire::Drift::Correct) => Drift::Correct,
        Ok(wire::Drift::Report) => Drift::Report,
        Ok(wire::Drift::Ignore) => Drift::Ignore,
        Err(_) => {
            return Err(format!("an object is handled in a way that this host does not know: drift {drift}"));
        }
    };
    Ok(Handling { drift, leave, replace, keep, may_be_empty })
}

pub(super) fn readiness(said: wire::ReadinessRule) -> Result<ReadinessRule, String> {
    let wire::ReadinessRule { api_version, kind, condition, field, exists } = said;
    let of = || format!("the readiness rule of {} {}", cut(&api_version), cut(&kind));
    let is = match (condition.is_empty(), field, exists) {
        (false, None, false) => ReadyWhen::Condition(condition),
        (true, Some(wire::FieldIs { pointer, value_json }), false) => {
            let value = json(&value_json).map_err(|why| format!("{} has a value that is {why}", of()))?;
            ReadyWhen::Field { pointer, value }
        }
        (true, None, true) => ReadyWhen::Exists,
        _ => return Err(format!("{} must have one of condition, field and exists", of())),
    };
    Ok(ReadinessRule { api_version, kind, is })
}

pub(super) fn remote(said: wire::RemoteManifest) -> Result<RemoteManifest, String> {
    let wire::RemoteManifest { url, sha256, max_bytes, objects, namespace, exclude, patches, handling: how } =
        said;
    let patch = |patch: wire::ManifestPatch| {
        let operations = json(&patch.operations_json)
            .map_err(|why| format!("a patch of the manifest {} is {why}", cut(&url)))?;
        Ok::<_, String>(ManifestPatch { target: selector(patch.target.unwrap_or_default()), operations })
    };
    let patches = patches.into_iter().map(patch).collect::<Result<_, _>>()?;
    Ok(RemoteManifest {
        sha256,
        max_bytes: if max_bytes == 0 { REMOTE_DEFAULT_BYTES } else { max_bytes },
        objects,
        namespace,
        exclude: exclude.into_iter().map(selector).collect(),
        patches,
        handling: handling(how)?,
        url,
    })
}

fn selector(said: wire::ObjectSelector) -> ObjectSelector {
    let wire::ObjectSelector { group, kind, namespace, name } = said;
    ObjectSelector { group, kind, namespace, name }
}

pub(super) fn node(said: wire::NodeRequirement) -> Result<NodeRequirement, String> {
    use node_requirement::What;
    let what = match said.what {
        Some(What::Cni(wire::ExternalCni { config_file })) => NodeWant::Cni { config_file },
        Some(What::Sysctl(wire::Sysctl { key, value })) => NodeWant::Sysctl { key, value },
        Some(What::KernelModule(name)) => NodeWant::Module(name),
        Some(What::Registry(wire::Registry { host, ca_pem, mirrors, plain_http })) => {
            NodeWant::Registry { host, ca_pem, mirrors, plain_http }
        }
        None => return Err("a node requirement of its plan is of no known kind".to_owned()),
    };
    Ok(NodeRequirement { what, why: cut(&said.why) })
}

pub(super) fn secret(said: wire::GeneratedSecret) -> Result<GeneratedSecret, String> {
    let wire::GeneratedSecret { handle, key, length, alphabet } = said;
    let of = || format!("the secret {}/{} of its plan", cut(&handle), cut(&key));
    if !(8..=1024).contains(&length) {
        return Err(format!("{} has the length {length}, expected 8 to 1024", of()));
    }
    let alphabet = match alphabet.as_str() {
        "" | "alphanumeric" => Alphabet::Alphanumeric,
        "hex" => Alphabet::Hex,
        "base64" => Alphabet::Base64,
        other => {
            let other = cut(other);
            return Err(format!("{} has the alphabet {other:?}, expected alphanumeric, hex or base64", of()));
        }
    };
    Ok(GeneratedSecret { handle, key, length, alphabet })
}

/// The error ends a sentence that says what it is of.
pub(super) fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_are_cut_and_marked() {
        assert_eq!(cut("short"), "short");
        let long = cut(&"ä".repeat(TEXT_BYTES));
        assert!(long.len() <= TEXT_BYTES && long.ends_with("ä …(cut)"), "{long}");
    }

    #[test]
    fn what_a_diagnostic_lacks_is_made_up_for() {
        let said = |code: &str, path: &str| {
            diagnostic(wire::Diagnostic {
                code: code.to_owned(),
                path: path.to_owned(),
                message: "ä".repeat(1 << 19),
                ..wire::Diagnostic::default()
            })
        };
        let (none, whole) = (said("", "replicas"), said("METALLB-POOL-2", "/a"));
        assert_eq!((none.code.as_str(), none.path.as_str()), ("PLUGIN-CONFIG", ""));
        assert_eq!((whole.code.as_str(), whole.path.as_str()), ("METALLB-POOL-2", "/a"));
        assert!(whole.message.len() <= TEXT_BYTES && whole.message.ends_with("…(cut)"), "{}", whole.message);
    }

    #[test]
    fn a_readiness_rule_says_one_thing() {
        let rule = wire::ReadinessRule {
            api_version: "x/v1".to_owned(),
            kind: "Y".to_owned(),
            ..wire::ReadinessRule::default()
        };
        let field =
            |value: &str| Some(wire::FieldIs { pointer: "/a".to_owned(), value_json: value.to_owned() });
        let condition = wire::ReadinessRule { condition: "Ready".to_owned(), ..rule.clone() };
        let fields = wire::ReadinessRule { field: field("7"), ..rule.clone() };
        let exists = wire::ReadinessRule { exists: true, ..rule.clone() };
        for (said, is) in [
            (condition.clone(), ReadyWhen::Condition("Ready".to_owned())),
            (fields, ReadyWhen::Field { pointer: "/a".to_owned(), value: json!(7) }),
            (exists, ReadyWhen::Exists),
        ] {
            assert_eq!(readiness(said).expect("it is one").is, is);
        }
        for said in [
            rule.clone(),
            wire::ReadinessRule { exists: true, ..condition },
            wire::ReadinessRule { field: field("seven"), ..rule },
        ] {
            let why = readiness(said).expect_err("it is none");
            assert!(why.contains("x/v1 Y"), "{why}");
        }
    }

    #[test]
    fn what_a_newer_plugin_says_is_refused_and_named() {
        let how = wire::Handling { drift: 9, ..wire::Handling::default() };
        assert!(handling(Some(how)).expect_err("unknown").contains("drift 9"));
        assert_eq!(handling(None), Ok(Handling::default()));
        assert!(node(wire::NodeRequirement::default()).is_err());
        let patch = wire::ManifestPatch { operations_json: "[".to_owned(), ..wire::ManifestPatch::default() };
        let said = wire::RemoteManifest {
            url: "https://a.invalid/x".to_owned(),
            patches: vec![patch],
            ..wire::RemoteManifest::default()
        };
        let why = remote(said).expect_err("it is no JSON");
        assert!(why.contains("https://a.invalid/x") && why.contains("not JSON"), "{why}");
    }

    #[test]
    fn a_secret_is_long_enough_and_of_known_letters() {
        let said = |length, alphabet: &str| wire::GeneratedSecret {
            handle: "admin".to_owned(),
            key: "password".to_owned(),
            length,
            alphabet: alphabet.to_owned(),
        };
        assert_eq!(secret(said(8, "")).expect("it is one").alphabet, Alphabet::Alphanumeric);
        assert_eq!(secret(said(1024, "hex")).expect("it is one").alphabet, Alphabet::Hex);
        for (length, alphabet) in [(7, ""), (1025, ""), (8, "emoji")] {
            let why = secret(said(length, alphabet)).expect_err("it is none");
            assert!(why.contains("admin/password"), "{why}");
        }
    }
}
