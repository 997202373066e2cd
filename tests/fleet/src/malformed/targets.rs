//! Every socket that a host agent listens on, as everybody who can reach it: what is sent there.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use node_agent::bootstrap::identity::Identity;

use super::attack::{Exchange, Target};
use super::conversation::Heard;
use super::line::{Door, Tls, User};
use super::random::Random;
use super::{calls, floods, held, hello, messages, plain};
use crate::host::Host;

/// Members of this group may look. A system group that every Linux has, and that nobody here is in.
pub const READER_GROUP: &str = "daemon";
/// A user who may look, and whom nobody knows.
const READER: u32 = 61_998;
/// One who may not.
const STRANGER: User = User { uid: 61_999, gid: 61_999 };

/// Parts of a message, of which an honest one has a few hundred: two bytes each.
const PARTS: [usize; 3] = [20_000, 200_000, 500_000];

/// Paths that floods of each target name.
const SESSION: &str = "/k8sctl.node.v1.NodeService/Session";
const LOGS: &str = "/k8sctl.node.v1.NodeService/PushLogs";
const RENEW: &str = "/k8sctl.node.v1.NodeService/RenewCertificate";
const JOIN: &str = "/k8sctl.node.v1.JoinService/Join";
const VERSION: &str = "/k8sctl.control.v1.HostService/GetVersion";
const PLAN: &str = "/k8sctl.control.v1.ClusterService/Plan";
const STATUS: &str = "/k8sctl.control.v1.ClusterService/WatchStatus";

/// All of them. `node` has joined, and its agent has ended: its certificate is what is misused.
pub fn all(host: &Host, node: &Identity, name: &str, machine_uuid: &str) -> Result<Vec<Target>> {
    let port: SocketAddr = node.host_address.parse()?;
    let (stranger, forged) = (Tls::stranger(node)?, Tls::forged(node)?);
    let shown = Door::Tls(port, Tls::node(node)?);
    let unshown = Door::Tls(port, stranger.clone());
    let group = nix::unistd::Group::from_name(READER_GROUP)?.context("the system's group")?;
    let reader = User { uid: READER, gid: group.gid.as_raw() };
    let metrics = host.file("run/metrics.sock");
    let socket = |user| Door::Unix(host.socket(), user);
    let as_node = messages::of_node_port(&node.node_id, machine_uuid);
    let target = |name, exchanges| Target { name, exchanges };
    let as_stranger = [
        http2(&unshown, JOIN),
        vec![
            on("forged certificate", &Door::Tls(port, forged), hello::unwanted),
            // Only joining gets past the gate; the others must not get there.
            of_method(&unshown, &as_node[0]).answered(),
        ],
        as_node[1..].iter().map(|method| of_method(&unshown, method)).collect(),
    ];
    let as_member = [
        http2(&shown, SESSION),
        vec![
            naming("unfinished", &shown, LOGS, held::unfinished),
            naming("unfinished", &shown, RENEW, held::unfinished),
            naming("oversized", &shown, RENEW, held::oversized),
        ],
        many_parts(&shown, "/k8sctl.node"),
        as_node.iter().map(|method| of_method(&shown, method).answered()).collect(),
    ];
    let as_reader = [
        http2(&socket(Some(reader)), PLAN),
        vec![
            naming("unread", &socket(Some(reader)), VERSION, held::unread),
            naming("unread", &socket(Some(reader)), STATUS, held::unread),
        ],
        many_parts(&socket(Some(reader)), "/k8sctl.control"),
    ];
    let as_root = messages::of_control();
    Ok(vec![
        target("node port, before TLS", before_tls(&Door::Tcp(port), &stranger)),
        target("node port, without certificate", as_stranger.into_iter().flatten().collect()),
        target("node port, a node's certificate", as_member.into_iter().flatten().collect()),
        target("control socket, a stranger", http2(&socket(Some(STRANGER)), PLAN)),
        target("control socket, a reader", as_reader.into_iter().flatten().collect()),
        target("control socket, root", as_root.iter().map(|method| of_root(&socket(None), method)).collect()),
        target("metrics, the socket", text(&Door::Unix(metrics.clone(), Some(reader)))),
        target("metrics, the socket, a stranger", text(&Door::Unix(metrics, Some(STRANGER)))),
        target("metrics, the port", text(&Door::Tcp(host.metrics_port()?))),
        target("join channel", channel(&Door::Unix(host.channel(name), None), machine_uuid)),
    ])
}

type Plain = fn(&Door, &mut Random) -> io::Result<Heard>;
type Naming = fn(&Door, &str, &mut Random) -> io::Result<Heard>;
type Greeting = fn(&Door, &Tls, &mut Random) -> io::Result<Heard>;

fn on(name: &str, door: &Door, send: Plain) -> Exchange {
    let door = door.clone();
    Exchange::new(name, move |random| send(&door, random))
}

fn naming(name: &str, door: &Door, path: &'static str, send: Naming) -> Exchange {
    let door = door.clone();
    let method = path.rsplit('/').next().unwrap_or_default();
    Exchange::new(format!("{name} {method}"), move |random| send(&door, path, random))
}

fn of_method(door: &Door, method: &messages::Method) -> Exchange {
    let (door, method) = (door.clone(), method.clone());
    let name = method.path.rsplit('/').next().unwrap_or_default();
    Exchange::new(format!("changed {name}"), move |random| calls::changed(&door, &method, random))
}

/// Whatever is asked as root is answered, but for what looks at the whole host and may take longer than is waited for.
fn of_root(door: &Door, method: &messages::Method) -> Exchange {
    let exchange = of_method(door, method);
    if method.path.ends_with("/Doctor") { exchange } else { exchange.answered() }
}

/// All that is wrong with HTTP/2 itself.
fn http2(door: &Door, path: &'static str) -> Vec<Exchange> {
    let all: [(&str, Naming); 14] = [
        ("headers", floods::headers),
        ("rapid reset", floods::rapid_reset),
        ("made you reset", floods::made_you_reset),
        ("continuations", floods::continuations),
        ("large headers", floods::large_headers),
        ("small frames", floods::small_frames),
        ("windows", floods::windows),
        ("small data", floods::small_data),
        ("changed frames", floods::changed),
        ("unfinished", held::unfinished),
        ("oversized", held::oversized),
        ("unread", held::unread),
        ("slow", held::slow),
        // Twice as often as the others: it finds what nobody thought of.
        ("changed frames again", floods::changed),
    ];
    all.into_iter().map(|(name, send)| naming(name, door, path, send)).collect()
}

fn many_parts(door: &Door, package: &str) -> Vec<Exchange> {
    let all = PARTS.into_iter().flat_map(messages::of_many_parts);
    let ours = all.filter(|(path, _)| path.starts_with(package));
    ours.map(|(path, bytes)| {
        let door = door.clone();
        let method = path.rsplit('/').next().unwrap_or_default();
        let name = format!("{} bytes of parts, {method}", bytes.len());
        Exchange::new(name, move |_| calls::whole(&door, path, &bytes))
    })
    .collect()
}

fn before_tls(door: &Door, tls: &Tls) -> Vec<Exchange> {
    let with = |name: &str, send: Greeting| {
        let (door, tls) = (door.clone(), tls.clone());
        Exchange::new(name, move |random| send(&door, &tls, random))
    };
    vec![
        on("garbage", door, hello::garbage),
        on("records", door, hello::records),
        with("cut hello", hello::cut),
        with("changed hello", hello::changed),
        with("slow hello", hello::slow),
        on("HTTP/1", door, plain::request),
    ]
}

fn text(door: &Door) -> Vec<Exchange> {
    vec![
        on("request", door, plain::request),
        on("large header", door, plain::large),
        on("slow", door, plain::slow),
        on("unread", door, plain::unread),
        on("garbage", door, hello::garbage),
    ]
}

fn channel(door: &Door, machine_uuid: &str) -> Vec<Exchange> {
    let (of_lines, uuid) = (door.clone(), machine_uuid.to_owned());
    vec![
        Exchange::new("requests for secrets", move |random| plain::secrets(&of_lines, &uuid, random)),
        on("garbage", door, hello::garbage),
    ]
}
