//! One session in front of a Streamable HTTP upstream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::channel::{Channel, Unanswered};
use super::shared::{Shared, refuse};
use crate::backend::catalog::Walk;
use crate::backend::{self, During, FromBackend, ToBackend};
use crate::caller::Caller;
use crate::wire::jsonrpc::{Message, RequestId};

/// How long a notification holds up what was said after it. Each is a POST of its own, and an
/// upstream that sees them in another order refuses calls before `initialized`.
const IN_ORDER: Duration = Duration::from_secs(1);
/// How long the upstream is given to end its session.
pub(super) const ENDING: Duration = Duration::from_secs(2);

/// Something under way: a call's id comes out, so that it can be forgotten.
type Underway<'a> = BoxFuture<'a, Option<RequestId>>;

/// Carries one session until its client is gone.
pub(super) async fn run(
    shared: &Arc<Shared>,
    first: ToBackend,
    mut told: mpsc::Receiver<ToBackend>,
    say: mpsc::Sender<FromBackend>,
) {
    let channel = Channel::new(Arc::clone(shared), Some(say.clone()));
    let opener = Arc::clone(&first.caller);
    let mut session = StreamableSession {
        channel: &channel,
        shared,
        say: &say,
        work: FuturesUnordered::new(),
        calls: HashMap::new(),
        hello: None,
        waiting: VecDeque::new(),
        begun: false,
    };
    let mut next = Some(first);
    while let Some(told) = match next.take() {
        Some(told) => Some(told),
        None => session.next(&mut told).await,
    } {
        session.carry(told).await;
    }
    drop(session);
    channel.end(&opener, ENDING).await;
}

/// What one session may have under way. More waits in its queue: an upstream that hangs is told little.
const MAX_WORK: usize = 256;
/// Messages that wait here for the answer to `initialize`. The link's own queue holds the rest.
const MAX_WAITING: usize = 4;

struct StreamableSession<'a> {
    channel: &'a Channel,
    shared: &'a Shared,
    say: &'a mpsc::Sender<FromBackend>,
    work: FuturesUnordered<Underway<'a>>,
    /// Dropped, or cancelled, a call is given up.
    calls: HashMap<RequestId, CancellationToken>,
    /// The `initialize` under way: its answer names the session that all else is said in.
    hello: Option<RequestId>,
    /// What came behind it.
    waiting: VecDeque<ToBackend>,
    /// The client said that it is initialised. Each further time would open one stream more.
    begun: bool,
}

impl<'a> StreamableSession<'a> {
    /// The next message, while work goes on; none once the client is gone.
    async fn next(&mut self, told: &mut mpsc::Receiver<ToBackend>) -> Option<ToBackend> {
        loop {
            if self.hello.is_none()
                && let Some(next) = self.waiting.pop_front()
            {
                return Some(next);
            }
            let room = self.work.len() < MAX_WORK && self.waiting.len() < MAX_WAITING;
            tokio::select! {
                told = told.recv(), if room => {
                    let told = told?;
                    if self.hello.as_ref().is_some_and(|hello| follows(&told.message, hello)) {
                        self.waiting.push_back(told);
                    } else {
                        return Some(told);
                    }
                }
                Some(done) = self.work.next() => self.forget(done),
                () = self.say.closed() => return None,
            }
        }
    }

    fn forget(&mut self, done: Option<RequestId>) {
        if let Some(id) = done {
            self.calls.remove(&id);
            self.hello.take_if(|hello| *hello == id);
        }
    }

    async fn carry(&mut self, told: ToBackend) {
        let ToBackend { message, caller } = told;
        self.channel.note(&message);
        let Some(id) = message.request_id() else { return self.send(message, caller).await };
        if message.method() == Some("initialize") {
            self.hello = Some(id.clone());
        }
        let cancelled = CancellationToken::new();
        self.calls.insert(id.clone(), cancelled.clone());
        self.work.push(Box::pin(call(self.channel, message, caller, self.say, cancelled)));
    }

    /// Tells the upstream something, while work goes on.
    async fn send(&mut self, message: Message, caller: Arc<Caller>) {
        let channel = self.channel;
        let begun = message.method() == Some("notifications/initialized");
        let cancels = message.method() == Some("notifications/cancelled");
        if let Some(id) = message.cancelled().filter(|_| cancels)
            && let Some(call) = self.calls.remove(&id)
        {
            call.cancel();
        }
        let by = Arc::clone(&caller);
        let mut telling: Underway<'a> = Box::pin(async move {
            channel.send(&message, &by).await;
            None
        });
        if cancels {
            // Nothing waits for it: an upstream that hangs has many of them.
            return self.work.push(telling);
        }
        let mut enough = Box::pin(sleep(IN_ORDER));
        loop {
            tokio::select! {
                _told = &mut telling => break,
                Some(done) = self.work.next() => self.forget(done),
                () = self.say.closed() => break,
                () = &mut enough => {
                    self.work.push(telling);
                    break;
                }
            }
        }
        if begun && !std::mem::replace(&mut self.begun, true) {
            self.begin(caller);
        }
    }

    /// What the edge does for itself once a session is initialised.
    fn begin(&mut self, caller: Arc<Caller>) {
        let channel = self.channel;
        if self.shared.tools.must_be_learnt() {
            let shared = self.shared;
            let caller = Arc::clone(&caller);
            self.work.push(Box::pin(async move {
                learn(channel, shared, &caller).await;
                None
            }));
        }
        self.work.push(Box::pin(async move {
            channel.listen(&caller).await;
            None
        }));
    }
}

/// Is this to be said once `hello` is answered? An answer may be what the upstream waits for.
pub(super) fn follows(message: &Message, hello: &RequestId) -> bool {
    message.answers().is_none() && message.cancelled().as_ref() != Some(hello)
}

/// One call, to its answer.
async fn call(
    channel: &Channel,
    request: Message,
    caller: Arc<Caller>,
    say: &mpsc::Sender<FromBackend>,
    cancelled: CancellationToken,
) -> Option<RequestId> {
    let id = request.id().cloned();
    let answer = tokio::select! {
        answer = channel.ask(&request, &caller) => answer,
        () = cancelled.cancelled() => return id,
    };
    match answer {
        Ok(message) => {
            // Its id says what it belongs to. A session that is over hears no more.
            let answer = FromBackend::Message { message, during: During::Unknown };
            drop(backend::say(say, answer).await);
        }
        Err(Unanswered { code, text }) => refuse(&request, code, &text, say).await,
    }
    id
}

/// Lets somebody else ask for the tools, however the asking ends.
struct Asking<'a>(&'a Shared);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.tools.were_not_learnt();
    }
}

/// Reads the list of tools once, to know which calls may be repeated.
pub(super) async fn learn(channel: &Channel, shared: &Shared, caller: &Caller) {
    let _asking = Asking(shared);
    // Nobody waits for it, and nobody else asks meanwhile.
    drop(timeout(shared.wire.patience(), read_tools(channel, caller)).await);
}

async fn read_tools(channel: &Channel, caller: &Caller) {
    let mut walk = Walk::default();
    loop {
        let request = Message::request(&channel.name(), "tools/list", &walk.params());
        // It is learnt from where it arrives.
        let Ok(answer) = channel.ask(&request, caller).await else { return };
        if !walk.follow(&answer) {
            return;
        }
    }
}
