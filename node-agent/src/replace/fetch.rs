//! Gets a program from the host agent, in chunks, into its place beside the one that runs.

use std::path::Path;
use std::time::Duration;

use k8sctl_proto::node::v1::node_service_client::NodeServiceClient;
use k8sctl_proto::node::v1::{FetchAgentRequest, FetchAgentResponse};
use tokio_stream::{Stream, StreamExt as _};
use tonic::Status;
use tonic::transport::Channel;

use super::disk::Staging;
use super::plan::Wanted;

/// Longest that a program may be on its way.
const DEADLINE: Duration = Duration::from_secs(10 * 60);
/// Longest between two chunks.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest program that is taken, in bytes.
const MOST: u64 = 512 * 1024 * 1024;

/// A program did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The host agent did not send it, or not to its end.
    #[error("the host agent did not send it ({:?}): {}", .0.code(), .0.message())]
    Refused(Box<Status>),
    /// It is too slow.
    #[error("{got} of {size} bytes came, and then none in time")]
    Late {
        /// What came.
        got: u64,
        /// What should have.
        size: u64,
    },
    /// Its size is another one.
    #[error("it has more than {0} bytes, which it should have")]
    Size(u64),
    /// Its digest is another one.
    #[error("it has the digest {got}, expected {expected}: the host's file has changed; ask for it again")]
    Digest {
        /// Of what came.
        got: String,
        /// As the host said.
        expected: String,
    },
    /// It cannot be written.
    #[error("cannot write it")]
    Write(#[from] std::io::Error),
}

/// Asks for the program and writes it.
pub(super) async fn fetch(channel: Channel, wanted: &Wanted, path: &Path) -> Result<(), FetchError> {
    let request = FetchAgentRequest { sha256: wanted.sha256.clone() };
    let refused = |status| FetchError::Refused(Box::new(status));
    let late = FetchError::Late { got: 0, size: wanted.size };
    let mut client = NodeServiceClient::new(channel);
    let answer = tokio::time::timeout(SILENCE, client.fetch_agent(request)).await.map_err(|_| late)?;
    let chunks = answer.map_err(refused)?.into_inner();
    receive(chunks, wanted, path).await
}

/// Writes what comes, and looks whether it is what was asked for.
async fn receive(
    mut chunks: impl Stream<Item = Result<FetchAgentResponse, Status>> + Unpin,
    wanted: &Wanted,
    path: &Path,
) -> Result<(), FetchError> {
    let size = wanted.size;
    if size > MOST {
        return Err(FetchError::Size(MOST));
    }
    let end = tokio::time::Instant::now() + DEADLINE;
    let mut staging = Staging::begin(path)?;
    loop {
        let until = end.min(tokio::time::Instant::now() + SILENCE);
        let late = FetchError::Late { got: staging.size(), size };
        let Some(chunk) = tokio::time::timeout_at(until, chunks.next()).await.map_err(|_| late)? else {
            break;
        };
        let chunk = chunk.map_err(|status| FetchError::Refused(Box::new(status)))?.chunk;
        if staging.size() + chunk.len() as u64 > size {
            return Err(FetchError::Size(size));
        }
        staging.write(&chunk)?;
    }
    let expected = wanted.sha256.clone();
    // Syncing some megabytes takes a while on a slow disk.
    let finished = tokio::task::spawn_blocking(move || staging.finish(&expected));
    let finished = finished.await.map_err(std::io::Error::other)??;
    finished.map_err(|got| FetchError::Digest { got, expected: wanted.sha256.clone() })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};

    use super::*;

    fn wanted(content: &[u8]) -> Wanted {
        Wanted {
            attempt: "a".to_owned(),
            sha256: hex::encode(digest(&SHA256, content).as_ref()),
            size: content.len() as u64,
            seconds: 60,
        }
    }

    fn chunk(text: &[u8]) -> Result<FetchAgentResponse, Status> {
        Ok(FetchAgentResponse { chunk: text.to_vec() })
    }

    #[tokio::test]
    async fn only_what_was_asked_for_gets_a_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("next");
        let wanted = wanted(b"program");
        let receive = async |chunks: Vec<_>| receive(tokio_stream::iter(chunks), &wanted, &path).await;
        let wrong = receive(vec![chunk(b"pro"), chunk(b"gran")]).await;
        assert!(matches!(wrong, Err(FetchError::Digest { .. })), "{wrong:?}");
        let short = receive(vec![chunk(b"pro")]).await;
        assert!(matches!(short, Err(FetchError::Digest { .. })), "{short:?}");
        let long = receive(vec![chunk(b"program"), chunk(b"!")]).await;
        assert!(matches!(long, Err(FetchError::Size(7))), "{long:?}");
        let broken = receive(vec![chunk(b"prog"), Err(Status::unavailable("gone"))]).await;
        assert!(matches!(broken, Err(FetchError::Refused(_))), "{broken:?}");
        assert!(!path.exists());
        receive(vec![chunk(b"pro"), chunk(b""), chunk(b"gram")]).await.expect("it is whole");
        assert_eq!(std::fs::read(&path).expect("there"), b"program");
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_says_no_more_is_not_waited_for() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let chunks = tokio_stream::iter([chunk(b"pro")]).chain(tokio_stream::pending());
        let late = receive(chunks, &wanted(b"program"), &dir.path().join("next")).await;
        assert!(matches!(late, Err(FetchError::Late { got: 3, size: 7 })), "{late:?}");
    }
}
