//! Hands out join secrets: one task per VM holds the host's end of its virtio-serial port and answers each
//! request with a fresh offer.
//!
//! The port is the only way on which a secret travels. It belongs to one VM, so whoever asks on it is that VM.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use host_pki::join::JoinAuthority;
use secrecy::{ExposeSecret, SecretSlice};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

/// Longest line that a VM may send.
const LINE_LIMIT: usize = 4096;
/// Pause before the port is tried again, when QEMU is not up yet or has restarted.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

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
    loop {
        let stream = match (&port, &listener) {
            (_, Some(listener)) => listener.accept().await.map(|(stream, _)| stream),
            (PortPath::Connect(path) | PortPath::Listen(path), None) => UnixStream::connect(path).await,
        };
        if let Ok(stream) = stream
            && let Err(error) = answer(stream, &template, &authority).await
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
        let request = match serde_json::from_str::<SecretRequest>(&line) {
            Ok(request) if request.version == VERSION => request,
            _ => {
                tracing::warn!(node.id = %template.node_id, "a VM sent no secret request on its join channel");
                continue;
            }
        };
        if !request.machine_uuid.eq_ignore_ascii_case(&template.machine_uuid) {
            tracing::warn!(node.id = %template.node_id, machine.uuid = %request.machine_uuid,
                "a VM names another machine UUID than its domain has");
            continue;
        }
        match authority.offer(&template.cluster_id, &template.node_id, &template.machine_uuid).await {
            Ok(secret) => write.write_all(offer_line(template, request.sequence, &secret).as_bytes()).await?,
            Err(error) => {
                let error = k8sctl_rpc::chain(&error).to_string();
                tracing::warn!(node.id = %template.node_id, error, "no join secret given");
            }
        }
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
