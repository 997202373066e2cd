//! The node agent that this host has (`node_agent` of the configuration), and its way to nodes that shall be it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use host_artifacts::digest::sha256_file;
use k8sctl_proto::node::v1::{AgentProgram, FetchAgentResponse};
use k8sctl_types::failure::Failure;
use tokio::io::AsyncReadExt as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tonic::{Code, Status};

/// Bytes of one message.
const CHUNK: usize = 64 * 1024;

/// Where it is. Read anew each time: it is replaced under a host agent that runs.
#[derive(Clone, Debug)]
pub struct AgentFile(PathBuf);

impl AgentFile {
    /// The file of that path.
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// What it is now: digest and size.
    pub async fn look(&self) -> Result<AgentProgram, Failure> {
        let path = self.0.clone();
        let looked = spawn_blocking(move || -> std::io::Result<_> {
            let file = File::open(&path)?;
            let size_bytes = file.metadata()?.len();
            Ok(AgentProgram { sha256: digest(&file)?, size_bytes, ..AgentProgram::default() })
        });
        let looked = looked.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        looked.map_err(|error| self.failure(&error.to_string()))
    }

    /// The file, open, where its digest is this one. `place` is held while it is read, also where nobody waits for that
    /// any more.
    pub(super) async fn open<P: Send + 'static>(
        &self,
        sha256: &str,
        place: P,
    ) -> Result<(tokio::fs::File, P), Status> {
        let (path, expected) = (self.0.clone(), sha256.to_owned());
        let opened = spawn_blocking(move || -> std::io::Result<_> {
            let file = File::open(&path)?;
            Ok((digest(&file)? == expected).then_some((file, place)))
        });
        match opened.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(Some((file, place))) => Ok((tokio::fs::File::from_std(file), place)),
            Ok(None) => Err(status(&self.failure("it is another one than the node was told of"))),
            Err(error) => Err(status(&self.failure(&error.to_string()))),
        }
    }

    fn failure(&self, reason: &str) -> Failure {
        Failure::new(
            "NODE-AGENT-FILE",
            format!("file {}", self.0.display()),
            format!("the node agent of this host cannot be given to nodes: {reason}"),
            "install it again with `make build` in the checkout, or set `node_agent`; then `k8sctl upgrade agents`",
        )
    }
}

/// Of the open file: one that is put into its place from now on is another one.
fn digest(file: &File) -> std::io::Result<String> {
    sha256_file(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

fn status(failure: &Failure) -> Status {
    k8sctl_rpc::status::status(Code::FailedPrecondition, failure)
}

/// Sends the file in chunks, as fast as the node takes them, and ends with it.
pub(super) async fn send(
    mut file: tokio::fs::File,
    chunks: mpsc::Sender<Result<FetchAgentResponse, Status>>,
) -> std::io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut limited = (&mut file).take(CHUNK as u64);
        if let Err(error) = limited.read_to_end(&mut chunk).await {
            let next = "the node's agent stays as it is; `k8sctl upgrade agents` tries again";
            let failure = Failure::new("NODE-AGENT-FILE", "node agent of this host", error.to_string(), next);
            // The node may be gone.
            let _ = chunks.send(Err(status(&failure))).await;
            return Err(error);
        }
        if chunk.is_empty() || chunks.send(Ok(FetchAgentResponse { chunk })).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_node_gets_what_it_was_told_of_or_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k8s-node-agent");
        let agent = AgentFile::new(&path);
        assert_eq!(agent.look().await.expect_err("not there").id, "NODE-AGENT-FILE");
        let content: Vec<u8> = (0..3 * CHUNK + 5).map(|at| at as u8).collect();
        std::fs::write(&path, &content).expect("writes");
        let program = agent.look().await.expect("there");
        assert_eq!(program.size_bytes, content.len() as u64);
        let (file, ()) = agent.open(&program.sha256, ()).await.expect("it is that one");
        // Another one takes its place meanwhile.
        std::fs::remove_file(&path).expect("removed");
        std::fs::write(&path, "another").expect("writes");
        let (sender, mut chunks) = mpsc::channel::<Result<FetchAgentResponse, Status>>(1);
        let read = async {
            let mut all = Vec::new();
            while let Some(chunk) = chunks.recv().await {
                let chunk = chunk.expect("a chunk").chunk;
                assert!(chunk.len() <= CHUNK);
                all.extend(chunk);
            }
            all
        };
        let (sent, all) = tokio::join!(send(file, sender), read);
        sent.expect("sent");
        assert!(all == content, "{} bytes of {}", all.len(), content.len());
        agent.open(&program.sha256, ()).await.expect_err("it is another one by now");
    }
}
