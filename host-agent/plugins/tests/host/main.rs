//! The host of plugins against a real API server, with plugins that are data: what a person does to one, what a cluster
//! file does to several, and what becomes of both when the host agent is killed in between. What the engine does to objects
//! is tested beside this; here there are only namespaces, ConfigMaps and a kind, and no kubelet.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod handover;
mod killed;
mod kinds;
mod life;
mod quarantine;
mod refused;
mod remote;
mod shelf;
mod spec;
