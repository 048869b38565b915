//! The POSTs of one stream: one after another for a moment, then side by side.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderMap, Uri};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::backend::ToBackend;
use crate::backend::upstream::shared::Shared;
use crate::backend::upstream::wire::Answer;
use crate::client::SendError;
use crate::wire::jsonrpc::{Message, RequestId};

/// How long a POST holds up what was said after it; and how long that of a call may outlast it.
const IN_ORDER: Duration = Duration::from_secs(1);

/// POSTs of one session that may be under way at once.
const MAX_UNDER_WAY: usize = 256;

/// How a POST was taken.
pub(super) struct Taken {
    number: u64,
    pub(super) message: Message,
    pub(super) answer: Result<Answer, SendError>,
}

/// The POST that holds up the next one.
struct Ahead {
    number: u64,
    call: Option<RequestId>,
    until: Instant,
}

#[derive(Default)]
pub(super) struct Posts {
    /// How many there were.
    count: u64,
    ahead: Option<Ahead>,
    under_way: FuturesUnordered<BoxFuture<'static, Taken>>,
    /// Dropped, the call's POST is of no use any more.
    calls: HashMap<RequestId, DropGuard>,
    /// Was a call's POST late? Such an upstream takes each when it has worked it off, so that calls
    /// hold nothing up any more.
    late: bool,
}

impl Posts {
    /// May the next message be posted?
    pub(super) fn is_free(&self) -> bool {
        self.ahead.is_none() && self.under_way.len() < MAX_UNDER_WAY
    }

    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Begins to post a message.
    pub(super) fn begin(&mut self, shared: &Arc<Shared>, told: ToBackend, to: &Uri) {
        self.count += 1;
        let number = self.count;
        let over = CancellationToken::new();
        let call = told.message.request_id().cloned();
        let is_call = call.is_some();
        if let Some(id) = &call {
            self.calls.insert(id.clone(), over.clone().drop_guard());
        }
        if !(is_call && self.late) {
            self.ahead = Some(Ahead { number, call, until: Instant::now() + IN_ORDER });
        }
        let shared = Arc::clone(shared);
        let to = to.clone();
        self.under_way.push(Box::pin(async move {
            let ToBackend { message, caller } = told;
            let wire = &shared.wire;
            let none = HeaderMap::new();
            // That of a call may take as long as the call.
            let patience = (!is_call).then(|| wire.patience());
            let enough = async {
                over.cancelled().await;
                sleep(IN_ORDER).await;
            };
            let answer = tokio::select! {
                posted = wire.post(&to, &message, &none, &caller, patience) => posted.map(|it| it.1),
                () = enough, if is_call => Err(SendError::Late(IN_ORDER)),
            };
            Taken { number, message, answer }
        }));
    }

    /// A call was answered, or cancelled: its POST holds nothing up any more, and soon ends.
    pub(super) fn over(&mut self, id: &RequestId) {
        self.calls.remove(id);
        if self.ahead.as_ref().is_some_and(|ahead| ahead.call.as_ref() == Some(id)) {
            self.ahead = None;
        }
    }

    /// The next POST that was taken; none where the next message may be posted. Not to be asked
    /// where there is none.
    pub(super) async fn next(&mut self) -> Option<Taken> {
        let until = self.ahead.as_ref().map(|ahead| ahead.until);
        tokio::select! {
            Some(taken) = self.under_way.next() => {
                let first = |ahead: &mut Ahead| ahead.number == taken.number;
                self.ahead.take_if(first);
                Some(taken)
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                self.late |= self.ahead.take().is_some_and(|ahead| ahead.call.is_some());
                None
            }
            else => None,
        }
    }
}
