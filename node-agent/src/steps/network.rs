//! Routes to other nodes' pods and the masquerade rule for pods: what is there, what is missing, making it so.
//!
//! Ours are told from others' by the routing protocol number and by the rule's comment; only those are removed.

use k8sctl_proto::node::v1::DesiredState;

use super::run;
use crate::converge::step::StepError;

/// Routing protocol number of our routes.
const PROTOCOL: &str = "108";
/// Comment of our rules.
const COMMENT: &str = "k8s-myhome";

/// A route to the pods of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `10.244.1.0/24`
    pub cidr: String,
    /// `192.168.122.11`
    pub via: String,
}

/// What to do about routes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RoutePlan {
    /// Missing or wrong.
    pub replace: Vec<Route>,
    /// Ours, and no longer wanted.
    pub remove: Vec<Route>,
}

impl RoutePlan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replace.is_empty() && self.remove.is_empty()
    }
}

/// Compares our routes with those that are wanted.
pub fn plan_routes(current: &[Route], wanted: &[Route]) -> RoutePlan {
    let replace = wanted.iter().filter(|route| !current.contains(route)).cloned().collect();
    let unwanted = |route: &&Route| !wanted.iter().any(|other| other.cidr == route.cidr);
    RoutePlan { replace, remove: current.iter().filter(unwanted).cloned().collect() }
}

/// Our routes in the kernel.
pub async fn observe_routes() -> Result<Vec<Route>, StepError> {
    Ok(parse_routes(&run("ip", &["-4", "route", "show", "proto", PROTOCOL]).await?))
}

/// Lines like `10.244.1.0/24 via 192.168.122.11 dev ens3`.
fn parse_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let mut words = line.split_whitespace();
        let cidr = words.next()?;
        let via = words.skip_while(|word| *word != "via").nth(1)?;
        let cidr = if cidr.contains('/') { cidr.to_owned() } else { format!("{cidr}/32") };
        Some(Route { cidr, via: via.to_owned() })
    };
    text.lines().filter_map(route).collect()
}

/// Carries a plan out.
pub async fn execute_routes(plan: &RoutePlan) -> Result<(), StepError> {
    for route in &plan.remove {
        run("ip", &["-4", "route", "del", &route.cidr, "proto", PROTOCOL]).await?;
    }
    for route in &plan.replace {
        run("ip", &["-4", "route", "replace", &route.cidr, "via", &route.via, "proto", PROTOCOL]).await?;
    }
    Ok(())
}

/// The rule that hides pod addresses from everything outside of the pod network, as `iptables -S` shows it.
fn masquerade_rule(desired: &DesiredState) -> Vec<String> {
    let (from, pods) = (desired.node_pod_cidr.as_str(), desired.pod_cidr.as_str());
    ["-s", from, "!", "-d", pods, "-m", "comment", "--comment", COMMENT, "-j", "MASQUERADE"]
        .map(str::to_owned)
        .to_vec()
}

/// What to do about masquerade rules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RulePlan {
    /// The rule that is missing.
    pub add: Option<Vec<String>>,
    /// Ours, and no longer wanted, or there twice.
    pub remove: Vec<Vec<String>>,
}

impl RulePlan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.add.is_none() && self.remove.is_empty()
    }
}

/// Compares the chain, as `iptables -t nat -S POSTROUTING` prints it, with our one rule.
pub fn plan_rules(chain: &str, desired: &DesiredState) -> RulePlan {
    let wanted = masquerade_rule(desired);
    let mut plan = RulePlan::default();
    let mut there = false;
    for line in chain.lines() {
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        let ours = words.windows(2).any(|pair| pair[0] == "--comment" && pair[1] == COMMENT);
        let Some(rule) = words.get(2..).filter(|_| ours && words[0] == "-A") else { continue };
        if rule == wanted && !there {
            there = true;
        } else {
            plan.remove.push(rule.to_vec());
        }
    }
    plan.add = (!there).then_some(wanted);
    plan
}

/// What to do about the rules in the kernel.
pub async fn observe_rules(desired: &DesiredState) -> Result<RulePlan, StepError> {
    let chain = run("iptables", &["-w", "-t", "nat", "-S", "POSTROUTING"]).await?;
    Ok(plan_rules(&chain, desired))
}

/// Carries a plan out.
pub async fn execute_rules(plan: &RulePlan) -> Result<(), StepError> {
    let changes = plan.remove.iter().map(|rule| ("-D", rule)).chain(plan.add.iter().map(|rule| ("-A", rule)));
    for (verb, rule) in changes {
        let mut args = vec!["-w", "-t", "nat", verb, "POSTROUTING"];
        args.extend(rule.iter().map(String::as_str));
        run("iptables", &args).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(cidr: &str, via: &str) -> Route {
        Route { cidr: cidr.into(), via: via.into() }
    }

    #[test]
    fn stale_routes_go_and_moved_ones_are_replaced() {
        let current =
            parse_routes("10.244.1.0/24 via 10.0.0.11 dev ens3 \n10.244.9.0/24 via 10.0.0.19 dev ens3\n");
        let wanted = [route("10.244.1.0/24", "10.0.0.21"), route("10.244.2.0/24", "10.0.0.12")];
        let plan = plan_routes(&current, &wanted);
        assert_eq!(plan.replace, wanted);
        assert_eq!(plan.remove, [route("10.244.9.0/24", "10.0.0.19")]);
        assert!(plan_routes(&wanted, &wanted).is_empty());
    }

    #[test]
    fn one_masquerade_rule_is_ours() {
        let desired = DesiredState {
            pod_cidr: "10.244.0.0/16".into(),
            node_pod_cidr: "10.244.1.0/24".into(),
            ..DesiredState::default()
        };
        let right = "-A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -m comment --comment k8s-myhome -j MASQUERADE\n";
        let stale = "-A POSTROUTING -s 10.9.0.0/24 ! -d 10.9.0.0/16 -m comment --comment \"k8s-myhome\" -j MASQUERADE\n";
        let foreign = "-P POSTROUTING ACCEPT\n-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n";
        assert!(plan_rules(&format!("{foreign}{right}"), &desired).is_empty());
        let plan = plan_rules(&format!("{foreign}{stale}"), &desired);
        assert_eq!(plan.add, Some(masquerade_rule(&desired)));
        assert_eq!(plan.remove.len(), 1);
        assert_eq!(plan_rules(&right.repeat(2), &desired).remove.len(), 1);
    }
}
