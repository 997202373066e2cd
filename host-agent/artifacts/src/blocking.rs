//! Blocking work off the runtime's threads: hashing, unpacking, writing.
//!
//! Called by [`crate::fetch`] and [`crate::image`]; decides nothing.

/// Runs `work` on a thread where blocking is allowed. A panic in it goes on here.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and with it whoever waits here.
            Err(_) => std::future::pending().await,
        },
    }
}
