//! Hands out join secrets: one task per VM holds the host's end of its virtio-serial port and answers each
//! request with a fresh offer.
//!
//! The port is the only way on which a secret travels. It belongs to one VM, so whoever asks on it is that VM.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host_pki::join::JoinAuthority;
use k8sctl_rpc::allowance::Allowance;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;

/// Longest line that a VM may send.
const LINE_LIMIT: usize = 4096;
/// Pause before the port is tried again, when QEMU is not up yet or has restarted.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// How often a VM is heard: whoever is root in it can write without end, and each answer is a write to the host's disk.
const LINE_PAUSE: Duration = Duration::from_millis(100);
/// Warnings about one VM at once.
const BURST: u32 = 20;
/// Warnings about one VM a minute after that.
const PER_MINUTE: u32 = 2;
/// How much of a UUID that a VM names is repeated, in characters.
const UUID_CHARS: usize = 64;

/// Where the host's end of a VM's port is.
#[derive(Clone, Debug)]
pub enum PortPath {
    /// QEMU listens on this socket.
    Connect(PathBuf),
    /// The VM is not real; its agent connects to this socket.
    Listen(PathBuf),
}

/// What every offer of one node says.
#[derive(Clone, Debug)]
pub struct OfferTemplate {
    /// Cluster.
    pub cluster_id: String,
    /// Node.
    pub node_id: String,
    /// DMI UUID that the VM must name.
    pub machine_uuid: String,
    /// Where the agent shall dial.
    pub host_address: String,
    /// The only root that it shall trust.
    pub ca_der: Vec<u8>,
    /// The name that the host agent's certificate carries.
    pub server_name: String,
}

/// What an agent writes when it needs a secret: one line of JSON.
#[derive(Debug, Deserialize)]
struct SecretRequest {
    version: u32,
    machine_uuid: String,
    /// Counts up, so that the agent recognises a late answer.
    sequence: u64,
}

/// The line that answers it. Bytes are hex, the time is RFC 3339.
#[derive(Serialize)]
struct SecretOffer<'a> {
    version: u32,
    sequence: u64,
    cluster_id: &'a str,
    node_id: &'a str,
    secret: &'a str,
    host_address: &'a str,
    ca_der: String,
    server_name: &'a str,
    host_time: String,
}

/// Version of this exchange.
const VERSION: u32 = 1;

/// Answers requests until dropped.
pub async fn serve_port(port: PortPath, template: OfferTemplate, authority: Arc<JoinAuthority>) {
    let listener = match &port {
        PortPath::Connect(_) => None,
        PortPath::Listen(path) => {
            // A socket left by an earlier run of this host agent.
            let _ = std::fs::remove_file(path);
            match UnixListener::bind(path) {
                Ok(listener) => Some(listener),
                Err(error) => {
                    tracing::error!(node.id = %template.node_id, error = %error, "cannot serve the join channel");
                    return;
                }
            }
        }
    };
    // Connecting anew fills it no faster.
    let mut warnings = Allowance::new(BURST, PER_MINUTE, 1);
    loop {
        let stream = match (&port, &listener) {
            (_, Some(listener)) => listener.accept().await.map(|(stream, _)| stream),
            (PortPath::Connect(path) | PortPath::Listen(path), None) => UnixStream::connect(path).await,
        };
        if let Ok(stream) = stream
            && let Err(error) = answer(stream, &template, &authority, &mut warnings).await
        {
            tracing::debug!(node.id = %template.node_id, error = %error, "the join channel closed");
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

async fn answer(
    stream: UnixStream,
    template: &OfferTemplate,
    authority: &JoinAuthority,
    warnings: &mut Allowance<()>,
) -> Result<(), std::io::Error> {
    let (read, mut write) = stream.into_split();
    let mut reader = BufReader::new(tokio::io::AsyncReadExt::take(read, LINE_LIMIT as u64));
    let mut line = String::new();
    loop {
        line.clear();
        reader.get_mut().set_limit(LINE_LIMIT as u64);
        if reader.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        match offer(&line, template, authority).await {
            Ok(offered) => write.write_all(offered.as_bytes()).await?,
            Err(reason) => warn(&template.node_id, &reason, warnings),
        }
        tokio::time::sleep(LINE_PAUSE).await;
    }
}

/// The line that answers a request, or why there is none.
async fn offer(line: &str, template: &OfferTemplate, authority: &JoinAuthority) -> Result<String, String> {
    let request = serde_json::from_str::<SecretRequest>(line).ok();
    let request = request
        .filter(|request| request.version == VERSION)
        .ok_or("what the VM wrote is no request for a secret")?;
    if !request.machine_uuid.eq_ignore_ascii_case(&template.machine_uuid) {
        let named: String = request.machine_uuid.chars().take(UUID_CHARS).collect();
        return Err(format!("the VM names the machine UUID {named}, its domain has another"));
    }
    let offered = authority.offer(&template.cluster_id, &template.node_id, &template.machine_uuid).await;
    let secret = offered.map_err(|error| k8sctl_rpc::chain(&error).to_string())?;
    Ok(offer_line(template, request.sequence, &secret))
}

/// Writes it to the host agent's own log, as far as the VM's allowance goes.
fn warn(node_id: &str, reason: &str, warnings: &mut Allowance<()>) {
    let now = Instant::now().into_std();
    for (_, count) in warnings.over(now) {
        tracing::warn!(node.id = node_id, count, "gave no join secret more often than was logged");
    }
    // Escaped: the VM has a say in it.
    if warnings.take(&(), now) {
        tracing::warn!(node.id = node_id, reason = ?reason, "no join secret given");
    } else {
        tracing::debug!(node.id = node_id, reason = ?reason, "no join secret given");
    }
}

fn offer_line(template: &OfferTemplate, sequence: u64, secret: &SecretSlice<u8>) -> String {
    let offer = SecretOffer {
        version: VERSION,
        sequence,
        cluster_id: &template.cluster_id,
        node_id: &template.node_id,
        secret: &hex::encode(secret.expose_secret()),
        host_address: &template.host_address,
        ca_der: hex::encode(&template.ca_der),
        server_name: &template.server_name,
        host_time: jiff::Timestamp::now().to_string(),
    };
    let mut line = serde_json::to_string(&offer).expect("strings and numbers become JSON");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log_lines;
    use host_pki::PkiError;
    use host_pki::ca::NodeCa;
    use host_pki::join::{Authorities, Machines, SCHEMA};
    use host_store::Store;
    use tracing::Level;

    const UUID: &str = "6f1f4b3e-0000-4000-8000-000000000001";

    /// Nothing is signed here.
    struct Nobody;

    impl Authorities for Nobody {
        fn node_ca(&self, _: &str) -> Result<Option<Arc<NodeCa>>, PkiError> {
            Ok(None)
        }
    }

    #[async_trait::async_trait]
    impl Machines for Nobody {
        async fn is_ours_running(&self, _: &str, _: &str) -> bool {
            false
        }
    }

    fn request(machine_uuid: &str, sequence: u64) -> String {
        let request =
            serde_json::json!({ "version": VERSION, "machine_uuid": machine_uuid, "sequence": sequence });
        format!("{request}\n")
    }

    /// Writes all of this as a VM does, and reads until there is an answer. Gives what was logged, and the answer.
    async fn written(text: String) -> (Vec<String>, serde_json::Value) {
        let (lines, _guard) = log_lines::collect(Level::WARN);
        let store = Store::in_memory(&[SCHEMA]).expect("opens");
        let authority = JoinAuthority::new(store, Arc::new(Nobody), Arc::new(Nobody));
        let template = OfferTemplate {
            cluster_id: "home".to_owned(),
            node_id: "a".to_owned(),
            machine_uuid: UUID.to_owned(),
            host_address: "192.168.122.1:7443".to_owned(),
            ca_der: Vec::new(),
            server_name: "host.home.k8sctl.internal".to_owned(),
        };
        let mut warnings = Allowance::new(BURST, PER_MINUTE, 1);
        let (host, vm) = UnixStream::pair().expect("two ends");
        let vm = async {
            let (read, mut write) = vm.into_split();
            write.write_all(text.as_bytes()).await.expect("the host reads");
            let mut answer = String::new();
            BufReader::new(read).read_line(&mut answer).await.expect("the host answers");
            answer
        };
        let (served, answer) = tokio::join!(answer(host, &template, &authority, &mut warnings), vm);
        served.expect("it ends with the VM's end");
        (lines.all(), serde_json::from_str(&answer).expect("JSON"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_vm_that_floods_its_channel_fills_no_log_and_is_answered_in_its_turn() {
        let started = Instant::now();
        let flood = 10_000;
        let (lines, offer) = written("\n".repeat(flood) + &request(UUID, 7)).await;
        assert_eq!(offer["sequence"], 7);
        let took = started.elapsed();
        assert!(took >= LINE_PAUSE * flood as u32, "{took:?}");
        let minutes = took.as_secs().div_ceil(60);
        let most = u64::from(BURST) + u64::from(PER_MINUTE) * minutes;
        assert!((u64::from(BURST)..=most).contains(&(lines.len() as u64)), "{} in {took:?}", lines.len());
        assert!(lines.iter().any(|line| line.contains("more often than was logged")), "{lines:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_machine_uuid_is_a_short_part_of_one_line() {
        let named = format!("{UUID}\n2026-01-01T00:00:00Z  INFO all is well{}", "x".repeat(3_000));
        let (lines, offer) = written(request(&named, 1) + &request(UUID, 2)).await;
        assert_eq!(offer["sequence"], 2);
        assert!(lines.len() == 1 && lines[0].contains(UUID), "{lines:?}");
        assert!(!lines[0].contains('\n') && lines[0].len() < 300, "{lines:?}");
    }
}
