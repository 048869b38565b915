//! The server that stands behind the edge when nothing else does: a client can be checked with it
//! from end to end, with nothing else installed.

use std::time::Duration;

use serde_json::{Value, json};

use super::embedded::{Call, CallError, Handler, ServerInfo};
use crate::caller::Caller;

/// The most notifications that one `count` may ask for.
const MAX_COUNT: u64 = 1000;
/// The longest pause between two of them, in milliseconds.
const MAX_DELAY_MS: u64 = 10_000;

const RESOURCE: &str = "edge://about";

/// The built-in server: tools `echo`, `whoami`, `count` and `fail`, a resource and a prompt.
#[derive(Clone, Copy, Debug, Default)]
pub struct Diagnostics;

impl Handler for Diagnostics {
    fn info(&self) -> ServerInfo {
        ServerInfo {
            name: "mcp-edge-diagnostics".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: json!({ "tools": {}, "resources": {}, "prompts": {}, "logging": {} }),
            instructions: Some(
                "The diagnostics server of mcp-edge. Start the edge with `-- COMMAND` to put \
                 your own MCP server here."
                    .to_owned(),
            ),
        }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        match call.method.as_str() {
            "tools/list" => Ok(tools()),
            "tools/call" => call_tool(&call).await,
            "resources/list" => Ok(json!({ "resources": [resource()] })),
            "resources/templates/list" => Ok(json!({ "resourceTemplates": [] })),
            "resources/read" => read_resource(&call.params),
            "prompts/list" => Ok(json!({ "prompts": [prompt()] })),
            "prompts/get" => get_prompt(&call.params),
            "logging/setLevel" => Ok(json!({})),
            other => Err(CallError::unknown_method(other)),
        }
    }
}

fn tools() -> Value {
    let no_arguments = json!({ "type": "object", "properties": {} });
    json!({ "tools": [
        {
            "name": "echo",
            "description": "Answers with the text it was given.",
            "inputSchema": {
                "type": "object",
                "properties": { "text": { "type": "string" } },
                "required": ["text"],
            },
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "whoami",
            "description": "What the edge knows of you: address, transport, HTTP and TLS.",
            "inputSchema": no_arguments,
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "count",
            "description": "Counts to n with a progress notification for each step.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "n": { "type": "integer", "minimum": 0, "maximum": MAX_COUNT },
                    "delay_ms": { "type": "integer", "minimum": 0, "maximum": MAX_DELAY_MS },
                },
                "required": ["n"],
            },
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "fail",
            "description": "Fails: as a tool error, or as a JSON-RPC error with `protocol: true`.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "message": { "type": "string" },
                    "protocol": { "type": "boolean" },
                },
            },
            "annotations": { "readOnlyHint": true },
        },
    ] })
}

async fn call_tool(call: &Call) -> Result<Value, CallError> {
    let arguments = call.params.get("arguments").unwrap_or(&Value::Null);
    match call.params.get("name").and_then(Value::as_str) {
        Some("echo") => match arguments.get("text").and_then(Value::as_str) {
            Some(text) => Ok(said(text)),
            None => Ok(failed("`text` is missing: echo needs a string")),
        },
        Some("whoami") => Ok(whoami(&call.caller)),
        Some("count") => Ok(count(call, arguments).await),
        Some("fail") => {
            let message = arguments.get("message").and_then(Value::as_str).unwrap_or("as asked");
            match arguments.get("protocol").and_then(Value::as_bool) {
                Some(true) => Err(CallError::internal(message)),
                Some(false) | None => Ok(failed(message)),
            }
        }
        Some(other) => Err(CallError::bad_params(format!("unknown tool: {other}"))),
        None => Err(CallError::bad_params("`name` is missing: which tool?")),
    }
}

async fn count(call: &Call, arguments: &Value) -> Value {
    let Some(n) = arguments.get("n").and_then(Value::as_u64).filter(|n| *n <= MAX_COUNT) else {
        return failed(&format!("`n` must be a whole number from 0 to {MAX_COUNT}"));
    };
    let delay = arguments.get("delay_ms").and_then(Value::as_u64).unwrap_or(0).min(MAX_DELAY_MS);
    let total = u32::try_from(n).map(f64::from).ok();
    for step in 1..=n {
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let progress = u32::try_from(step).map_or(0.0, f64::from);
        call.progress(progress, total, &format!("{step} of {n}")).await;
    }
    said(&format!("counted to {n}"))
}

fn whoami(caller: &Caller) -> Value {
    let Caller { principal, transport, client, http, tls, session, provenance: _, quota: _ } =
        caller;
    let facts = json!({
        "address": client.map(|client| client.to_string()),
        "principal": principal.to_string(),
        "transport": transport.name(),
        "http": http,
        "tls": tls.as_ref().map(|tls| json!({
            "version": tls.version,
            "keyExchange": tls.key_exchange,
            "cipher": tls.cipher,
            "serverName": tls.server_name,
        })),
        "session": session,
    });
    json!({
        "content": [{ "type": "text", "text": facts.to_string() }],
        "structuredContent": facts,
    })
}

fn resource() -> Value {
    json!({ "uri": RESOURCE, "name": "about", "mimeType": "text/plain" })
}

fn read_resource(params: &Value) -> Result<Value, CallError> {
    match params.get("uri").and_then(Value::as_str) {
        Some(RESOURCE) => Ok(json!({ "contents": [{
            "uri": RESOURCE,
            "mimeType": "text/plain",
            "text": concat!("mcp-edge ", env!("CARGO_PKG_VERSION"), ", diagnostics server"),
        }] })),
        Some(uri) => Err(CallError {
            data: Some(json!({ "uri": uri })),
            ..CallError::new(-32_002, format!("unknown resource: {uri}"))
        }),
        None => Err(CallError::bad_params("`uri` is missing: which resource?")),
    }
}

fn prompt() -> Value {
    json!({
        "name": "check",
        "description": "Asks the model to try every diagnostics tool once.",
        "arguments": [],
    })
}

fn get_prompt(params: &Value) -> Result<Value, CallError> {
    match params.get("name").and_then(Value::as_str) {
        Some("check") => Ok(json!({ "messages": [{
            "role": "user",
            "content": {
                "type": "text",
                "text": "Call echo, whoami, count (n=3) and fail, and report what each answered.",
            },
        }] })),
        Some(name) => Err(CallError::bad_params(format!("unknown prompt: {name}"))),
        None => Err(CallError::bad_params("`name` is missing: which prompt?")),
    }
}

fn said(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

fn failed(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}
