//! Answers for scripts that speak no JSON-RPC: the whole list of tools, and one call of one tool.
//!
//! The list is walked to its end before a call, so that an unknown tool has a status of its own. The
//! arguments are the backend's to judge.

mod call;

use std::collections::HashSet;
use std::future::Future;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use self::call::PlainCall;
use super::call::Sender;
use super::{Ask, Mcp, Reason, Reply};
use crate::limits::bytes::{Gathered, Quota, Short};
use crate::wire::jsonrpc::{Message, any_error_in, code};

/// Pages of one list.
const MAX_PAGES: usize = 1000;
/// Bytes of all its pages together.
const MAX_LIST: usize = 16 * 1024 * 1024;
/// Characters of somebody else's text that an error repeats.
const MAX_QUOTED: usize = 1000;
/// Before all tools.
const OPENING: &[u8] = br#"{"tools":["#;

impl Mcp {
    /// The whole list of tools.
    pub(super) async fn list_tools(&self, ask: Ask<'_>) -> Result<Reply, Reason> {
        let sender = self.bare_sender(ask);
        let pages = self.in_time(self.walk(&sender, None)).await?;
        Ok(Reply::Json(pages.whole()?, None))
    }

    /// One call of one tool. The reply is the tool's result.
    pub(super) async fn call_tool(&self, ask: Ask<'_>, body: Bytes) -> Result<Reply, Reason> {
        let call = PlainCall::read(&body, &ask.caller.quota)?;
        drop(body);
        if let Some(weighed) = self.weighed(&ask.caller.quota, false) {
            weighed.check(&call.message)?;
        }
        let sender = self.bare_sender(ask);
        Ok(Reply::Json(self.in_time(self.call_plain(&sender, call)).await?, None))
    }

    async fn call_plain(&self, sender: &Sender<'_>, call: PlainCall) -> Result<Bytes, Reason> {
        let PlainCall { name, message } = call;
        if !self.walk(sender, Some(&name)).await?.found {
            return Err(Reason::UnknownTool);
        }
        match result_of(&self.answer_bare(sender.permit(message)?).await?) {
            Err(Reason::BackendError { code, text }) if code == i64::from(code::INVALID_PARAMS) => {
                Err(Reason::BadArguments(text))
            }
            done => done,
        }
    }

    /// Walks the list to its end, and looks out for one tool on the way.
    async fn walk<'a>(
        &self,
        sender: &Sender<'_>,
        wanted: Option<&'a str>,
    ) -> Result<Pages<'a>, Reason> {
        let mut pages = Pages::new(wanted, &sender.caller().quota)?;
        let mut params = Value::Null;
        loop {
            let request = Message::request(&1.into(), "tools/list", &params);
            let page = result_of(&self.answer_bare(sender.permit(request)?).await?)?;
            match pages.add(&page)? {
                Some(cursor) => params = json!({ "cursor": cursor }),
                None => return Ok(pages),
            }
        }
    }

    /// Gives everything that one request asks of the backend the time of one call. Nothing begins
    /// while the edge goes down.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Reason>>) -> Result<T, Reason> {
        self.check_open()?;
        let deadline = Instant::now() + self.times.call;
        match timeout_at(deadline, work).await {
            Ok(done) if done.is_ok() || Instant::now() < deadline => done,
            Ok(late @ Err(Reason::NeverSpoke { .. })) => late,
            // What fails in the last moment, as a handshake does, fails for want of time.
            Ok(_) | Err(_) => Err(Reason::CallTimeout(self.times.call)),
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

fn clipped(text: &str) -> String {
    text.chars().take(MAX_QUOTED).collect()
}

/// What was read of a list so far.
#[derive(Debug)]
struct Pages<'a> {
    /// The tool to look out for.
    wanted: Option<&'a str>,
    found: bool,
    /// Every tool as it came, with commas between.
    tools: Gathered,
    cursors: HashSet<String>,
    count: usize,
    bytes: usize,
}

#[derive(Deserialize)]
struct Page<'a> {
    #[serde(borrow)]
    tools: Vec<&'a RawValue>,
    #[serde(default, rename = "nextCursor")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Tool {
    name: String,
}

impl<'a> Pages<'a> {
    fn new(wanted: Option<&'a str>, quota: &Quota) -> Result<Self, Reason> {
        let mut tools = Gathered::new(quota, MAX_LIST)?;
        tools.add(OPENING).map_err(of_list)?;
        Ok(Self { wanted, found: false, tools, cursors: HashSet::new(), count: 0, bytes: 0 })
    }

    /// Takes one page. The cursor of the next, if there is one: an empty one is none.
    fn add(&mut self, page: &Bytes) -> Result<Option<String>, Reason> {
        self.count += 1;
        self.bytes += page.len();
        if self.bytes > MAX_LIST {
            return Err(Reason::BadAnswer("its list of tools is larger than 16 MiB"));
        }
        let Page { tools, next } = serde_json::from_slice(page)
            .map_err(|_other_form| Reason::BadAnswer("it is no list of tools"))?;
        for tool in tools {
            self.look_at(tool.get());
            if self.tools.len() > OPENING.len() {
                self.tools.add(b",").map_err(of_list)?;
            }
            self.tools.add(tool.get().as_bytes()).map_err(of_list)?;
        }
        let Some(cursor) = next.filter(|cursor| !cursor.is_empty()) else { return Ok(None) };
        if self.count >= MAX_PAGES {
            return Err(Reason::BadAnswer("its list of tools has more than 1000 pages"));
        }
        if !self.cursors.insert(cursor.clone()) {
            return Err(Reason::BadAnswer("its list of tools goes in a circle"));
        }
        Ok(Some(cursor))
    }

    fn look_at(&mut self, tool: &str) {
        // An array would be read by position.
        if self.wanted.is_none() || self.found || !tool.starts_with('{') {
            return;
        }
        let tool = serde_json::from_str::<Tool>(tool);
        self.found = tool.is_ok_and(|tool| Some(tool.name.as_str()) == self.wanted);
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
