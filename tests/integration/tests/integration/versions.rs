//! Agents of other protocol versions at the real node port: one of the minor version before works, as it was recorded; one
//! that is too old is refused with the command that upgrades it; and an agent that can be replaced gets this host's.

use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::{
    ApplyRequest, SpecFile, UpgradeAgentsRequest, UpgradeAgentsResponse, UpgradeState, WatchStatusRequest,
};
use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{
    AgentMessage, AgentProgram, AgentReplacement, FetchAgentRequest, Hello, HostMessage, ReplacementState,
    StatusReport, agent_message, host_message,
};
use k8sctl_rpc::status::failure_from;
use k8sctl_rpc::unix::connect_unix;
use node_agent::bootstrap::Dialer as _;
use node_agent::bootstrap::identity::{Identity, Store};
use node_agent::dial::RealDialer;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::host::{DEADLINE, Host, Setup, wait_for};
use super::node_port::{SIM, agent_config, machine_uuids};
use super::root::is_root;

const NODE: &str = "sim-worker-1";
/// What an agent of protocol 1.1 wrote.
const HELLO: &str = include_str!("../../../../proto/tests/frozen/node-1.1/hello.hex");
const STATUS: &str = include_str!("../../../../proto/tests/frozen/node-1.1/status.hex");

/// The bytes of a recorded message, and that message.
fn recorded(text: &str) -> Result<AgentMessage> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let pairs =
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair)?, 16).context("hex"));
    let bytes = pairs.collect::<Result<Vec<u8>>>()?;
    let message = AgentMessage::decode(bytes.as_slice())?;
    ensure!(message.encode_to_vec() == bytes, "it is read whole, and sent on as it was recorded");
    Ok(message)
}

/// A host agent and a node that has joined, whose agent is the test's from then on.
struct Joined {
    /// With the node agent of the host.
    _dir: tempfile::TempDir,
    _host: Host,
    control: ClusterServiceClient<Channel>,
    identity: Identity,
}

impl Joined {
    async fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("k8s-node-agent");
        fs::write(&path, program())?;
        let host = Host::start(&Setup { config: &format!("node_agent = {path:?}\n"), ..Setup::default() })?;
        host.install_image()?;
        let mut control = ClusterServiceClient::new(connect_unix(&host.socket()).await?);
        let spec =
            Some(SpecFile { name: "cluster.toml".to_owned(), text: SIM.to_owned(), ..SpecFile::default() });
        let applied =
            control.apply(ApplyRequest { spec, allow_destructive: true, ..ApplyRequest::default() });
        ensure!(!applied.await?.into_inner().operation_id.is_empty(), "no operation");
        let (uuids, stop) = (machine_uuids(&host)?, CancellationToken::new());
        let mut agents = Vec::new();
        for (name, uuid) in &uuids {
            let config = agent_config(&host, name, uuid);
            agents.push(tokio::spawn(node_agent::run(config, stop.clone())));
        }
        let store = Store::new(host.file(&format!("node-{NODE}")));
        let identity = wait_for("the node has joined", || async { Ok(store.load()?) }).await?;
        let joined = Self { _dir: dir, _host: host, control, identity };
        wait_for("the operation has ended", || async {
            Ok(joined.status().await?.operation_id.is_empty().then_some(()))
        })
        .await?;
        stop.cancel();
        for agent in agents {
            agent.await?;
        }
        Ok(joined)
    }

    async fn status(&self) -> Result<k8sctl_proto::control::v1::ClusterStatus> {
        let request = WatchStatusRequest { cluster_name: "sim".to_owned(), watch: false };
        let mut answers = self.control.clone().watch_status(request).await?.into_inner();
        answers.message().await?.and_then(|answer| answer.status).context("a status")
    }

    async fn dial(&self) -> Result<NodeServiceClient<Channel>> {
        Ok(NodeServiceClient::new(RealDialer.dial(&self.identity).await?.channel))
    }

    /// A session, open as long as its sender is kept.
    async fn session(
        &self,
        hello: AgentMessage,
    ) -> Result<(mpsc::Sender<AgentMessage>, Streaming<HostMessage>), Status> {
        let (sender, receiver) = mpsc::channel(4);
        // The receiver is held here.
        let _ = sender.send(hello).await;
        let mut client = self.dial().await.map_err(|error| Status::unknown(format!("{error:#}")))?;
        Ok((sender, client.session(ReceiverStream::new(receiver)).await?.into_inner()))
    }
}

fn program() -> Vec<u8> {
    (0..200_000_u32).map(|at| (at % 251) as u8).collect()
}

fn hello(minor: u32, sha256: &str) -> AgentMessage {
    let hello =
        Hello { protocol: 1, protocol_minor: minor, program_sha256: sha256.to_owned(), ..Hello::default() };
    AgentMessage { message: Some(agent_message::Message::Hello(hello)) }
}

fn replacement(program: &AgentProgram, state: ReplacementState) -> AgentMessage {
    let replacement = AgentReplacement {
        attempt: program.attempt.clone(),
        sha256: program.sha256.clone(),
        state: state.into(),
        message: String::new(),
    };
    let report = StatusReport { replacement: Some(replacement), ..StatusReport::default() };
    AgentMessage { message: Some(agent_message::Message::Status(report)) }
}

/// The program that the host wants, from its desired state.
async fn wanted(inbox: &mut Streaming<HostMessage>) -> Result<AgentProgram> {
    let find = async {
        loop {
            let message = inbox.message().await?.context("the session ended")?.message;
            if let Some(host_message::Message::Desired(desired)) = message
                && let Some(program) = desired.agent
            {
                return Ok(program);
            }
        }
    };
    tokio::time::timeout(DEADLINE, find).await?
}

#[test]
fn agents_of_other_versions_and_of_this_one() -> Result<()> {
    // The socket of a host agent that is not root's has no operator.
    if !is_root("versions::agents_of_other_versions_and_of_this_one")? {
        return Ok(());
    }
    k8sctl_rpc::provider::install();
    tokio::runtime::Runtime::new()?.block_on(async {
        let joined = Joined::new().await?;
        a_recorded_agent_of_the_version_before(&joined).await.context("an agent of 1.1")?;
        agents_that_are_not_understood(&joined).await.context("agents of other versions")?;
        an_agent_is_replaced(&joined).await.context("replacing an agent")
    })
}

async fn a_recorded_agent_of_the_version_before(joined: &Joined) -> Result<()> {
    let (sender, mut inbox) = joined.session(recorded(HELLO)?).await?;
    let desired = wait_desired(&mut inbox).await?;
    ensure!(desired == NODE, "it is told to be {desired}");
    sender.send(recorded(STATUS)?).await?;
    wait_for("its report is shown", || async {
        let status = joined.status().await?;
        let node = status.nodes.iter().find(|node| node.name == NODE).context("the node")?;
        let is_shown = node.connected && node.agent_version == "0.1.0" && node.steps.len() == 2;
        Ok((is_shown && node.repairs.len() == 1).then_some(()))
    })
    .await
}

async fn wait_desired(inbox: &mut Streaming<HostMessage>) -> Result<String> {
    loop {
        let message = tokio::time::timeout(DEADLINE, inbox.message()).await??.context("the session ended")?;
        if let Some(host_message::Message::Desired(desired)) = message.message {
            return Ok(desired.node_name);
        }
    }
}

/// Too new, too old, and of another major version; the refusal is a condition of the node.
async fn agents_that_are_not_understood(joined: &Joined) -> Result<()> {
    let mut other = hello(0, "");
    if let Some(agent_message::Message::Hello(hello)) = &mut other.message {
        hello.protocol = 0;
    }
    let agents =
        [("too new", hello(4, "ab")), ("too old", hello(0, "")), ("of another major version", other)];
    for (what, hello) in agents {
        let Err(status) = joined.session(hello).await else { bail!("an agent that is {what} got a session") };
        let failure = failure_from(&status).context("a failure")?;
        ensure!(
            status.code() == Code::FailedPrecondition && failure.id == "NODE-SESSION-REFUSED",
            "{what}: {failure:?}"
        );
        ensure!(failure.next_step.contains("k8sctl image build"), "{what}: {failure:?}");
    }
    wait_for("the refusal is shown", || async {
        let status = joined.status().await?;
        let node = status.nodes.iter().find(|node| node.name == NODE).context("the node")?;
        let condition = node.conditions.iter().find(|it| it.r#type == "AgentReady").context("a condition")?;
        Ok((condition.reason == "Refused" && condition.message.contains("protocol 0.0")).then_some(()))
    })
    .await
}

/// The last word on the node.
async fn upgrade(joined: &Joined) -> Result<UpgradeAgentsResponse> {
    let request = UpgradeAgentsRequest {
        cluster_name: "sim".to_owned(),
        node_names: vec![NODE.to_owned()],
        session_deadline: None,
    };
    let mut stream = joined.control.clone().upgrade_agents(request).await?.into_inner();
    let mut last = None;
    while let Some(response) = tokio::time::timeout(DEADLINE, stream.message()).await?? {
        last = Some(response);
    }
    last.context("it was told of")
}

/// The test is the node: it fetches the program, and comes back as that.
async fn an_agent_is_replaced(joined: &Joined) -> Result<()> {
    let (sender, mut inbox) = joined.session(hello(1, "0ld")).await?;
    let the_program = program();
    let node = async {
        let program = wanted(&mut inbox).await?;
        ensure!(program.size_bytes == 200_000, "{program:?}");
        let mut client = joined.dial().await?;
        let other = client.fetch_agent(FetchAgentRequest { sha256: "ab".repeat(32) }).await;
        ensure!(other.is_err_and(|status| status.code() == Code::NotFound), "a program that nobody wants");
        let request = FetchAgentRequest { sha256: program.sha256.clone() };
        let (mut stream, mut content) = (client.fetch_agent(request).await?.into_inner(), Vec::new());
        while let Some(response) = stream.message().await? {
            content.extend(response.chunk);
        }
        ensure!(content == the_program, "{} bytes came", content.len());
        sender.send(replacement(&program, ReplacementState::OnTrial)).await?;
        // Its guard has started the new one.
        let (new, inbox) = joined.session(hello(2, &program.sha256)).await?;
        new.send(replacement(&program, ReplacementState::Replaced)).await?;
        Ok::<_, anyhow::Error>((new, inbox))
    };
    let (told, node) = tokio::join!(upgrade(joined), node);
    let (_new, _inbox) = node?;
    let told = told?;
    ensure!(told.state() == UpgradeState::Done && told.failure.is_none(), "{told:?}");
    let again = upgrade(joined).await?;
    ensure!(again.state() == UpgradeState::Done && again.message.contains("already"), "{again:?}");
    Ok(())
}
