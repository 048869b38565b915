//! The back door: MCP on this process's own standard input and output, with no socket.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backend::{Link, Said, Told};
use crate::caller::Caller;
use crate::frames::{Frames, Line};
use crate::jsonrpc::{self, Malformed, Message, code};

/// Refusals of the edge's own that may wait to be written.
const REFUSALS: usize = 16;

/// Carries messages between the process's own standard streams and `link`, until the input ends
/// and what was under way is answered (within `last`), the backend ends, or `shutdown` resolves.
pub(crate) async fn carry(
    link: Link,
    max_line: usize,
    last: Duration,
    shutdown: impl Future<Output = ()>,
) {
    let (input, output) = (tokio::io::stdin(), tokio::io::stdout());
    tokio::select! {
        () = between(link, max_line, last, input, output) => {}
        () = shutdown => {}
    }
}

async fn between<R, W>(link: Link, max_line: usize, last: Duration, input: R, output: W)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Link { tell, said } = link;
    let (refuse, refused) = mpsc::channel(REFUSALS);
    let listening = async {
        listen(input, max_line, tell, refuse).await;
        sleep(last).await;
    };
    tokio::select! {
        () = speak(output, said, refused) => {}
        () = listening => {}
    }
}

/// Hands what comes in on to the backend, up to the end of the input.
async fn listen<R: AsyncRead + Unpin>(
    input: R,
    max_line: usize,
    tell: mpsc::Sender<Told>,
    refuse: mpsc::Sender<Bytes>,
) {
    let caller = Arc::new(Caller::stdio());
    let mut lines = Frames::new(input, max_line, CancellationToken::new());
    while let Some(line) = lines.next().await {
        let parsed = match line {
            Line::Whole(bytes) => Message::parse(bytes).map_err(|error| refusal(&error)),
            Line::Cut(_) => {
                let text = format!("a line of more than {max_line} bytes");
                Err(jsonrpc::error_text(None, code::INVALID_REQUEST, &text))
            }
        };
        let went_on = match parsed {
            Ok(message) => tell.send(Told { message, caller: Arc::clone(&caller) }).await.is_ok(),
            Err(refusal) => refuse.send(refusal).await.is_ok(),
        };
        if !went_on {
            return;
        }
    }
}

fn refusal(error: &Malformed) -> Bytes {
    jsonrpc::error_text(error.id(), error.code(), &error.to_string())
}

/// Writes what the backend says, and what the edge refuses, up to the backend's end.
async fn speak<W: AsyncWrite + Unpin>(
    mut output: W,
    mut said: mpsc::Receiver<Said>,
    mut refused: mpsc::Receiver<Bytes>,
) {
    loop {
        let line = tokio::select! {
            said = said.recv() => match said {
                Some(Said::Message { message, .. }) => message.line(),
                Some(Said::Gone(why)) => break tracing::info!(why, "the MCP server ended"),
                None => break,
            },
            Some(refusal) = refused.recv() => refusal,
        };
        if write_line(&mut output, &line).await.is_err() {
            return;
        }
    }
    while let Ok(refusal) = refused.try_recv() {
        if write_line(&mut output, &refusal).await.is_err() {
            return;
        }
    }
}

async fn write_line<W: AsyncWrite + Unpin>(output: &mut W, line: &[u8]) -> io::Result<()> {
    output.write_all(line).await?;
    output.write_all(b"\n").await?;
    output.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::diagnostics::Diagnostics;
    use crate::backend::embedded::EmbeddedBackend;
    use crate::shutdown::Drain;

    async fn answers(input: &str) -> Vec<serde_json::Value> {
        let link = EmbeddedBackend::new(Diagnostics, Drain::default()).open();
        let mut output = Vec::new();
        between(link, 1000, Duration::from_secs(1), input.as_bytes(), &mut output).await;
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_piped_in_is_answered_before_the_end() {
        let answers = answers("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}").await;
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].pointer("/result/tools/0/name").unwrap(), "echo");
    }

    #[tokio::test(start_paused = true)]
    async fn rubbish_is_refused_and_the_rest_goes_on() {
        let long = "x".repeat(2000);
        let input = format!("nope\n{long}\n{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}}\n");
        let answers = answers(&input).await;
        let codes: Vec<_> = answers.iter().filter_map(|it| it.pointer("/error/code")).collect();
        assert_eq!(codes, [-32_700, -32_600]);
        assert!(answers.iter().any(|it| it.get("result").is_some()));
    }
}
