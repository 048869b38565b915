//! Invariant: a message that is made of a kind, an id, a method and parameters, written in any
//! order and with any white space, is read as what it was made of; and so is one that the edge
//! makes itself.
#![no_main]

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use mcp_edge::jsonrpc::{Kind, Message, RequestId};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
enum Id {
    Number(i64),
    Text(String),
}

#[derive(Arbitrary, Debug)]
enum Tree {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

#[derive(Arbitrary, Debug)]
enum What {
    Request(Id, String, Option<Vec<(String, Tree)>>),
    Notification(String, Option<Vec<Tree>>),
    Result(Id, Tree),
    Error(Id, i32, String),
}

#[derive(Arbitrary, Debug)]
struct Made {
    what: What,
    order: u8,
    space: u8,
}

fn value(tree: Tree) -> Value {
    match tree {
        Tree::Null => Value::Null,
        Tree::Bool(it) => it.into(),
        Tree::Number(it) => it.into(),
        Tree::Text(it) => it.into(),
        Tree::Array(it) => it.into_iter().map(value).collect(),
        Tree::Object(it) => object(it),
    }
}

fn object(members: Vec<(String, Tree)>) -> Value {
    members.into_iter().map(|(name, tree)| (name, value(tree))).collect()
}

fn id(id: &Id) -> (Value, RequestId) {
    match id {
        Id::Number(it) => ((*it).into(), RequestId::Number(it.to_string().into())),
        Id::Text(it) => (it.clone().into(), RequestId::Text(it.as_str().into())),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fuzz_target!(|made: Made| {
    let mut members = vec![("jsonrpc", json!("2.0"))];
    let (expected, params) = match made.what {
        What::Request(it, method, params) => {
            let (written, id) = id(&it);
            members.extend([("id", written), ("method", json!(method))]);
            (Kind::Request { id, method: method.into() }, params.map(object))
        }
        What::Notification(method, params) => {
            members.push(("method", json!(method)));
            let params = params.map(|it| it.into_iter().map(value).collect());
            (Kind::Notification { method: method.into() }, params)
        }
        What::Result(it, result) => {
            let (written, id) = id(&it);
            members.extend([("id", written), ("result", value(result))]);
            (Kind::Response { id }, None)
        }
        What::Error(it, code, text) => {
            let (written, id) = id(&it);
            assert_eq!(Message::error(&id, code, &text).kind(), &Kind::Response { id: id.clone() });
            members.extend([("id", written), ("error", json!({ "code": code, "message": text }))]);
            (Kind::Response { id }, None)
        }
    };
    members.extend(params.clone().map(|params| ("params", params)));
    let count = members.len();
    members.rotate_left(usize::from(made.order) % count);
    let space = ["", " ", "\n", "\r\n\t"][usize::from(made.space % 4)];
    let written: Vec<String> = members
        .iter()
        .map(|(name, value)| format!("{space}\"{name}\"{space}:{space}{value}{space}"))
        .collect();
    let text = format!("{space}{{{}}}{space}", written.join(","));
    let deepest = members.iter().map(|(_, value)| depth(value)).max().unwrap_or(0);
    let long = members.iter().any(|(name, value)| *name == "id" && value.to_string().len() > 1024);

    match Message::parse(Bytes::from(text.clone())) {
        Ok(message) => {
            assert!(!long && deepest < 128);
            assert_eq!(message.kind(), &expected, "{text}");
            let read = params.map_or(Value::Null, |it| it);
            assert_eq!(serde_json::from_str::<Value>(message.params()).unwrap_or_default(), read);
            if let Kind::Request { id, method } = &expected
                && read.is_object()
            {
                assert_eq!(Message::request(id, method, &read).kind(), &expected);
            }
        }
        // What one reader takes for one of the members that the edge reads, and another does not.
        Err(error) => {
            assert!(
                long || deepest > 127 || error.to_string().contains("member"),
                "{error}: {text}"
            );
        }
    }
});
