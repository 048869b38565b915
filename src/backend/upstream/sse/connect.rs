//! Opens the stream of an HTTP+SSE upstream, and says again what the client said at the beginning.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::uri::PathAndQuery;
use http::{HeaderMap, Uri};
use tokio::time::timeout;

use crate::backend::upstream::kind;
use crate::backend::upstream::refusal::WHERE;
use crate::backend::upstream::shared::Shared;
use crate::backend::upstream::wire::{Answer, EventBody};
use crate::caller::Caller;
use crate::wire::jsonrpc::{Message, RequestId};

/// Messages that may come before the answer to `initialize`.
const MAX_EARLY: usize = 64;

/// A stream that is open, and ready for calls.
pub(super) struct Connected {
    pub(super) events: Box<EventBody>,
    /// Where messages are to be posted.
    pub(super) post: Uri,
    /// What came before the session was ready.
    pub(super) early: Vec<Message>,
    /// Requests of the edge's own whose answers are still to come.
    pub(super) own: HashSet<RequestId>,
}

/// Connects once. `again` is what has to be said first.
///
/// # Errors
/// Says what went wrong.
pub(super) async fn connect(
    shared: Arc<Shared>,
    caller: Arc<Caller>,
    again: Option<(Message, Vec<Message>)>,
) -> Result<Connected, String> {
    let patience = shared.wire.patience();
    // Is there a stream whose first event does not come?
    let unnamed = AtomicBool::new(false);
    let connecting = async {
        let mut connected = open(&shared, &caller, &unnamed).await?;
        if let Some((hello, rest)) = again {
            initialize(&shared, &caller, &mut connected, &hello).await?;
            for message in rest {
                if let Some(id) = message.request_id() {
                    connected.own.insert(id.clone());
                }
                post(&shared, &caller, &connected.post, &message).await?;
            }
        }
        Ok(connected)
    };
    let late = |_elapsed| {
        if unnamed.load(Ordering::Relaxed) {
            shared.doubt();
            let text = "the upstream's event stream says no `endpoint` to post messages to";
            shared.explained(text.to_owned())
        } else {
            "the upstream does not answer".to_owned()
        }
    };
    timeout(patience, connecting).await.map_err(late)?
}

async fn open(shared: &Shared, caller: &Caller, unnamed: &AtomicBool) -> Result<Connected, String> {
    let listening = shared.wire.listen(&HeaderMap::new(), caller).await;
    let mut events = match listening.map_err(|fault| kind::hinted(&shared.wire, &fault))? {
        Answer::Events(events) => events,
        Answer::Refused(refusal) if refusal.is_clear() => return Err(refusal.text()),
        Answer::Refused(refusal) => return Err(no_stream(shared, &refusal.brief())),
        Answer::Accepted { page: true } => return Err(no_stream(shared, "a web page")),
        Answer::Json(_) | Answer::Accepted { page: false } => {
            return Err(no_stream(shared, "something else"));
        }
    };
    unnamed.store(true, Ordering::Relaxed);
    let named = kind::endpoint(&mut events).await?;
    unnamed.store(false, Ordering::Relaxed);
    let post = resolve(shared.wire.url(), &named)
        .ok_or_else(|| format!("the upstream's endpoint {named:?} is no URL"))?;
    Ok(Connected { events, post, early: Vec::new(), own: HashSet::new() })
}

fn no_stream(shared: &Shared, got: &str) -> String {
    shared.doubt();
    let path = shared.wire.url().path();
    shared.explained(format!("the upstream opens no event stream at {path} ({got}): {WHERE}"))
}

async fn initialize(
    shared: &Shared,
    caller: &Caller,
    connected: &mut Connected,
    hello: &Message,
) -> Result<(), String> {
    post(shared, caller, &connected.post, hello).await?;
    while let Some(event) = connected.events.next().await? {
        let Some(data) = event.data else { continue };
        let message = Message::parse(data).map_err(|error| error.to_string())?;
        match message.answers() {
            Some(id) if Some(id) == hello.id() => {
                return if message.is_error() {
                    Err("the upstream refused to be initialised again".to_owned())
                } else {
                    Ok(())
                };
            }
            None if connected.early.len() < MAX_EARLY => connected.early.push(message),
            Some(_) | None => {}
        }
    }
    Err("the upstream ended the stream".to_owned())
}

async fn post(shared: &Shared, caller: &Caller, to: &Uri, message: &Message) -> Result<(), String> {
    let wire = &shared.wire;
    let posted = wire.post(to, message, &HeaderMap::new(), caller, Some(wire.patience())).await;
    match posted.map_err(|fault| fault.to_string())?.1 {
        Answer::Refused(refusal) => Err(refusal.text()),
        Answer::Accepted { .. } | Answer::Json(_) | Answer::Events(_) => Ok(()),
    }
}

/// Where messages go: the path and query that the upstream names, always at the upstream itself,
/// whatever host it believes to have.
fn resolve(base: &Uri, named: &str) -> Option<Uri> {
    let path = match named.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/").to_owned(),
        None if named.starts_with('/') => named.to_owned(),
        None if named.starts_with('?') => format!("{}{named}", base.path()),
        None => {
            let (directory, _) = base.path().rsplit_once('/').unwrap_or(("", ""));
            format!("{directory}/{named}")
        }
    };
    let mut parts = base.clone().into_parts();
    parts.path_and_query = Some(path.parse::<PathAndQuery>().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_always_go_to_the_upstream_itself() {
        let base = Uri::from_static("http://127.0.0.1:8000/mcp/unified");
        for (named, to) in [
            ("/messages/?session_id=a", "/messages/?session_id=a"),
            ("messages?x=1", "/mcp/messages?x=1"),
            ("?sessionId=1", "/mcp/unified?sessionId=1"),
            ("http://0.0.0.0:8000/messages/?s=1", "/messages/?s=1"),
            ("https://evil.example/x", "/x"),
            ("//evil.example/x", "//evil.example/x"),
        ] {
            let resolved = resolve(&base, named).unwrap();
            assert_eq!(resolved.authority().unwrap(), "127.0.0.1:8000", "{named}");
            assert_eq!(resolved.path_and_query().unwrap(), to, "{named}");
        }
        assert!(resolve(&base, "a b").is_none());
    }
}
