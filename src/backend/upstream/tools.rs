//! What may be said twice to an upstream of which nobody knows whether it heard it the first time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::backend::catalog::{Page, Tool};
use crate::observe::metrics::{Metrics, Outcome};
use crate::wire::jsonrpc::Message;

/// Tools that are remembered.
const MAX_TOOLS: usize = 10_000;

/// Requests that change nothing, or nothing more the second time (MCP 2025-11-25, "Server
/// features"). Tools are another matter, and what is not known is not safe.
const SAFE: [&str; 15] = [
    "initialize",
    "ping",
    "tools/list",
    "prompts/list",
    "prompts/get",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "completion/complete",
    "logging/setLevel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
];

/// Which tools the upstream marks as read-only or idempotent (MCP 2025-03-26, `ToolAnnotations`).
#[derive(Debug, Default)]
pub(super) struct Tools {
    safe: RwLock<Option<HashMap<Box<str>, bool>>>,
    /// Is somebody asking?
    learning: AtomicBool,
    metrics: Metrics,
}

impl Tools {
    pub(super) fn counting(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Learns from the answer to a `tools/list`.
    pub(super) fn learn(&self, answer: &Message) {
        let Some(page) = Page::read(answer.result_text()) else { return };
        let tools = page.tools.iter().filter_map(|raw| Tool::read(raw));
        // Read before the lock: calls wait for that.
        let marked: Vec<_> = tools.map(|tool| (tool.may_repeat(), tool.name)).collect();
        let mut safe = self.safe.write();
        let safe = safe.get_or_insert_default();
        for (may_repeat, name) in marked {
            if safe.len() < MAX_TOOLS || safe.contains_key(&*name) {
                safe.insert(name.into(), may_repeat);
            } else {
                self.metrics.count(Outcome::ToolUnnoted);
            }
        }
    }

    /// Should whoever asks here ask the upstream? One does, until something is known.
    pub(super) fn must_be_learnt(&self) -> bool {
        let known = self.safe.read().is_some();
        !known && !self.learning.swap(true, Ordering::Relaxed)
    }

    /// Whoever asked got no answer: the next one asks again.
    pub(super) fn were_not_learnt(&self) {
        self.learning.store(false, Ordering::Relaxed);
    }

    /// May this request be said again?
    pub(super) fn may_repeat(&self, request: &Message) -> bool {
        match request.method() {
            Some("tools/call") => {
                let Some(name) = request.tool() else { return false };
                let safe = self.safe.read();
                safe.as_ref().and_then(|safe| safe.get(&*name)).copied().unwrap_or(false)
            }
            Some(method) => SAFE.contains(&method),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(name: &str) -> Message {
        Message::request(&1.into(), "tools/call", &json!({ "name": name }))
    }

    #[test]
    fn only_what_is_known_to_be_safe_is_repeated() {
        let tools = Tools::default();
        assert!(tools.must_be_learnt() && !tools.must_be_learnt());
        tools.were_not_learnt();
        assert!(tools.must_be_learnt() && !tools.may_repeat(&call("read")));
        let answer = Message::result(
            &1.into(),
            &json!({ "tools": [
                { "name": "read", "annotations": { "readOnlyHint": true } },
                { "name": "put", "annotations": { "idempotentHint": true, "title": "x" } },
                { "name": "pay", "annotations": { "readOnlyHint": false } },
                { "name": "bare" },
            ] }),
        );
        tools.learn(&answer);
        tools.were_not_learnt();
        assert!(!tools.must_be_learnt());
        for (name, safe) in [("read", true), ("put", true), ("pay", false), ("bare", false)] {
            assert_eq!(tools.may_repeat(&call(name)), safe, "{name}");
        }
        assert!(!tools.may_repeat(&call("unknown")));
        let request = |method| Message::request(&1.into(), method, &json!({}));
        assert!(tools.may_repeat(&request("tools/list")));
        assert!(!tools.may_repeat(&request("tasks/cancel")));
        assert!(!tools.may_repeat(&request("tools/call")));
    }

    #[test]
    fn a_tool_that_is_marked_otherwise_later_is_otherwise() {
        let tools = Tools::default();
        let list = |safe: bool| {
            let tool = json!({ "name": "t", "annotations": { "readOnlyHint": safe } });
            Message::result(&1.into(), &json!({ "tools": [tool] }))
        };
        tools.learn(&list(true));
        assert!(tools.may_repeat(&call("t")));
        tools.learn(&list(false));
        assert!(!tools.may_repeat(&call("t")));
    }

    #[test]
    fn no_more_tools_are_noted_than_the_lid_allows() {
        let tools = Tools::default();
        let list = |numbers: std::ops::Range<usize>| {
            let tool = |number| json!({ "name": format!("t{number}"), "annotations": { "readOnlyHint": true } });
            Message::result(&1.into(), &json!({ "tools": numbers.map(tool).collect::<Vec<_>>() }))
        };
        tools.learn(&list(0..MAX_TOOLS + 2));
        // A tool that is noted already is noted again.
        tools.learn(&list(0..2));
        for (number, noted) in [(0, true), (MAX_TOOLS - 1, true), (MAX_TOOLS, false)] {
            assert_eq!(tools.may_repeat(&call(&format!("t{number}"))), noted, "{number}");
        }
        assert_eq!(tools.metrics.outcomes()["tool_unnoted"], 2);
    }
}
