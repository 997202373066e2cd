//! Watches how spans are taken by the collector, so that one out of reach is told once and not with every batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// An exporter that is watched.
#[derive(Debug)]
pub(super) struct Watched<E> {
    inner: E,
    endpoint: String,
    sent: Arc<AtomicU64>,
    /// The last batch was not taken.
    fails: AtomicBool,
}

impl<E> Watched<E> {
    /// Counts in `sent` what is taken.
    pub(super) fn new(inner: E, endpoint: &str, sent: Arc<AtomicU64>) -> Self {
        Self { inner, endpoint: endpoint.to_owned(), sent, fails: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let result = self.inner.export(batch).await;
        let failed_before = self.fails.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Ok(()) => {
                self.sent.fetch_add(count, Ordering::Relaxed);
                if failed_before {
                    tracing::info!(endpoint = %self.endpoint, "the collector of traces takes spans again");
                }
            }
            Err(error) if !failed_before => tracing::warn!(
                endpoint = %self.endpoint,
                %error,
                "the collector of traces takes no spans; they are lost until it does"
            ),
            Err(error) => tracing::debug!(endpoint = %self.endpoint, %error, count, "spans are lost"),
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}
