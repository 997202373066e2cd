//! `k8sctl logs`: lines from inside of the VMs, merged by time, and with `-f` through restarts of nodes and of the host
//! agent without loss.

mod lines;

use std::mem;

use k8sctl_proto::control::v1::{ClusterLogLine, StreamLogsRequest, StreamLogsResponse};
use k8sctl_proto::node::v1 as node;
use k8sctl_rpc::memory;
use tokio::time::sleep;

use crate::agent::{self, Agent};
use crate::cli::{LogSource, LogsArgs};
use crate::ended::{Ended, LOST, LOST_INTERVAL, is_lost};
use crate::exit::Exit;
use crate::moment::stamp;
use crate::output;
use crate::resume::Resume;
use crate::terminal::{Context, styles, visible};
use crate::view::LogView;
use lines::Lines;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let request = StreamLogsRequest {
        cluster_name,
        node_names: args.nodes.clone(),
        selector: Some(selector(args)),
        positions: Vec::new(),
    };
    memory::keep();
    let lines = Lines::new(args.nodes.len() != 1, args.timestamps, &context.out);
    let mut reader = Reader {
        context,
        request,
        place: Resume::new(),
        newest: jiff::Timestamp::MIN,
        is_resumed: false,
        lines,
        is_away: false,
    };
    let reading = reader.read(&agent, args.follow);
    if args.follow { context.out.while_read(reading).await } else { reading.await }
}

fn selector(args: &LogsArgs) -> node::LogSelector {
    let pod = |pod: &crate::cli::PodName| node::PodLogs {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        container: args.container.clone().unwrap_or_default(),
    };
    node::LogSelector {
        sources: args.source.iter().map(|source| wire(*source).into()).collect(),
        follow: args.follow,
        tail: args.tail,
        units: args.unit.clone(),
        pods: args.pod.iter().map(pod).collect(),
        since: args.since.map(stamp),
        until: args.until.map(stamp),
        grep: args.grep.clone().unwrap_or_default(),
        after_cursor: String::new(),
    }
}

fn wire(source: LogSource) -> node::LogSource {
    match source {
        LogSource::Kubelet => node::LogSource::Kubelet,
        LogSource::Containerd => node::LogSource::Containerd,
        LogSource::Agent => node::LogSource::Agent,
        LogSource::Kernel => node::LogSource::Kernel,
        LogSource::Etcd => node::LogSource::Etcd,
        LogSource::Apiserver => node::LogSource::Apiserver,
        LogSource::ControllerManager => node::LogSource::ControllerManager,
        LogSource::Scheduler => node::LogSource::Scheduler,
    }
}

enum End {
    Whole,
    Lost(tonic::Status),
}

struct Reader<'a> {
    context: &'a Context,
    request: StreamLogsRequest,
    place: Resume,
    /// Time of the youngest line that was printed, none in the future.
    newest: jiff::Timestamp,
    /// It goes on behind an interruption: the host agent does not know any more what was printed before.
    is_resumed: bool,
    lines: Lines,
    is_away: bool,
}

impl Reader<'_> {
    async fn read(&mut self, agent: &Agent, follow: bool) -> Result<Exit, Ended> {
        loop {
            match self.read_once(agent).await? {
                End::Whole => return Ok(Exit::Ok),
                End::Lost(status) if !follow => return Err(status.into()),
                End::Lost(_) => {
                    if !self.is_away {
                        self.context.err.line(LOST)?;
                    }
                    self.is_away = true;
                    sleep(LOST_INTERVAL).await;
                }
            }
        }
    }

    async fn read_once(&mut self, agent: &Agent) -> Result<End, Ended> {
        let mut request = self.request.clone();
        self.place.resume(&mut request);
        self.is_resumed = self.place.is_resumed();
        let mut stream = match agent.clusters().stream_logs(request).await {
            Ok(response) => response.into_inner(),
            Err(status) if is_lost(&status) => return Ok(End::Lost(status)),
            Err(status) => return Err(status.into()),
        };
        self.is_away = false;
        loop {
            match stream.message().await {
                Ok(Some(response)) => self.print(response).await?,
                Ok(None) => return Ok(End::Whole),
                Err(status) if is_lost(&status) => return Ok(End::Lost(status)),
                Err(status) => return Err(status.into()),
            }
        }
    }

    async fn print(&mut self, mut response: StreamLogsResponse) -> Result<(), Ended> {
        let context = self.context;
        let now = jiff::Timestamp::now();
        for line in &mut response.lines {
            let is_older = is_older(line, &mut self.newest, now);
            line.late |= self.is_resumed && is_older;
        }
        let mut notices = String::new();
        for notice in &response.notices {
            let node = context.err.paint(styles::WARN, visible(&notice.node_name));
            notices.push_str(&format!("{node}: {}\n", visible(&notice.message)));
        }
        if !notices.is_empty() {
            context.err.patiently(notices.into_bytes()).await?;
        }
        let text = if context.format.is_structured() {
            output::items(context, mem::take(&mut response.lines).into_iter().map(LogView::from))?
        } else {
            self.lines.text(&response.lines).into_bytes()
        };
        if !text.is_empty() {
            context.out.patiently(text).await?;
        }
        self.place.told(response);
        Ok(())
    }
}

/// Whether a younger line was printed before it; one dated in the future counts as one of now.
fn is_older(line: &ClusterLogLine, newest: &mut jiff::Timestamp, now: jiff::Timestamp) -> bool {
    let time = line.line.as_ref().and_then(|line| line.time);
    let time = time.and_then(|time| jiff::Timestamp::new(time.seconds, time.nanos).ok());
    let Some(time) = time else { return false };
    let is_older = time < *newest;
    *newest = time.min(now).max(*newest);
    is_older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_behind_a_younger_one_is_older() {
        let second = |seconds: i64| jiff::Timestamp::from_second(seconds).expect("a time");
        let line = |seconds: i64| ClusterLogLine {
            line: Some(node::LogLine { time: Some(stamp(second(seconds))), ..node::LogLine::default() }),
            ..ClusterLogLine::default()
        };
        let mut newest = jiff::Timestamp::MIN;
        let told: Vec<bool> =
            [5, 5, 4, 1000, 7, 10, 9].map(|time| is_older(&line(time), &mut newest, second(8))).into();
        assert_eq!(told, [false, false, true, false, true, false, false]);
    }
}
