//! Node agents as the host agent sees them: who is connected, what each shall be, what each reports.
//!
//! - [`registry`]: the state of every node, shared by the cluster tasks and the services; [`wanted`]: what each shall be
//! - [`changes`]: the way of what changes to the event log, bounded; `caps`: how much a node can say of itself
//! - [`traffic`]: how much they send
//! - [`machines`]: whether the VM behind a node runs, for the join authority
//! - [`node_events`]: reports as events
//! - [`service`]: the gRPC services that node agents call; `log_push`: their logs; `refusals`: who is refused, and how
//!   often that is logged
//! - [`agent_file`]: the node agent of this host, for nodes that shall be it; `old_agent`: those too old for a session
//! - [`channel`]: hands out join secrets over virtio-serial
//! - [`listener`]: the TLS port of one cluster; `gate`: which calls get as far as the services, and how many at a time

pub mod agent_file;
mod caps;
pub mod changes;
pub mod channel;
mod gate;
pub mod listener;
mod log_push;
pub mod machines;
pub mod node_events;
mod old_agent;
mod refusals;
pub mod registry;
pub mod service;
pub mod traffic;
pub mod wanted;
