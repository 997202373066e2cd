//! Routes to other nodes' pods, and the packet filter's rules for this node's: what is there, what is missing, making it
//! so. Which of them are wanted depends on whose the pod network is ([`PodNetwork`]).
//!
//! Ours are told from others' by the routing protocol number and by the rule's comment; only those are removed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use k8sctl_command::CommandError;
use k8sctl_proto::node::v1::{DesiredState, PodRoute};

use super::{run, wait_until};
use crate::converge::step::StepError;

/// Routing protocol number of our routes.
const PROTOCOL: &str = "108";
/// Comment of our rules.
const COMMENT: &str = "k8s-myhome";
/// Longest wait for the node's address.
const ADDRESS: Duration = Duration::from_secs(120);

/// Whose the pod network of this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// The built-in bridge.
    BuiltIn,
    /// Still that, while another one takes over: routes are the other's as soon as it sets them, and ours until then.
    HandedOver,
    /// Another one's.
    External,
}

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
    /// Ours, and no longer wanted.
    pub remove: Vec<Route>,
    /// Missing or wrong: set in the place of whatever leads there.
    pub replace: Vec<Route>,
    /// Missing: set where nothing leads there.
    pub add: Vec<Route>,
}

impl RoutePlan {
    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes() == 0
    }

    /// How many routes are not as they should be.
    pub fn changes(&self) -> usize {
        self.remove.len() + self.replace.len() + self.add.len()
    }

    /// Whether any is set, for which the node needs its address.
    pub fn sets_any(&self) -> bool {
        !self.replace.is_empty() || !self.add.is_empty()
    }
}

/// Compares our routes with those that are wanted.
pub fn plan_routes(current: &[Route], wanted: &[Route]) -> RoutePlan {
    let replace = wanted.iter().filter(|route| !current.contains(route)).cloned().collect();
    let unwanted = |route: &&Route| !wanted.iter().any(|other| other.cidr == route.cidr);
    RoutePlan { remove: current.iter().filter(unwanted).cloned().collect(), replace, add: Vec::new() }
}

/// The same while another network takes over. What leads to other nodes' pods by now (`taken`) is whoever's it is; where
/// nothing does, as behind a reboot, ours does, until the other network takes the place.
fn plan_handover(current: &[Route], taken: &[String], wanted: &[Route]) -> RoutePlan {
    let remove: Vec<Route> = current.iter().filter(|route| !wanted.contains(route)).cloned().collect();
    let leads_there = |route: &Route| {
        taken.contains(&route.cidr) && !remove.iter().any(|removed| removed.cidr == route.cidr)
    };
    let add = wanted.iter().filter(|route| !leads_there(route)).cloned().collect();
    RoutePlan { remove, replace: Vec::new(), add }
}

/// What to do about the routes in the kernel.
pub async fn observe_routes(desired: &DesiredState, network: PodNetwork) -> Result<RoutePlan, StepError> {
    let current = parse_routes(&run("ip", &["-4", "route", "show", "proto", PROTOCOL]).await?);
    let wanted = wanted_routes(desired, network);
    if network != PodNetwork::HandedOver {
        return Ok(plan_routes(&current, &wanted));
    }
    let taken = parse_destinations(&run("ip", &["-4", "route", "show"]).await?);
    Ok(plan_handover(&current, &taken, &wanted))
}

fn wanted_routes(desired: &DesiredState, network: PodNetwork) -> Vec<Route> {
    let route = |route: &PodRoute| Route { cidr: route.cidr.clone(), via: route.via.clone() };
    match network {
        PodNetwork::BuiltIn | PodNetwork::HandedOver => desired.pod_routes.iter().map(route).collect(),
        PodNetwork::External => Vec::new(),
    }
}

/// Lines like `10.244.1.0/24 via 192.168.122.11 dev ens3`.
fn parse_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let mut words = line.split_whitespace();
        let cidr = whole(words.next()?);
        let via = words.skip_while(|word| *word != "via").nth(1)?;
        Some(Route { cidr, via: via.to_owned() })
    };
    text.lines().filter_map(route).collect()
}

/// Where the routes of all lead, those that lead nowhere (`blackhole 10.244.1.0/24`) too.
fn parse_destinations(text: &str) -> Vec<String> {
    let is_address = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let destination = |line: &str| line.split_whitespace().take(2).find(is_address).map(whole);
    text.lines().filter_map(destination).collect()
}

/// Of one address `ip` leaves out how many bits count.
fn whole(cidr: &str) -> String {
    if cidr.contains('/') { cidr.to_owned() } else { format!("{cidr}/32") }
}

/// Waits until the node has its address. At a boot DHCP is still to give it, and until then the kernel takes no route: it
/// reaches no next hop.
pub async fn await_address(node_ip: &str) -> Result<(), StepError> {
    wait_for_address(node_ip, ADDRESS, has_address).await
}

async fn wait_for_address(
    node_ip: &str,
    limit: Duration,
    mut look: impl FnMut(Ipv4Addr) -> io::Result<()>,
) -> Result<(), StepError> {
    let ip: Ipv4Addr =
        node_ip.parse().map_err(|_| StepError::Desired(format!("the node's address {node_ip:?}")))?;
    wait_until("the node has its address", limit, || {
        std::future::ready(look(ip).map_err(|error| format!("{ip}: {error}")))
    })
    .await
}

/// Whether the node lacks its address, without which the kernel has, and takes, no route to other nodes.
pub fn lacks_address(node_ip: &str) -> bool {
    node_ip.parse().is_ok_and(|ip| has_address(ip).is_err())
}

/// Only what is the machine's own can be bound. Looked at often, so that it starts no program.
fn has_address(ip: Ipv4Addr) -> io::Result<()> {
    UdpSocket::bind((ip, 0)).map(drop)
}

/// Carries a plan out.
pub async fn execute_routes(plan: &RoutePlan) -> Result<(), StepError> {
    for route in &plan.remove {
        run("ip", &["-4", "route", "del", &route.cidr, "proto", PROTOCOL]).await?;
    }
    for route in &plan.replace {
        run("ip", &["-4", "route", "replace", &route.cidr, "via", &route.via, "proto", PROTOCOL]).await?;
    }
    for route in &plan.add {
        let added =
            run("ip", &["-4", "route", "add", &route.cidr, "via", &route.via, "proto", PROTOCOL]).await;
        if let Err(error) = added
            && !is_taken(&error)
        {
            return Err(error.into());
        }
    }
    Ok(())
}

/// Somebody else's route has come to lead there meanwhile.
fn is_taken(error: &CommandError) -> bool {
    matches!(error, CommandError::Failed(evidence) if evidence.output_tail.contains("File exists"))
}

/// A chain, and the one rule in it that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRule {
    /// `nat`
    pub table: &'static str,
    /// `POSTROUTING`
    pub chain: &'static str,
    /// Its words, as `iptables -S` shows them. `None` means that there shall be none.
    pub rule: Option<Vec<String>>,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Hides pod addresses from everything outside of the pod network. Another network does that in its own way.
fn masquerade_rule(desired: &DesiredState, network: PodNetwork) -> OwnRule {
    let (from, pods) = (&desired.node_pod_cidr, &desired.pod_cidr);
    let rule = words(&format!("-s {from} ! -d {pods} -m comment --comment {COMMENT} -j MASQUERADE"));
    let is_ours = network != PodNetwork::External;
    OwnRule { table: "nat", chain: "POSTROUTING", rule: Some(rule).filter(|_| is_ours) }
}

/// Keeps pods away from the host agent, those of other nodes too, which come by a Service's port: they would come with
/// this node's address, and take its places there. In this chain such a port has been translated already, and what the
/// node itself sends does not pass it.
fn host_rule(desired: &DesiredState) -> OwnRule {
    let rule = |host: SocketAddrV4| {
        let (ip, port) = (host.ip(), host.port());
        words(&format!("-d {ip}/32 -p tcp -m comment --comment {COMMENT} -m tcp --dport {port} -j DROP"))
    };
    let host: Option<SocketAddrV4> = desired.host_address.parse().ok();
    OwnRule { table: "mangle", chain: "FORWARD", rule: host.map(rule) }
}

/// What to do about our rule in one chain.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RulePlan {
    /// Where.
    pub table: &'static str,
    /// Where in it.
    pub chain: &'static str,
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

/// Compares the chain, as `iptables -t TABLE -S CHAIN` prints it, with our one rule.
pub fn plan_rules(shown: &str, own: &OwnRule) -> RulePlan {
    let wanted = &own.rule;
    let mut plan = RulePlan { table: own.table, chain: own.chain, ..RulePlan::default() };
    let mut there = false;
    for line in shown.lines() {
        let words: Vec<String> =
            line.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
        let ours = words.windows(2).any(|pair| pair[0] == "--comment" && pair[1] == COMMENT);
        let Some(rule) = words.get(2..).filter(|_| ours && words[0] == "-A") else { continue };
        if wanted.as_deref() == Some(rule) && !there {
            there = true;
        } else {
            plan.remove.push(rule.to_vec());
        }
    }
    plan.add = wanted.clone().filter(|_| !there);
    plan
}

/// What to do about the rules in the kernel, for each chain with something to do.
pub async fn observe_rules(desired: &DesiredState, network: PodNetwork) -> Result<Vec<RulePlan>, StepError> {
    let mut plans = Vec::new();
    for own in [masquerade_rule(desired, network), host_rule(desired)] {
        let shown = run("iptables", &["-w", "-t", own.table, "-S", own.chain]).await?;
        plans.push(plan_rules(&shown, &own));
    }
    plans.retain(|plan| !plan.is_empty());
    Ok(plans)
}

/// Carries plans out.
pub async fn execute_rules(plans: &[RulePlan]) -> Result<(), StepError> {
    for plan in plans {
        let changes =
            plan.remove.iter().map(|rule| ("-D", rule)).chain(plan.add.iter().map(|rule| ("-A", rule)));
        for (verb, rule) in changes {
            let mut args = vec!["-w", "-t", plan.table, verb, plan.chain];
            args.extend(rule.iter().map(String::as_str));
            run("iptables", &args).await?;
        }
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
    fn all_other_nodes_pods_are_wanted() {
        let pod_routes = vec![PodRoute { cidr: "10.244.1.0/24".into(), via: "10.0.0.11".into() }];
        let desired = DesiredState { pod_routes, ..DesiredState::default() };
        let ours = vec![route("10.244.1.0/24", "10.0.0.11")];
        assert_eq!(wanted_routes(&desired, PodNetwork::BuiltIn), ours);
        assert_eq!(wanted_routes(&desired, PodNetwork::HandedOver), ours);
        // In the end none of ours is left.
        let none = wanted_routes(&desired, PodNetwork::External);
        assert_eq!(plan_routes(&ours, &none).remove, ours);
    }

    #[test]
    fn while_another_network_takes_over_ours_lead_where_none_of_its_do() {
        let wanted = [route("10.244.1.0/24", "10.0.0.11"), route("10.244.2.0/24", "10.0.0.12")];
        let plan = |shown: &str| {
            let ours: String = shown
                .lines()
                .filter(|line| line.contains(" proto 108 "))
                .fold(String::new(), |all, line| all + line + "\n");
            plan_handover(&parse_routes(&ours), &parse_destinations(shown), &wanted)
        };
        let before = "default via 10.0.0.1 dev ens3 proto dhcp src 10.0.0.10 metric 100 \n\
            10.244.0.0/24 dev cni0 proto kernel scope link src 10.244.0.1 \n\
            10.244.1.0/24 via 10.0.0.11 dev ens3 proto 108 \n10.244.2.0/24 via 10.0.0.12 dev ens3 proto 108 \n";
        assert!(plan(before).is_empty(), "all are ours still");
        let half = "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink \n10.244.2.0/24 via 10.0.0.12 dev ens3 proto 108 \n";
        assert!(plan(half).is_empty(), "what the other one has set is its own");
        // Behind a reboot there are none, until it comes up, which it may never do.
        let booted = plan("default via 10.0.0.1 dev ens3 proto dhcp src 10.0.0.10 metric 100 \n");
        assert_eq!((booted.add.as_slice(), booted.changes(), booted.sets_any()), (&wanted[..], 2, true));
        let one = plan("blackhole 10.244.1.0/24 \n");
        assert_eq!(one.add, wanted[1..]);
        // A node has another address, and one is gone: those of before are taken away first.
        let moved = plan(
            "10.244.1.0/24 via 10.0.0.21 dev ens3 proto 108 \n10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink \n\
             10.244.9.0/24 via 10.0.0.19 dev ens3 proto 108 \n",
        );
        assert_eq!(moved.remove, [route("10.244.1.0/24", "10.0.0.21"), route("10.244.9.0/24", "10.0.0.19")]);
        assert_eq!((moved.add, moved.replace.len()), (wanted[..1].to_vec(), 0));
    }

    #[test]
    fn a_route_that_somebody_has_set_meanwhile_stays() {
        let failed = |output: &str| {
            CommandError::Failed(k8sctl_command::Evidence {
                argv: vec!["ip".to_owned()],
                exit_status: Some(2),
                output_tail: output.to_owned(),
            })
        };
        assert!(is_taken(&failed("RTNETLINK answers: File exists\n")));
        assert!(!is_taken(&failed("RTNETLINK answers: Network is unreachable\n")));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_a_boot_has_not_given_yet_is_waited_for() {
        let mut looks = 0;
        let dhcp = |ip: Ipv4Addr| {
            assert_eq!(ip, Ipv4Addr::new(192, 168, 122, 11));
            looks += 1;
            if looks > 3 { Ok(()) } else { Err(io::Error::from(io::ErrorKind::AddrNotAvailable)) }
        };
        wait_for_address("192.168.122.11", ADDRESS, dhcp).await.expect("it comes");
        assert_eq!(looks, 4);
    }

    #[tokio::test]
    async fn an_address_that_does_not_come_is_named() {
        wait_for_address("127.0.0.1", Duration::ZERO, has_address).await.expect("every machine has it");
        // Kept for documents: no machine has it.
        let late = wait_for_address("192.0.2.1", Duration::ZERO, has_address).await.expect_err("none");
        assert!(late.to_string().contains("has its address not after"), "{late}");
        assert!(matches!(&late, StepError::Waited { last, .. } if last.starts_with("192.0.2.1: ")), "{late}");
        assert_eq!(["127.0.0.1", "192.0.2.1", ""].map(lacks_address), [false, true, false]);
        let none = wait_for_address("", ADDRESS, has_address).await.expect_err("no address");
        assert!(matches!(none, StepError::Desired(_)), "{none}");
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
        let own = masquerade_rule(&desired, PodNetwork::BuiltIn);
        assert_eq!(masquerade_rule(&desired, PodNetwork::HandedOver), own);
        let gone = plan_rules(&format!("{foreign}{right}"), &masquerade_rule(&desired, PodNetwork::External));
        assert_eq!((gone.add, gone.remove.len()), (None, 1), "another network hides them itself");
        assert!(plan_rules(&format!("{foreign}{right}"), &own).is_empty());
        let plan = plan_rules(&format!("{foreign}{stale}"), &own);
        assert_eq!((plan.table, plan.chain, plan.add), ("nat", "POSTROUTING", own.rule.clone()));
        assert_eq!(plan.remove.len(), 1);
        assert_eq!(plan_rules(&right.repeat(2), &own).remove.len(), 1);
    }

    #[test]
    fn one_rule_keeps_pods_from_the_host_agent_where_its_address_is_known() {
        let desired = |host: &str| DesiredState {
            pod_cidr: "10.244.0.0/16".into(),
            node_pod_cidr: "10.244.1.0/24".into(),
            host_address: host.into(),
            ..DesiredState::default()
        };
        // As both kinds of iptables print it.
        let right = "-A FORWARD -d 192.168.122.1/32 -p tcp -m comment --comment k8s-myhome -m tcp --dport 7443 -j DROP\n";
        let foreign =
            "-P FORWARD ACCEPT\n-A FORWARD -d 192.168.122.1/32 -p tcp -m tcp --dport 7443 -j DROP\n";
        let own = host_rule(&desired("192.168.122.1:7443"));
        assert!(plan_rules(&format!("{foreign}{right}"), &own).is_empty());
        let plan = plan_rules(foreign, &own);
        assert_eq!((plan.table, plan.chain, plan.add), ("mangle", "FORWARD", own.rule.clone()));
        assert_eq!(plan.remove, [] as [Vec<String>; 0]);
        let moved = plan_rules(right, &host_rule(&desired("192.168.122.1:7444")));
        assert!(moved.add.is_some() && moved.remove.len() == 1, "{moved:?}");
        // A host agent of before says nothing.
        let unknown = host_rule(&desired(""));
        assert!(plan_rules(foreign, &unknown).is_empty());
        assert_eq!(plan_rules(right, &unknown).remove.len(), 1);
    }
}
