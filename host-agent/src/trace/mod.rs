//! A trace of every operation, for an OpenTelemetry collector; only where `trace_endpoint` names one.
//!
//! [`spans`] says what becomes a span; `crate::cluster::execute` and [`crate::metrics::operations`] tell of them; here
//! they are kept until they are sent, by a thread of the SDK's own. A collector that is out of reach costs what is kept
//! ([`KEPT`] spans), a warning when it goes and a line when it is back.

mod export;
pub mod spans;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};

use export::Watched;

/// Spans that wait to be sent; further ones are lost. A span takes about one KiB.
pub const KEPT: usize = 4096;
/// Spans in one message.
const BATCH: usize = 256;
/// How long spans wait for others to be sent with.
const DELAY: Duration = Duration::from_secs(5);
/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the host agent waits for what is still to be sent.
const LAST: Duration = Duration::from_secs(2);

/// Where spans go; nowhere by default. Clones send to the same collector.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Sender>>);

#[derive(Debug)]
struct Sender {
    processor: BatchSpanProcessor,
    made: AtomicU64,
    sent: Arc<AtomicU64>,
}

/// How many spans there were since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Those that were made.
    pub made: u64,
    /// Those that a collector took. The others wait, or are lost.
    pub sent: u64,
}

impl Tracer {
    /// Sends to the collector at this URL from now on. Connects when there is something to send, on the runtime that it
    /// is called in.
    pub fn start(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic();
        let exporter = exporter.with_endpoint(endpoint).with_timeout(TIMEOUT).build()?;
        Ok(Self::with(exporter, endpoint, DELAY))
    }

    fn with(exporter: impl SpanExporter + 'static, endpoint: &str, delay: Duration) -> Self {
        let sent = Arc::new(AtomicU64::new(0));
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(KEPT)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(delay)
            .build();
        let exporter = Watched::new(exporter, endpoint, Arc::clone(&sent));
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let resource = Resource::builder_empty()
            .with_service_name("k8s-host-agent")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("host.name", host.trim().to_owned()))
            .build();
        processor.set_resource(&resource);
        Self(Some(Arc::new(Sender { processor, made: AtomicU64::new(0), sent })))
    }

    /// Spans are sent somewhere.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends what `make` makes, which is not called where nobody wants it. Never waits.
    pub fn tell<S: IntoIterator<Item = SpanData>>(&self, make: impl FnOnce() -> S) {
        let Some(sender) = &self.0 else { return };
        for span in make() {
            sender.made.fetch_add(1, Ordering::Relaxed);
            sender.processor.on_end(span);
        }
    }

    /// How many there were.
    pub fn counts(&self) -> SpanCounts {
        self.0.as_ref().map_or_else(SpanCounts::default, |sender| SpanCounts {
            made: sender.made.load(Ordering::Relaxed),
            sent: sender.sent.load(Ordering::Relaxed),
        })
    }

    /// Sends what waits, for a moment at most. Nothing is sent after it.
    pub async fn stop(&self) {
        let Some(sender) = self.0.clone() else { return };
        let stopped = tokio::task::spawn_blocking(move || sender.processor.shutdown_with_timeout(LAST)).await;
        if !matches!(stopped, Ok(Ok(()))) {
            tracing::warn!("the last spans were not sent");
        }
    }
}

#[cfg(test)]
mod tests;
