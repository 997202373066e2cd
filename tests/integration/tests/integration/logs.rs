//! Logs of real node agents, with simulated machines, through a real host agent: numbered lines, of which none is lost
//! or doubled when agents die and readers begin again.

use std::collections::BTreeMap;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, ensure};
use k8sctl_proto::control::v1::cluster_service_client::ClusterServiceClient;
use k8sctl_proto::control::v1::{ApplyRequest, LogPosition, SpecFile, StreamLogsRequest, StreamLogsResponse};
use k8sctl_proto::node::v1::LogSelector;
use k8sctl_rpc::status::failure_from;
use k8sctl_rpc::unix::connect_unix;
use node_agent::config::{SimulatedLog, Simulation, Steps};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use super::host::{DEADLINE, Host, Setup};
use super::node_port::{SIM, agent_config, machine_uuids};
use super::root::is_root;

const NODES: [&str; 3] = ["sim-control", "sim-worker-1", "sim-worker-2"];
/// Lines that each node begins with; further ones come every two milliseconds.
const BEFORE: u64 = 2_000;

#[test]
fn every_line_comes_once_through_restarts_of_agents_and_readers() -> Result<()> {
    // The socket of a host agent that is not root's has no admin.
    if !is_root("logs::every_line_comes_once_through_restarts_of_agents_and_readers")? {
        return Ok(());
    }
    k8sctl_rpc::provider::install();
    tokio::runtime::Runtime::new()?.block_on(async {
        let host = Host::start(&Setup::default())?;
        host.install_image()?;
        let mut control = ClusterServiceClient::new(connect_unix(&host.socket()).await?);
        let spec =
            Some(SpecFile { name: "cluster.toml".to_owned(), text: SIM.to_owned(), ..SpecFile::default() });
        let request = ApplyRequest { spec, allow_destructive: true, ..ApplyRequest::default() };
        control.apply(request).await?;
        let (first, second) = (Agent::start(&host, NODES[0])?, Agent::start(&host, NODES[1])?);

        let mut reader = Reader::default();
        let mut stream = reader.open(&control).await?;
        reader.read(&mut stream, [BEFORE + 100, BEFORE + 100, 0]).await?;
        second.stop().await?;
        let seen = reader.count(NODES[0]);
        reader.read(&mut stream, [seen + 500, 0, 0]).await?;
        let (second, third) = (Agent::start(&host, NODES[1])?, Agent::start(&host, NODES[2])?);
        let seen = reader.count(NODES[1]);
        reader.read(&mut stream, [0, seen + 1_000, BEFORE + 100]).await?;
        drop(stream);

        // Another reader, who goes on where that one was.
        let seen = NODES.map(|name| reader.count(name) + 500);
        let mut stream = reader.open(&control).await?;
        reader.read(&mut stream, seen).await?;
        let is_told = |text: &str| {
            reader.notices.iter().any(|notice| notice.starts_with(NODES[1]) && notice.contains(text))
        };
        let is_interrupted = is_told("went away") || is_told("broke off");
        ensure!(is_interrupted && is_told("it is read again"), "{:?}", reader.notices);

        for agent in [first, second, third] {
            agent.stop().await?;
        }
        refusals(control).await
    })
}

async fn refusals(mut control: ClusterServiceClient<Channel>) -> Result<()> {
    let mut refused = async |request: StreamLogsRequest| {
        let status = match control.stream_logs(request).await {
            Err(status) => status,
            Ok(stream) => end(stream.into_inner()).await?,
        };
        failure_from(&status).context("a failure")
    };
    let unknown = StreamLogsRequest { node_names: vec!["nosuch".to_owned()], ..StreamLogsRequest::default() };
    let failure = refused(unknown).await?;
    ensure!(failure.id == "NODE-UNKNOWN" && failure.next_step.contains(&NODES.join(", ")), "{failure:?}");
    let selector = Some(LogSelector { grep: "a(".to_owned(), ..LogSelector::default() });
    let failure = refused(StreamLogsRequest { selector, ..StreamLogsRequest::default() }).await?;
    ensure!(failure.id == "NODE-LOGS-REQUEST" && failure.reason.contains("at character 2"), "{failure:?}");
    // All agents have ended.
    let failure = refused(StreamLogsRequest::default()).await?;
    ensure!(failure.id == "NODE-NOT-CONNECTED" && failure.object.contains(NODES[2]), "{failure:?}");
    Ok(())
}

/// How a stream ends badly.
async fn end(mut stream: Streaming<StreamLogsResponse>) -> Result<Status> {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("it ended well"),
                Err(status) => return Ok(status),
            }
        }
    };
    tokio::time::timeout(DEADLINE, end).await?
}

/// With a runtime of its own, which its connections end with.
struct Agent {
    stop: CancellationToken,
    thread: JoinHandle<std::io::Result<()>>,
}

impl Agent {
    fn start(host: &Host, name: &str) -> Result<Self> {
        let uuids = machine_uuids(host)?;
        let mut config = agent_config(host, name, uuids.get(name).context("the node")?);
        let logs = SimulatedLog { before: BEFORE, pause: std::time::Duration::from_millis(2), bytes: 0 };
        config.steps = Steps::Simulated(Simulation { logs, ..Simulation::default() });
        let stop = CancellationToken::new();
        let run = node_agent::run(config, stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(run);
            runtime.shutdown_background();
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        let ended = tokio::task::spawn_blocking(|| self.thread.join()).await?;
        Ok(ended.map_err(|_| anyhow::anyhow!("the agent panicked"))??)
    }
}

#[derive(Default)]
struct Reader {
    /// Of each node the number of the last line.
    last: BTreeMap<String, u64>,
    positions: BTreeMap<String, String>,
    notices: Vec<String>,
}

impl Reader {
    fn count(&self, node: &str) -> u64 {
        self.last.get(node).copied().unwrap_or_default()
    }

    async fn open(&self, control: &ClusterServiceClient<Channel>) -> Result<Streaming<StreamLogsResponse>> {
        let position = |(node_name, cursor): (&String, &String)| LogPosition {
            node_name: node_name.clone(),
            cursor: cursor.clone(),
        };
        let request = StreamLogsRequest {
            cluster_name: "sim".to_owned(),
            selector: Some(LogSelector { follow: true, ..LogSelector::default() }),
            positions: self.positions.iter().map(position).collect(),
            ..StreamLogsRequest::default()
        };
        Ok(control.clone().stream_logs(request).await?.into_inner())
    }

    /// Reads until each node has so many lines. Every line must be the one behind the last of its node.
    async fn read(&mut self, stream: &mut Streaming<StreamLogsResponse>, counts: [u64; 3]) -> Result<()> {
        let read = async {
            while NODES.iter().zip(counts).any(|(node, count)| self.count(node) < count) {
                let response = stream.message().await?.context("it goes on")?;
                self.notices.extend(
                    response.notices.into_iter().map(|it| format!("{}: {}", it.node_name, it.message)),
                );
                for line in response.lines {
                    let text = line.line.context("a line")?.text;
                    let number: u64 = text.rsplit(' ').next().context("a number")?.parse()?;
                    let last = self.count(&line.node_name);
                    ensure!(number == last + 1, "{}: line {number} behind {last}", line.node_name);
                    self.last.insert(line.node_name, number);
                }
                self.positions.extend(response.positions.into_iter().map(|it| (it.node_name, it.cursor)));
            }
            Ok(())
        };
        tokio::time::timeout(DEADLINE, read).await.with_context(|| format!("{counts:?}"))?
    }
}
