//! How an operation of a person's wish begins: everything that can be found out beforehand is, and refused where it has to
//! be, before the one transaction from which on it goes on by itself.

use std::time::Duration;

use k8sctl_rpc::task;
use k8sctl_types::failure::Failure;
use plugin_package::{Approval, Package};
use plugin_plan::CheckedPlan;
use tokio::sync::oneshot;

use super::ask::{Answer, Question, lacking_secrets};
use super::outcome::Lift;
use super::resolve::{Resolved, What};
use super::running::{Asked, Claim, Claimed, interrupted};
use super::wish::{ClusterAccess, Ended, Follow, Given, NodeNeed, Wish, WishError};
use super::{PluginHost, stored_badly};
use crate::records::{Approved, Install, OperationKind, Origin, Place};
use crate::requirements;

/// An operation of which all is known and nothing is done.
pub(super) struct Prepared {
    pub(super) kind: OperationKind,
    pub(super) origin: Origin,
    /// What asked for it.
    pub(super) attempt: String,
    pub(super) deadline: Duration,
    pub(super) adopt: bool,
    pub(super) prune_many: bool,
    pub(super) approved: Approved,
    pub(super) package: Package,
    pub(super) source: PlanSource,
}

/// From where the plan comes.
pub(super) enum PlanSource {
    /// The plugin said it; bodies of its manifests may be missing.
    Said {
        /// What was asked.
        question: Box<Question>,
        /// What it answered.
        answer: Box<Answer>,
    },
    /// It was applied once.
    Stored {
        /// Its plan.
        plan: Box<CheckedPlan>,
        /// Its config.
        config: serde_json::Value,
        /// Digest of what the plugin said then.
        plan_sha256: String,
        /// Digest of what was asked then.
        ask_sha256: String,
    },
}

impl PluginHost {
    /// Begins what a person wishes, or attaches to the operation that does the same. Resolves when it is begun: it goes on
    /// by itself then.
    pub async fn begin(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        consent: &Given,
    ) -> Result<Follow, WishError> {
        let name = self.name_of(wish).await?;
        let place = Place::new(&access.cluster_id, &name);
        let claim = match self.inner.running.claim(&place, Asked::Wish(wish.clone()))? {
            Claimed::Same(follow) => return Ok(follow),
            Claimed::New(claim) => claim,
        };
        let follow = claim.follow();
        let (host, access) = (self.clone(), access.clone());
        let (wish, given) = (wish.clone(), consent.clone());
        let (tell, told) = oneshot::channel();
        let operation = async move { host.carry_out_wish(&access, &wish, &given, claim, tell).await };
        let task = task::spawn(format!("plugin {name}"), operation);
        self.inner.running.started(&place, task);
        match told.await {
            Ok(Ok(())) => Ok(follow),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(interrupted(&name).into()),
        }
    }

    async fn carry_out_wish(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        given: &Given,
        claim: Claim,
        tell: oneshot::Sender<Result<(), WishError>>,
    ) {
        match self.prepare_wish(access, wish, given, &claim.place).await {
            Ok(prepared) => {
                // Whoever asked may be gone.
                let _ = tell.send(Ok(()));
                self.operate(access, prepared, claim).await;
            }
            Err(error) => {
                let plugin = claim.place.plugin.clone();
                claim.end(Ended::Failed(error.clone().into_failure(&plugin)));
                let _ = tell.send(Err(error));
            }
        }
    }

    async fn prepare_wish(
        &self,
        access: &ClusterAccess,
        wish: &Wish,
        given: &Given,
        place: &Place,
    ) -> Result<Prepared, WishError> {
        let lift = if wish.lift_quarantine { Lift::ForGood } else { Lift::No };
        let resolved = self.resolve(access, wish, &place.plugin, lift, false).await?;
        let Resolved { kind, install, package, what } = resolved;
        let approval = package.manifest.approval();
        let known = self.inner.records.approved(place).await.map_err(stored_badly(place))?;
        let new = approval.beyond(&known);
        if !new.is_empty() && given.approved_digest != approval.digest {
            return Err(not_approved(&place.plugin, &approval, &given.approved_digest, &new).into());
        }
        let installs = self.installs(&access.cluster_id).await?;
        self.fits(&access.facts, &package, &installs).await?;
        let source = match what {
            What::Config(config) => {
                let question = self.question(access, package.clone(), config, &installs).await?;
                let answer = self.agreed_answer(&question, &given.plan_digest).await?;
                PlanSource::Said { question: Box::new(question), answer: Box::new(answer) }
            }
            What::Revision(old) => {
                seen_is_planned(&place.plugin, &given.plan_digest, &old.revision.plan_sha256)?;
                PlanSource::Stored {
                    plan: Box::new(old.plan),
                    config: old.config,
                    plan_sha256: old.revision.plan_sha256,
                    ask_sha256: old.revision.ask_sha256,
                }
            }
        };
        self.no_node_conflict(access, &place.plugin, &source).await?;
        Ok(Prepared {
            kind,
            origin: install.as_ref().map_or(Origin::Command, |install: &Install| install.origin),
            attempt: format!("command {}", uuid::Uuid::new_v4()),
            deadline: given.deadline.unwrap_or(self.inner.limits.ready),
            adopt: wish.adopt,
            prune_many: given.prune_many,
            approved: Approved { lines: approval.lines, by_uid: given.by_uid },
            package,
            source,
        })
    }

    /// What the plugin plans, twice the same, with nothing in it that is wrong as far as its manifests are at hand; and
    /// what was seen before, where somebody saw it.
    pub(super) async fn agreed_answer(&self, question: &Question, seen: &str) -> Result<Answer, WishError> {
        let answer = self.answer(question, true).await?;
        seen_is_planned(&question.package.manifest.name, seen, &answer.plan_sha256)?;
        let lacking = lacking_secrets(question, &answer);
        if !lacking.is_empty() {
            return Err(WishError::Config(lacking));
        }
        let (bodies, _) = self.bodies_at_hand(&answer.plan.remotes).await;
        self.check(question, answer.plan.clone(), &answer.secrets, bodies, true).await?;
        Ok(answer)
    }

    /// No other plugin of the cluster wants something else of nodes.
    pub(super) async fn no_node_conflict(
        &self,
        access: &ClusterAccess,
        plugin: &str,
        source: &PlanSource,
    ) -> Result<(), Failure> {
        let node = match source {
            PlanSource::Said { answer, .. } => &answer.plan.node,
            PlanSource::Stored { plan, .. } => &plan.node,
        };
        let mut needs = self.node_needs(&access.cluster_id).await?;
        needs.retain(|need| need.plugin != plugin);
        needs.extend(node.iter().map(|requirement| NodeNeed {
            plugin: plugin.to_owned(),
            requirement: requirement.clone(),
            was_ready: false,
        }));
        requirements::conflict(&needs).map_or(Ok(()), Err)
    }
}

/// What an operation approves anew, and who does, in one line; `None`: nothing.
pub(super) fn approves(origin: Origin, approved: &Approved, known: &[String]) -> Option<String> {
    let new: Vec<&str> =
        approved.lines.iter().filter(|line| !known.contains(line)).map(String::as_str).collect();
    let (first, others) = new.split_first()?;
    let more = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
    let who = match origin {
        Origin::Command => format!("by the user {}", approved.by_uid),
        Origin::Spec => "with the cluster file".to_owned(),
    };
    Some(format!("approved {who}: {first}{more}"))
}

/// Permissions that nobody approved.
pub(super) fn not_approved(plugin: &str, approval: &Approval, approved: &str, new: &[String]) -> Failure {
    let reason = if approved.is_empty() {
        format!("it asks for {} permission(s) that nobody approved", new.len())
    } else {
        format!("approved were the permissions {approved}, it asks for {}", approval.digest)
    };
    let next = "read the permissions that the same command shows, and approve them";
    Failure::new("PLUGIN-NOT-APPROVED", format!("plugin {plugin}"), reason, next)
        .with_evidence(new.join("\n"))
}

fn seen_is_planned(plugin: &str, seen: &str, planned: &str) -> Result<(), Failure> {
    if seen.is_empty() || seen == planned {
        return Ok(());
    }
    let reason = format!("its plan is another than the one that was shown: {planned}, and not {seen}");
    let next = "nothing was changed; run the same command again, which shows the new one";
    Err(Failure::new("PLUGIN-NOT-APPROVED", format!("plugin {plugin}"), reason, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_approved_anew_is_told_with_who_did() {
        let line = |text: &str| text.to_owned();
        let approved = Approved { lines: vec![line("a"), line("b"), line("c")], by_uid: 1000 };
        let told = |origin, known: &[String]| approves(origin, &approved, known);
        let all = Some(line("approved by the user 1000: a (and 2 more)"));
        assert_eq!(told(Origin::Command, &[]), all);
        let one = Some(line("approved with the cluster file: b"));
        assert_eq!(told(Origin::Spec, &[line("a"), line("c")]), one);
        assert_eq!(told(Origin::Command, &approved.lines), None);
    }
}
