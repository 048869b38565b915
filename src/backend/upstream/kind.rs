//! Finds out what an upstream speaks, by asking it as any client would.

use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::time::timeout;

use super::refusal::WHERE;
use super::wire::{Answer, EventBody, SESSION, Wire};
use crate::caller::Caller;
use crate::client::SendError;
use crate::wire::jsonrpc::{Message, RequestId};
use crate::wire::revision::ProtocolVersion;

/// Behind a connection that breaks off without an answer, where nothing else is known.
const TLS_HINT: &str =
    "; if it speaks TLS at that port, write https:// in --upstream (MCP_UPSTREAM)";

/// What an upstream speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spoken {
    /// HTTP+SSE of 2024-11-05.
    Sse,
    /// Streamable HTTP.
    Streamable,
}

/// Why it could not be found out.
pub(super) enum Unclear {
    /// It is down: to be asked again.
    Down(String),
    /// It is up, and is no MCP server, or not there.
    NotMcp(String),
}

/// The `initialize` that the edge sends in its own name.
pub(super) fn initialize(id: &RequestId) -> Message {
    let params = json!({
        "protocolVersion": ProtocolVersion::LATEST.name(),
        "capabilities": {},
        "clientInfo": { "name": "mcp-edge", "version": env!("CARGO_PKG_VERSION") },
    });
    Message::request(id, "initialize", &params)
}

/// Asks (2025-11-25, "Transports", "Backwards compatibility"): `initialize` by POST; where that is
/// no success, a stream by GET, whose first event is `endpoint`.
pub(super) async fn probe(wire: &Wire, caller: &Caller) -> Result<Spoken, Unclear> {
    let hello = initialize(&1.into());
    let none = HeaderMap::new();
    let patience = wire.patience();
    let posted = wire.post(wire.url(), &hello, &none, caller, Some(patience)).await;
    let (head, answer) = posted.map_err(|fault| Unclear::Down(hinted(wire, &fault)))?;
    let refused = match answer {
        Answer::Refused(refusal) => refusal,
        Answer::Json(_) | Answer::Events(_) => {
            if is_answered(answer, wire).await {
                if let Some(id) = head.get(SESSION) {
                    let session = HeaderMap::from_iter([(SESSION, id.clone())]);
                    wire.end(&session, caller, patience).await;
                }
                return Ok(Spoken::Streamable);
            }
            let text = format!(
                "the upstream answered `initialize` with something that is no MCP: {WHERE}"
            );
            return Err(Unclear::NotMcp(text));
        }
        Answer::Accepted { page } => {
            let posted = if page { "a web page" } else { "2xx without an answer" };
            return streams(wire, caller, posted).await;
        }
    };
    match refused.status {
        _ if refused.is_clear() => Err(Unclear::NotMcp(refused.text())),
        // So do web servers that have pages only.
        StatusCode::NOT_IMPLEMENTED => streams(wire, caller, &refused.brief()).await,
        status if status.is_client_error() => streams(wire, caller, &refused.brief()).await,
        status if status.is_server_error() => Err(Unclear::Down(refused.text())),
        _ => Err(Unclear::NotMcp(refused.text())),
    }
}

/// A fault that was met before anything else is known: the scheme may be wrong, for a server with
/// TLS takes plain HTTP for a broken handshake.
pub(super) fn hinted(wire: &Wire, fault: &SendError) -> String {
    let broken = matches!(fault, SendError::Broken(_)) && wire.url().scheme_str() == Some("http");
    let hint = if broken { TLS_HINT } else { "" };
    format!("{fault}{hint}")
}

async fn is_answered(answer: Answer, wire: &Wire) -> bool {
    let is_response = |bytes| {
        let message = Message::parse(bytes);
        message.is_ok_and(|message| message.answers().is_some())
    };
    match answer {
        Answer::Json(bytes) => is_response(bytes),
        Answer::Events(mut events) => {
            let first = async {
                while let Ok(Some(event)) = events.next().await {
                    if let Some(data) = event.data {
                        return is_response(data);
                    }
                }
                false
            };
            timeout(wire.patience(), first).await.unwrap_or(false)
        }
        Answer::Accepted { .. } | Answer::Refused(_) => false,
    }
}

async fn streams(wire: &Wire, caller: &Caller, posted: &str) -> Result<Spoken, Unclear> {
    let asked = timeout(wire.patience(), wire.listen(&HeaderMap::new(), caller)).await;
    let late = |_elapsed| Unclear::Down(SendError::Late(wire.patience()).to_string());
    match asked.map_err(late)?.map_err(|fault| Unclear::Down(hinted(wire, &fault)))? {
        Answer::Events(mut events) => match timeout(wire.patience(), endpoint(&mut events)).await {
            Ok(Ok(_endpoint)) => Ok(Spoken::Sse),
            Ok(Err(text)) => Err(Unclear::NotMcp(text)),
            Err(elapsed) => Err(late(elapsed)),
        },
        Answer::Refused(refusal) if refusal.is_clear() => Err(Unclear::NotMcp(refusal.text())),
        Answer::Refused(refusal) => Err(no_mcp(wire, posted, &refusal.brief())),
        Answer::Accepted { page: true } => Err(no_mcp(wire, posted, "a web page")),
        Answer::Json(_) | Answer::Accepted { page: false } => {
            Err(no_mcp(wire, posted, "no event stream"))
        }
    }
}

fn no_mcp(wire: &Wire, posted: &str, got: &str) -> Unclear {
    let path = wire.url().path();
    Unclear::NotMcp(format!(
        "no MCP server answers at {path} of the upstream (POST: {posted}; GET: {got}): {WHERE}"
    ))
}

/// The first event of HTTP+SSE: where messages are to be posted.
pub(super) async fn endpoint(events: &mut EventBody) -> Result<String, String> {
    while let Some(event) = events.next().await? {
        if event.kind.as_deref() == Some("endpoint") {
            let data = event.data.unwrap_or_default();
            return String::from_utf8(data.into()).map_err(|error| error.to_string());
        }
    }
    Err("the upstream's stream ended without an `endpoint`".to_owned())
}
