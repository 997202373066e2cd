//! The one TLS crypto provider of every program: aws-lc-rs. Each `main` calls [`install`] first, because crates
//! with their own TLS use the process default.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// Makes aws-lc-rs the provider of the process. Calling it again does nothing.
pub fn install() {
    // `Err` means that one is installed already, by an earlier call.
    let _ = aws_lc_rs::default_provider().install_default();
}

/// The provider, for configurations built here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    install();
    CryptoProvider::get_default().map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone)
}
