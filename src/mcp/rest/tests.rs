//! The walk through a list of tools, and the time of a plain call, on a paused clock.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::backend::Backend;
use crate::backend::embedded::{Call, CallError, EmbeddedBackend, Handler, ServerInfo};
use crate::caller::{Caller, Grant};
use crate::config::{Config, Times};
use crate::drain::Drain;
use crate::guard::ToolPolicy;
use crate::limits::bytes::Budget;
use crate::mcp::Mcp;
use crate::observe::metrics::Metrics;

fn page(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn bad(result: Result<bool, Reason>) -> &'static str {
    match result {
        Err(Reason::BadAnswer(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn pages_for(wanted: Option<&str>) -> Pages<'_> {
    Pages::new(wanted, &Quota::unbounded()).unwrap()
}

#[test]
fn tools_are_kept_in_order_and_in_their_own_bytes() {
    let mut pages = pages_for(None);
    let first = r#"{ "nextCursor" : "2", "tools": [ {"name" :"a"}, { "x":1.0, "x":2 } ]}"#;
    assert!(pages.add(&page(first)).unwrap());
    assert_eq!(pages.walk.params(), json!({ "cursor": "2" }));
    assert!(pages.add(&page(r#"{"tools":[],"nextCursor":"3"}"#)).unwrap());
    assert_eq!(pages.walk.params(), json!({ "cursor": "3" }));
    assert!(!pages.add(&page(r#"{"tools":["\u0041"],"nextCursor":null}"#)).unwrap());
    assert_eq!(pages.whole().unwrap(), r#"{"tools":[{"name" :"a"},{ "x":1.0, "x":2 },"\u0041"]}"#);
    let mut none = pages_for(None);
    assert!(!none.add(&page(r#"{"tools":[],"nextCursor":""}"#)).unwrap());
    assert_eq!(none.whole().unwrap(), r#"{"tools":[]}"#);
}

#[test]
fn a_tool_is_found_by_its_exact_name() {
    let mut pages = pages_for(Some("b"));
    let tools = r#"{"tools":[7,["b"],{"name":"B"},{"title":"b"},{"name":"\u0062"}]}"#;
    let others = tools.replace(r#",{"name":"\u0062"}"#, "");
    pages.add(&page(&others)).unwrap();
    assert!(!pages.found, "none of these is called b");
    pages.add(&page(tools)).unwrap();
    assert!(pages.found);
}

#[test]
fn a_list_that_is_none_or_has_no_end_is_refused() {
    for text in
        [r#"{"tools":{}}"#, "{}", r#"{"tools":[],"nextCursor":7}"#, r#"{"tools":[],"tools":[]}"#]
    {
        assert_eq!(bad(pages_for(None).add(&page(text))), "it is no list of tools", "{text}");
    }
    let mut circle = pages_for(None);
    let to = |cursor: &str| page(&json!({ "tools": [], "nextCursor": cursor }).to_string());
    for cursor in ["a", "b"] {
        circle.add(&to(cursor)).unwrap();
    }
    assert!(bad(circle.add(&to("a"))).contains("circle"));
    let long = || {
        let mut long = pages_for(None);
        for number in 1..1000 {
            long.add(&to(&number.to_string())).unwrap();
        }
        long
    };
    assert!(!long().add(&page(r#"{"tools":[]}"#)).unwrap());
    assert!(bad(long().add(&to("1000"))).contains("1000 pages"));
    let mut large = pages_for(None);
    let half = |cursor: &str| {
        page(&json!({ "tools": ["x".repeat(8_388_000)], "nextCursor": cursor }).to_string())
    };
    large.add(&half("a")).unwrap();
    large.add(&half("b")).unwrap();
    assert!(bad(large.add(&half("c"))).contains("16 MiB"));
    // What never fits is the list's fault, not the caller's.
    let small = Budget::new(8000, 0, Metrics::default()).quota();
    let mut small = Pages::new(None, &small).unwrap();
    assert!(
        bad(small.add(&page(&json!({ "tools": ["x".repeat(3000)] }).to_string())))
            .contains("memory")
    );
}

#[test]
fn a_result_is_an_object_and_an_error_is_told_shortly() {
    let answer = |rest: &str| {
        Message::parse(format!(r#"{{"jsonrpc":"2.0","id":1,{rest}}}"#).into()).unwrap()
    };
    assert_eq!(result_of(&answer(r#""result":{ "a":1.0}"#)).unwrap(), r#"{ "a":1.0}"#);
    for none in ["[]", "null", "\"x\""] {
        let result = result_of(&answer(&format!(r#""result":{none}"#)));
        assert!(matches!(result, Err(Reason::BadAnswer(_))), "{none}");
    }
    let long = json!({ "code": -5, "message": "m".repeat(5000) });
    let error = result_of(&answer(&format!(r#""error":{long}"#)));
    assert_eq!(error, Err(Reason::BackendError { code: -5, text: "m".repeat(1000) }));
    let odd = result_of(&answer(r#""error":"odd""#));
    assert!(matches!(odd, Err(Reason::BadAnswer(_))));
}

/// Takes a minute for each page, of which there are ten, and for each call.
struct Slow;

impl Handler for Slow {
    fn info(&self) -> ServerInfo {
        ServerInfo {
            name: "slow".to_owned(),
            version: "1".to_owned(),
            capabilities: json!({}),
            instructions: None,
        }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        tokio::time::sleep(Duration::from_mins(1)).await;
        if call.method == "tools/call" {
            return Ok(json!({ "called": call.params }));
        }
        let at = call.params["cursor"].as_str().map_or(1, |cursor| cursor.parse::<u32>().unwrap());
        let tools = [json!({ "name": format!("tool{at}") })];
        let next = if at < 10 { json!((at + 1).to_string()) } else { Value::Null };
        Ok(json!({ "tools": tools, "nextCursor": next }))
    }
}

fn slow(minutes: u64) -> (Mcp, Policy) {
    slow_within(Duration::from_mins(minutes))
}

fn slow_within(call: Duration) -> (Mcp, Policy) {
    let times = Times { call, ..Times::default() };
    let config = Config { times: times.check().unwrap(), ..Config::default() };
    let drain = Drain::default();
    let backend = Backend::Embedded(EmbeddedBackend::new(Slow, drain.clone()));
    let budget = Budget::new(256 << 20, 16 << 20, Metrics::default());
    let mcp = Mcp::new(backend, budget, Metrics::default(), drain);
    (mcp, Policy::new(&config, &[]))
}

fn sender() -> Sender<'static> {
    Sender::new(ToolPolicy::default(), &Grant::ANONYMOUS, Caller::stdio())
}

async fn call((mcp, policy): &(Mcp, Policy), tool: &str) -> Result<Bytes, Reason> {
    let body = json!({ "name": tool }).to_string();
    let call = PlainCall::read(&body.into(), &Quota::unbounded()).unwrap();
    let sender = sender();
    mcp.rest.in_time(policy, mcp.rest.call_plain(policy, &sender, call)).await
}

#[tokio::test(start_paused = true)]
async fn a_list_and_its_call_share_the_time_of_one_call() {
    let begun = Instant::now();
    let done = call(&slow(12), "tool10").await.unwrap();
    assert_eq!(done, r#"{"called":{"arguments":{},"name":"tool10"}}"#);
    assert_eq!(begun.elapsed(), Duration::from_mins(11));
    let (mcp, policy) = slow(5);
    let begun = Instant::now();
    let late = Reason::CallTimeout(Duration::from_mins(5));
    let sender = sender();
    let walk = mcp.rest.walk(&policy, &sender, None);
    assert_eq!(mcp.rest.in_time(&policy, walk).await.unwrap_err(), late);
    assert_eq!(begun.elapsed(), Duration::from_mins(5));
    // The tenth page comes in time, the call does not.
    let mcp = slow(10);
    let begun = Instant::now();
    let late = Reason::CallTimeout(Duration::from_mins(10));
    assert_eq!(call(&mcp, "tool10").await.unwrap_err(), late);
    assert_eq!(begun.elapsed(), Duration::from_mins(10));
    assert_eq!(call(&slow(11), "none").await.unwrap_err(), Reason::UnknownTool);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_is_told_from_a_fault() {
    let (mcp, policy) = slow_within(Duration::from_secs(9));
    let request = Message::request(&1.into(), "tools/list", &json!({}));
    let begun = Instant::now();
    // Nothing but the session's own clock runs here.
    let answer = mcp.rest.pool.answer(&policy, sender().permit(request).unwrap()).await;
    assert_eq!(answer.unwrap_err(), Reason::CallTimeout(Duration::from_secs(9)));
    assert_eq!(begun.elapsed(), Duration::from_secs(9));
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_while_the_edge_goes_down() {
    let mcp = slow(1);
    mcp.0.sessions.drain.begin();
    assert_eq!(call(&mcp, "tool1").await, Err(Reason::Draining));
}
