//! An HTTP+SSE server behind the edge that does as the test says, and notes what it sees.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::poll_fn;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use mcp_edge::{Upstream, UpstreamKind};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::scripted::Seen;

/// What it does with a message.
#[derive(Debug)]
pub(crate) enum Deed {
    /// As an honest server would: 202, and the answer on the stream.
    Well,
    /// 202, and this as the answer on the stream.
    Answer(Value),
    /// 202, and this text on the stream, with the id of the call in place of `ID`.
    Raw(String),
    /// 202, and no answer.
    Silent,
    /// It ends its streams.
    Fall,
    /// Answer and 202 once [`ScriptedSse::let_go`] was said.
    Held,
    /// 202, and the answer once [`ScriptedSse::let_go`] was said.
    Late,
    /// It asks the client something on the stream, and does nothing before that is answered.
    Ask,
    /// It answers with this status.
    Say(u16),
}

type Script = Arc<dyn Fn(&Seen) -> Deed + Send + Sync>;
type Frames = UnsyncBoxBody<Bytes, std::io::Error>;

struct Books {
    script: Script,
    seen: Mutex<Vec<Seen>>,
    /// Streams that are open, by their path for messages.
    streams: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    held: Semaphore,
    /// Messages whose answers come late, and where they were posted.
    late: Mutex<Vec<(String, Seen)>>,
    answered: Semaphore,
}

/// The server. Dropped, it is gone with all of its connections.
pub(crate) struct ScriptedSse {
    pub(crate) address: SocketAddr,
    books: Arc<Books>,
    _serving: JoinSet<()>,
}

impl ScriptedSse {
    pub(crate) async fn new(script: impl Fn(&Seen) -> Deed + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let books = Arc::new(Books {
            script: Arc::new(script),
            seen: Mutex::default(),
            streams: Mutex::default(),
            held: Semaphore::new(0),
            late: Mutex::default(),
            answered: Semaphore::new(0),
        });
        let mut serving = JoinSet::new();
        serving.spawn(accept(socket, Arc::clone(&books)));
        Self { address, books, _serving: serving }
    }

    /// Settings for an edge in front.
    pub(crate) fn upstream(&self) -> Upstream {
        let url = format!("http://{}/sse", self.address).parse().unwrap();
        Upstream { kind: UpstreamKind::Sse, ..Upstream::new(url) }
    }

    /// The methods that came up; streams are `GET`.
    pub(crate) fn methods(&self) -> Vec<String> {
        self.books.seen.lock().unwrap().iter().map(Seen::method).collect()
    }

    /// How often a message with this method came up; streams are `GET`.
    pub(crate) fn count(&self, method: &str) -> usize {
        self.books.seen.lock().unwrap().iter().filter(|seen| seen.method() == method).count()
    }

    /// How often this tool was called.
    pub(crate) fn calls(&self, tool: &str) -> usize {
        let seen = self.books.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.tool().as_deref() == Some(tool)).count()
    }

    /// Answers what is held, from now on.
    pub(crate) fn let_go(&self) {
        let mut late = self.books.late.lock().unwrap();
        self.books.held.add_permits(1);
        for (path, seen) in late.drain(..) {
            answer_with(well(&seen), &seen, &self.books, &path);
        }
    }

    /// Ends its streams.
    pub(crate) fn fall(&self) {
        self.books.streams.lock().unwrap().clear();
    }
}

async fn accept(socket: TcpListener, books: Arc<Books>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = socket.accept().await.unwrap();
        connections.spawn(serve(stream, Arc::clone(&books)));
    }
}

async fn serve(stream: TcpStream, books: Arc<Books>) {
    let service = service_fn(|request| answer(request, Arc::clone(&books)));
    drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(
    request: Request<Incoming>,
    books: Arc<Books>,
) -> Result<Response<Frames>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let path = head.uri.to_string();
    let seen = Seen { verb: head.method.to_string(), headers: head.headers, body };
    let number = {
        let mut all = books.seen.lock().unwrap();
        all.push(seen.clone());
        all.len()
    };
    let result = match (books.script)(&seen) {
        Deed::Say(status) => return Ok(plain(status)),
        _ if seen.verb == "GET" => return Ok(stream(number, &books)),
        Deed::Silent => None,
        Deed::Raw(text) => {
            say(&books, &path, &text.replace("ID", &seen.json()["id"].to_string()));
            None
        }
        Deed::Fall => {
            books.streams.lock().unwrap().clear();
            None
        }
        Deed::Answer(answer) => Some(answer),
        Deed::Well => well(&seen),
        Deed::Held => {
            drop(books.held.acquire().await.unwrap());
            well(&seen)
        }
        Deed::Late => {
            let mut late = books.late.lock().unwrap();
            if books.held.available_permits() == 0 {
                late.push((path, seen));
                return Ok(plain(202));
            }
            well(&seen)
        }
        Deed::Ask => {
            let params = json!({ "message": "well?", "requestedSchema": {} });
            let asked = json!({ "jsonrpc": "2.0", "id": 0, "method": "elicitation/create",
                                "params": params });
            say(&books, &path, &asked);
            drop(books.answered.acquire().await.unwrap());
            well(&seen)
        }
    };
    let message = seen.json();
    if message["method"].is_null() {
        books.answered.add_permits(1);
    }
    answer_with(result, &seen, &books, &path);
    Ok(plain(202))
}

fn answer_with(result: Option<Value>, seen: &Seen, books: &Books, path: &str) {
    let id = &seen.json()["id"];
    if let Some(mut answer) = result.filter(|_| !id.is_null()) {
        answer["jsonrpc"] = json!("2.0");
        answer["id"] = id.clone();
        say(books, path, &answer);
    }
}

fn plain(status: u16) -> Response<Frames> {
    let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

fn say(books: &Books, path: &str, message: &impl std::fmt::Display) {
    if let Some(stream) = books.streams.lock().unwrap().get(path) {
        // A client that left hears no more.
        drop(stream.send(format!("event: message\ndata: {message}\n\n")));
    }
}

fn stream(number: usize, books: &Books) -> Response<Frames> {
    let (say, mut said) = mpsc::unbounded_channel();
    let path = format!("/messages?session={number}");
    say.send(format!("event: endpoint\ndata: {path}\n\n")).unwrap();
    books.streams.lock().unwrap().insert(path, say);
    let frames = poll_fn(move |context| {
        said.poll_recv(context).map(|text| text.map(|text| Ok(Frame::data(Bytes::from(text)))))
    });
    let body = StreamBody::new(frames).boxed_unsync();
    Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
}

/// What an honest server answers; nothing where there is nothing to answer.
fn well(seen: &Seen) -> Option<Value> {
    let message = seen.json();
    let result = match &*seen.method() {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": { "tools": {} }, "serverInfo": { "name": "scripted", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [
            { "name": "look", "inputSchema": {}, "annotations": { "readOnlyHint": true } },
            { "name": "act", "inputSchema": {} },
        ] }),
        "tools/call" => json!({ "content": [], "seen": message["params"] }),
        _ => json!({}),
    };
    message["method"].is_string().then(|| json!({ "result": result }))
}
