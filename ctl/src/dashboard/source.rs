//! Listens to the host agent and tells the model, for ever: through restarts of the host agent, deaths of nodes and an
//! end of the cluster itself. What is refused is told as well, and asked again.

use std::mem;
use std::time::Duration;

use jiff::Timestamp;
use k8sctl_proto::control::v1::{GetVersionRequest, StreamLogsRequest, WatchOperationRequest};
use k8sctl_proto::node::v1::LogSelector;
use k8sctl_rpc::status::failure_from;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Status;

use super::model::{Feed, Model, News};
use crate::agent::Agent;
use crate::ended::{Ended, LOST_INTERVAL, is_lost};
use crate::resume::Resume;
use crate::verb;
use crate::view::{LogView, OperationView};

/// Between two tries of what was refused.
const REFUSED_INTERVAL: Duration = Duration::from_secs(3);
/// How often the host agent is asked whether it answers.
const ANSWER_INTERVAL: Duration = Duration::from_secs(3);
/// How long it has for that.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Lines of each node to begin with.
const TAIL: u64 = 50;

/// Runs until it is dropped.
pub async fn run(agent: &Agent, cluster: &str, models: &watch::Sender<Model>) {
    tokio::join!(
        status(agent, cluster, models),
        operation(agent, models),
        logs(agent, cluster, models),
        answer(agent, models),
    );
}

fn tell(models: &watch::Sender<Model>, news: News) {
    models.send_modify(|model| model.apply(news, Timestamp::now()));
}

async fn status(agent: &Agent, cluster: &str, models: &watch::Sender<Model>) {
    loop {
        let end = status_once(agent, cluster, models).await;
        let (reason, pause) = why(end);
        tell(models, News::Lost(Feed::Status, reason));
        sleep(pause).await;
    }
}

async fn status_once(agent: &Agent, cluster: &str, models: &watch::Sender<Model>) -> Result<(), Status> {
    let mut stream = verb::status::open(agent, cluster).await?;
    while let Some(message) = stream.message().await? {
        if let Some(status) = message.status {
            tell(models, News::Status(status.into()));
        }
    }
    Ok(())
}

async fn operation(agent: &Agent, models: &watch::Sender<Model>) {
    let mut seen = models.subscribe();
    loop {
        let id = match seen.wait_for(|model| model.operation_to_watch().is_some()).await {
            Ok(model) => model.operation_to_watch().unwrap_or_default(),
            Err(_) => return,
        };
        match operation_once(agent, &id, models).await {
            Err(status) if !is_lost(&status) => {
                tell(models, News::NoOperation(id));
                sleep(REFUSED_INTERVAL).await;
            }
            Ok(()) | Err(_) => sleep(LOST_INTERVAL).await,
        }
    }
}

async fn operation_once(agent: &Agent, id: &str, models: &watch::Sender<Model>) -> Result<(), Status> {
    let request = WatchOperationRequest { operation_id: id.to_owned() };
    let mut stream = agent.clusters().watch_operation(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        if let Some(operation) = message.operation {
            tell(models, News::Operation(OperationView::from(operation)));
        }
    }
    Ok(())
}

async fn logs(agent: &Agent, cluster: &str, models: &watch::Sender<Model>) {
    let mut place = Resume::new();
    loop {
        let end = logs_once(agent, cluster, models, &mut place).await;
        if end.as_ref().is_err_and(ends_positions) {
            place = Resume::new();
        }
        let (reason, pause) = why(end);
        tell(models, News::Lost(Feed::Logs, reason));
        sleep(pause).await;
    }
}

/// Of a cluster that is gone they mean nothing in the next one of its name, and another host agent may know no such ones.
fn ends_positions(status: &Status) -> bool {
    let failure = failure_from(status);
    failure.is_some_and(|failure| ["CLUSTER-UNKNOWN", "NODE-LOGS-REQUEST"].contains(&failure.id.as_str()))
}

async fn logs_once(
    agent: &Agent,
    cluster: &str,
    models: &watch::Sender<Model>,
    place: &mut Resume,
) -> Result<(), Status> {
    let selector = LogSelector { follow: true, tail: Some(TAIL), ..LogSelector::default() };
    let mut request = StreamLogsRequest {
        cluster_name: cluster.to_owned(),
        selector: Some(selector),
        ..StreamLogsRequest::default()
    };
    place.resume(&mut request);
    let mut stream = agent.clusters().stream_logs(request).await?.into_inner();
    tell(models, News::Live(Feed::Logs));
    while let Some(mut response) = stream.message().await? {
        for notice in mem::take(&mut response.notices) {
            tell(models, News::Notice { node: notice.node_name, message: notice.message });
        }
        if !response.lines.is_empty() {
            let lines = mem::take(&mut response.lines);
            tell(models, News::Lines(lines.into_iter().map(LogView::from).collect()));
        }
        place.told(response);
    }
    Ok(())
}

/// Streams of a host agent that hangs stay open and say nothing, so it is asked.
async fn answer(agent: &Agent, models: &watch::Sender<Model>) {
    loop {
        let asked = timeout(ANSWER_TIMEOUT, agent.host().get_version(GetVersionRequest {})).await;
        tell(
            models,
            match asked {
                // A refusal is an answer.
                Ok(Ok(_)) => News::Live(Feed::Answer),
                Ok(Err(status)) if !is_lost(&status) => News::Live(Feed::Answer),
                Ok(Err(_)) | Err(_) => News::Lost(Feed::Answer, "the host agent does not answer".to_owned()),
            },
        );
        sleep(ANSWER_INTERVAL).await;
    }
}

/// Why a stream ended, and how soon to ask again.
fn why(end: Result<(), Status>) -> (String, Duration) {
    match end {
        // The cluster is gone, or the host agent ends: asking again tells.
        Ok(()) => ("the host agent told of an end".to_owned(), LOST_INTERVAL),
        Err(status) if is_lost(&status) => ("the host agent does not answer".to_owned(), LOST_INTERVAL),
        Err(status) => (Ended::from(status).to_string(), REFUSED_INTERVAL),
    }
}
