//! `k8sctl logs NODE`: lines from inside a VM. Strangers write them: on a terminal their control characters are made
//! visible; into a pipe they go as they are.

use k8sctl_proto::control::v1::StreamLogsRequest;
use k8sctl_proto::node::v1 as node;

use crate::agent;
use crate::cli::{LogSource, LogsArgs};
use crate::ended::Ended;
use crate::exit::Exit;
use crate::output;
use crate::terminal::{Context, styles, visible};
use crate::view::LogView;

pub(super) async fn run(context: &Context, args: &LogsArgs) -> Result<Exit, Ended> {
    let agent = agent::connect(context).await?;
    let cluster_name = agent.cluster_name(context, args.cluster.as_deref()).await?;
    let sources = args.source.iter().map(|source| wire(*source).into()).collect();
    let selector = node::LogSelector { sources, follow: args.follow, tail: args.tail, ..Default::default() };
    let request = StreamLogsRequest {
        cluster_name,
        node_names: vec![args.node.clone()],
        selector: Some(selector),
        ..Default::default()
    };
    let mut stream = agent.clusters().stream_logs(request).await?.into_inner();
    while let Some(response) = stream.message().await? {
        for line in response.lines.into_iter().filter_map(|line| line.line) {
            print(context, &LogView::of(&args.node, line))?;
        }
    }
    Ok(Exit::Ok)
}

fn wire(source: LogSource) -> node::LogSource {
    match source {
        LogSource::Kubelet => node::LogSource::Kubelet,
        LogSource::Containerd => node::LogSource::Containerd,
        LogSource::Agent => node::LogSource::Agent,
        LogSource::Kernel => node::LogSource::Kernel,
    }
}

fn print(context: &Context, line: &LogView) -> std::io::Result<()> {
    let out = &context.out;
    if context.format.is_structured() {
        return output::item(context, line);
    }
    let text = if out.tty { visible(&line.text) } else { line.text.clone() };
    let time = out.paint(styles::DIM, line.time.as_deref().map_or_else(|| "-".to_owned(), millis));
    let source = out.paint(styles::NAME, format!("{:<10}", visible(&line.source)));
    out.line(format!("{time} {source} {text}"))
}

/// Always three digits of the second, so that lines align.
fn millis(time: &str) -> String {
    time.parse::<jiff::Timestamp>().map_or_else(|_| visible(time), |time| format!("{time:.3}"))
}
