//! A host agent that answers what it was told to, over a real unix socket. For the tests of `k8sctl` and for looking
//! at it by hand (`examples/fake_host_agent.rs`). It decides nothing.

#![allow(dead_code, clippy::unwrap_used)]
#![expect(clippy::disallowed_methods, reason = "a stream of a test ends with the test's runtime")]

mod cluster;
mod others;
mod plugins;
pub mod scenes;
pub mod story;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8sctl_proto::control::v1::bundle_service_server::BundleServiceServer;
use k8sctl_proto::control::v1::cluster_service_server::ClusterServiceServer;
use k8sctl_proto::control::v1::host_service_server::HostServiceServer;
use k8sctl_proto::control::v1::image_service_server::ImageServiceServer;
use k8sctl_proto::control::v1::plugin_service_server::PluginServiceServer;
use k8sctl_proto::control::v1::{self as control, Operation};
use k8sctl_types::failure::Failure;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

/// What the fake answers.
#[derive(Clone, Default)]
pub struct Answers {
    pub clusters: Vec<String>,
    pub plan: control::Plan,
    pub diagnostics: Vec<control::Diagnostic>,
    pub apply: control::ApplyResponse,
    /// Refuses so many applies with PLAN-CHANGED first.
    pub changed_plans: usize,
    /// What a watched operation looks like, one after the other.
    pub operation: Vec<Operation>,
    /// The first watch ends after so many messages, as when the host agent dies.
    pub broken_after: Option<usize>,
    /// So many watches of a status find nobody.
    pub away: usize,
    /// The stream stays open after the last state, and goes on with what is added.
    pub endless: bool,
    /// Between two states.
    pub pace: Option<Duration>,
    pub status: Vec<control::ClusterStatus>,
    pub events: Vec<control::Event>,
    pub logs: Vec<control::ClusterLogLine>,
    pub log_notices: Vec<control::LogNotice>,
    /// The first stream of logs breaks off after so many lines, as when the host agent dies.
    pub logs_lost_after: Option<usize>,
    /// A client that says nothing for twice as long is taken for dead.
    pub keepalive: Option<Duration>,
    pub upgrades: Vec<control::UpgradeAgentsResponse>,
    pub support: Vec<control::SupportPart>,
    pub kubeconfig: String,
    pub checks: Vec<control::Check>,
    pub bundles: Vec<control::Bundle>,
    pub images: Vec<control::Image>,
    pub plugins: Vec<control::PluginStatus>,
    pub offer: Option<control::PluginOffer>,
    pub plugin_diagnostics: Vec<control::Diagnostic>,
    pub plugin_diffs: Vec<control::ObjectDiff>,
    pub plugin_details: control::ShowPluginResponse,
    pub plugin_logs: control::GetPluginLogsResponse,
    pub vendored: Vec<control::VendoredManifest>,
    pub verified: Vec<control::VerifiedPlugin>,
    /// What stays when a plugin is removed.
    pub plugin_kept: Vec<String>,
    /// Refuses so many changes of a plugin first, since it plans something else than was shown.
    pub changed_offers: usize,
    /// The first change of a plugin breaks off after so many messages, as when the host agent dies.
    pub change_broken_after: Option<usize>,
    /// Every method that changes or reads a cluster fails so.
    pub failure: Option<(Code, Failure)>,
}

/// The fake and what it was asked.
#[derive(Clone, Default)]
pub struct FakeHostAgent {
    pub answers: Arc<Mutex<Answers>>,
    pub calls: Arc<Mutex<Vec<String>>>,
    /// Changes when something is added to the answers.
    added: Arc<watch::Sender<()>>,
}

impl FakeHostAgent {
    pub fn new(answers: Answers) -> Self {
        Self { answers: Arc::new(Mutex::new(answers)), calls: Arc::default(), added: Arc::default() }
    }

    /// Adds states or lines behind the last ones: endless streams tell of them.
    pub fn add(&self, add: impl FnOnce(&mut Answers)) {
        add(&mut self.answers.lock().unwrap());
        self.added.send_replace(());
    }

    /// An endless stream of what `read` finds in the answers, and of what is added behind that.
    fn growing<T: Send + 'static>(
        &self,
        pace: Option<Duration>,
        read: impl Fn(&Answers) -> Vec<T> + Send + 'static,
    ) -> Reply<T> {
        let (sender, receiver) = mpsc::channel(1);
        let (answers, mut added) = (Arc::clone(&self.answers), self.added.subscribe());
        tokio::spawn(async move {
            let mut told = 0;
            loop {
                added.mark_unchanged();
                let all = {
                    let answers = answers.lock().unwrap();
                    read(&answers)
                };
                for message in all.into_iter().skip(told) {
                    if let (Some(pace), true) = (pace, told > 0) {
                        tokio::time::sleep(pace).await;
                    }
                    if sender.send(Ok(message)).await.is_err() {
                        return;
                    }
                    told += 1;
                }
                tokio::select! {
                    () = sender.closed() => return,
                    changed = added.changed() => if changed.is_err() { return },
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Serves on this socket until the task is dropped.
    pub async fn serve(self, socket: &Path) {
        let incoming = k8sctl_rpc::unix::listen(socket, |_| false, |_| true).unwrap();
        let keepalive = self.answers.lock().unwrap().keepalive;
        tonic::transport::Server::builder()
            .http2_keepalive_interval(keepalive)
            .http2_keepalive_timeout(keepalive)
            .add_service(HostServiceServer::new(self.clone()))
            .add_service(ClusterServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .add_service(BundleServiceServer::new(self.clone()))
            .add_service(PluginServiceServer::new(self))
            .serve_with_incoming(incoming)
            .await
            .unwrap();
    }

    /// After how many messages this stream ends, where it is the first that `goes_on`.
    fn broken_after(&self, goes_on: bool) -> Option<usize> {
        if goes_on { self.answers.lock().unwrap().broken_after.take() } else { None }
    }

    fn called(&self, call: impl std::fmt::Debug) -> Result<Answers, Status> {
        self.calls.lock().unwrap().push(format!("{call:?}"));
        let answers = self.answers.lock().unwrap().clone();
        match &answers.failure {
            Some((code, failure)) => Err(k8sctl_rpc::status::status(*code, failure)),
            None => Ok(answers),
        }
    }
}

type Reply<T> = ReceiverStream<Result<T, Status>>;

/// A stream of these messages; `endless` keeps it open.
fn stream<T: Send + 'static>(messages: Vec<T>, pace: Option<Duration>, endless: bool) -> Reply<T> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for (index, message) in messages.into_iter().enumerate() {
            if let (Some(pace), true) = (pace, index > 0) {
                tokio::time::sleep(pace).await;
            }
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
        if endless {
            sender.closed().await;
        }
    });
    ReceiverStream::new(receiver)
}

/// The same stream, with the end of a connection that was lost.
fn broken<T: Send + 'static>(replies: Reply<T>) -> Reply<T> {
    let (sender, receiver) = mpsc::channel(1);
    let mut replies = replies.into_inner();
    tokio::spawn(async move {
        while let Some(reply) = replies.recv().await {
            if sender.send(reply).await.is_err() {
                return;
            }
        }
        let _ = sender.send(Err(Status::unavailable("lost"))).await;
    });
    ReceiverStream::new(receiver)
}
