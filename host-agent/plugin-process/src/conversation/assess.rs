//! Asks a plugin what it thinks of its live objects, and bounds what it tells its dependents.

use std::collections::BTreeMap;

use k8sctl_proto::plugin::v1::{self as proto, AssessRequest, ClusterFacts};
use plugin_plan::limits::{OUTPUT_BYTES, OUTPUTS};

use super::plan::Dependency;
use super::wire::cut;
use super::{ConversationError, Talk, broken, called, wire};

/// Longest key of an output, in bytes.
const KEY_BYTES: usize = 64;

/// What a judgement is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssessAsk {
    /// The config as JSON; never empty.
    pub config_json: String,
    /// The cluster.
    pub facts: ClusterFacts,
    /// Plugins that this one requires.
    pub dependencies: Vec<Dependency>,
    /// Live objects, each as JSON; together at most `limits::ASSESS_BYTES`.
    pub objects_json: Vec<String>,
    /// Objects that did not fit.
    pub left_out: u32,
}

/// A plugin's judgement of its live objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assessment {
    /// The verdict.
    pub health: Health,
    /// Why, one line; may be empty.
    pub message: String,
    /// What dependents are told.
    pub outputs: BTreeMap<String, String>,
}

/// How an installed plugin does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Serves.
    Ready,
    /// On its way.
    Progressing,
    /// Needs attention.
    Degraded,
    /// Will not get there by itself.
    Failed,
}

impl Talk {
    /// Assess.
    pub async fn assess(&mut self, ask: &AssessAsk) -> Result<Assessment, ConversationError> {
        let request = AssessRequest {
            config_json: ask.config_json.clone(),
            facts: Some(ask.facts.clone()),
            objects_json: ask.objects_json.clone(),
            left_out: ask.left_out,
            dependencies: wire::dependencies(&ask.dependencies),
        };
        let answer = self.client.assess(request).await.map_err(called("Assess"))?.into_inner();
        assessment(answer).map_err(broken)
    }
}

fn assessment(said: proto::AssessResponse) -> Result<Assessment, String> {
    let health = match proto::Health::try_from(said.health) {
        Ok(proto::Health::Ready) => Health::Ready,
        Ok(proto::Health::Progressing) => Health::Progressing,
        Ok(proto::Health::Degraded) => Health::Degraded,
        Ok(proto::Health::Failed) => Health::Failed,
        Ok(proto::Health::Unspecified) | Err(_) => {
            return Err(format!("it judges its objects with {}, expected a health", said.health));
        }
    };
    if said.outputs.len() > OUTPUTS {
        return Err(format!("it has {} outputs, expected at most {OUTPUTS}", said.outputs.len()));
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    for (key, value) in &said.outputs {
        if key.is_empty() || key.len() > KEY_BYTES || !key.chars().all(plain) {
            let key = cut(key);
            return Err(format!(
                "it has an output {key:?}, expected at most {KEY_BYTES} lower case letters, digits and _"
            ));
        }
        if value.len() > OUTPUT_BYTES {
            let length = value.len();
            return Err(format!("its output {key} has {length} bytes, expected at most {OUTPUT_BYTES}"));
        }
    }
    let message = cut(&said.message);
    Ok(Assessment { health, message, outputs: said.outputs.into_iter().collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(outputs: impl IntoIterator<Item = (String, String)>) -> proto::AssessResponse {
        proto::AssessResponse {
            health: proto::Health::Ready.into(),
            message: "m".repeat(10_000),
            outputs: outputs.into_iter().collect(),
        }
    }

    #[test]
    fn a_judgement_is_one_of_four_and_not_too_long() {
        let judged = assessment(said([("pool".to_owned(), "a".to_owned())])).expect("it is one");
        assert_eq!((judged.health, judged.outputs.len()), (Health::Ready, 1));
        assert!(judged.message.len() < 3000);
        for health in [0, 9] {
            let why = assessment(proto::AssessResponse { health, ..said([]) }).expect_err("it is none");
            assert!(why.contains("expected a health"), "{why}");
        }
    }

    #[test]
    fn outputs_are_few_plain_and_short() {
        let many = (0..=OUTPUTS).map(|number| (format!("o{number}"), String::new()));
        assert!(assessment(said(many)).expect_err("too many").contains("at most 64"));
        for key in ["", "Pool", "a-b", &"x".repeat(65)] {
            let why = assessment(said([(key.to_owned(), String::new())])).expect_err("no key");
            assert!(why.contains("lower case"), "{why}");
        }
        let long = said([("a".to_owned(), "x".repeat(OUTPUT_BYTES + 1))]);
        assert!(assessment(long).expect_err("too long").contains("1025 bytes"));
    }
}
