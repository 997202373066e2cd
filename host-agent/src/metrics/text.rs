//! Everything that was read, as one text.

use std::sync::atomic::AtomicU64;

use host_store::Usage;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::Meters;
use super::fleet::Fleet;
use super::process::Process;
use crate::nodes::traffic::Sent;
use crate::trace::SpanCounts;

/// What the names of all metrics begin with, but those of the process.
pub(super) const PREFIX: &str = "k8s_myhome";

/// A gauge of any unit.
pub(super) type Value = Gauge<f64, AtomicU64>;
/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;

/// Names and values. Names come from a file that a person wrote: prometheus-client escapes values since 0.25.2.
pub(super) type Labels = Vec<(&'static str, String)>;

pub(super) fn labels<const N: usize>(pairs: [(&'static str, &str); N]) -> Labels {
    pairs.map(|(name, value)| (name, value.to_owned())).into()
}

/// All that is told besides what [`Meters`] count.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) fleet: Fleet,
    pub(super) sent: Sent,
    pub(super) spans: SpanCounts,
    /// Number of the newest event.
    pub(super) events: u64,
    pub(super) store: Usage,
    /// Bytes of the database's files.
    pub(super) files: Vec<(&'static str, u64)>,
    /// Bytes that are free in the file systems of directories.
    pub(super) free: Vec<(&'static str, u64)>,
    pub(super) process: Process,
}

pub(super) fn encode(meters: &Meters, reading: Reading) -> String {
    let Reading { fleet, sent, spans, events, store, files, free, process } = reading;
    let mut registry = Registry::with_prefix(PREFIX);
    let it = &mut registry;
    it.register(
        "build",
        "The release of the host agent",
        Info::new(labels([("version", env!("CARGO_PKG_VERSION"))])),
    );
    fleet.register(it);
    it.register("sessions_opened", "Sessions that node agents have opened", counter(sent.sessions));
    it.register("log_streams", "Streams of logs that are open now", value(sent.log_streams));
    it.register("log_lines", "Lines of logs that nodes have sent", counter(sent.log_lines));
    let help = "Text of the lines of logs that nodes have sent";
    it.register_with_unit("log_received", help, Unit::Bytes, counter(sent.log_bytes));
    let ended = meters.operations.clone();
    it.register("operations_ended", "Operations that have ended since the host agent began", ended);
    let durations = meters.operation_durations.clone();
    let help = "How long operations took that have ended since the host agent began";
    it.register_with_unit("operation_duration", help, Unit::Seconds, durations);
    let calls = meters.libvirt_calls.clone();
    it.register_with_unit("libvirt_call_duration", "How long calls of libvirt took", Unit::Seconds, calls);
    let errors = meters.libvirt_errors.clone();
    it.register("libvirt_call_errors", "Calls of libvirt that failed", errors);
    it.register("events", "Number of the newest event", counter(events));
    it.register("store_calls", "Calls of the database", counter(store.calls));
    let busy = Seconds::default();
    busy.inc_by(store.busy.as_secs_f64());
    it.register_with_unit("store_busy", "How long calls had the database", Unit::Seconds, busy);
    let help = "Size of the database's files";
    it.register_with_unit("store_size", help, Unit::Bytes, sizes("file", &files));
    let help = "What is free where the host agent keeps its state, and its VMs' disks";
    it.register_with_unit("filesystem_free", help, Unit::Bytes, sizes("directory", &free));
    it.register("trace_spans", "Spans of operations that were made", counter(spans.made));
    it.register("trace_spans_sent", "Spans that the collector has taken", counter(spans.sent));

    // Every program has these, under the same names.
    let mut own = Registry::default();
    process.register(&mut own);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = encode_registry(&mut text, &registry)
        .and_then(|()| encode_registry(&mut text, &own))
        .and_then(|()| encode_eof(&mut text));
    text
}

/// The same in Prometheus' older text format, which some programs know alone.
///
/// There a type has the name of its samples, and there are no types `info` and `unknown`, no units and no end:
/// <https://prometheus.io/docs/instrumenting/exposition_formats/>.
pub(super) fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(told) = line.strip_prefix("# HELP ") {
            help = told.split_once(' ').map(|(_, words)| words);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|it| it.split_once(' ')) {
            let (end, kind) = match kind {
                "counter" => ("_total", kind),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                _ => ("", kind),
            };
            if let Some(words) = help.take() {
                text.push_str(&format!("# HELP {name}{end} {words}\n"));
            }
            text.push_str(&format!("# TYPE {name}{end} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

pub(super) fn value(number: u64) -> Value {
    let value = Value::default();
    value.set(number as f64);
    value
}

fn counter(number: u64) -> Counter {
    let counter = Counter::default();
    counter.inc_by(number);
    counter
}

fn sizes(label: &'static str, sizes: &[(&'static str, u64)]) -> Family<Labels, Value> {
    let family = Family::<Labels, Value>::default();
    for &(name, bytes) in sizes {
        family.get_or_create(&labels([(label, name)])).set(bytes as f64);
    }
    family
}
