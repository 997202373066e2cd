//! Listens on the join channels of a simulated host: stands between node agents and host agent, and keeps what the
//! host agent says. It changes nothing of it.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, thread};

use anyhow::{Context as _, Result};

/// See the module. Its threads end with the process.
#[derive(Debug)]
pub struct Tap {
    channels: PathBuf,
    dir: PathBuf,
    open: Mutex<BTreeSet<String>>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tap {
    /// Stands before the sockets in `channels`, with its own in `dir`.
    pub fn new(channels: &Path, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let (channels, dir) = (channels.to_owned(), dir.to_owned());
        Ok(Self { channels, dir, open: Mutex::default(), heard: Arc::default() })
    }

    /// The socket that a node's agent shall use.
    pub fn listen(&self, node: &str) -> Result<PathBuf> {
        let (own, real) = (self.dir.join(format!("{node}.sock")), self.channels.join(format!("{node}.sock")));
        if self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned()) {
            let listener =
                UnixListener::bind(&own).with_context(|| format!("cannot bind {}", own.display()))?;
            let heard = Arc::clone(&self.heard);
            thread::spawn(move || {
                for agent in listener.incoming().flatten() {
                    // While the host agent is not there, the node agent sees the channel close, and tries again.
                    if let Ok(host) = UnixStream::connect(&real) {
                        pass(agent, host, &heard);
                    }
                }
            });
        }
        Ok(own)
    }

    /// The secrets that the host agent gave out, in hex as it gave them.
    pub fn secrets(&self) -> BTreeSet<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let offers = heard.split(|byte| *byte == b'\n').filter_map(|line| {
            let offer: serde_json::Value = serde_json::from_slice(line).ok()?;
            offer["secret"].as_str().map(str::to_owned)
        });
        offers.collect()
    }
}

/// Carries both ways until either end closes.
fn pass(agent: UnixStream, host: UnixStream, heard: &Arc<Mutex<Vec<u8>>>) {
    let (Ok(agent_again), Ok(host_again)) = (agent.try_clone(), host.try_clone()) else { return };
    let heard = Arc::clone(heard);
    thread::spawn(move || carry(agent, host, |_| ()));
    thread::spawn(move || {
        carry(host_again, agent_again, |bytes| {
            heard.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        });
    });
}

fn carry(mut from: UnixStream, mut to: UnixStream, hear: impl Fn(&[u8])) {
    let mut bytes = [0; 4096];
    while let Ok(count) = from.read(&mut bytes) {
        hear(&bytes[..count]);
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    // Either may be closed already.
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
