//! Wire contracts: the code generated from `proto/k8sctl/**/*.proto`, and nothing that decides anything.
//!
//! - [`node`]: host agent and node agent
//! - [`control`]: `k8sctl` and host agent
//! - [`plugin`]: host agent and plugin process
//! - [`roles`]: who may call which control method, read from the same files at build time
//! - [`codec`]: prost, as all generated services use it; [`parts`]: how many parts a message may have

#![allow(clippy::all, clippy::unwrap_used, missing_docs, rustdoc::all)]

/// Options on methods.
pub mod options {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("k8sctl.options.v1");
    }
}

/// Host agent and node agent.
pub mod node {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("k8sctl.node.v1");
    }
}

/// `k8sctl` and host agent.
pub mod control {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("k8sctl.control.v1");
    }
}

/// Host agent and plugin process.
pub mod plugin {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("k8sctl.plugin.v1");
    }
}

pub mod codec;
pub mod parts;
pub mod roles;
