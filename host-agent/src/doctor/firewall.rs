//! Whether node agents reach the node port: ufw, firewalld, or an input chain of nftables that drops what nobody
//! allowed. Asked is what rules there are, not whether a packet comes through: the network may not exist yet.

use std::time::Duration;

use k8sctl_command::Program;
use k8sctl_proto::control::v1::Check;
use serde_json::Value;

use super::{Host, ok, warning};

const ID: &str = "HOST-FIREWALL";
const DEADLINE: Duration = Duration::from_secs(10);

/// What stands between VMs and the node port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// ufw is on, with these rules of the user.
    Ufw {
        /// `/etc/ufw/user.rules`.
        rules: String,
    },
    /// firewalld runs.
    Firewalld {
        /// Zone of the bridge.
        zone: String,
        /// The zone has the node port open.
        open: bool,
    },
    /// Neither; nftables' rules as JSON, empty where they cannot be read.
    Nftables {
        /// `nft -j list ruleset`.
        ruleset: String,
    },
}

/// The check.
pub async fn examine(host: &Host, bridge: &str, port: u16) -> Check {
    decide(&observe(host, bridge, port).await, bridge, port)
}

async fn observe(host: &Host, bridge: &str, port: u16) -> Firewall {
    let ufw = host.read("/etc/ufw/ufw.conf").unwrap_or_default();
    if ufw.lines().any(|line| line.trim().eq_ignore_ascii_case("ENABLED=yes")) {
        return Firewall::Ufw { rules: host.read("/etc/ufw/user.rules").unwrap_or_default() };
    }
    if let Some(program) = host.program("firewall-cmd") {
        let ask = |args: Vec<String>| Program::new(&program, DEADLINE).args(args).run();
        if ask(vec!["--state".to_owned()]).await.is_ok() {
            // Before libvirt has made the bridge, this is the zone that it will be in.
            let zone = ask(vec![format!("--get-zone-of-interface={bridge}")]).await;
            let zone = zone.map_or_else(|_| "libvirt".to_owned(), |zone| zone.trim().to_owned());
            let query = vec![format!("--zone={zone}"), format!("--query-port={port}/tcp")];
            return Firewall::Firewalld { open: ask(query).await.is_ok(), zone };
        }
    }
    let ruleset = match host.program("nft") {
        Some(program) => {
            Program::new(program, DEADLINE).args(["-j", "list", "ruleset"]).run().await.unwrap_or_default()
        }
        None => String::new(),
    };
    Firewall::Nftables { ruleset }
}

/// Whether VMs on `bridge` reach `port`.
pub fn decide(firewall: &Firewall, bridge: &str, port: u16) -> Check {
    let closed = |what: &str, hint: String| {
        warning(ID, format!("{what} keeps VMs on {bridge} from port {port}, as far as its rules show"), hint)
    };
    match firewall {
        Firewall::Ufw { rules } if ufw_allows(rules, bridge, port) => {
            ok(ID, format!("ufw allows port {port}"))
        }
        Firewall::Ufw { .. } => {
            closed("ufw", format!("ufw allow in on {bridge} to any port {port} proto tcp"))
        }
        Firewall::Firewalld { zone, open: true } => {
            ok(ID, format!("firewalld's zone {zone} has port {port} open"))
        }
        Firewall::Firewalld { zone, open: false } => closed(
            &format!("firewalld's zone {zone}"),
            format!("firewall-cmd --permanent --zone={zone} --add-port={port}/tcp && firewall-cmd --reload"),
        ),
        Firewall::Nftables { ruleset } => match nft_chain_that_drops(ruleset, bridge, port) {
            None => ok(ID, "no firewall that drops what VMs send to the host"),
            Some(chain) => closed(
                &format!("the nftables chain {chain}"),
                format!("nft insert rule {chain} iifname {bridge} tcp dport {port} accept"),
            ),
        },
    }
}

/// ufw keeps each rule as a line: `### tuple ### allow tcp 7443 0.0.0.0/0 any 0.0.0.0/0 in_virbr0`.
fn ufw_allows(rules: &str, bridge: &str, port: u16) -> bool {
    rules.lines().filter_map(|line| line.strip_prefix("### tuple ###")).any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [action, protocol, to_port, ..] = words[..] else { return false };
        let interface = words.iter().find_map(|word| word.strip_prefix("in_"));
        action == "allow"
            && ["tcp", "any"].contains(&protocol)
            && (to_port == "any" || to_port == port.to_string())
            // A rule without an interface or a port at all would be for one peer only.
            && (interface == Some(bridge) || (interface.is_none() && to_port != "any"))
    })
}

/// The first input chain whose policy is drop and in which no rule accepts the port or the bridge: `inet filter input`.
fn nft_chain_that_drops(ruleset: &str, bridge: &str, port: u16) -> Option<String> {
    let ruleset: Value = serde_json::from_str(ruleset).ok()?;
    let items = ruleset["nftables"].as_array()?;
    let name = |item: &Value, chain: &str| -> Option<String> {
        let part = |key: &str| item[key].as_str();
        Some(format!("{} {} {}", part("family")?, part("table")?, part(chain)?))
    };
    let dropping = items
        .iter()
        .map(|item| &item["chain"])
        .filter(|chain| chain["hook"] == "input" && chain["policy"] == "drop" && chain["family"] != "ip6");
    let accepts = |chain: &str| {
        let rules = items
            .iter()
            .map(|item| &item["rule"])
            .filter(|rule| name(rule, "chain").as_deref() == Some(chain));
        rules.filter_map(|rule| rule["expr"].as_array()).any(|expressions| accepts(expressions, bridge, port))
    };
    dropping.filter_map(|chain| name(chain, "name")).find(|chain| !accepts(chain))
}

/// Whether a rule accepts what comes for the port, or all that comes over the bridge.
fn accepts(expressions: &[Value], bridge: &str, port: u16) -> bool {
    let verdict = expressions.iter().any(|expression| expression.get("accept").is_some());
    let concerns_us = expressions.iter().map(|expression| &expression["match"]).any(|matched| {
        let left = &matched["left"];
        let on_bridge =
            left["meta"]["key"] == "iifname" && holds(&matched["right"], &|value| value == bridge);
        let on_port = left["payload"]["field"] == "dport" && holds(&matched["right"], &|value| value == port);
        matched["op"] != "!=" && (on_bridge || on_port)
    });
    verdict && concerns_us
}

/// Whether a value, or one of a set or range, is meant.
fn holds(right: &Value, is_it: &dyn Fn(&Value) -> bool) -> bool {
    match right {
        Value::Object(object) => object.values().any(|inner| holds(inner, is_it)),
        Value::Array(all) => all.iter().any(|inner| holds(inner, is_it)),
        value => is_it(value),
    }
}
