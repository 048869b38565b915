//! A client over hyper and rustls: JSON and event streams, HTTP/1.1 and HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::TOKEN;

/// Every revision with a handshake that Streamable HTTP knows.
pub(crate) const VERSIONS: [&str; 3] = ["2025-03-26", "2025-06-18", "2025-11-25"];
/// What SDKs send.
const BOTH: &str = "application/json, text/event-stream";

/// A request as JSON.
pub(crate) fn call(id: impl Into<Value>, method: &str, params: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params.into() })
}

/// A notification as JSON.
pub(crate) fn note(method: &str, params: impl Into<Value>) -> Value {
    json!({ "jsonrpc": "2.0", "method": method, "params": params.into() })
}

/// Whoever calls: each request goes over a connection of its own, unless [`Client::connect`] made
/// one.
#[derive(Clone)]
pub(crate) struct Client {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    from: Option<IpAddr>,
    token: Option<String>,
    h2: bool,
    abrupt: bool,
}

impl Client {
    pub(crate) fn new(address: SocketAddr, tls: Arc<ClientConfig>) -> Self {
        Self { address, tls, from: None, token: Some(TOKEN.to_owned()), h2: false, abrupt: false }
    }

    pub(crate) fn h2(self) -> Self {
        Self { h2: true, ..self }
    }

    /// Its connections end by a reset, not by a goodbye.
    pub(crate) fn abrupt(self) -> Self {
        Self { abrupt: true, ..self }
    }

    pub(crate) fn from(self, ip: IpAddr) -> Self {
        Self { from: Some(ip), ..self }
    }

    pub(crate) fn token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    pub(crate) fn stranger(self) -> Self {
        Self { token: None, ..self }
    }

    /// A TCP connection from this client's address.
    pub(crate) async fn tcp(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = self.from {
            socket.bind(SocketAddr::new(from, 0))?;
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        if self.abrupt {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        }
        Ok(stream)
    }

    async fn handshake(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![if self.h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(tls)).connect(name, self.tcp().await?).await
    }

    pub(crate) async fn connect(&self) -> Conn {
        self.try_connect().await.unwrap()
    }

    pub(crate) async fn try_connect(&self) -> std::io::Result<Conn> {
        let io = TokioIo::new(self.handshake().await?);
        let mut driver = JoinSet::new();
        let sender = if self.h2 {
            let (sender, driving) = http2::Builder::new(TokioExecutor::new())
                .handshake(io)
                .await
                .map_err(std::io::Error::other)?;
            driver.spawn(async { drop(driving.await) });
            Sender::H2(sender)
        } else {
            let (sender, driving) = http1::handshake(io).await.map_err(std::io::Error::other)?;
            driver.spawn(async { drop(driving.await) });
            Sender::H1(sender)
        };
        Ok(Conn { sender, driver })
    }

    /// A request to this server, with this client's token.
    pub(crate) fn request(&self, method: &str, path: &str) -> Builder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let authority = format!("localhost:{}", self.address.port());
        let request = Request::builder().method(method);
        let request = if self.h2 {
            request.uri(format!("https://{authority}{path}"))
        } else {
            request.uri(path).header("host", authority)
        };
        match &self.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// A POST of JSON, as SDKs send it.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Request<Full<Bytes>> {
        self.post_bytes(path, body.to_string())
    }

    pub(crate) fn post_bytes(&self, path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        self.request("POST", path)
            .header("content-type", "application/json")
            .header("accept", BOTH)
            .body(Full::new(body.into()))
            .unwrap()
    }

    /// Sends a request, reads the answer to its end.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.connect().await.send(request).await
    }

    /// Sends a request without a body.
    pub(crate) async fn bare(&self, request: Builder) -> Answer {
        self.send(request.body(Full::default()).unwrap()).await
    }

    /// Sends a request, reads the answer as it comes. Dropping the stream cuts the connection.
    pub(crate) async fn open(&self, request: Request<Full<Bytes>>) -> Stream {
        let mut conn = self.connect().await;
        let response = conn.begin(request).await.unwrap();
        Stream::new(response, Some(conn))
    }

    /// Opens a session, and says so.
    pub(crate) async fn initialize(&self, version: &str) -> Session {
        let answer = self.send(self.post("/mcp", &hello(version))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let id = answer.header("mcp-session-id").to_owned();
        let spoken = answer.message()["result"]["protocolVersion"].as_str().unwrap().to_owned();
        let session = Session { client: self.clone(), id, version: spoken };
        let told = session.post(&note("notifications/initialized", json!({}))).await;
        assert_eq!((told.status, &*told.body), (StatusCode::ACCEPTED, &b""[..]));
        session
    }
}

/// The first message of every session.
pub(crate) fn hello(version: &str) -> Value {
    let params = json!({
        "protocolVersion": version,
        "capabilities": { "sampling": {}, "elicitation": {}, "roots": {} },
        "clientInfo": { "name": "test", "version": "1" },
    });
    call(0, "initialize", params)
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

/// One connection. Dropping it cuts it.
pub(crate) struct Conn {
    sender: Sender,
    driver: JoinSet<()>,
}

impl Conn {
    pub(crate) async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        Answer::read(self.begin(request).await.unwrap()).await
    }

    /// Resolves when the server has ended the connection.
    pub(crate) async fn ended(&mut self) {
        self.driver.join_next().await;
    }
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self { status: head.status, headers: head.headers, body }
    }

    /// A field's value; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn is_events(&self) -> bool {
        self.header("content-type") == "text/event-stream"
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        assert!(self.is_events(), "{self:?}");
        let text = std::str::from_utf8(&self.body).unwrap();
        text.split_inclusive("\n\n").filter_map(Event::parse).collect()
    }

    /// Every message, however it was framed.
    pub(crate) fn messages(&self) -> Vec<Value> {
        if !self.is_events() {
            return vec![self.json()];
        }
        self.events().iter().filter_map(Event::message).collect()
    }

    /// The last message: of a call, the answer.
    pub(crate) fn message(&self) -> Value {
        self.messages().pop().unwrap()
    }

    /// Status and JSON-RPC error code of a refusal.
    pub(crate) fn refusal(&self) -> (u16, i64) {
        (self.status.as_u16(), self.json()["error"]["code"].as_i64().unwrap_or(0))
    }
}

/// One event of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<u64>,
}

impl Event {
    /// A block up to its blank line; none for comments.
    fn parse(block: &str) -> Option<Self> {
        assert!(block.ends_with("\n\n"), "an event that breaks off: {block:?}");
        let mut event = Self::default();
        for line in block.lines().filter(|line| !line.is_empty() && !line.starts_with(':')) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => event.id = Some(value),
                "event" => event.name = Some(value),
                "data" => assert_eq!(event.data.replace(value), None, "two lines of data"),
                "retry" => event.retry = Some(value.parse().unwrap()),
                other => panic!("an unknown field: {other}"),
            }
        }
        (event != Self::default()).then_some(event)
    }

    pub(crate) fn message(&self) -> Option<Value> {
        let data = self.data.as_deref().filter(|data| !data.is_empty())?;
        Some(serde_json::from_str(data).unwrap())
    }
}

/// An answer that comes bit by bit.
pub(crate) struct Stream {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    text: String,
    /// The last event id that was seen.
    pub(crate) last: Option<String>,
    _conn: Option<Conn>,
}

impl Stream {
    pub(crate) fn new(response: Response<Incoming>, conn: Option<Conn>) -> Self {
        let (head, body) = response.into_parts();
        let (status, headers) = (head.status, head.headers);
        Self { status, headers, body, text: String::new(), last: None, _conn: conn }
    }

    /// Must be an event stream.
    pub(crate) fn events(self) -> Self {
        assert_eq!(self.status, 200, "{:?}", self.headers);
        assert_eq!(self.headers["content-type"], "text/event-stream");
        self
    }

    /// The next event; none at the clean end.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.try_next().await.unwrap()
    }

    pub(crate) async fn try_next(&mut self) -> hyper::Result<Option<Event>> {
        loop {
            while let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let block = std::mem::replace(&mut self.text, rest);
                if let Some(event) = Event::parse(&block) {
                    self.last = event.id.clone().or_else(|| self.last.take());
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                None => {
                    assert_eq!(self.text, "", "the stream broke off");
                    return Ok(None);
                }
                Some(frame) => {
                    let data = frame?.into_data().unwrap();
                    self.text.push_str(std::str::from_utf8(&data).unwrap());
                }
            }
        }
    }

    /// The next message; none at the end.
    pub(crate) async fn try_message(&mut self) -> Option<Value> {
        loop {
            let event = self.next().await?;
            if let Some(message) = event.message() {
                assert_eq!(event.name.as_deref(), Some("message"));
                return Some(message);
            }
        }
    }

    pub(crate) async fn message(&mut self) -> Value {
        self.try_message().await.expect("the stream ended")
    }

    /// Every message up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<Value> {
        let mut all = Vec::new();
        while let Some(message) = self.try_message().await {
            all.push(message);
        }
        all
    }
}

/// A session of Streamable HTTP.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) id: String,
    pub(crate) version: String,
}

impl Session {
    /// A request of this session, with the fields that it must have.
    pub(crate) fn request(&self, method: &str) -> Builder {
        self.client
            .request(method, "/mcp")
            .header("mcp-session-id", &self.id)
            .header("mcp-protocol-version", &self.version)
    }

    pub(crate) fn posting(&self, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
        self.request("POST")
            .header("content-type", "application/json")
            .header("accept", BOTH)
            .body(Full::new(body.into()))
            .unwrap()
    }

    pub(crate) async fn post(&self, body: &Value) -> Answer {
        self.client.send(self.posting(body.to_string())).await
    }

    /// Posts; reads the answer as it comes.
    pub(crate) async fn stream(&self, body: &Value) -> Stream {
        self.client.open(self.posting(body.to_string())).await
    }

    /// Calls; the answer.
    pub(crate) async fn call(&self, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let answer = self.post(&call(id, method, params)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.message()
    }

    /// Answers a question of the server's.
    pub(crate) async fn answer(&self, question: &Value, result: Value) {
        let body = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
        assert_eq!(self.post(&body).await.status, 202);
    }

    /// Opens the stream for what belongs to no call, or resumes one.
    pub(crate) async fn listen(&self, last: Option<&str>) -> Stream {
        let request = self.request("GET").header("accept", "text/event-stream");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        self.client.open(request.body(Full::default()).unwrap()).await
    }

    pub(crate) async fn delete(&self) -> Answer {
        self.client.bare(self.request("DELETE")).await
    }
}
