//! Answers for scripts that speak no JSON-RPC: the whole list of tools, and one call of one tool.
//!
//! The list is walked to its end before a call, so that an unknown tool has a status of its own. The
//! arguments are the backend's to judge.

mod call;

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use self::call::{PlainCall, clipped};
use super::Reason;
use super::call::Sender;
use super::exchange::{Head, Reply};
use super::pool::Pool;
use crate::backend::catalog::{BadList, MAX_LIST, Page, Tool, Walk};
use crate::limits::bytes::{Gathered, Quota, Short};
use crate::policy::Policy;
use crate::wire::jsonrpc::{Message, any_error_in, code};

/// Before all tools.
const OPENING: &[u8] = br#"{"tools":["#;

/// The routes for scripts.
#[derive(Debug)]
pub(super) struct Rest {
    pool: Arc<Pool>,
}

impl Rest {
    pub(super) fn new(pool: Arc<Pool>) -> Self {
        Self { pool }
    }

    /// The whole list of tools.
    pub(super) async fn list_tools(&self, head: Head<'_>) -> Result<Reply, Reason> {
        let policy = head.policy;
        let sender = Pool::sender(head);
        let pages = self.in_time(policy, self.walk(policy, &sender, None)).await?;
        Ok(Reply::json(pages.whole()?))
    }

    /// One call of one tool. The reply is the tool's result.
    pub(super) async fn call_tool(&self, head: Head<'_>, body: Bytes) -> Result<Reply, Reason> {
        let call = PlainCall::read(&body, &head.caller.quota)?;
        drop(body);
        if let Some(weighed) = self.pool.sessions.weighed(&head.caller.quota, false) {
            weighed.check(&call.message)?;
        }
        let policy = head.policy;
        let sender = Pool::sender(head);
        let called = self.call_plain(policy, &sender, call);
        Ok(Reply::json(self.in_time(policy, called).await?))
    }

    async fn call_plain(
        &self,
        policy: &Policy,
        sender: &Sender<'_>,
        call: PlainCall,
    ) -> Result<Bytes, Reason> {
        let PlainCall { name, message } = call;
        if !self.walk(policy, sender, Some(&name)).await?.found {
            return Err(Reason::UnknownTool);
        }
        match result_of(&self.pool.answer(policy, sender.permit(message)?).await?) {
            Err(Reason::BackendError { code, text }) if code == i64::from(code::INVALID_PARAMS) => {
                Err(Reason::BadArguments(text))
            }
            done => done,
        }
    }

    /// Walks the list to its end, and looks out for one tool on the way.
    async fn walk<'a>(
        &self,
        policy: &Policy,
        sender: &Sender<'_>,
        wanted: Option<&'a str>,
    ) -> Result<Pages<'a>, Reason> {
        let mut pages = Pages::new(wanted, &sender.caller().quota)?;
        loop {
            let request = Message::request(&1.into(), "tools/list", &pages.walk.params());
            let page = self.pool.answer(policy, sender.permit(request)?).await?;
            if !pages.add(&result_of(&page)?)? {
                return Ok(pages);
            }
        }
    }

    /// Gives everything that one request asks of the backend the time of one call. Nothing begins
    /// while the edge goes down.
    async fn in_time<T>(
        &self,
        policy: &Policy,
        work: impl Future<Output = Result<T, Reason>>,
    ) -> Result<T, Reason> {
        self.pool.sessions.check_open()?;
        let deadline = Instant::now() + policy.times.call;
        match timeout_at(deadline, work).await {
            Ok(done) if done.is_ok() || Instant::now() < deadline => done,
            Ok(late @ Err(Reason::NeverSpoke { .. })) => late,
            // What fails in the last moment, as a handshake does, fails for want of time.
            Ok(_) | Err(_) => Err(Reason::CallTimeout(policy.times.call)),
        }
    }
}

/// The backend's result, which must be an object.
fn result_of(answer: &Message) -> Result<Bytes, Reason> {
    match answer.result_text() {
        "" => Err(error_of(answer)),
        result if result.starts_with('{') => Ok(answer.bytes().slice_ref(result.as_bytes())),
        _ => Err(Reason::BadAnswer("its result is no object")),
    }
}

fn error_of(answer: &Message) -> Reason {
    any_error_in(answer.bytes())
        .map_or(Reason::BadAnswer("its error has no code and message"), |(code, text)| {
            Reason::BackendError { code, text: clipped(&text) }
        })
}

/// What was read of a list so far.
#[derive(Debug)]
struct Pages<'a> {
    /// The tool to look out for.
    wanted: Option<&'a str>,
    found: bool,
    /// Every tool as it came, with commas between.
    tools: Gathered,
    walk: Walk,
}

impl<'a> Pages<'a> {
    fn new(wanted: Option<&'a str>, quota: &Quota) -> Result<Self, Reason> {
        let mut tools = Gathered::new(quota, MAX_LIST)?;
        tools.add(OPENING).map_err(of_list)?;
        Ok(Self { wanted, found: false, tools, walk: Walk::default() })
    }

    /// Takes one page. True if there is another to ask for.
    fn add(&mut self, page: &Bytes) -> Result<bool, Reason> {
        self.walk.count(page.len())?;
        let page = std::str::from_utf8(page).ok().and_then(Page::read).ok_or(BadList::NoList)?;
        let next = page.next()?;
        for raw in page.tools {
            if !self.found && self.wanted.is_some() {
                self.found = Tool::read(raw).is_some_and(|tool| Some(&*tool.name) == self.wanted);
            }
            if self.tools.len() > OPENING.len() {
                self.tools.add(b",").map_err(of_list)?;
            }
            self.tools.add(raw.get().as_bytes()).map_err(of_list)?;
        }
        Ok(self.walk.turn(next)?)
    }

    /// The whole list, as one page would have it.
    fn whole(mut self) -> Result<Bytes, Reason> {
        self.tools.add(b"]}").map_err(of_list)?;
        Ok(self.tools.whole())
    }
}

/// A list that never fits is not the caller's fault.
fn of_list(short: Short) -> Reason {
    match short {
        Short::Ever => {
            Reason::BadAnswer("its list of tools takes more memory than one client may have")
        }
        Short::Peer | Short::All => short.into(),
    }
}

#[cfg(test)]
mod tests;
