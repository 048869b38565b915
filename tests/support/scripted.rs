//! A Streamable HTTP server behind the edge that does as the test says, and notes what it sees.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_edge::{Upstream, UpstreamKind};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A request as it came up.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verb: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The method of the message; of a request without one, the method of HTTP.
    pub(crate) fn method(&self) -> String {
        self.json()["method"].as_str().map_or_else(|| self.verb.clone(), str::to_owned)
    }

    /// The tool that is called.
    pub(crate) fn tool(&self) -> Option<String> {
        let tool = self.json()["params"]["name"].as_str()?.to_owned();
        (self.method() == "tools/call").then_some(tool)
    }

    pub(crate) fn session(&self) -> &str {
        self.headers.get("mcp-session-id").map_or("", |value| value.to_str().unwrap())
    }
}

/// What it does.
#[derive(Debug)]
pub(crate) enum Act {
    /// As an honest server would.
    Well,
    /// It answers with this status and body.
    Say(u16, String),
    /// It answers with this event stream, and ends it.
    Events(String),
    /// It ends the connection without a word.
    Cut,
    /// As an honest server would; all but the head once [`Scripted::let_go`] was said.
    HeldBody,
    /// It never answers.
    Hang,
    /// As an honest server would, once [`Scripted::let_go`] was said.
    Held,
}

type Script = Arc<dyn Fn(&Seen) -> Act + Send + Sync>;

struct Books {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    sessions: AtomicUsize,
    keeps_sessions: bool,
    taken: AtomicUsize,
    open: AtomicUsize,
    held: Semaphore,
}

/// The server. Dropped, it is gone with all of its connections.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    books: Arc<Books>,
    _serving: JoinSet<()>,
}

impl Scripted {
    /// One that gives out session ids.
    pub(crate) async fn new(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start(script, true).await
    }

    /// One that keeps no sessions.
    pub(crate) async fn stateless(script: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        Self::start(script, false).await
    }

    async fn start(
        script: impl Fn(&Seen) -> Act + Send + Sync + 'static,
        keeps_sessions: bool,
    ) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let books = Arc::new(Books {
            script: Arc::new(script),
            seen: Mutex::default(),
            sessions: AtomicUsize::new(0),
            keeps_sessions,
            taken: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            held: Semaphore::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(socket, Arc::clone(&books)));
        Self { address, books, _serving: serving }
    }

    /// Settings for an edge in front.
    pub(crate) fn upstream(&self) -> Upstream {
        let url = format!("http://{}/mcp", self.address).parse().unwrap();
        // Connections are counted.
        let check_at_start = false;
        Upstream { kind: UpstreamKind::Streamable, check_at_start, ..Upstream::new(url) }
    }

    /// Everything that came up.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.books.seen.lock().unwrap().clone()
    }

    /// The methods that came up.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.seen().iter().map(Seen::method).collect()
    }

    /// How often this tool was called.
    pub(crate) fn calls(&self, tool: &str) -> usize {
        self.seen().iter().filter(|seen| seen.tool().as_deref() == Some(tool)).count()
    }

    /// Answers what is held, from now on.
    pub(crate) fn let_go(&self) {
        self.books.held.add_permits(1);
    }

    /// Connections since the beginning.
    pub(crate) fn taken(&self) -> usize {
        self.books.taken.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.books.open.load(Ordering::SeqCst)
    }
}

async fn accept(socket: TcpListener, books: Arc<Books>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = socket.accept().await.unwrap();
        books.taken.fetch_add(1, Ordering::SeqCst);
        books.open.fetch_add(1, Ordering::SeqCst);
        connections.spawn(serve(stream, Arc::clone(&books)));
    }
}

async fn serve(stream: TcpStream, books: Arc<Books>) {
    let service = service_fn(|request| answer(request, Arc::clone(&books)));
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
    books.open.fetch_sub(1, Ordering::SeqCst);
}

async fn answer(
    request: Request<Incoming>,
    books: Arc<Books>,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let seen = Seen { verb: head.method.to_string(), headers: head.headers, body };
    books.seen.lock().unwrap().push(seen.clone());
    match (books.script)(&seen) {
        Act::Well => Ok(well(&seen, &books)),
        Act::Say(status, body) => Ok(json_response(status, body)),
        Act::Events(text) => {
            let mut response = json_response(200, text);
            let events = "text/event-stream".parse().unwrap();
            response.headers_mut().insert("content-type", events);
            Ok(response)
        }
        Act::Cut => Err(std::io::ErrorKind::ConnectionAborted.into()),
        Act::Held => {
            drop(books.held.acquire().await.unwrap());
            Ok(well(&seen, &books))
        }
        Act::HeldBody => {
            let (head, body) = well(&seen, &books).into_parts();
            let late = futures_util::stream::once(async move {
                drop(books.held.acquire().await.unwrap());
                Ok(Frame::data(body.collect().await?.to_bytes()))
            });
            Ok(Response::from_parts(head, StreamBody::new(late).boxed_unsync()))
        }
        Act::Hang => match std::future::pending::<Infallible>().await {},
    }
}

fn json_response(status: u16, body: String) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Full::new(body.into()).boxed_unsync()).unwrap()
}

fn well(seen: &Seen, books: &Books) -> Response<Body> {
    let message = seen.json();
    let result = match &*seen.method() {
        "initialize" => {
            let version = &message["params"]["protocolVersion"];
            json!({ "protocolVersion": version, "capabilities": { "tools": {} },
                    "serverInfo": { "name": "scripted", "version": "1" } })
        }
        "tools/list" => json!({ "tools": [
            { "name": "look", "inputSchema": {}, "annotations": { "readOnlyHint": true } },
            { "name": "act", "inputSchema": {} },
        ] }),
        "tools/call" => json!({ "content": [], "seen": message["params"] }),
        "GET" => return json_response(405, String::new()),
        "DELETE" => return json_response(200, "{}".to_owned()),
        _ if message["id"].is_null() => return json_response(202, String::new()),
        _ => json!({}),
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let mut response = json_response(200, answer.to_string());
    if seen.method() == "initialize" && books.keeps_sessions {
        let session = format!("s-{}", books.sessions.fetch_add(1, Ordering::SeqCst) + 1);
        response.headers_mut().insert("mcp-session-id", session.parse().unwrap());
    }
    response
}
