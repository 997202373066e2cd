//! How the programs talk to each other: what is the same for every gRPC server and client of this project.
//!
//! - [`provider`]: the one TLS crypto provider
//! - [`tls`]: TLS 1.3 listener and dialler that give the handlers the peer's certificate and the TLS exporter
//! - [`directory`]: directories for others, whatever the umask
//! - [`unix`]: control socket with the caller's credentials from the kernel
//! - [`connection`]: an accepted connection and what is known of its peer; [`patient`]: what is written to a peer has its
//!   time
//! - [`allowance`]: how much one peer can make us tell; [`places`]: how much it can hold; [`pace`]: when it gets a
//!   handshake
//! - [`limits`]: every limit of every server, in one place
//! - [`memory`]: what long streams of large messages do to the allocator
//! - [`status`]: [`k8sctl_types::failure::Failure`] to and from [`tonic::Status`]
//! - [`task`]: supervised tasks
//! - [`telemetry`]: how every program logs
//! - [`chain()`]: an error with all its causes on one line
//!
//! Nothing here decides who may do what: that is the business of the services.

pub mod allowance;
pub mod answer;
pub mod chain;
pub mod connection;
pub mod directory;
pub mod limits;
pub mod memory;
pub mod pace;
pub mod patient;
pub mod places;
pub mod provider;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod unix;

pub use chain::chain;
