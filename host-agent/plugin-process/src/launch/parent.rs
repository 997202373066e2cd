//! The thread whose children plugin processes are. The kernel ends each of them with the thread that made it, so that none
//! outlives a host agent that was killed; threads of the runtime may end earlier, and this one stays as long as the program.
//! Called by [`super::process`].

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Something to start, for a runtime.
struct Order {
    command: Command,
    runtime: Handle,
    made: SyncSender<io::Result<Child>>,
}

/// Starts a program as a child of that thread. Blocks for as long as that takes: a millisecond or two.
pub(super) fn spawn(command: Command) -> io::Result<Child> {
    let (made, child) = mpsc::sync_channel(1);
    let gone = || io::Error::other("the thread that starts plugins is gone: restart this program");
    orders()?.send(Order { command, runtime: Handle::current(), made }).map_err(|_| gone())?;
    child.recv().unwrap_or_else(|_| Err(gone()))
}

fn orders() -> io::Result<&'static Sender<Order>> {
    static ORDERS: OnceLock<Sender<Order>> = OnceLock::new();
    if let Some(orders) = ORDERS.get() {
        return Ok(orders);
    }
    let (orders, received) = mpsc::channel::<Order>();
    thread::Builder::new().name("plugin-parent".into()).spawn(move || {
        for Order { mut command, runtime, made } in received {
            let _inside = runtime.enter();
            // It is waited for in any case.
            let _ = made.send(command.spawn());
        }
    })?;
    // Of two that were begun at once the other one ends with its sender.
    Ok(ORDERS.get_or_init(|| orders))
}
