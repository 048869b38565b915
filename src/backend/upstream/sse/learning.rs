//! A page of the list of tools that was asked for.

use tokio::time::{Instant, sleep_until};

use crate::backend::catalog::Walk;
use crate::wire::jsonrpc::RequestId;

/// A page that was asked for.
pub(super) struct Learning {
    pub(super) id: RequestId,
    pub(super) walk: Walk,
    pub(super) until: Instant,
}

/// Resolves when a page has been waited for long enough; never where none is.
pub(super) async fn silent(learning: Option<&Learning>) {
    match learning {
        Some(learning) => sleep_until(learning.until).await,
        None => std::future::pending().await,
    }
}
