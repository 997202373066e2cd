//! A small world for the tests: one host with a database that can be closed and opened again, two clusters, and node
//! agents that make keys and proofs as the real ones do.

#![allow(dead_code)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use host_pki::PkiError;
use host_pki::ca::NodeCa;
use host_pki::join::{Authorities, JoinAuthority, JoinEvents, Machines, PROTOCOL, SCHEMA, join_events};
use host_store::Store;
use jiff::{SignedDuration, Timestamp};
use k8sctl_proto::node::v1::JoinRequest;
use rcgen::{CertificateParams, KeyPair};
use secrecy::{ExposeSecret as _, SecretSlice};

pub const CLUSTER: &str = "cluster-a";
pub const OTHER_CLUSTER: &str = "cluster-b";
pub const NODE: &str = "0190-node-1";
pub const MACHINE: &str = "6f1f4b3e-0000-4000-8000-000000000001";

/// VMs that run: node id and UUID.
#[derive(Debug, Default)]
pub struct FakeMachines(pub Mutex<HashSet<(String, String)>>);

#[async_trait::async_trait]
impl Machines for FakeMachines {
    async fn is_ours_running(&self, node_id: &str, machine_uuid: &str) -> bool {
        self.0.lock().expect("no panic").contains(&(node_id.to_owned(), machine_uuid.to_owned()))
    }
}

#[derive(Debug)]
pub struct FakeAuthorities(pub Vec<Arc<NodeCa>>);

impl Authorities for FakeAuthorities {
    fn node_ca(&self, cluster_id: &str) -> Result<Option<Arc<NodeCa>>, PkiError> {
        Ok(self.0.iter().find(|ca| ca.cluster_id() == cluster_id).cloned())
    }
}

pub struct World {
    _dir: tempfile::TempDir,
    path: PathBuf,
    pub authorities: Arc<FakeAuthorities>,
    pub machines: Arc<FakeMachines>,
    pub authority: Arc<JoinAuthority>,
    pub events: JoinEvents,
    pub clock: Arc<Mutex<Timestamp>>,
    /// Where the host agent dies next, with a panic of the task that it is at.
    pub crash_at: CrashAt,
    has_node_rate: bool,
}

pub type CrashAt = Arc<Mutex<Option<&'static str>>>;

impl World {
    /// One without a rate for each node.
    pub fn new() -> Self {
        Self::make(false)
    }

    /// One with the rate for each node.
    pub fn with_node_rate() -> Self {
        Self::make(true)
    }

    fn make(has_node_rate: bool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("store.db");
        let now = Timestamp::now();
        let ca = |cluster| Arc::new(NodeCa::create(cluster, now).expect("a CA"));
        let authorities = Arc::new(FakeAuthorities(vec![ca(CLUSTER), ca(OTHER_CLUSTER)]));
        let machines = Arc::new(FakeMachines::default());
        let clock = Arc::new(Mutex::new(now));
        let crash_at = CrashAt::default();
        let (authority, events) = start(&path, &authorities, &machines, &clock, &crash_at, has_node_rate);
        let world = Self {
            _dir: dir,
            path,
            authorities,
            machines,
            authority,
            events,
            clock,
            crash_at,
            has_node_rate,
        };
        world.run_machine(NODE, MACHINE);
        world
    }

    /// Ends the host agent and starts it again on the same database.
    pub fn restart(&mut self) {
        (self.authority, self.events) = start(
            &self.path,
            &self.authorities,
            &self.machines,
            &self.clock,
            &self.crash_at,
            self.has_node_rate,
        );
    }

    /// Runs SQL on the database, to make what a crash leaves.
    pub fn sql(&self, text: &str) {
        rusqlite::Connection::open(&self.path).and_then(|c| c.execute_batch(text)).expect("runs");
    }

    pub fn run_machine(&self, node_id: &str, machine_uuid: &str) {
        self.machines.0.lock().expect("no panic").insert((node_id.to_owned(), machine_uuid.to_owned()));
    }

    pub fn pass(&self, time: SignedDuration) {
        *self.clock.lock().expect("no panic") += time;
    }

    pub fn now(&self) -> Timestamp {
        *self.clock.lock().expect("no panic")
    }

    pub fn ca(&self) -> &NodeCa {
        &self.authorities.0[0]
    }

    /// A secret for the usual node.
    pub async fn offer(&self) -> SecretSlice<u8> {
        self.authority.offer(CLUSTER, NODE, MACHINE).await.expect("a secret")
    }
}

fn start(
    path: &std::path::Path,
    authorities: &Arc<FakeAuthorities>,
    machines: &Arc<FakeMachines>,
    clock: &Arc<Mutex<Timestamp>>,
    crash_at: &CrashAt,
    has_node_rate: bool,
) -> (Arc<JoinAuthority>, JoinEvents) {
    let store = Store::open(path, &[SCHEMA]).expect("opens");
    let (sender, events) = join_events();
    let (clock, crash_at) = (Arc::clone(clock), Arc::clone(crash_at));
    let dies = move |point: &str| {
        let here = crash_at.lock().expect("no panic").take_if(|at| *at == point);
        assert!(here.is_none(), "killed {point}");
    };
    let authority = JoinAuthority::new(store, Arc::clone(authorities) as _, Arc::clone(machines) as _)
        .with_events(sender)
        .with_points(dies)
        .with_clock(move || *clock.lock().expect("no panic"));
    let authority = if has_node_rate { authority } else { authority.with_node_rate(1e9, 1e9) };
    (Arc::new(authority), events)
}

/// Each call is another address, so that the rate limit stays out of the way.
pub fn peer() -> SocketAddr {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    SocketAddr::new((0x7f00_0000_u32 + number % 0x00ff_ffff).to_be_bytes().into(), 9)
}

/// A PKCS#10 request of a fresh key.
pub fn csr() -> Vec<u8> {
    csr_with_key().0
}

pub fn csr_with_key() -> (Vec<u8>, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(Vec::new()).expect("no names");
    (params.serialize_request(&key).expect("a request").der().to_vec(), key)
}

pub fn mac(secret: &[u8], exporter: &[u8], node_id: &str, csr_der: &[u8]) -> Vec<u8> {
    use aws_lc_rs::{digest, hmac};
    let hash = digest::digest(&digest::SHA256, csr_der);
    let message = [b"k8sctl-join-v1", exporter, node_id.as_bytes(), hash.as_ref()].concat();
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), &message).as_ref().to_vec()
}

/// What the honest agent of the usual node sends.
pub fn request(secret: &SecretSlice<u8>, exporter: &[u8; 32], csr_der: &[u8]) -> JoinRequest {
    JoinRequest {
        node_id: NODE.to_owned(),
        machine_uuid: MACHINE.to_owned(),
        boot_id: "boot".to_owned(),
        csr_der: csr_der.to_vec(),
        mac: mac(secret.expose_secret(), exporter, NODE, csr_der),
        protocol: PROTOCOL,
    }
}
