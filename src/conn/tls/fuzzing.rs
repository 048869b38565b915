//! The handshake's door for the fuzz targets.

use tokio::io::{AsyncRead, AsyncWrite};

use super::hello;

/// Is what comes first a `ClientHello`?
pub async fn is_hello<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I) -> bool {
    hello::read(io).await.is_ok()
}
