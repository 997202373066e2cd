//! What a node's certificate opens at the real node port, and what it does not: another node's session, logs and
//! renewal, the control services, another cluster. And what is open without one.
//!
//! One host with two clusters; their nodes join by the node agent's own code and then sit still while their
//! certificates are misused.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use host_pki::ca::node_identity;
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::{ApplyRequest, SpecFile, StreamLogsRequest, WatchStatusRequest};
use k8sctl_proto::node::v1::join_service_client::JoinServiceClient;
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{
    AgentMessage, Hello, HostMessage, JoinRequest, LogFrame, LogLine, RenewCertificateRequest, agent_message,
    host_message,
};
use k8sctl_proto::roles::CONTROL_METHODS;
use k8sctl_rpc::status::failure_from;
use k8sctl_rpc::{tls, unix::connect_unix};
use node_agent::bootstrap::Dialer as _;
use node_agent::bootstrap::identity::{Identity, Store};
use node_agent::config::{Config, Simulation, Steps};
use node_agent::dial::RealDialer;
use node_agent::machine::Machine;
use rcgen::string::Ia5String;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::host::{DEADLINE, Host, Setup, wait_for};
use super::root::is_root;

pub(super) const SIM: &str = include_str!("../../../lab/simulated.toml");
const OTHER: &str = include_str!("../../../lab/simulated-second.toml");
const RENEW: &str = "/k8sctl.node.v1.NodeService/RenewCertificate";

/// A host whose nodes have joined, and their certificates.
struct Joined {
    _host: Host,
    control: ClusterServiceClient<Channel>,
    /// A node of the cluster `sim`, whose certificate is misused.
    a: Node,
    /// Another node of the same cluster.
    b: Node,
    /// A node of the cluster `other`.
    stranger: Node,
}

#[derive(Clone)]
struct Node {
    name: &'static str,
    machine_uuid: String,
    identity: Identity,
}

#[test]
fn a_node_certificate_is_good_for_its_own_node_alone() -> Result<()> {
    // The socket of a host agent that is not root's has no admin.
    if !is_root("node_port::a_node_certificate_is_good_for_its_own_node_alone")? {
        return Ok(());
    }
    k8sctl_rpc::provider::install();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut joined = Joined::new().await?;
        joined.nobody_controls().await.context("control services on the node port")?;
        joined.no_certificate().await.context("no certificate")?;
        joined.another_clusters_certificate().await.context("a certificate of another cluster")?;
        joined.a_forged_certificate().await.context("a forged certificate")?;
        joined.joining_as_another_node().await.context("joining as another node")?;
        joined.a_session_as_another_node().await.context("a session as another node")?;
        joined.logs_of_another_node().await.context("logs of another node")?;
        joined.renewal_for_another_node().await.context("renewal for another node")
    })
}

impl Joined {
    async fn new() -> Result<Self> {
        let host = Host::start(&Setup::default())?;
        host.install_image()?;
        let mut control = ClusterServiceClient::new(connect_unix(&host.socket()).await?);
        for text in [SIM, OTHER] {
            let spec = Some(SpecFile {
                name: "cluster.toml".to_owned(),
                text: text.to_owned(),
                ..SpecFile::default()
            });
            let request = ApplyRequest { spec, allow_destructive: true, ..ApplyRequest::default() };
            let applied = control.apply(request).await?.into_inner();
            ensure!(!applied.operation_id.is_empty(), "no operation: {applied:?}");
        }
        let uuids = machine_uuids(&host)?;
        let stop = CancellationToken::new();
        let names = ["sim-control", "sim-worker-1", "other-control"];
        let mut agents = Vec::new();
        for name in names {
            let config = agent_config(&host, name, uuids.get(name).context(name)?);
            agents.push(tokio::spawn(node_agent::run(config, stop.clone())));
        }
        let mut nodes = Vec::new();
        for name in names {
            let store = Store::new(state_dir(&host, name));
            let identity = wait_for("the node has joined", || async { Ok(store.load()?) }).await?;
            nodes.push(Node { name, machine_uuid: uuids[name].clone(), identity });
        }
        stop.cancel();
        for agent in agents {
            agent.await?;
        }
        let [a, b, stranger] = <[Node; 3]>::try_from(nodes).map_err(|_| anyhow::anyhow!("three nodes"))?;
        let joined = Self { _host: host, control, a, b, stranger };
        for name in [joined.a.name, joined.b.name] {
            joined.wait_connected(name, false).await?;
        }
        Ok(joined)
    }

    /// Whether the host agent takes a node of `sim` for connected.
    async fn is_connected(&self, name: &str) -> Result<bool> {
        let request = WatchStatusRequest { cluster_name: "sim".to_owned(), watch: false };
        let mut answers = self.control.clone().watch_status(request).await?.into_inner();
        let status = answers.message().await?.and_then(|answer| answer.status).context("a status")?;
        Ok(status.nodes.iter().find(|node| node.name == name).context("the node")?.connected)
    }

    async fn wait_connected(&self, name: &str, wanted: bool) -> Result<()> {
        let what = format!("{name} is {}connected", if wanted { "" } else { "not " });
        wait_for(&what, || async { Ok((self.is_connected(name).await? == wanted).then_some(())) }).await
    }

    async fn nobody_controls(&self) -> Result<()> {
        let callers = [
            ("a node", self.a.dial().await?, Code::Unimplemented),
            // It is not even told what there is.
            ("a stranger", self.dial(None).await?, Code::Unauthenticated),
        ];
        for (who, channel, expected) in callers {
            for (path, _) in CONTROL_METHODS {
                let refused = call_empty(channel.clone(), path).await;
                let code = refused.err().map(|status| status.code());
                ensure!(code == Some(expected), "{who} called {path}: {code:?}");
            }
        }
        Ok(())
    }

    async fn no_certificate(&self) -> Result<()> {
        let mut client = NodeServiceClient::new(self.dial(None).await?);
        let session = open_session(&mut client, &self.a.machine_uuid).await.map(|_| ());
        refused(session, Code::Unauthenticated, "AUTH-NO-CERTIFICATE")?;
        let renewal = client.renew_certificate(RenewCertificateRequest { csr_der: csr(&self.a)?.0 }).await;
        refused(renewal, Code::Unauthenticated, "AUTH-NO-CERTIFICATE")?;
        refused(push_logs(&mut client, "any", "x").await, Code::Unauthenticated, "AUTH-NO-CERTIFICATE")?;
        // It is refused before it has sent anything: no unfinished message is waited for, or kept.
        let mut grpc = Grpc::new(self.dial(None).await?);
        grpc.ready().await?;
        let (unfinished, codec) = (tokio_stream::pending::<()>(), ProstCodec::<(), ()>::default());
        let call = grpc.client_streaming(Request::new(unfinished), PathAndQuery::from_static(RENEW), codec);
        let answer = tokio::time::timeout(Duration::from_secs(5), call).await;
        let answer = answer.context("the host agent waits for the message")?;
        refused(answer, Code::Unauthenticated, "AUTH-NO-CERTIFICATE")
    }

    async fn another_clusters_certificate(&self) -> Result<()> {
        // At its own port it is good, so that it is the port that refuses it.
        renew(self.stranger.dial().await?, csr(&self.stranger)?.0).await.context("at its own cluster")?;
        let (certificate, key) = (&self.stranger.identity.certificate_der, &self.stranger.identity.key_der);
        self.is_shut_to(certificate.clone(), key.clone()).await
    }

    async fn a_forged_certificate(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        let identity = &self.a.identity;
        let uri = format!("k8sctl://{}/node/{}", identity.cluster_id, identity.node_id);
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(Ia5String::try_from(uri)?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.self_signed(&key)?;
        let claimed = node_identity(certificate.der()).map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(claimed.node_id == identity.node_id, "it claims to be the node");
        self.is_shut_to(certificate.der().to_vec(), key.serialize_der()).await?;
        // The node's own certificate without its key opens nothing either.
        self.is_shut_to(identity.certificate_der.clone(), key.serialize_der()).await
    }

    /// The node port of `sim` does not even speak HTTP with the holder of this certificate.
    async fn is_shut_to(&self, cert_der: Vec<u8>, key_der: Vec<u8>) -> Result<()> {
        let Ok(channel) = self.dial(Some(tls::Identity { cert_der, key_der })).await else { return Ok(()) };
        // In TLS 1.3 the client is told only after its own part of the handshake.
        match renew(channel, csr(&self.a)?.0).await {
            Err(status) if failure_from(&status).is_none() && status.code() != Code::Unimplemented => Ok(()),
            other => bail!("a service answered: {other:?}"),
        }
    }

    async fn joining_as_another_node(&self) -> Result<()> {
        let mut client = JoinServiceClient::new(self.a.dial().await?);
        let (csr_der, _) = csr(&self.b)?;
        for machine in [&self.a.machine_uuid, &self.b.machine_uuid] {
            let request = JoinRequest {
                node_id: self.b.identity.node_id.clone(),
                machine_uuid: machine.clone(),
                csr_der: csr_der.clone(),
                mac: vec![7; 32],
                protocol: node_agent::bootstrap::PROTOCOL,
                ..JoinRequest::default()
            };
            refused(client.join(request).await, Code::PermissionDenied, "JOIN-PROOF")?;
        }
        Ok(())
    }

    async fn a_session_as_another_node(&self) -> Result<()> {
        // The end of a session is seen a moment after it.
        self.wait_connected(self.b.name, false).await?;
        let mut client = NodeServiceClient::new(self.a.dial().await?);
        let (_session, mut inbox) = open_session(&mut client, &self.b.machine_uuid).await?;
        let desired = next(&mut inbox, |message| match message {
            host_message::Message::Desired(desired) => Some(desired),
            _ => None,
        });
        let desired = desired.await?;
        ensure!(desired.node_name == self.a.name, "{} was told to be {}", self.a.name, desired.node_name);
        self.wait_connected(self.a.name, true).await?;
        ensure!(!self.is_connected(self.b.name).await?, "{} is taken for connected", self.b.name);
        Ok(())
    }

    async fn logs_of_another_node(&mut self) -> Result<()> {
        let mut of_b = NodeServiceClient::new(self.b.dial().await?);
        let (_session, mut inbox) = open_session(&mut of_b, &self.b.machine_uuid).await?;
        self.wait_connected(self.b.name, true).await?;
        let request = StreamLogsRequest {
            cluster_name: "sim".to_owned(),
            node_names: vec![self.b.name.to_owned()],
            ..StreamLogsRequest::default()
        };
        let mut control = self.control.clone();
        let of_no_cluster = StreamLogsRequest { cluster_name: "typo".to_owned(), ..request.clone() };
        refused(control.stream_logs(of_no_cluster).await, Code::FailedPrecondition, "CLUSTER-UNKNOWN")?;
        let reader = tokio::spawn(async move {
            let mut responses = control.stream_logs(request).await?.into_inner();
            let mut lines = Vec::new();
            while let Some(response) = responses.message().await? {
                lines.extend(response.lines.into_iter().filter_map(|line| line.line));
            }
            Ok::<_, Status>(lines)
        });
        let asked = next(&mut inbox, |message| match message {
            host_message::Message::StartLogStream(start) => Some(start.stream_id),
            _ => None,
        });
        let stream_id = asked.await?;
        let mut of_a = NodeServiceClient::new(self.a.dial().await?);
        let forged = push_logs(&mut of_a, &stream_id, "forged").await;
        refused(forged, Code::NotFound, "NODE-SESSION-REFUSED")?;
        push_logs(&mut of_b, &stream_id, "honest").await?;
        let read = tokio::time::timeout(DEADLINE, reader).await???;
        ensure!(read.len() == 1 && read[0].text == "honest", "read {read:?}");
        Ok(())
    }

    async fn renewal_for_another_node(&self) -> Result<()> {
        let (csr_der, key_der) = csr(&self.b)?;
        let certificate_der = renew(self.a.dial().await?, csr_der).await?;
        let named = node_identity(&certificate_der).map_err(|error| anyhow::anyhow!("{error}"))?;
        ensure!(
            named.node_id == self.a.identity.node_id,
            "a certificate of {} for {}",
            named.node_id,
            self.b.name
        );
        ensure!(named.cluster_id == self.a.identity.cluster_id, "of cluster {}", named.cluster_id);
        // Once it is used, the one before it is of no use to whoever copied it.
        let old = self.a.clone();
        let identity = Identity { certificate_der, key_der, ..old.identity.clone() };
        let renewed = Node { identity, ..old.clone() };
        let mut client = NodeServiceClient::new(renewed.dial().await?);
        let (_session, _inbox) = open_session(&mut client, &renewed.machine_uuid).await?;
        let with_old = renew(old.dial().await?, csr(&old)?.0).await;
        refused(with_old, Code::PermissionDenied, "AUTH-REVOKED")?;
        renew(self.b.dial().await?, csr(&self.b)?.0).await.context("the other node's own certificate")?;
        Ok(())
    }

    /// Dials the node port of `sim`.
    async fn dial(&self, identity: Option<tls::Identity>) -> Result<Channel> {
        let Identity { host_address, server_name, ca_der, .. } = &self.a.identity;
        Ok(tls::connect(host_address, server_name, ca_der, identity).await?.0)
    }
}

impl Node {
    /// Dials the node's own port with the node's certificate.
    async fn dial(&self) -> Result<Channel> {
        Ok(RealDialer.dial(&self.identity).await?.channel)
    }
}

/// The UUIDs are known to the host agent and to the VMs alone, and these have none.
pub(super) fn machine_uuids(host: &Host) -> Result<HashMap<String, String>> {
    let store = rusqlite::Connection::open(host.file("state/k8s-myhome.db"))?;
    let mut query = store.prepare("SELECT name, machine_uuid FROM node")?;
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn state_dir(host: &Host, name: &str) -> PathBuf {
    host.file(&format!("node-{name}"))
}

pub(super) fn agent_config(host: &Host, name: &str, machine_uuid: &str) -> Config {
    Config {
        port: host.file(&format!("channels/{name}.sock")),
        state_dir: state_dir(host, name),
        root: state_dir(host, name).join("root"),
        steps: Steps::Simulated(Simulation::default()),
        step_clock: false,
        machine: Machine {
            boot_id: format!("boot-of-{name}"),
            machine_uuid: machine_uuid.to_owned(),
            boot_to_agent: Duration::ZERO,
        },
    }
}

/// A request that names this node in every way that a request can, and its key.
fn csr(named: &Node) -> Result<(Vec<u8>, Vec<u8>)> {
    let key = KeyPair::generate()?;
    let identity = &named.identity;
    let uri = format!("k8sctl://{}/node/{}", identity.cluster_id, identity.node_id);
    let mut params = CertificateParams::new(vec![format!("{}.node.k8sctl.internal", identity.node_id)])?;
    params.subject_alt_names.push(SanType::URI(Ia5String::try_from(uri)?));
    params.distinguished_name.push(DnType::CommonName, identity.node_id.clone());
    Ok((params.serialize_request(&key)?.der().to_vec(), key.serialize_der()))
}

/// The certificate that a renewal gives.
async fn renew(channel: Channel, csr_der: Vec<u8>) -> Result<Vec<u8>, Status> {
    let answer =
        NodeServiceClient::new(channel).renew_certificate(RenewCertificateRequest { csr_der }).await?;
    Ok(answer.into_inner().certificate_der)
}

/// A session, open as long as its sender is kept.
async fn open_session(
    client: &mut NodeServiceClient<Channel>,
    machine_uuid: &str,
) -> Result<(mpsc::Sender<AgentMessage>, Streaming<HostMessage>), Status> {
    let (sender, receiver) = mpsc::channel(1);
    let hello = Hello {
        protocol: node_agent::bootstrap::PROTOCOL,
        protocol_minor: k8sctl_types::protocol::NODE.minor,
        machine_uuid: machine_uuid.to_owned(),
        ..Hello::default()
    };
    // The receiver is held here.
    let _ = sender.send(AgentMessage { message: Some(agent_message::Message::Hello(hello)) }).await;
    let inbox = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    Ok((sender, inbox))
}

/// The next message that `pick` takes.
async fn next<T>(
    inbox: &mut Streaming<HostMessage>,
    pick: impl Fn(host_message::Message) -> Option<T>,
) -> Result<T> {
    let find = async {
        loop {
            let message = inbox.message().await?.context("the session ended")?;
            if let Some(found) = message.message.and_then(&pick) {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(DEADLINE, find).await?
}

async fn push_logs(
    client: &mut NodeServiceClient<Channel>,
    stream_id: &str,
    text: &str,
) -> Result<(), Status> {
    let line = LogLine { text: text.to_owned(), source: "agent".to_owned(), ..LogLine::default() };
    let frames = [
        LogFrame { stream_id: stream_id.to_owned(), ..LogFrame::default() },
        LogFrame { lines: vec![line], ..LogFrame::default() },
    ];
    client.push_logs(tokio_stream::iter(frames)).await.map(|_| ())
}

async fn call_empty(channel: Channel, path: &'static str) -> Result<(), Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<(), ()>::default();
    grpc.server_streaming(Request::new(()), path, codec).await.map(|_| ())
}

/// The call was refused in exactly this way.
fn refused<T>(result: Result<T, Status>, code: Code, id: &str) -> Result<()> {
    let Err(status) = result else { bail!("it was served, and should be refused as {id}") };
    let found = failure_from(&status).map(|failure| failure.id).unwrap_or_default();
    ensure!(
        status.code() == code && found == id,
        "expected {code:?} {id}, got {:?} {found}: {status}",
        status.code()
    );
    Ok(())
}
