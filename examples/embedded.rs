//! An MCP server of one's own and the edge in front of it, in one process:
//! `MCP_AUTH_TOKEN=$(openssl rand -hex 32) cargo run --example embedded`.

use std::error::Error;

use mcp_edge::{Access, Behind, Call, CallError, Config, Handler, Server, ServerInfo, parse_token};
use serde_json::{Value, json};

/// One tool, `add`.
struct Adder;

impl Handler for Adder {
    fn info(&self) -> ServerInfo {
        ServerInfo {
            name: "adder".to_owned(),
            version: "1.0.0".to_owned(),
            capabilities: json!({ "tools": {} }),
            instructions: None,
        }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        match call.method.as_str() {
            "tools/list" => Ok(json!({ "tools": [{
                "name": "add",
                "description": "Adds two numbers.",
                "inputSchema": {
                    "type": "object",
                    "properties": { "a": { "type": "number" }, "b": { "type": "number" } },
                    "required": ["a", "b"],
                },
            }] })),
            "tools/call" if call.params.get("name") == Some(&json!("add")) => {
                let number = |path| call.params.pointer(path).and_then(Value::as_f64);
                let (Some(a), Some(b)) = (number("/arguments/a"), number("/arguments/b")) else {
                    return Err(CallError::bad_params("add needs the numbers `a` and `b`"));
                };
                Ok(json!({ "content": [{ "type": "text", "text": (a + b).to_string() }] }))
            }
            "tools/call" => Err(CallError::bad_params("there is one tool here: add")),
            other => Err(CallError::unknown_method(other)),
        }
    }
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "tells how to reach it, as a program of a terminal does")]
async fn main() -> Result<(), Box<dyn Error>> {
    let token = std::env::var("MCP_AUTH_TOKEN").map_err(|_unset| "MCP_AUTH_TOKEN is not set")?;
    let token = parse_token(&token).map_err(|fault| format!("MCP_AUTH_TOKEN {fault}"))?;
    // Everything else as by default: 127.0.0.1:8443, /mcp, a self-signed certificate in certs/.
    let config = Config { access: Access::Tokens(vec![token]), ..Config::default() };
    let server = Server::bind(config, Behind::handler(Adder)).await?;
    println!("https://localhost:{}/mcp", server.local_addr().port());
    println!("curl --cacert {}", server.ca().unwrap_or_default().display());
    let _all_finished = server.run(async { drop(tokio::signal::ctrl_c().await) }).await;
    Ok(())
}
