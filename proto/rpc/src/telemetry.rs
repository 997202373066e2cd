//! Logs of every program: to stderr, filtered by `K8SCTL_LOG`, JSON with `K8SCTL_LOG_FORMAT=json`. Called once by
//! each `main`.

use std::env;
use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::EnvFilter;

/// Variable with the filter, `info,host_agent=debug`. Unset means: `info`, and warnings of libraries.
const FILTER: &str = "K8SCTL_LOG";
/// Variable with the format: `json`, or unset for text.
const FORMAT: &str = "K8SCTL_LOG_FORMAT";
const DEFAULT_FILTER: &str = "info,h2=warn,hyper=warn,tower=warn,rustls=warn,kube=warn";

/// Begins logging as program `name`. Colours only on a terminal. A second call does nothing.
pub fn init(name: &'static str) {
    let (filter, mistake) = match env::var(FILTER) {
        Ok(text) => match EnvFilter::try_new(&text) {
            Ok(filter) => (filter, Some(text).filter(|text| text.trim().is_empty())),
            Err(_) => (EnvFilter::new(DEFAULT_FILTER), Some(text)),
        },
        Err(_) => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    let started = if env::var(FORMAT).is_ok_and(|format| format == "json") {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(stderr().is_terminal()).try_init()
    };
    if started.is_ok() {
        tracing::debug!(program = name, version = env!("CARGO_PKG_VERSION"), "logging started");
        if let Some(text) = mistake {
            tracing::warn!(
                filter = text,
                "K8SCTL_LOG is no filter; using the default (expected for example info,host_agent=debug)"
            );
        }
    }
}
