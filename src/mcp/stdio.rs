//! The back door: MCP on standard input and output, with no socket. One session, whose standalone
//! stream is the output.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::Reason;
use super::call::Sender;
use super::incoming::{self, EntryRules, Eras, Pings, Sorted};
use super::session::id::SessionId;
use super::session::reader::Reader;
use super::session::{Session, SessionTimes, Terms};
use crate::backend::Link;
use crate::caller::{Caller, Grant, Principal, Transport};
use crate::config::Times;
use crate::drain::Drain;
use crate::guard::ToolPolicy;
use crate::limits::bytes::Quota;
use crate::limits::lines::{Frames, Line};
use crate::observe::metrics::Metrics;
use crate::wire::jsonrpc::{self, Message, Skim, code};

/// Whoever holds the other end may be silent for as long as it likes: longer than any process runs.
const FOR_EVER: Duration = Duration::from_hours(24 * 365 * 10);

/// How the conversation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The input ended, or the edge was told to stop; what was in flight is answered.
    Finished,
    /// The MCP server ended by itself.
    BackendGone,
}

/// Carries messages between `input` and `output` and the session on `link`, until the input ends
/// or `shutdown` resolves, and what was under way is answered; or until the backend ends.
pub(crate) async fn carry<R, W>(
    link: Link,
    times: &Times,
    max_line: usize,
    (input, output): (R, W),
    shutdown: impl Future<Output = ()>,
    drain: &Drain,
) -> Result<Ended, Reason>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let held_to = SessionTimes {
        call: times.call,
        idle: FOR_EVER,
        age: FOR_EVER,
        // A person may be looking at the other end, with a debugger.
        write: FOR_EVER,
    };
    let owner = (Principal::Anonymous, Transport::Stdio);
    // One client, who is whoever started the edge: there is nobody to protect from it.
    let quota = Quota::unbounded();
    let metrics = Metrics::default();
    let terms = Terms { times: held_to, quota, metrics };
    let session = Session::start(SessionId::random()?, owner, terms, link, (), drain);
    let reader = session.listen().ok_or(Reason::UnknownSession)?;
    let listening = async {
        tokio::select! {
            () = listen(input, max_line, &session) => {}
            () = shutdown => {}
        }
        session.settled().await;
    };
    let mut speaking = std::pin::pin!(speak(&reader, output));
    let spoken = tokio::select! {
        () = &mut speaking => true,
        () = listening => false,
    };
    let gone = session.is_ended();
    // The last answers may still be on their way out; the end of the session ends the stream.
    session.close();
    if !spoken {
        speaking.await;
    }
    Ok(if gone { Ended::BackendGone } else { Ended::Finished })
}

/// Hands what comes in on to the session, up to the end of the input.
async fn listen<R: AsyncRead + Unpin>(input: R, max_line: usize, session: &Arc<Session>) {
    let sender = Sender::new(ToolPolicy::default(), &Grant::ANONYMOUS, Caller::stdio());
    let mut lines = Frames::new(input, max_line, CancellationToken::new(), Quota::unbounded());
    while let Some(line) = lines.next().await {
        let parsed = match line {
            Line::Whole(bytes) => Message::parse(bytes.clone()).map_err(|error| {
                let id = Skim::of(&bytes).asks();
                jsonrpc::error_text(id.as_ref(), error.code(), &error.to_string())
            }),
            Line::Cut(..) => continue,
            // Only now it is known whose answer this is.
            Line::Rest(skim) => {
                let text = format!("a line of more than {max_line} bytes");
                Err(jsonrpc::error_text(skim.asks().as_ref(), code::INVALID_REQUEST, &text))
            }
        };
        match parsed {
            Ok(message) => hand_on(message, session, &sender).await,
            Err(refusal) => session.put_in_turn(refusal).await,
        }
    }
}

async fn hand_on(message: Message, session: &Arc<Session>, sender: &Sender<'_>) {
    let id = message.id().cloned();
    // The backend decides about eras and pings, and whoever started the edge about its end.
    let rules =
        EntryRules { eras: Eras::Any, pings: Pings::Backend, weighed: None, draining: false };
    let refused = match incoming::sort(message, rules) {
        Ok(Sorted::Call(request)) => match sender.permit(request) {
            Ok(call) => match session.post(call).await {
                Err(reason @ (Reason::DuplicateId | Reason::TooManyCalls)) => reason,
                // The session answers all other calls that the backend does not get.
                Ok(()) | Err(_) => return,
            },
            Err(denied) => denied,
        },
        // Neither has anybody to tell what became of it.
        Ok(Sorted::Notify(message)) => return drop(session.notify(message, sender.caller()).await),
        Ok(Sorted::Answer(message)) => return drop(session.answer(message, sender.caller()).await),
        Ok(Sorted::Modern | Sorted::Drop | Sorted::Pong(_)) => return,
        Err(reason) => reason,
    };
    let text = refused.to_string();
    session.put_in_turn(jsonrpc::error_text(id.as_ref(), code::INVALID_REQUEST, &text)).await;
}

/// Writes the session's stream, up to its end.
async fn speak<W: AsyncWrite + Unpin>(reader: &Reader, mut output: W) {
    while let Some(line) = reader.next().await {
        if let Err(error) = write_line(&mut output, &line).await {
            return tracing::debug!(%error, "nobody reads the output");
        }
    }
}

async fn write_line<W: AsyncWrite + Unpin>(output: &mut W, line: &Bytes) -> io::Result<()> {
    output.write_all(line).await?;
    output.write_all(b"\n").await?;
    output.flush().await
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tokio::sync::mpsc;

    use super::*;
    use crate::backend::diagnostics::Diagnostics;
    use crate::backend::embedded::EmbeddedBackend;
    use crate::backend::{During, FromBackend, ToBackend};

    async fn run(link: Link, input: &str) -> (Ended, Vec<Value>) {
        let drain = Drain::default();
        let mut output = Vec::new();
        let streams = (input.as_bytes(), &mut output);
        let never = std::future::pending();
        let ended = carry(link, &Times::default(), 1000, streams, never, &drain).await.unwrap();
        let lines = output.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        (ended, lines.map(|line| serde_json::from_slice(line).unwrap()).collect())
    }

    fn diagnostics() -> Link {
        EmbeddedBackend::new(Diagnostics, Drain::default()).open(&Quota::unbounded())
    }

    /// A link whose backend the test plays.
    fn played() -> (Link, mpsc::Receiver<ToBackend>, mpsc::Sender<FromBackend>) {
        let (to_backend, told) = mpsc::channel(4);
        let (say, from_backend) = mpsc::channel(4);
        (Link { to_backend, from_backend }, told, say)
    }

    const CALL: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n";

    #[tokio::test(start_paused = true)]
    async fn a_request_piped_in_is_answered_before_the_end() {
        let (ended, answers) = run(diagnostics(), CALL.trim()).await;
        assert_eq!((ended, answers.len()), (Ended::Finished, 1));
        assert_eq!(answers[0].pointer("/result/tools/0/name").unwrap(), "echo");
    }

    #[tokio::test(start_paused = true)]
    async fn rubbish_is_refused_and_the_rest_goes_on() {
        let long = "x".repeat(2000);
        let (_, answers) = run(diagnostics(), &format!("nope\n{long}\n{CALL}")).await;
        let codes: Vec<_> = answers.iter().filter_map(|it| it.pointer("/error/code")).collect();
        assert_eq!(codes, [-32_700, -32_600]);
        assert!(answers.iter().any(|it| it.get("result").is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_cannot_be_read_is_refused_under_its_id() {
        let long = "x".repeat(2000);
        let call =
            |rest: &str| format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call",{rest}}}"#);
        for line in [call(r#""params":NaN"#), call(&format!(r#""params":["{long}"]"#))] {
            let (_, answers) = run(diagnostics(), &format!("{line}\n")).await;
            let [answer] = &answers[..] else { panic!("{answers:?}") };
            assert_eq!((answer.get("id"), answer.get("error").is_some()), (Some(&7.into()), true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn much_rubbish_at_once_is_refused_line_by_line() {
        let (ended, answers) =
            run(diagnostics(), &format!("{}{CALL}", "nope\n".repeat(2000))).await;
        assert_eq!((ended, answers.len()), (Ended::Finished, 2001));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_fails_when_its_time_is_over() {
        let (link, _told, _say) = played();
        let begun = tokio::time::Instant::now();
        let (ended, answers) = run(link, CALL).await;
        assert_eq!((ended, begun.elapsed()), (Ended::Finished, Times::default().call));
        assert_eq!(answers[0].pointer("/error/code").unwrap(), -32_603);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_ends_is_told_of() {
        let (link, mut told, say) = played();
        let ending = async {
            told.recv().await;
            say.send(FromBackend::Gone("exited with status 3".to_owned())).await.unwrap();
        };
        let ((ended, answers), ()) = tokio::join!(run(link, CALL), ending);
        assert_eq!(ended, Ended::BackendGone);
        let text = answers[0].pointer("/error/message").unwrap().as_str().unwrap();
        assert!(text.contains("exited with status 3"), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_waits_for_what_is_in_flight() {
        let (link, mut told, say) = played();
        let drain = Drain::default();
        let mut output = Vec::new();
        let (_open, input) = tokio::io::duplex(10);
        let streams = (tokio::io::AsyncReadExt::chain(CALL.as_bytes(), input), &mut output);
        let (told_to_stop, stop) = tokio::sync::oneshot::channel::<()>();
        let answering = async {
            told.recv().await;
            told_to_stop.send(()).unwrap();
            tokio::time::sleep(Duration::from_secs(3)).await;
            let message = Message::result(&1.into(), &serde_json::json!({}));
            say.send(FromBackend::Message { message, during: During::Unknown }).await.unwrap();
        };
        let stopping = async { drop(stop.await) };
        let times = Times::default();
        let carrying = carry(link, &times, 1000, streams, stopping, &drain);
        let (ended, ()) = tokio::join!(carrying, answering);
        assert_eq!(ended, Ok(Ended::Finished));
        assert!(output.starts_with(br#"{"jsonrpc":"2.0","id":1,"result""#));
    }
}
