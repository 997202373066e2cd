//! The port on which the secret is asked for: a virtio-serial device, or a Unix socket in tests.
//!
//! The other side may be absent, slow or restarted at any time. So the request is written again, each time with
//! the next sequence, until the newest one's line comes back: an offer voids those before it, so answers to
//! earlier requests are passed over, and so is garbage.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::io::{FdFlags, fcntl_setfd};

use super::wire::{Offer, OfferError, Request};

/// How long one written request is waited for before it is written again.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Pause while the port has nothing or nobody holds its other end: a virtio port reports neither by an edge.
const POLL: Duration = Duration::from_millis(20);
/// How often the same request is written before the exchange counts as failed.
const WRITES: u32 = 5;
/// Longest line that is an offer.
const LINE_LIMIT: usize = 64 * 1024;

/// No secret came.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The port is missing, or another process has it.
    #[error("cannot open the port {}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("the port {} failed", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nobody answers.
    #[error("nobody answers on the port {}: is the host agent running?", path.display())]
    Silent {
        /// Its path.
        path: PathBuf,
    },
    /// The answer is not understood.
    #[error("the port's answer is not understood")]
    Offer(#[from] OfferError),
}

/// Asks for a secret.
#[async_trait]
pub trait SecretPort: Send + Sync {
    /// Writes the request until its offer comes, for a bounded time. Counts `request.sequence` up at each write.
    async fn exchange(&mut self, request: &mut Request) -> Result<Offer, PortError>;
}

/// The real port. It is opened for each exchange and closed after it.
#[derive(Debug)]
pub struct RealSecretPort {
    path: PathBuf,
}

impl RealSecretPort {
    /// Opens nothing yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn io(&self, source: io::Error) -> PortError {
        PortError::Io { path: self.path.clone(), source }
    }
}

#[async_trait]
impl SecretPort for RealSecretPort {
    async fn exchange(&mut self, request: &mut Request) -> Result<Offer, PortError> {
        let mut handle =
            Handle::open(&self.path).map_err(|source| PortError::Open { path: self.path.clone(), source })?;
        let mut received = Vec::new();
        for _ in 0..WRITES {
            request.sequence += 1;
            let mut line = serde_json::to_vec(request).expect("only strings and numbers: always JSON");
            line.push(b'\n');
            let write = tokio::time::timeout(ANSWER_WAIT, handle.write_all(&line)).await;
            match write {
                // Nobody holds the other end yet: try again.
                Err(_) => continue,
                Ok(written) => written.map_err(|source| self.io(source))?,
            }
            let answer = tokio::time::timeout(ANSWER_WAIT, handle.answer(request.sequence, &mut received));
            if let Ok(answer) = answer.await {
                return match answer {
                    Ok(offer) => Ok(offer),
                    Err(Answer::Io(source)) => Err(self.io(source)),
                    Err(Answer::Offer(error)) => Err(error.into()),
                };
            }
        }
        Err(PortError::Silent { path: self.path.clone() })
    }
}

enum Answer {
    Io(io::Error),
    Offer(OfferError),
}

/// Both kinds of port, not blocking.
enum Handle {
    Device(File),
    Socket(UnixStream),
}

impl Handle {
    fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.file_type().is_socket() {
            let socket = UnixStream::connect(path)?;
            socket.set_nonblocking(true)?;
            return Ok(Self::Socket(socket));
        }
        let nonblock = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let file = OpenOptions::new().read(true).write(true).custom_flags(nonblock).open(path)?;
        fcntl_setfd(&file, FdFlags::CLOEXEC)?;
        Ok(Self::Device(file))
    }

    async fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = match self {
                Self::Device(file) => file.write(bytes),
                Self::Socket(socket) => socket.write(bytes),
            };
            match written {
                Ok(0) => tokio::time::sleep(POLL).await,
                Ok(count) => bytes = &bytes[count..],
                Err(error) if is_passing(&error) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until the line with this sequence.
    async fn answer(&mut self, sequence: u64, received: &mut Vec<u8>) -> Result<Offer, Answer> {
        let mut chunk = [0; 4096];
        loop {
            while let Some(end) = received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = received.drain(..=end).collect();
                match Offer::parse(&line) {
                    Ok(offer) if offer.sequence == sequence => return Ok(offer),
                    Ok(offer) => tracing::debug!(offer.sequence, sequence, "passed over a late secret offer"),
                    // Noise is passed over, a clear disagreement is not.
                    Err(OfferError::Json(_)) => tracing::debug!("passed over a line on the port"),
                    Err(error) => return Err(Answer::Offer(error)),
                }
            }
            if received.len() > LINE_LIMIT {
                received.clear();
            }
            let read = match self {
                Self::Device(file) => file.read(&mut chunk),
                Self::Socket(socket) => socket.read(&mut chunk),
            };
            match read {
                Ok(0) if matches!(self, Self::Socket(_)) => {
                    return Err(Answer::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                // A device without a host reads as ended, until the host comes.
                Ok(0) => tokio::time::sleep(POLL).await,
                Ok(count) => received.extend_from_slice(&chunk[..count]),
                Err(error) if is_passing(&error) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(Answer::Io(error)),
            }
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
