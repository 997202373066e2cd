//! The control socket of a program that has used up its file descriptors. A test of its own: the limit is the process's.

use std::time::Duration;

use k8sctl_rpc::unix::listen;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

#[tokio::test]
async fn without_free_descriptors_it_waits_and_does_not_spin() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("api.sock");
    let mut incoming = listen(&path, |_| false, |_| true).expect("listens");
    let _client = UnixStream::connect(&path).await.expect("waits in the backlog");
    let free = getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), ..free };
    setrlimit(Resource::Nofile, none).expect("it is lowered");
    let early = timeout(Duration::from_millis(350), incoming.next()).await;
    setrlimit(Resource::Nofile, free).expect("it is as it was");
    assert!(early.is_err(), "{early:?}");
    let accepted = timeout(Duration::from_secs(10), incoming.next()).await.expect("it goes on");
    accepted.expect("the stream does not end").expect("a connection");
}
