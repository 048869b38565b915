//! The cryptography.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// The provider is named wherever one is needed: the process-wide default may be any dependency's.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
