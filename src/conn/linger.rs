//! Listens to a peer for a while after its last answer. Closing on unread bytes resets the
//! connection, and the peer would lose the answer (RFC 9112 section 9.6).

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;

/// How long, and how much, a peer is listened to.
pub(super) const LINGER: Duration = Duration::from_secs(2);
pub(super) const LINGER_BYTES: u64 = 16 * 1024 * 1024;

/// Takes what a peer still sends of a request that was answered before it was read.
pub(super) async fn take_the_rest<I: AsyncRead + Unpin>(io: I) {
    let mut rest = io.take(LINGER_BYTES);
    let mut nowhere = tokio::io::sink();
    // It is over either way.
    drop(timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await);
}
