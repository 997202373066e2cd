//! Asks for a plan, and reads one item after the other: no more of them, and no larger ones, than this host can keep. What
//! comes out is a plan of our own types, still unchecked. [`PlanReader`] is pure, for the fuzzer.

use std::collections::BTreeMap;

use k8sctl_proto::plugin::v1::plan_response::Item;
use k8sctl_proto::plugin::v1::{self as proto, ClusterFacts, PlanRequest};
use plugin_plan::limits::{
    DIAGNOSTICS, NODE_REQUIREMENTS, OBJECT_BYTES, OBJECTS, PATCHES, PLAN_BYTES, READINESS, REMOTES, SECRETS,
};
use plugin_plan::{Diagnostic, SecretRef, UncheckedObject, UncheckedPlan};
use prost::Message as _;

use super::config::Validated;
use super::{ConversationError, Talk, broken, called, wire};

/// Most items of any kind: those that are kept and remarks that nobody reads to the end.
const ITEMS: u32 = 10_000;
/// Most values in all JSON of a plan: one of two bytes on the wire takes a hundred in memory.
const VALUES: usize = 1_000_000;

/// What a plan is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanAsk {
    /// The config as JSON; never empty.
    pub config_json: String,
    /// The cluster.
    pub facts: ClusterFacts,
    /// Plugins that this one requires.
    pub dependencies: Vec<Dependency>,
    /// Secrets that the host has; their values are never told.
    pub secrets: Vec<SecretRef>,
}

/// A plugin that this one requires, as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Empty: it is not installed yet.
    pub version: String,
    /// What it tells its dependents.
    pub outputs: BTreeMap<String, String>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub enum PlanAnswer {
    /// The config has mistakes; remarks may be among them.
    Mistakes(Vec<Diagnostic>),
    /// A plan.
    Plan {
        /// Unchecked.
        plan: UncheckedPlan,
        /// Remarks that stop nothing.
        warnings: Vec<Diagnostic>,
        /// The config with all defaults filled in, as JSON; `None`: as it was given.
        effective_config: Option<String>,
    },
}

impl Talk {
    /// ValidateConfig and Plan. The schema is not looked at here.
    pub async fn plan(&mut self, ask: &PlanAsk) -> Result<PlanAnswer, ConversationError> {
        let Validated { mut diagnostics, effective_config } = self.validated(ask).await?;
        if has_mistakes(&diagnostics) {
            return Ok(PlanAnswer::Mistakes(diagnostics));
        }
        let mut stream = self.client.plan(request(ask)).await.map_err(called("Plan"))?.into_inner();
        let mut reader = PlanReader::new();
        while let Some(item) = stream.message().await.map_err(called("Plan"))? {
            reader.take(item).map_err(broken)?;
        }
        let (plan, said) = reader.end().map_err(broken)?;
        // Most plugins say the same twice.
        for diagnostic in said {
            if !diagnostics.contains(&diagnostic) {
                diagnostics.push(diagnostic);
            }
        }
        diagnostics.truncate(DIAGNOSTICS);
        if has_mistakes(&diagnostics) {
            return Ok(PlanAnswer::Mistakes(diagnostics));
        }
        Ok(PlanAnswer::Plan { plan, warnings: diagnostics, effective_config })
    }

    /// Asks for a plan and hears no more than its first item; for conformance.
    pub async fn begin_plan(&mut self, ask: &PlanAsk) -> Result<(), ConversationError> {
        let mut stream = self.client.plan(request(ask)).await.map_err(called("Plan"))?.into_inner();
        stream.message().await.map(drop).map_err(called("Plan"))
    }
}

fn request(ask: &PlanAsk) -> PlanRequest {
    PlanRequest {
        config_json: ask.config_json.clone(),
        facts: Some(ask.facts.clone()),
        dependencies: wire::dependencies(&ask.dependencies),
        secrets: wire::secret_names(&ask.secrets),
    }
}

pub(super) fn has_mistakes(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| !diagnostic.warning)
}

/// Puts a plan together, item by item.
#[derive(Default)]
pub struct PlanReader {
    plan: UncheckedPlan,
    diagnostics: Vec<Diagnostic>,
    items: u32,
    bytes: usize,
    values: usize,
    patches: usize,
    ended: bool,
}

impl PlanReader {
    /// Of nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next item; the error says what is wrong with the plan.
    pub fn take(&mut self, response: proto::PlanResponse) -> Result<(), String> {
        if self.ended {
            return Err("its plan goes on behind its end".to_owned());
        }
        let size = response.encoded_len();
        let item = response.item.ok_or("an item of its plan is of no known kind")?;
        if let Item::End(proto::End { items }) = item {
            if items != self.items {
                return Err(format!("the end of its plan says {items} items, there were {}", self.items));
            }
            self.ended = true;
            return Ok(());
        }
        self.items += 1;
        if self.items > ITEMS {
            return Err(format!("its plan has more than {ITEMS} items"));
        }
        self.bytes += size;
        if self.bytes > PLAN_BYTES {
            return Err(format!("its plan has more than {PLAN_BYTES} bytes"));
        }
        self.keep(item)
    }

    fn keep(&mut self, item: Item) -> Result<(), String> {
        match item {
            Item::Object(proto::PlannedObject { json, handling }) => {
                room(&self.plan.objects, OBJECTS, "objects")?;
                if json.len() > OBJECT_BYTES {
                    return Err(format!("an object of its plan has more than {OBJECT_BYTES} bytes"));
                }
                self.count(&json)?;
                let object = wire::json(&json).map_err(|why| format!("an object of its plan is {why}"))?;
                self.plan.objects.push(UncheckedObject { object, handling: wire::handling(handling)? });
            }
            Item::Remote(remote) => {
                room(&self.plan.remotes, REMOTES, "remote manifests")?;
                self.patches += remote.patches.len();
                if self.patches > PATCHES {
                    return Err(format!("its plan has more than {PATCHES} patches"));
                }
                for patch in &remote.patches {
                    self.count(&patch.operations_json)?;
                }
                self.plan.remotes.push(wire::remote(remote)?);
            }
            Item::Readiness(rule) => {
                room(&self.plan.readiness, READINESS, "readiness rules")?;
                if let Some(field) = &rule.field {
                    self.count(&field.value_json)?;
                }
                self.plan.readiness.push(wire::readiness(rule)?);
            }
            Item::Node(requirement) => {
                room(&self.plan.node, NODE_REQUIREMENTS, "node requirements")?;
                self.plan.node.push(wire::node(requirement)?);
            }
            Item::Secret(secret) => {
                room(&self.plan.secrets, SECRETS, "secrets")?;
                self.plan.secrets.push(wire::secret(secret)?);
            }
            Item::Diagnostic(diagnostic) => {
                if self.diagnostics.len() < DIAGNOSTICS {
                    self.diagnostics.push(wire::diagnostic(diagnostic));
                }
            }
            // Has been seen to.
            Item::End(_) => {}
        }
        Ok(())
    }

    /// Before anything is made of it.
    fn count(&mut self, json: &str) -> Result<(), String> {
        self.values = self.values.saturating_add(values_in(json));
        if self.values > VALUES {
            return Err(format!("its plan has more than {VALUES} values"));
        }
        Ok(())
    }

    /// The plan and what was said of the config; the error says what is wrong with it.
    pub fn end(self) -> Result<(UncheckedPlan, Vec<Diagnostic>), String> {
        if self.ended {
            Ok((self.plan, self.diagnostics))
        } else {
            Err(format!("its plan breaks off after {} items: the last one must be End", self.items))
        }
    }
}

/// No fewer than there are: each but the first stands behind the begin of a list or object, or a comma.
fn values_in(json: &str) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b',' | b'[' | b'{' if !in_text => count += 1,
            _ => {}
        }
    }
    count
}

fn room<T>(kept: &[T], most: usize, what: &str) -> Result<(), String> {
    if kept.len() < most { Ok(()) } else { Err(format!("its plan has more than {most} {what}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(item: Item) -> proto::PlanResponse {
        proto::PlanResponse { item: Some(item) }
    }

    fn object(json: impl Into<String>) -> Item {
        Item::Object(proto::PlannedObject { json: json.into(), handling: None })
    }

    fn end(items: u32) -> Item {
        Item::End(proto::End { items })
    }

    fn remark(warning: bool) -> Item {
        Item::Diagnostic(proto::Diagnostic {
            message: "m".to_owned(),
            warning,
            ..proto::Diagnostic::default()
        })
    }

    fn read(items: impl IntoIterator<Item = Item>) -> Result<(UncheckedPlan, Vec<Diagnostic>), String> {
        let mut reader = PlanReader::new();
        for one in items {
            reader.take(item(one))?;
        }
        reader.end()
    }

    fn refusal(items: impl IntoIterator<Item = Item>) -> String {
        read(items).map(|_| ()).expect_err("it is refused")
    }

    #[test]
    fn items_come_out_in_their_order() {
        let (plan, remarks) =
            read([object("{\"a\": 1}"), remark(true), object("[]"), end(3)]).expect("it is a plan");
        let objects: Vec<_> = plan.objects.iter().map(|it| it.object.to_string()).collect();
        assert_eq!((objects, remarks.len()), (vec!["{\"a\":1}".to_owned(), "[]".to_owned()], 1));
    }

    #[test]
    fn a_plan_has_one_end_that_counts() {
        assert!(refusal([object("{}")]).contains("breaks off after 1 items"));
        assert!(refusal([object("{}"), end(2)]).contains("says 2 items, there were 1"));
        assert!(refusal([end(0), object("{}")]).contains("goes on behind its end"));
        assert!(refusal([end(0), end(0)]).contains("goes on behind its end"));
        let nothing = PlanReader::new().take(proto::PlanResponse { item: None });
        assert!(nothing.expect_err("it is nothing").contains("no known kind"));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        assert!(refusal([object("{")]).contains("not JSON"));
        assert!(refusal([object("[".repeat(1000))]).contains("not JSON"));
        assert!(refusal([object("")]).contains("not JSON"));
    }

    #[test]
    fn each_kind_has_a_most() {
        let many = |one: Item, most: usize| refusal(std::iter::repeat_n(one, most + 1));
        assert!(many(object("{}"), OBJECTS).contains("more than 2000 objects"));
        assert!(many(Item::Remote(proto::RemoteManifest::default()), REMOTES).contains("remote manifests"));
        let rule = proto::ReadinessRule { exists: true, ..proto::ReadinessRule::default() };
        assert!(many(Item::Readiness(rule), READINESS).contains("readiness rules"));
        let module = proto::NodeRequirement {
            what: Some(proto::node_requirement::What::KernelModule("vxlan".to_owned())),
            why: String::new(),
        };
        assert!(many(Item::Node(module), NODE_REQUIREMENTS).contains("node requirements"));
        let secret = proto::GeneratedSecret { length: 8, ..proto::GeneratedSecret::default() };
        assert!(many(Item::Secret(secret), SECRETS).contains("secrets"));
        let patches =
            vec![proto::ManifestPatch { target: None, operations_json: "[]".to_owned() }; PATCHES + 1];
        let remote = proto::RemoteManifest { patches, ..proto::RemoteManifest::default() };
        assert!(refusal([Item::Remote(remote)]).contains("patches"));
        assert!(many(remark(false), ITEMS as usize).contains("10000 items"));
    }

    #[test]
    fn small_values_are_counted_before_they_are_read() {
        assert_eq!(values_in(r#"{"a,[": [1, {}, "\",{"], "b": "\\"}"#), 7);
        let zeros = || format!("[{}0]", "0,".repeat(399_999));
        read([object(zeros()), object(zeros()), end(2)]).expect("it is a plan");
        assert!(refusal([object(zeros()), object(zeros()), object(zeros())]).contains("1000000 values"));
        let patch = proto::ManifestPatch { target: None, operations_json: zeros() };
        let remote = proto::RemoteManifest { patches: vec![patch; 3], ..proto::RemoteManifest::default() };
        assert!(refusal([Item::Remote(remote)]).contains("1000000 values"));
    }

    #[test]
    fn only_the_first_remarks_are_kept() {
        let items = std::iter::repeat_n(remark(true), DIAGNOSTICS + 5).chain([end(DIAGNOSTICS as u32 + 5)]);
        assert_eq!(read(items).expect("it is a plan").1.len(), DIAGNOSTICS);
    }

    #[test]
    fn an_object_and_a_whole_plan_have_a_size() {
        let of = |bytes: usize| object(format!("\"{}\"", "x".repeat(bytes - 2)));
        assert!(refusal([of(OBJECT_BYTES + 1)]).contains("more than 1048576 bytes"));
        read([of(OBJECT_BYTES), end(1)]).expect("it has the size that it may have");
        assert!(refusal((0..17).map(|_| of(OBJECT_BYTES))).contains("more than 16777216 bytes"));
    }
}
