//! Leases that keep a new node off its address: dnsmasq holds an address for the machine that had it last, also for
//! one that is gone and answers nobody, and then gives the node another one than is reserved for it, or none. Such a
//! lease is given back in its holder's name. Called where nobody answers for the addresses.
//!
//! What is leased stands in a file of libvirt's, which its helper writes anew whenever dnsmasq's leases change.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::socket::{setsockopt, sockopt::BindToDevice};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::error::Result;
use super::observe;
use crate::address;

/// How long dnsmasq and libvirt's helper may take; mostly they take some 20 ms.
const PATIENCE: Duration = Duration::from_secs(3);
/// Then a lease that is still there is given back once more: libvirt may just have started another dnsmasq.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Where libvirt has a file for each bridge, also where it has one daemon per driver.
const LEASES_DIR: &str = "/var/lib/libvirt/dnsmasq";
const DHCP_SERVER_PORT: u16 = 67;

/// One of the leases in libvirt's file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Lease {
    ip_address: Ipv4Addr,
    mac_address: String,
    /// In seconds since 1970; 0 means: never.
    expiry_time: i64,
    /// In hexadecimal digits, as the MAC address; not every machine has sent one.
    #[serde(default)]
    client_id: Option<String>,
}

impl Lease {
    /// `None` means: for ever.
    fn until(&self) -> Option<Timestamp> {
        if self.expiry_time == 0 { None } else { Timestamp::from_second(self.expiry_time).ok() }
    }

    fn has_expired(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| until <= now)
    }
}

/// Nobody but the given machines has a lease of one of these addresses.
pub(super) async fn execute_give_back(bridge: &str, addresses: &[(Ipv4Addr, String)]) -> Result<()> {
    let file = Path::new(LEASES_DIR).join(format!("{bridge}.status"));
    give_back(&file, bridge, addresses, PATIENCE).await
}

async fn give_back(
    file: &Path,
    bridge: &str,
    addresses: &[(Ipv4Addr, String)],
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    let found = strangers(file, bridge, addresses);
    let mut left = found.clone();
    let mut not_sent = String::new();
    while let Some((lease, _)) = left.first() {
        if Instant::now() >= deadline {
            let failure = address::leased(lease.ip_address, &lease.mac_address, lease.until(), bridge);
            return Err(failure.with_evidence(not_sent).into());
        }
        for (lease, server) in &left {
            if let Err(error) = send_release(bridge, *server, lease) {
                not_sent = format!("the release was not sent: {error}");
            }
        }
        sleep(LOOK_AGAIN).await;
        left = strangers(file, bridge, addresses);
    }
    for (lease, _) in found {
        tracing::info!(
            network.bridge = bridge,
            lease.ip = %lease.ip_address,
            lease.mac = %lease.mac_address,
            "gave back the lease of a node's address"
        );
    }
    Ok(())
}

/// What others have a lease of, each with the bridge's own address there, which is the server's. Without one nobody
/// leases anything there, whatever the file says.
fn strangers(file: &Path, bridge: &str, addresses: &[(Ipv4Addr, String)]) -> Vec<(Lease, Ipv4Addr)> {
    let leases = strangers_in(read(file), addresses, Timestamp::now());
    if leases.is_empty() {
        return Vec::new();
    }
    let mut interfaces = observe::interfaces();
    interfaces.retain(|it| it.name == bridge);
    let with_server = |lease: Lease| {
        let interface = interfaces.iter().find(|it| it.address.contains(&lease.ip_address))?;
        Some((lease, interface.address.addr()))
    };
    leases.into_iter().filter_map(with_server).collect()
}

fn strangers_in(mut leases: Vec<Lease>, addresses: &[(Ipv4Addr, String)], now: Timestamp) -> Vec<Lease> {
    let is_others = |lease: &Lease| {
        let mut wanted = addresses.iter();
        wanted.any(|(ip, mac)| *ip == lease.ip_address && !mac.eq_ignore_ascii_case(&lease.mac_address))
    };
    leases.retain(|lease| !lease.has_expired(now) && is_others(lease));
    leases
}

/// A network without DHCP has no such file.
fn read(file: &Path) -> Vec<Lease> {
    match std::fs::read_to_string(file) {
        Ok(text) => parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            tracing::warn!(file = %file.display(), error = %error, "cannot see what is leased");
            Vec::new()
        }
    }
}

/// Leases of IPv6 addresses, and what is no lease at all, are left out. A file without leases may be empty.
fn parse(text: &str) -> Vec<Lease> {
    let entries: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect()
}

fn send_release(bridge: &str, server: Ipv4Addr, lease: &Lease) -> io::Result<()> {
    let packet = release(lease, server)
        .ok_or_else(|| io::Error::other(format!("{} is no Ethernet address", lease.mac_address)))?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // To an address of this host it goes through `lo`; dnsmasq takes only what comes from its bridge.
    setsockopt(&socket, BindToDevice, &OsString::from(bridge))?;
    socket.send_to(&packet, (server, DHCP_SERVER_PORT))?;
    Ok(())
}

/// A DHCPRELEASE (RFC 2131, 4.4.6), as the lease's holder would send it.
fn release(lease: &Lease, server: Ipv4Addr) -> Option<Vec<u8>> {
    let mac: [u8; 6] = bytes_of(&lease.mac_address)?.try_into().ok()?;
    // A request, from Ethernet with its 6 bytes of address.
    let mut packet: Vec<u8> = vec![1, 1, 6];
    packet.resize(12, 0);
    packet.extend(lease.ip_address.octets());
    packet.resize(28, 0);
    packet.extend(mac);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99]);
    packet.extend([53, 1, 7]);
    packet.extend([54, 4]);
    packet.extend(server.octets());
    // Of a machine that has sent one, dnsmasq finds the lease by it.
    if let Some(id) = lease.client_id.as_deref().and_then(bytes_of) {
        packet.extend([61, u8::try_from(id.len()).ok()?]);
        packet.extend(id);
    }
    packet.push(255);
    // No BOOTP packet is shorter.
    packet.resize(packet.len().max(300), 0);
    Some(packet)
}

/// The bytes of `52:54:00:aa:bb:cc`.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.split(':').map(|digits| u8::from_str_radix(digits, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use k8sctl_command::Program;
    use k8sctl_types::failure::Failure;

    use super::super::daemons::Daemons;
    use super::super::namespace;
    use super::*;

    const HOLDER: &str = "52:54:00:aa:aa:01";
    const OTHER_HOLDER: &str = "52:54:00:aa:aa:02";

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, 77, last)
    }

    fn lease(last: u8, mac: &str, expiry_time: i64) -> Lease {
        Lease { ip_address: ip(last), mac_address: mac.to_owned(), expiry_time, client_id: None }
    }

    #[test]
    fn leases_are_read_as_libvirts_helper_writes_them() {
        let text = r#"[
          {
            "ip-address": "192.168.77.11",
            "mac-address": "52:54:00:aa:aa:01",
            "hostname": "ours-before",
            "client-id": "ff:00:01:02",
            "expiry-time": 1700000000
          },
          {"iaid": "5", "ip-address": "fd00::11", "mac-address": "52:54:00:aa:aa:01", "expiry-time": 1700000000},
          {"mac-address": "52:54:00:aa:aa:01"},
          7,
          {"ip-address": "192.168.77.12", "mac-address": "52:54:00:aa:aa:02", "expiry-time": 0}
        ]"#;
        let first = Lease { client_id: Some("ff:00:01:02".into()), ..lease(11, HOLDER, 1_700_000_000) };
        assert_eq!(parse(text), [first, lease(12, OTHER_HOLDER, 0)]);
    }

    #[test]
    fn an_odd_file_has_no_leases() {
        for text in ["", "\n", "[", "[]", "{}", "1700000000 52:54:00:aa:aa:01 192.168.77.11 * *\n"] {
            assert_eq!(parse(text), [], "{text:?}");
        }
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(&dir.path().join("no-such-bridge.status")), []);
        assert_eq!(read(dir.path()), [], "not even a file");
    }

    #[test]
    fn only_a_strangers_lease_that_lasts_stands_in_the_way() {
        let now = Timestamp::from_second(1_700_000_000).expect("a time");
        let (over, lasts) = (1_700_000_000, 1_700_000_001);
        let addresses = [11, 12, 13, 14].map(|last| (ip(last), format!("52:54:00:bb:bb:{last}")));
        let leases = vec![
            lease(11, HOLDER, over),
            lease(12, "52:54:00:BB:BB:12", lasts),
            lease(13, HOLDER, lasts),
            lease(14, OTHER_HOLDER, 0),
            lease(15, HOLDER, lasts),
        ];
        let found = strangers_in(leases, &addresses, now);
        assert_eq!(found, [lease(13, HOLDER, lasts), lease(14, OTHER_HOLDER, 0)]);
    }

    #[test]
    fn a_release_is_what_the_holder_would_send() {
        let packet = release(&lease(11, "52:54:00:AA:aa:01", 0), ip(1)).expect("it has a MAC");
        let mut expected = vec![0; 300];
        expected[..3].copy_from_slice(&[1, 1, 6]);
        expected[12..16].copy_from_slice(&[192, 168, 77, 11]);
        expected[28..34].copy_from_slice(&[0x52, 0x54, 0, 0xaa, 0xaa, 1]);
        expected[236..240].copy_from_slice(&[0x63, 0x82, 0x53, 0x63]);
        expected[240..250].copy_from_slice(&[53, 1, 7, 54, 4, 192, 168, 77, 1, 255]);
        assert_eq!(packet, expected);

        let client_id = Some("ff:00:01:02".to_owned());
        let packet = release(&Lease { client_id, ..lease(11, HOLDER, 0) }, ip(1)).expect("it has a MAC");
        assert_eq!(packet[249..256], [61, 4, 0xff, 0, 1, 2, 255]);

        assert_eq!(release(&lease(11, "06-52:54:00:aa:aa:01", 0), ip(1)), None, "not of Ethernet");
    }

    #[test]
    fn who_meets_a_lease_that_stays_learns_whose_it_is_and_how_long() {
        let lasts = lease(11, HOLDER, 1_700_000_000);
        let failure = address::leased(lasts.ip_address, HOLDER, lasts.until(), "virbr0");
        assert_eq!(failure.id, "NODE-IP-IN-USE");
        assert!(failure.reason.contains("52:54:00:aa:aa:01 until 2023-11-14T22:13:20Z"), "{failure:?}");
        assert!(failure.next_step.contains("wait until then"), "{failure:?}");
        assert!(
            failure.next_step.contains("a control plane can have only after `k8sctl down`"),
            "{failure:?}"
        );
        let failure = address::leased(ip(11), HOLDER, lease(11, HOLDER, 0).until(), "virbr0");
        assert!(!failure.next_step.contains("wait"), "{failure:?}");
    }

    /// What libvirt's helper does, which dnsmasq runs as `SCRIPT del MAC IP`: the file has one lease a line.
    fn helper(dir: &Path, status: &Path) -> std::path::PathBuf {
        let (status, script) = (status.display(), dir.join("helper"));
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = del ] || exit 0\n\
             grep -v \"\\\"$3\\\"\" {status} >{status}.new\nmv {status}.new {status}\n"
        );
        fs::write(&script, text).expect("writes");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("it is ours");
        script
    }

    #[tokio::test]
    async fn dnsmasq_takes_back_what_strangers_have() {
        if namespace::has_run_inside("real::leases::tests::dnsmasq_takes_back_what_strangers_have").await {
            return;
        }
        let deadline = Duration::from_secs(40);
        for link in [
            &["link", "set", "lo", "up"][..],
            &["link", "add", "br-test", "type", "bridge"],
            &["addr", "add", "192.168.77.1/24", "dev", "br-test"],
            &["link", "set", "br-test", "up"],
        ] {
            let made = Program::new("ip", deadline).args(link.iter().copied()).run().await;
            made.expect("a namespace takes links");
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (status, database) = (dir.path().join("br-test.status"), dir.path().join("leases"));
        let lasts = Timestamp::now().as_second() + 3600;
        let told = format!(
            "[{{\"ip-address\": \"192.168.77.13\", \"mac-address\": \"{HOLDER}\", \"expiry-time\": {lasts}}}\n\
             ,{{\"ip-address\": \"192.168.77.11\", \"mac-address\": \"{HOLDER}\", \"expiry-time\": {lasts}}}\n\
             ,{{\"ip-address\": \"192.168.77.12\", \"mac-address\": \"{OTHER_HOLDER}\", \"expiry-time\": {lasts}, \
             \"client-id\": \"ff:00:01:02\"}}\n]\n"
        );
        fs::write(&status, told).expect("writes");
        let third = "52:54:00:aa:aa:03";
        let leased = format!(
            "{lasts} {third} 192.168.77.13 * *\n{lasts} {HOLDER} 192.168.77.11 * *\n\
             {lasts} {OTHER_HOLDER} 192.168.77.12 * ff:00:01:02\n"
        );
        fs::write(&database, leased).expect("writes");
        let addresses = [11, 12].map(|last| (ip(last), format!("52:54:00:bb:bb:{last}")));

        // Where nobody listens it stays.
        let failed = give_back(&status, "br-test", &addresses, Duration::from_millis(1)).await;
        let failure = Failure::from(failed.expect_err("nobody took it back"));
        assert_eq!(
            (failure.id.as_str(), failure.object.as_str()),
            ("NODE-IP-IN-USE", "address 192.168.77.11")
        );
        assert!(failure.reason.contains(HOLDER), "{failure:?}");

        let dnsmasq = Program::new("dnsmasq", deadline)
            .env("PATH", Daemons::of_this_host().path)
            .args(["--no-daemon", "--conf-file=/dev/null", "--pid-file=", "--port=0", "--no-ping"])
            .args(["--interface=br-test", "--except-interface=lo", "--bind-interfaces"])
            .arg("--dhcp-range=192.168.77.2,192.168.77.254,1h")
            .arg(format!("--dhcp-leasefile={}", database.display()))
            .arg(format!("--dhcp-script={}", helper(dir.path(), &status).display()));
        // It runs until it is dropped.
        tokio::select! {
            ended = dnsmasq.run() => panic!("dnsmasq did not go on: {ended:?}"),
            given = give_back(&status, "br-test", &addresses, Duration::from_secs(20)) => {
                given.expect("dnsmasq takes them back");
            }
        }
        let left = fs::read_to_string(&database).expect("it is there");
        assert_eq!(left, format!("{lasts} {third} 192.168.77.13 * *\n"), "and nothing else");
    }
}
