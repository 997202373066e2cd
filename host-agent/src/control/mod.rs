//! The control socket: what `k8sctl` asks of the host agent.
//!
//! One file per service; each only translates. [`roles`] guards all of them; what costs more than its message waits for
//! its turn in a `queue`.

mod artifacts;
mod cluster;
mod events;
mod host;
mod plugins;
mod queue;
pub mod roles;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;

use futures::FutureExt as _;
use k8sctl_proto::control::v1::bundle_service_server::BundleServiceServer;
use k8sctl_proto::control::v1::cluster_service_server::ClusterServiceServer;
use k8sctl_proto::control::v1::host_service_server::HostServiceServer;
use k8sctl_proto::control::v1::image_service_server::ImageServiceServer;
use k8sctl_proto::control::v1::plugin_service_server::PluginServiceServer;
use k8sctl_proto::roles::Role;
use k8sctl_rpc::limits;
use k8sctl_rpc::status::status;
use k8sctl_types::failure::Failure;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use crate::cluster::manager::Manager;

/// Messages on their way to one slow client.
const OUTBOUND: usize = 16;
/// The same of a state, of which the newest is what a client wants.
const NEWEST: usize = 1;

/// Serves until `shutdown` resolves and open calls have ended.
pub async fn serve(
    socket: &Path,
    manager: Arc<Manager>,
    shutdown: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let reader_group = manager.config().reader_group.clone();
    let guard = roles::RoleLayer::new(reader_group.clone());
    let incoming = k8sctl_rpc::unix::listen(socket, roles::is_root, move |peer| {
        roles::peer_role(peer, reader_group.as_deref()) != Role::Unspecified
    })?;
    let queues = queue::Queues::default();
    let host = HostServiceServer::new(host::Host::new(Arc::clone(&manager), queues.clone()));
    let clusters = ClusterServiceServer::new(cluster::Clusters::new(Arc::clone(&manager), queues.clone()));
    let images = artifacts::Images { manager: Arc::clone(&manager), queues: queues.clone() };
    let images = ImageServiceServer::new(images);
    let bundles = artifacts::Bundles { manager: Arc::clone(&manager), queues: queues.clone() };
    let bundles = BundleServiceServer::new(bundles);
    let plugins = PluginServiceServer::new(plugins::Plugins { manager, queues });
    limits::server()
        .layer(guard)
        .add_service(host.max_decoding_message_size(limits::CONTROL_DECODE_BYTES))
        .add_service(clusters.max_decoding_message_size(limits::CONTROL_DECODE_BYTES))
        .add_service(images.max_decoding_message_size(limits::CONTROL_DECODE_BYTES))
        .add_service(bundles.max_decoding_message_size(limits::CONTROL_DECODE_BYTES))
        .add_service(plugins.max_decoding_message_size(limits::CONTROL_DECODE_BYTES))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await?;
    Ok(())
}

/// Progress lines that may wait for a slow client.
const LINES: usize = 64;

/// A stream that a task fills.
type Reply<T> = ReceiverStream<Result<T, Status>>;

/// Runs `work` as a task that fills the returned stream; its error ends the stream, and so does its panic with an error:
/// a clean end means that this is all.
fn stream<T, F, Fut>(name: &'static str, work: F) -> Reply<T>
where
    T: Send + 'static,
    F: FnOnce(mpsc::Sender<Result<T, Status>>) -> Fut,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
{
    stream_of(name, OUTBOUND, work)
}

/// The same, with room for so many messages.
fn stream_of<T, F, Fut>(name: &'static str, room: usize, work: F) -> Reply<T>
where
    T: Send + 'static,
    F: FnOnce(mpsc::Sender<Result<T, Status>>) -> Fut,
    Fut: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(room);
    let work = work(sender.clone());
    k8sctl_rpc::task::spawn(name, async move {
        // After a panic nothing is seen of it but its end.
        let (error, panic) = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => (error, None),
            Err(panic) => (broke_off(name), Some(panic)),
        };
        // The client may be gone already.
        let _ = sender.send(Err(error)).await;
        if let Some(panic) = panic {
            // Whoever supervises tasks tells of it.
            std::panic::resume_unwind(panic);
        }
    });
    ReceiverStream::new(receiver)
}

/// Runs `work` as a task, to its end also where the client goes meanwhile: the future of a call is dropped then, after
/// what it has committed and before anybody is told of that.
async fn to_its_end<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Status> {
    let (sender, answer) = oneshot::channel();
    k8sctl_rpc::task::spawn(name, async move {
        // The client may be gone already.
        let _ = sender.send(work.await);
    });
    // It panicked, of which the log tells.
    answer.await.map_err(|_| broke_off(name))
}

/// What is told of a task that panicked.
fn broke_off(name: &str) -> Status {
    broken(&std::io::Error::other(format!("the task {name} of this request broke off")))
}

/// Sends progress lines on to the client until the work drops its end.
async fn forward<T>(
    mut lines: mpsc::Receiver<String>,
    sender: mpsc::Sender<Result<T, Status>>,
    wrap: impl Fn(String) -> T,
) {
    while let Some(line) = lines.recv().await {
        // A client that left does not stop the work.
        let _ = sender.send(Ok(wrap(line))).await;
    }
}

/// What the client must mend.
pub(crate) fn refused(failure: &Failure) -> Status {
    status(Code::FailedPrecondition, failure)
}

/// What the host agent's operator must mend.
fn broken(error: &(dyn std::error::Error + 'static)) -> Status {
    let failure = Failure::new(
        "HOST-INTERNAL",
        "host agent",
        k8sctl_rpc::chain(error).to_string(),
        "look into the host agent's log; `k8sctl doctor` checks what it needs",
    );
    status(Code::Internal, &failure)
}

#[cfg(test)]
mod tests {
    use k8sctl_rpc::status::failure_from;
    use tokio_stream::StreamExt as _;

    use super::*;

    async fn panics(sender: mpsc::Sender<Result<u8, Status>>) -> Result<(), Status> {
        let _ = sender.send(Ok(7)).await;
        panic!("a mistake of ours");
    }

    #[tokio::test]
    async fn a_stream_whose_task_panics_has_no_clean_end() {
        let mut reply = stream("panics", panics);
        assert_eq!(reply.next().await.expect("a message").expect("it is well"), 7);
        let status = reply.next().await.expect("it does not just end").expect_err("an error");
        assert_eq!(status.code(), Code::Internal);
        let failure = failure_from(&status).expect("a failure");
        assert_eq!(failure.id, "HOST-INTERNAL");
        assert!(failure.reason.contains("panics of this request broke off"), "{failure:?}");
        assert!(reply.next().await.is_none());
    }
}
