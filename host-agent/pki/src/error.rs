//! What can go wrong with keys, certificates and their files.

use std::path::PathBuf;

/// An operation on keys or certificates failed.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// No key could be made.
    #[error("cannot make a key for {what}")]
    Key {
        /// Whose.
        what: String,
        /// The library's reason.
        #[source]
        source: rcgen::Error,
    },
    /// No certificate could be signed.
    #[error("cannot sign a certificate for {what}")]
    Sign {
        /// Whose.
        what: String,
        /// The library's reason.
        #[source]
        source: rcgen::Error,
    },
    /// A stored key or certificate is unusable.
    #[error("the stored {what} is unusable: restore it from a backup")]
    Stored {
        /// What.
        what: String,
        /// The library's reason.
        #[source]
        source: rcgen::Error,
    },
    /// A file holds something else than expected.
    #[error("{path} does not hold {expected}: restore it from a backup")]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// A name cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate (expected lower-case letters, digits and dashes)")]
    Name {
        /// The name.
        name: String,
    },
    /// A network has no address for the API server's service.
    #[error("the service network {cidr} has no room for the API server's address")]
    ServiceNetwork {
        /// The network.
        cidr: ipnet::Ipv4Net,
    },
    /// A time lies outside of what a certificate can say.
    #[error("the time of the certificate for {what} is out of range")]
    Time {
        /// Whose.
        what: String,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
}
