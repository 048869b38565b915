//! A backend's list of tools: how it is walked page by page, and what a page says of each tool
//! (MCP 2025-11-25, "Tools" and "Pagination").

use std::borrow::Cow;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::wire::jsonrpc::Message;

/// Pages of one list.
const MAX_PAGES: usize = 1000;

/// Bytes of all pages of one list together.
pub(crate) const MAX_LIST: usize = 16 * 1024 * 1024;

/// One page: the result of a `tools/list`.
#[derive(Deserialize)]
pub(crate) struct Page<'a> {
    /// Each tool as it came.
    #[serde(borrow)]
    pub(crate) tools: Vec<&'a RawValue>,
    #[serde(borrow, default, rename = "nextCursor")]
    next: Option<&'a RawValue>,
}

impl<'a> Page<'a> {
    /// Reads a result. `None` if it is no list of tools.
    pub(crate) fn read(result: &'a str) -> Option<Self> {
        serde_json::from_str(result).ok()
    }

    /// The cursor of the next page, if there is one: an empty one is none.
    ///
    /// # Errors
    /// The cursor is no string.
    pub(crate) fn next(&self) -> Result<Option<String>, BadList> {
        let next = self.next.map(|raw| serde_json::from_str::<String>(raw.get())).transpose();
        Ok(next.map_err(|_no_string| BadList::NoList)?.filter(|cursor| !cursor.is_empty()))
    }
}

/// One tool of a page.
#[derive(Debug, Deserialize)]
pub(crate) struct Tool<'a> {
    #[serde(borrow)]
    pub(crate) name: Cow<'a, str>,
    #[serde(borrow)]
    annotations: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Annotations {
    #[serde(default, rename = "readOnlyHint")]
    read_only: bool,
    #[serde(default, rename = "idempotentHint")]
    idempotent: bool,
}

impl<'a> Tool<'a> {
    /// Reads one member of a page. `None` if it names no tool.
    pub(crate) fn read(raw: &'a RawValue) -> Option<Self> {
        // An array would be read by position.
        let text = raw.get();
        text.starts_with('{').then(|| serde_json::from_str(text).ok())?
    }

    /// Is it marked as read-only or idempotent (MCP 2025-03-26, `ToolAnnotations`)?
    pub(crate) fn may_repeat(&self) -> bool {
        let annotations =
            self.annotations.map(|raw| serde_json::from_str::<Annotations>(raw.get()));
        annotations.is_some_and(|it| it.is_ok_and(|it| it.read_only || it.idempotent))
    }
}

/// Why a list cannot be walked to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadList {
    /// A page is none.
    NoList,
    /// More than [`MAX_LIST`].
    TooLarge,
    /// More than [`MAX_PAGES`].
    TooLong,
    /// A cursor came twice.
    Circle,
}

impl BadList {
    /// What is wrong with the backend's list, for its caller.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::NoList => "it is no list of tools",
            Self::TooLarge => "its list of tools is larger than 16 MiB",
            Self::TooLong => "its list of tools has more than 1000 pages",
            Self::Circle => "its list of tools goes in a circle",
        }
    }
}

/// A walk through a list, page by page.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    cursor: Option<String>,
    seen: HashSet<String>,
    pages: usize,
    bytes: usize,
}

impl Walk {
    /// The parameters of the request for the next page.
    pub(crate) fn params(&self) -> Value {
        self.cursor.as_ref().map_or(Value::Null, |cursor| json!({ "cursor": cursor }))
    }

    /// Counts a page of so many bytes that came.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<(), BadList> {
        self.pages += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_LIST { Err(BadList::TooLarge) } else { Ok(()) }
    }

    /// Goes on from a page, an answer to `tools/list`. False where the walk ends.
    pub(crate) fn follow(&mut self, answer: &Message) -> bool {
        let page = Page::read(answer.result_text());
        let next = page.and_then(|page| page.next().ok()?);
        self.count(answer.len()).is_ok() && self.turn(next) == Ok(true)
    }

    /// Turns to the page that the last one names. False at the end of the list.
    pub(crate) fn turn(&mut self, next: Option<String>) -> Result<bool, BadList> {
        if let Some(cursor) = &next {
            if self.pages >= MAX_PAGES {
                return Err(BadList::TooLong);
            }
            if !self.seen.insert(cursor.clone()) {
                return Err(BadList::Circle);
            }
        }
        self.cursor = next;
        Ok(self.cursor.is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn a_tool_is_read_by_name_whatever_else_it_has() {
        for (text, name, may_repeat) in [
            (r#"{"name":"a\u0062","annotations":{"readOnlyHint":true}}"#, "ab", true),
            (r#"{"name":"b","annotations":{"idempotentHint":true,"title":"x"}}"#, "b", true),
            (r#"{"name":"c","annotations":{"readOnlyHint":false}}"#, "c", false),
            (r#"{"name":"d","annotations":7}"#, "d", false),
            (r#"{"name":"e"}"#, "e", false),
        ] {
            let raw = raw(text);
            let tool = Tool::read(&raw).unwrap();
            assert_eq!((&*tool.name, tool.may_repeat()), (name, may_repeat), "{text}");
        }
        for none in [r#"["a"]"#, "7", "{}", r#"{"name":7}"#] {
            assert!(Tool::read(&raw(none)).is_none(), "{none}");
        }
    }

    #[test]
    fn a_walk_ends_with_the_list_at_a_circle_and_at_its_lids() {
        let mut walk = Walk::default();
        assert_eq!(walk.params(), Value::Null);
        assert_eq!((walk.count(1), walk.turn(Some("2".to_owned()))), (Ok(()), Ok(true)));
        assert_eq!(walk.params(), json!({ "cursor": "2" }));
        assert_eq!(walk.turn(Some("2".to_owned())), Err(BadList::Circle));
        assert_eq!(walk.turn(None), Ok(false));
        let page = |next| Message::result(&1.into(), &json!({ "tools": [], "nextCursor": next }));
        assert!(walk.follow(&page("3")));
        assert_eq!(walk.params(), json!({ "cursor": "3" }));
        assert!(!walk.follow(&page("3")) && !walk.follow(&page("")));
        assert_eq!(Walk::default().count(MAX_LIST + 1), Err(BadList::TooLarge));
        let mut walk = Walk::default();
        for page in 1..MAX_PAGES {
            assert_eq!((walk.count(1), walk.turn(Some(page.to_string()))), (Ok(()), Ok(true)));
        }
        assert_eq!(walk.count(1), Ok(()));
        assert_eq!(walk.turn(Some("more".to_owned())), Err(BadList::TooLong));
    }
}
