//! The HTTP floor's doors for the fuzz targets.

use http::{HeaderMap, Method, Request, request};

use super::head::{self, Fields};
use super::route::Route;
use super::rules::Rules;
use crate::config::PassRule;

/// The name of a path's route, beside this unified path.
#[must_use]
pub fn route(path: &str, unified: &str) -> String {
    format!("{:?}", Route::of(path, unified))
}

/// The header fields that the transports look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// Does `Accept` allow JSON?
    pub json: bool,
    /// Does it ask for events?
    pub events: bool,
    /// `Mcp-Session-Id`
    pub session: Option<&'a str>,
    /// `MCP-Protocol-Version`
    pub version: Option<&'a str>,
    /// `Last-Event-ID`
    pub last_event: Option<&'a str>,
}

/// Reads them; none where they are refused.
#[must_use]
pub fn fields(headers: &HeaderMap) -> Option<Read<'_>> {
    let Fields { accept, session, version, last_event } =
        Fields::of(headers, head::accepted(headers)).ok()?;
    Some(Read { json: accept.json, events: accept.events, session, version, last_event })
}

/// Is the body said to be plain JSON?
#[must_use]
pub fn is_json(headers: &HeaderMap) -> bool {
    head::check_content(headers).is_ok()
}

/// Does a GET of the unified path with these fields take events for an answer?
#[must_use]
pub fn takes_events(headers: &HeaderMap) -> bool {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::GET;
    head.headers = headers.clone();
    head::accept(&head, Route::Mcp).events
}

/// What else is read of a head: nothing in it may panic.
pub fn read(head: &request::Parts) -> usize {
    head::host(head);
    head::session_in_query(head);
    head::accept(head, Route::Sse);
    head::size(head)
}

/// The rules of `--pass` and `--pass-open`.
#[derive(Debug)]
pub struct Passing(Rules, String);

impl Passing {
    /// These, beside a unified path, in front of an upstream with its endpoint there.
    #[must_use]
    pub fn new(rules: Vec<PassRule>, unified: &str, endpoint: &str) -> Self {
        Self(Rules::new(rules, unified, endpoint), unified.to_owned())
    }

    /// The rule under which a path is passed on, if it is.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&PassRule> {
        let rule = self.0.find(path, Route::of(path, &self.1))?;
        self.0.is_plain(rule, path).then_some(rule)
    }
}
