//! What ends a verb from outside that has to put a terminal right before it goes.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C, and whatever else asks a process to go. From its making on, none of them ends the process by itself.
#[derive(Debug)]
pub struct Signals([Signal; 4]);

impl Signals {
    /// Begins to listen; what comes from now on is not lost.
    pub fn new() -> io::Result<Self> {
        let kinds =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()];
        let [interrupt, terminate, hangup, quit] = kinds.map(signal);
        Ok(Self([interrupt?, terminate?, hangup?, quit?]))
    }

    /// Returns when one has come. Cancel-safe.
    pub async fn any(&mut self) {
        let [interrupt, terminate, hangup, quit] = &mut self.0;
        // Cancel-safe: a signal that is not taken is kept.
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
