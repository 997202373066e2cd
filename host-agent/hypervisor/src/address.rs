//! Whether somebody answers for an address on a bridge: before a node is made there.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8sctl_command::{CommandError, Program};
use k8sctl_types::failure::Failure;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::desired::DesiredNode;
use crate::observed::HostInterface;

/// How long an answer may take. A VM on the same host answers within milliseconds.
const PATIENCE: Duration = Duration::from_millis(900);
const LOOK_AGAIN: Duration = Duration::from_millis(30);
const COMMAND_DEADLINE: Duration = Duration::from_secs(10);

/// All of `addresses` that somebody answers for on `bridge`, asked at the same time. A bridge
/// without ports has nobody to ask.
pub async fn answering(
    addresses: &[Ipv4Addr],
    bridge: &str,
) -> Result<Vec<(Ipv4Addr, String)>, CommandError> {
    if !has_ports(bridge) {
        return Ok(Vec::new());
    }
    for ip in addresses {
        // What the kernel remembers may be of a machine that is gone: forgotten, then asked anew.
        let forget = ip_neigh(&["del", &ip.to_string(), "dev", bridge]).await;
        if let Err(error @ CommandError::Start { .. }) = forget {
            return Err(error);
        }
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)) {
            // The packet itself goes to the discard port; it is sent for the question before it.
            let _ = socket.send_to(&[], (*ip, 9));
        }
    }
    let asked: BTreeSet<Ipv4Addr> = addresses.iter().copied().collect();
    let deadline = Instant::now() + PATIENCE;
    let mut ticks = interval(LOOK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let table = parse(&ip_neigh(&["show", "dev", bridge]).await?);
        let of_ours: Vec<_> = table.into_iter().filter(|it| asked.contains(&it.ip)).collect();
        let open = of_ours.iter().any(|it| it.state == "INCOMPLETE");
        if !open || Instant::now() >= deadline {
            return Ok(of_ours.into_iter().filter_map(|it| Some((it.ip, it.mac?))).collect());
        }
    }
}

/// Where it is not known whether the node is the control plane, whose address stays as long as the cluster lives.
const ANOTHER_IP: &str = "give the node another ip in the cluster file, which a control plane can \
                          have only after `k8sctl down`";

/// The failure of a taken address.
pub(crate) fn in_use(ip: Ipv4Addr, mac: &str, bridge: &str) -> Failure {
    Failure::new(
        "NODE-IP-IN-USE",
        format!("address {ip}"),
        format!("{mac} already answers for it on bridge {bridge}"),
        format!(
            "{ANOTHER_IP}, or find and stop the machine with that MAC address; then run the command again"
        ),
    )
}

/// The failure of an address that the network's DHCP holds for another machine; `until` unset means: for ever.
pub(crate) fn leased(ip: Ipv4Addr, mac: &str, until: Option<Timestamp>, bridge: &str) -> Failure {
    let (until, wait) = match until {
        Some(until) => (format!("until {until}"), "wait until then, or "),
        None => ("for ever".to_owned(), ""),
    };
    Failure::new(
        "NODE-IP-IN-USE",
        format!("address {ip}"),
        format!("it is leased to {mac} {until} on bridge {bridge}, and dnsmasq did not take it back"),
        format!("{wait}{ANOTHER_IP}; then run the command again"),
    )
}

/// The failure of an address of `node`, of this cluster, that the host itself has.
pub(crate) fn address_of_host(cluster: &str, node: &DesiredNode, interface: &HostInterface) -> Failure {
    let HostInterface { name, address } = interface;
    let down = if node.is_fixed() {
        format!("take the cluster down with `k8sctl down {cluster}` and ")
    } else {
        String::new()
    };
    Failure::new(
        "NODE-IP-IN-USE",
        format!("address {}", address.addr()),
        format!("this host itself has it, on its interface {name}; node {} shall have it", node.spec.name),
        format!(
            "{down}give the node another ip in the cluster file, or take the address off the host with `ip addr del \
             {address} dev {name}`; then run the command again"
        ),
    )
}

async fn ip_neigh(args: &[&str]) -> Result<String, CommandError> {
    Program::new("ip", COMMAND_DEADLINE).args(["-4", "neigh"]).args(args.iter().copied()).run().await
}

fn has_ports(bridge: &str) -> bool {
    let ports = Path::new("/sys/class/net").join(bridge).join("brif");
    std::fs::read_dir(ports).is_ok_and(|mut ports| ports.next().is_some())
}

#[derive(Debug, PartialEq)]
struct Neighbour {
    ip: Ipv4Addr,
    mac: Option<String>,
    state: String,
}

/// Lines such as `192.168.122.11 lladdr 52:54:00:aa:bb:cc REACHABLE`.
fn parse(table: &str) -> Vec<Neighbour> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ip = words.first()?.parse().ok()?;
        let state = (*words.last()?).to_owned();
        let mac = words.iter().position(|word| *word == "lladdr").and_then(|at| words.get(at + 1));
        let mac = mac.filter(|_| state != "FAILED" && state != "INCOMPLETE").map(|mac| (*mac).to_owned());
        Some(Neighbour { ip, mac, state })
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::{answering, parse};

    #[test]
    fn only_answers_count() {
        let table = "192.168.122.11 lladdr 52:54:00:aa:bb:cc REACHABLE\n\
                     192.168.122.12  INCOMPLETE\n\
                     192.168.122.13  FAILED\n\
                     192.168.122.14 lladdr 52:54:00:aa:bb:dd router STALE\n";
        let macs: Vec<_> = parse(table).into_iter().map(|it| it.mac).collect();
        let mac = |text: &str| Some(text.to_owned());
        assert_eq!(macs, [mac("52:54:00:aa:bb:cc"), None, None, mac("52:54:00:aa:bb:dd")]);
    }

    #[tokio::test]
    async fn a_bridge_without_ports_has_nobody_to_ask() {
        let found = answering(&[[127, 0, 0, 1].into()], "no-such-bridge").await.expect("nothing is run");
        assert_eq!(found, []);
    }
}
