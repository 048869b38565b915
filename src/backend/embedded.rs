//! An MCP server linked into this process: the [`Handler`] trait, and the link that drives it.

use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, Id, JoinSet};

use super::{During, FromBackend, Link, QUEUE, SAID_QUEUE, ToBackend, say};
use crate::caller::Caller;
use crate::drain::Drain;
use crate::limits::bytes::{Quota, Share};
use crate::wire::jsonrpc::{self, Kind, Message, RequestId, code};
use crate::wire::revision::ProtocolVersion;

/// Questions that one session's handler may have open to its client at once.
const MAX_QUESTIONS: usize = 64;

/// An MCP server in this process.
///
/// The edge answers `initialize` from [`Handler::info`] and `ping` by itself; every other request
/// goes to [`Handler::call`]. One value serves all sessions at once. A call that the client cancels,
/// or whose session ends, is dropped where it awaits.
pub trait Handler: Send + Sync + 'static {
    /// Who this server is and what it can do.
    fn info(&self) -> ServerInfo;

    /// Answers one request.
    fn call(&self, call: Call) -> impl Future<Output = Result<Value, CallError>> + Send;

    /// Hears of one notification. Does nothing unless you write it.
    fn notified(&self, method: &str, params: &Value, caller: &Caller) {
        let _ = (method, params, caller);
    }
}

/// Who an embedded server is: what `initialize` answers.
#[derive(Clone, Debug)]
pub struct ServerInfo {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// MCP `ServerCapabilities`, such as `{"tools": {}}`.
    pub capabilities: Value,
    /// A hint to the model how to use it.
    pub instructions: Option<String>,
}

/// A refusal by the handler: a JSON-RPC error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct CallError {
    /// The JSON-RPC error code.
    pub code: i32,
    /// What is wrong, for a person.
    pub message: String,
    /// The same for a program: the `data` of the error, if it has any.
    pub data: Option<Value>,
}

impl CallError {
    /// The error with this code, and without data.
    #[must_use]
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// The method is not known here.
    #[must_use]
    pub fn unknown_method(method: &str) -> Self {
        Self::new(code::METHOD_NOT_FOUND, format!("unknown method: {method}"))
    }

    /// The parameters do not fit.
    #[must_use]
    pub fn bad_params(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_PARAMS, message)
    }

    /// Something broke.
    #[must_use]
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(code::INTERNAL_ERROR, message)
    }
}

/// One request, and the way back to the client that sent it.
#[derive(Debug)]
pub struct Call {
    /// The method, such as `tools/call`.
    pub method: String,
    /// Its parameters; [`Value::Null`] where there are none.
    pub params: Value,
    /// Who sends it.
    pub caller: Arc<Caller>,
    id: RequestId,
    to_session: mpsc::Sender<FromBackend>,
    questions: Arc<Questions>,
    quota: Quota,
    /// Of its parameters.
    _share: Share,
}

impl Call {
    /// Sends a notification on this call's stream.
    pub async fn notify(&self, method: &str, params: &Value) {
        self.say(Message::notification(method, params)).await;
    }

    /// Reports progress, if the client asked for it.
    pub async fn progress(&self, progress: f64, total: Option<f64>, message: &str) {
        let Some(token) = self.params.pointer("/_meta/progressToken") else { return };
        let mut params = json!({ "progressToken": token, "progress": progress });
        if let (Some(total), Some(map)) = (total, params.as_object_mut()) {
            map.insert("total".to_owned(), json!(total));
        }
        if let (false, Some(map)) = (message.is_empty(), params.as_object_mut()) {
            map.insert("message".to_owned(), json!(message));
        }
        self.notify("notifications/progress", &params).await;
    }

    /// Asks the client something (`sampling/createMessage`, `elicitation/create`, `roots/list`) and
    /// waits for its answer.
    ///
    /// # Errors
    /// The client's own refusal, or [`code::INTERNAL_ERROR`] where too many questions are open or
    /// the session ends.
    pub async fn ask(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let Some((id, answer)) = self.questions.open() else {
            return Err(CallError::internal("too many questions are open to the client"));
        };
        let _closed_on_drop = Open { id: id.clone(), questions: Arc::clone(&self.questions) };
        self.say(Message::request(&id, method, params)).await;
        answer.await.unwrap_or_else(|_gone| Err(CallError::internal("the session ended")))
    }

    async fn say(&self, message: Message) {
        let message = message.charged(&self.quota);
        let message = FromBackend::Message { message, during: During::Call(self.id.clone()) };
        // A closed queue means that the session ended, and this call with it.
        drop(say(&self.to_session, message).await);
    }
}

type CallResult = Result<Value, CallError>;

/// What the handler asked the client and was not told yet.
#[derive(Debug, Default)]
struct Questions {
    next: AtomicU64,
    open: Mutex<HashMap<RequestId, oneshot::Sender<CallResult>>>,
}

impl Questions {
    fn open(&self) -> Option<(RequestId, oneshot::Receiver<CallResult>)> {
        let mut open = self.open.lock();
        if open.len() >= MAX_QUESTIONS {
            return None;
        }
        let id = RequestId::from(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        open.insert(id.clone(), sender);
        Some((id, receiver))
    }

    fn close(&self, id: &RequestId) -> Option<oneshot::Sender<CallResult>> {
        self.open.lock().remove(id)
    }
}

/// A question is forgotten when the call that asked it is dropped.
struct Open {
    id: RequestId,
    questions: Arc<Questions>,
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.questions.close(&self.id));
    }
}

/// The boxed twin of [`Handler`], so that nobody has to write `Pin<Box<…>>`.
pub(super) trait AnyHandler: Send + Sync {
    fn info(&self) -> ServerInfo;
    fn call<'a>(&'a self, call: Call) -> Pin<Box<dyn Future<Output = CallResult> + Send + 'a>>;
    fn notified(&self, method: &str, params: &Value, caller: &Caller);
}

impl<H: Handler> AnyHandler for H {
    fn info(&self) -> ServerInfo {
        Handler::info(self)
    }

    fn call<'a>(&'a self, call: Call) -> Pin<Box<dyn Future<Output = CallResult> + Send + 'a>> {
        Box::pin(Handler::call(self, call))
    }

    fn notified(&self, method: &str, params: &Value, caller: &Caller) {
        Handler::notified(self, method, params, caller);
    }
}

/// Opens links to one handler.
#[derive(Clone)]
pub(crate) struct EmbeddedBackend {
    handler: Arc<dyn AnyHandler>,
    drain: Drain,
}

impl std::fmt::Debug for EmbeddedBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EmbeddedBackend({})", self.handler.info().name)
    }
}

impl EmbeddedBackend {
    pub(crate) fn new(handler: impl Handler, drain: Drain) -> Self {
        Self { handler: Arc::new(handler), drain }
    }

    /// Starts one session with the handler.
    pub(crate) fn open(&self, quota: &Quota) -> Link {
        let (to_backend, told) = mpsc::channel(QUEUE);
        let (to_session, from_backend) = mpsc::channel(SAID_QUEUE);
        let session = EmbeddedSession {
            handler: Arc::clone(&self.handler),
            drain: self.drain.clone(),
            questions: Arc::default(),
            to_session,
            running: HashMap::new(),
            calls: JoinSet::new(),
            quota: quota.clone(),
        };
        self.drain.spawn_behind(session.run(told));
        Link { to_backend, from_backend }
    }
}

struct EmbeddedSession {
    handler: Arc<dyn AnyHandler>,
    drain: Drain,
    questions: Arc<Questions>,
    to_session: mpsc::Sender<FromBackend>,
    running: HashMap<Id, (RequestId, AbortHandle)>,
    calls: JoinSet<()>,
    quota: Quota,
}

impl EmbeddedSession {
    async fn run(mut self, mut told: mpsc::Receiver<ToBackend>) {
        let mut telling = true;
        while telling || !self.calls.is_empty() {
            tokio::select! {
                told = told.recv(), if telling => match told {
                    Some(told) => self.receive(told).await,
                    // Who tells no more may still listen to what is under way.
                    None => telling = false,
                },
                Some(ended) = self.calls.join_next_with_id() => self.reap(ended).await,
                () = self.to_session.closed() => return,
            }
        }
    }

    async fn receive(&mut self, ToBackend { message, caller }: ToBackend) {
        match message.kind() {
            Kind::Request { id, method } if &**method == "initialize" => {
                self.answer(id, &Ok(self.initialized(&message))).await;
            }
            Kind::Request { id, method } if &**method == "ping" => {
                self.answer(id, &Ok(json!({}))).await;
            }
            Kind::Request { id, method } => {
                // As values they take far more than as text.
                match self.quota.try_take(jsonrpc::weight(message.params())) {
                    Ok(share) => self.start(id.clone(), method, &message, caller, share),
                    Err(short) => {
                        self.answer(id, &Err(CallError::internal(short.to_string()))).await;
                    }
                }
            }
            Kind::Notification { method } if &**method == "notifications/cancelled" => {
                self.cancel(&message);
            }
            Kind::Notification { method } => {
                // Nobody waits for an answer; the calls under way go on.
                let Ok(_share) = self.quota.try_take(jsonrpc::weight(message.params())) else {
                    return;
                };
                let notified = || self.handler.notified(method, &params_of(&message), &caller);
                if let Err(panic) = catch_unwind(AssertUnwindSafe(notified)) {
                    self.drain.panicked(panic);
                }
            }
            Kind::Response { id } => {
                if let Some(asker) = self.questions.close(id) {
                    // The asker may have been dropped meanwhile.
                    let text = std::str::from_utf8(message.bytes()).unwrap_or_default();
                    let share = self.quota.try_take(jsonrpc::weight(text));
                    drop(asker.send(match &share {
                        Ok(_share) => answer_of(&message),
                        Err(short) => Err(CallError::internal(short.to_string())),
                    }));
                }
            }
        }
    }

    fn start(
        &mut self,
        id: RequestId,
        method: &str,
        message: &Message,
        caller: Arc<Caller>,
        share: Share,
    ) {
        let call = Call {
            method: method.to_owned(),
            params: params_of(message),
            caller,
            id: id.clone(),
            to_session: self.to_session.clone(),
            questions: Arc::clone(&self.questions),
            quota: self.quota.clone(),
            _share: share,
        };
        let quota = self.quota.clone();
        let handler = Arc::clone(&self.handler);
        let to_session = self.to_session.clone();
        let answered = id.clone();
        let running = self.calls.spawn(async move {
            let answer = handler.call(call).await;
            drop(say(&to_session, to_said(&answered, &answer, &quota)).await);
        });
        self.running.insert(running.id(), (id, running));
    }

    fn cancel(&mut self, message: &Message) {
        let Some(cancelled) = message.cancelled() else { return };
        for (id, running) in self.running.values() {
            if *id == cancelled {
                running.abort();
            }
        }
    }

    async fn reap(&mut self, ended: Result<(Id, ()), tokio::task::JoinError>) {
        let task = match &ended {
            Ok((task, ())) => *task,
            Err(error) => error.id(),
        };
        let Some((id, _)) = self.running.remove(&task) else { return };
        if let Some(panic) = ended.err().and_then(|error| error.try_into_panic().ok()) {
            self.drain.panicked(panic);
            tracing::error!(request = %id, "the embedded handler panicked");
            self.answer(&id, &Err(CallError::internal("the server failed"))).await;
        }
    }

    async fn answer(&self, id: &RequestId, answer: &CallResult) {
        drop(self.to_session.send(to_said(id, answer, &self.quota)).await);
    }

    fn initialized(&self, message: &Message) -> Value {
        let ServerInfo { name, version, capabilities, instructions } = self.handler.info();
        let asked = message.protocol_version();
        let spoken = asked
            .and_then(|asked| ProtocolVersion::parse(&asked))
            .unwrap_or(ProtocolVersion::LATEST);
        let mut result = json!({
            "protocolVersion": spoken.name(),
            "capabilities": capabilities,
            "serverInfo": { "name": name, "version": version },
        });
        if let (Some(text), Some(map)) = (instructions, result.as_object_mut()) {
            map.insert("instructions".to_owned(), json!(text));
        }
        result
    }
}

fn to_said(id: &RequestId, answer: &CallResult, quota: &Quota) -> FromBackend {
    let message = match answer {
        Ok(result) => Message::result(id, result),
        Err(CallError { code, message, data }) => {
            Message::error_with(id, *code, message, data.as_ref().unwrap_or(&Value::Null))
        }
    };
    FromBackend::Message { message: message.charged(quota), during: During::Call(id.clone()) }
}

fn params_of(message: &Message) -> Value {
    serde_json::from_str(message.params()).unwrap_or(Value::Null)
}

fn answer_of(message: &Message) -> CallResult {
    #[derive(serde::Deserialize)]
    struct ClientAnswer {
        #[serde(default)]
        result: Value,
        error: Option<ClientError>,
    }
    #[derive(serde::Deserialize)]
    struct ClientError {
        code: i32,
        message: String,
        data: Option<Value>,
    }
    match serde_json::from_slice(message.bytes()) {
        Ok(ClientAnswer { error: Some(ClientError { code, message, data }), .. }) => {
            Err(CallError { code, message, data })
        }
        Ok(ClientAnswer { result, error: None }) => Ok(result),
        Err(error) => Err(CallError::internal(format!("the client's answer: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::metrics::Metrics;

    struct Fixture;

    impl Handler for Fixture {
        fn info(&self) -> ServerInfo {
            ServerInfo {
                name: "fixture".into(),
                version: "1".into(),
                capabilities: json!({}),
                instructions: None,
            }
        }

        async fn call(&self, call: Call) -> Result<Value, CallError> {
            match call.method.as_str() {
                "ask" => call.ask("roots/list", &json!({})).await,
                "hang" => std::future::pending().await,
                "panic" => panic!("as asked"),
                other => Err(CallError::unknown_method(other)),
            }
        }

        fn notified(&self, method: &str, _params: &Value, _caller: &Caller) {
            assert_ne!(method, "notifications/panic", "as asked");
        }
    }

    async fn send(link: &Link, message: Message) {
        link.to_backend
            .send(ToBackend { message, caller: Arc::new(Caller::stdio()) })
            .await
            .unwrap();
    }

    async fn next(link: &mut Link) -> Message {
        match link.from_backend.recv().await {
            Some(FromBackend::Message { message, .. }) => message,
            other => panic!("{other:?}"),
        }
    }

    fn request(id: u64, method: &str) -> Message {
        Message::request(&id.into(), method, &json!({}))
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_goes_to_the_client_and_its_answer_comes_back() {
        let mut link = EmbeddedBackend::new(Fixture, Drain::default()).open(&Quota::unbounded());
        send(&link, request(1, "ask")).await;
        let asked = next(&mut link).await;
        assert_eq!(asked.method(), Some("roots/list"));
        send(&link, Message::result(asked.id().unwrap(), &json!({ "roots": [] }))).await;
        let answer = next(&mut link).await;
        assert_eq!(answer.bytes(), r#"{"jsonrpc":"2.0","id":1,"result":{"roots":[]}}"#);
    }

    #[tokio::test(start_paused = true)]
    async fn the_data_of_an_error_is_kept_both_ways() {
        let mut link = EmbeddedBackend::new(Fixture, Drain::default()).open(&Quota::unbounded());
        send(&link, request(1, "ask")).await;
        let asked = next(&mut link).await;
        let id = asked.id().unwrap();
        send(&link, Message::error_with(id, -1, "no", &json!({ "why": 7 }))).await;
        let answer = next(&mut link).await;
        let error = r#"{"code":-1,"message":"no","data":{"why":7}}"#;
        assert_eq!(answer.bytes(), &format!(r#"{{"jsonrpc":"2.0","id":1,"error":{error}}}"#));
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_call_ends_and_a_panic_is_answered() {
        let mut link = EmbeddedBackend::new(Fixture, Drain::default()).open(&Quota::unbounded());
        send(&link, request(1, "hang")).await;
        send(&link, Message::notification("notifications/cancelled", &json!({ "requestId": 1 })))
            .await;
        send(&link, request(2, "panic")).await;
        let answer = next(&mut link).await;
        assert_eq!(answer.id(), Some(&RequestId::from(2)));
        assert!(answer.is_error());
    }

    #[tokio::test(start_paused = true)]
    async fn a_notification_that_panics_leaves_the_session() {
        let metrics = Metrics::default();
        let mut link =
            EmbeddedBackend::new(Fixture, Drain::new(metrics.clone())).open(&Quota::unbounded());
        send(&link, Message::notification("notifications/panic", &json!({}))).await;
        send(&link, request(1, "ping")).await;
        assert_eq!(next(&mut link).await.id(), Some(&RequestId::from(1)));
        send(&link, request(2, "panic")).await;
        assert!(next(&mut link).await.is_error());
        assert_eq!(metrics.outcomes().get("panics"), Some(&2));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_link_ends_the_session() {
        let drain = Drain::default();
        let link = EmbeddedBackend::new(Fixture, drain.clone()).open(&Quota::unbounded());
        send(&link, request(1, "hang")).await;
        drop(link);
        assert!(drain.finish(Duration::from_secs(1)).await);
    }
}
