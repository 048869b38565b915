//! MCP servers that do as their caller says: a handler linked in, and a shell script.

use std::sync::Arc;

use mcp_edge::{Call, CallError, Caller, Handler, ServerInfo};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Does what its calls' methods say.
pub(crate) struct Fixture(FixtureHandle);

/// The other end of a [`Fixture`].
#[derive(Clone)]
pub(crate) struct FixtureHandle {
    /// What `f/gate` and `f/stages` wait for.
    pub(crate) gate: Arc<Semaphore>,
    /// What happened, in order: `method` of every call and notification, `dropped` for each
    /// `f/hang` that was cancelled.
    log: Arc<Mutex<Vec<String>>>,
}

impl FixtureHandle {
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().clone()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|entry| *entry == what).count()
    }

    fn note(&self, what: &str) {
        self.log.lock().push(what.to_owned());
    }
}

struct Dropped(FixtureHandle);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.note("dropped");
    }
}

impl Fixture {
    pub(crate) fn new() -> (Self, FixtureHandle) {
        let told = FixtureHandle { gate: Arc::new(Semaphore::new(0)), log: Arc::default() };
        (Self(told.clone()), told)
    }

    async fn pass(&self) {
        self.0.gate.acquire().await.unwrap().forget();
    }
}

impl Handler for Fixture {
    fn info(&self) -> ServerInfo {
        ServerInfo {
            name: "fixture".to_owned(),
            version: "1".to_owned(),
            capabilities: json!({ "logging": {} }),
            instructions: None,
        }
    }

    async fn call(&self, call: Call) -> Result<Value, CallError> {
        self.0.note(&call.method);
        let asked = call.params["method"].as_str().unwrap_or_default();
        match call.method.as_str() {
            "f/echo" => Ok(call.params.clone()),
            "f/ask" => call.ask(asked, &call.params["params"]).await,
            "f/say" => {
                call.notify(asked, &call.params["params"]).await;
                Ok(json!({}))
            }
            "f/progress" => {
                for step in [1.0, 2.0, 3.0] {
                    call.progress(step, Some(3.0), "").await;
                }
                Ok(json!({}))
            }
            "f/gate" => {
                self.pass().await;
                Ok(call.params.clone())
            }
            "f/stages" => {
                for stage in 1..=call.params["n"].as_u64().unwrap() {
                    let params = json!({ "level": "info", "data": stage });
                    call.notify("notifications/message", &params).await;
                    self.pass().await;
                }
                Ok(json!({ "done": true }))
            }
            "f/hang" => {
                let _told = Dropped(self.0.clone());
                std::future::pending().await
            }
            "f/huge" => {
                let size = usize::try_from(call.params["size"].as_u64().unwrap()).unwrap();
                Ok(json!({ "text": "x".repeat(size) }))
            }
            "f/caller" => {
                let Caller { principal, transport, session, http, .. } = &*call.caller;
                Ok(json!({
                    "principal": principal.to_string(),
                    "transport": transport.name(),
                    "session": session,
                    "http": http,
                }))
            }
            other => Err(CallError::unknown_method(other)),
        }
    }

    fn notified(&self, method: &str, _params: &Value, _caller: &Caller) {
        self.0.note(method);
    }
}

/// A shell as an MCP server. Requests: `t/pid` says who it is, `t/hold` is answered by nothing.
/// Notifications: `t/log` has it log, `t/ask` has it ask for roots, `t/finish` has it answer the
/// request of `params.id`. What the client answers is logged back.
pub(crate) const SCRIPT: &str = r#"
say() { printf '{"jsonrpc":"2.0",%s}\n' "$1"; }
while IFS= read -r line; do
  id=${line#*'"id":'}; id=${id%%,*}
  version=${line#*'"protocolVersion":"'}; version=${version%%\"*}
  case $line in
    *'"method":"initialize"'*) say '"id":'"$id"',"result":{"protocolVersion":"'"$version"'","capabilities":{},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"method":"t/pid"'*) say '"id":'"$id"',"result":{"pid":'$$'}' ;;
    *'"method":"t/log"'*) say '"method":"notifications/message","params":{"level":"info","data":"log"}' ;;
    *'"method":"t/ask"'*) say '"id":"q1","method":"roots/list"' ;;
    *'"method":"t/finish"'*) say '"id":'"$id"',"result":{"held":true}' ;;
    *'"id":"q1"'*) say '"method":"notifications/message","params":{"level":"info","data":"heard"}' ;;
  esac
done
"#;

/// A shell with tools on two pages, the second named by the cursor `p 2`. Its tools do as they are
/// called. With a file `$DIR/…` it behaves badly: `mute` has it leave pings unanswered, `gone` has it
/// end at once, `circle` has its list never end, `listless` has it know no list; `page` has it leave
/// lists unanswered. Each ping is one line in `$DIR/pings`, each start one in `$DIR/starts`, each
/// call one in `$DIR/calls`.
pub(crate) const TOOLS_SCRIPT: &str = r##"
echo start >>"$DIR/starts"
[ -e "$DIR/gone" ] && exit 3
say() { printf '{"jsonrpc":"2.0","id":%s,%s}\n' "$id" "$1"; }
while IFS= read -r line; do
  id=${line#*'"id":'}; id=${id%%,*}
  version=${line#*'"protocolVersion":"'}; version=${version%%\"*}
  case $line in
    *'"method":"initialize"'*) say '"result":{"protocolVersion":"'"$version"'","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}' ;;
    *'"method":"ping"'*) echo ping >>"$DIR/pings"; [ -e "$DIR/mute" ] || say '"error":{"code":-32601,"message":"no ping"}' ;;
    *'"method":"tools/list"'*)
      if [ -e "$DIR/page" ]; then continue; fi
      if [ -e "$DIR/listless" ]; then say '"error":{"code":-32601,"message":"no tools here"}'; continue; fi
      if [ -e "$DIR/circle" ]; then say '"result":{"tools":[],"nextCursor":"again"}'; continue; fi
      case $line in
        *'"cursor":"p 2"'*) say '"result":{"tools":[ {"name":"silent"},{"name":"error"},{"name":"picky"}, {"name":"exit"},{"name":"tree","inputSchema":{"$ref":"#/$defs/n","$defs":{"n":{"anyOf":[{"type":"boolean"},{"properties":{"type":{"const":"and"},"args":{"items":{"$ref":"#/$defs/n"}}}},{"properties":{"type":{"const":"or"},"args":{"items":{"$ref":"#/$defs/n"}}}},{"properties":{"type":{"const":"not"},"args":{"items":{"$ref":"#/$defs/n"}}}}]}}}}]}' ;;
        *) say '"result":{"nextCursor":"p 2","tools":[{ "name" : "say", "weight":1.0, "inputSchema":{"type":"object","properties":{"n":{"type":"integer"}},"required":["n"]} },{"name":"moan"}]}' ;;
      esac ;;
    *'"method":"tools/call"'*)
      printf '%s\n' "$line" >>"$DIR/calls"
      case $line in
        *'"name":"say"'*|*'"name":"tree"'*) say '"result":{ "content" : [], "weight":1.0 }' ;;
        *'"name":"moan"'*) say '"result":{"isError":true,"content":[]}' ;;
        *'"name":"error"'*) say '"error":{"code":-32050,"message":"out of order"}' ;;
        *'"name":"picky"'*) say '"error":{"code":-32602,"message":"n must be a number"}' ;;
        *'"name":"exit"'*) exit 7 ;;
      esac ;;
  esac
done
"##;
