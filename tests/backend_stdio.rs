//! Promise: each session has a child of its own; however that ends, whoever waits is told why
//! within a second, and however the session ends, nothing of the child is left.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, helpers of it too"
)]

mod support;

use std::time::Duration;

use http_body_util::Full;
use mcp_edge::{Config, Times};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use support::{
    Answer, Client, Mark, SCRIPT, Session, TestServer, alive, bounded, call, config, eventually,
    hello, note,
};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(1);

async fn pid(session: &Session) -> i32 {
    let answer = session.call("pid", "t/pid", json!({})).await;
    i32::try_from(answer["result"]["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

/// An internal error that says all of this.
fn told(answer: &Value, words: &[&str]) {
    assert_eq!(answer["error"]["code"], -32_603, "{answer}");
    let text = answer["error"]["message"].as_str().unwrap();
    assert!(words.iter().all(|word| text.contains(word)), "{text}");
}

async fn bare(client: &Client, method: &str) -> Answer {
    let request = client.request("POST", "/mcp").header("content-type", "application/json");
    let body = call(1, method, json!({})).to_string();
    client.send(request.body(Full::new(body.into())).unwrap()).await
}

#[tokio::test]
async fn a_killed_child_is_told_of_within_a_second() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh(SCRIPT)).await;
        for client in [server.client(), server.client().h2()] {
            for version in support::VERSIONS {
                let session = client.initialize(version).await;
                let bystander = client.initialize(version).await;
                let child = pid(&session).await;
                let mut standalone = session.listen(None).await.events();
                let mut held = session.stream(&call(1, "t/hold", json!({}))).await.events();
                let plain = call(2, "t/hold", json!({}));
                let quick = session.post(&plain);
                let killing = async {
                    // The second call is there once the child has logged what came behind it.
                    session.post(&note("t/log", json!({}))).await;
                    standalone.message().await;
                    kill(child);
                    Instant::now()
                };
                let (quick, killed) = tokio::join!(quick, killing);
                told(&quick.message(), &["signal 9", "SIGKILL"]);
                let answers = timeout(SOON, held.rest()).await.unwrap();
                told(answers.last().unwrap(), &["signal 9", "SIGKILL"]);
                assert!(killed.elapsed() < SOON, "{:?}", killed.elapsed());
                let mut last = None;
                while let Some(event) = standalone.next().await {
                    last = Some(event);
                }
                let last = last.unwrap();
                assert_eq!(last.name.as_deref(), Some("error"));
                told(&serde_json::from_str(&last.data.unwrap()).unwrap(), &["signal 9"]);
                let late = session.post(&call(3, "t/pid", json!({}))).await;
                assert_eq!(late.refusal(), (404, -32_001));
                assert_ne!(pid(&client.initialize(version).await).await, child);
                pid(&bystander).await;
            }
        }
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_bare_call_outlives_its_warm_child() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let held = dir.path().join("held");
        let script = format!("case $line in\n *'\"t/hold\"'*) : > '{}' ;;", held.display());
        let script = SCRIPT.replace("case $line in", &script);
        let server = TestServer::start(config(), mark.sh(&script)).await;
        let client = server.client();
        let first = bare(&client, "t/pid").await.json();
        let child = i32::try_from(first["result"]["pid"].as_i64().unwrap()).unwrap();
        let killing = async {
            eventually(|| held.exists()).await;
            kill(child);
            Instant::now()
        };
        let (answer, killed) = tokio::join!(bare(&client, "t/hold"), killing);
        assert!(killed.elapsed() < SOON);
        told(&answer.json(), &["signal 9"]);
        for _ in 0..5 {
            assert_ne!(bare(&client, "t/pid").await.json()["result"]["pid"], child);
        }
    })
    .await;
}

#[tokio::test]
async fn the_exit_status_and_the_last_words_are_told() {
    bounded(async {
        let mark = Mark::new();
        let dying = SCRIPT.replace(
            "case $line in",
            "case $line in\n *'\"t/die\"'*) echo 'first words' >&2; echo 'no database' >&2; exit 3 ;;",
        );
        let server = TestServer::start(config(), mark.sh(&dying)).await;
        let session = server.client().initialize("2025-11-25").await;
        let begun = Instant::now();
        let answer = session.call(1, "t/die", json!({})).await;
        told(&answer, &["status 3", "first words", "no database"]);
        assert!(begun.elapsed() < SOON);
        let answer = bare(&server.client(), "t/die").await.json();
        told(&answer, &["status 3", "no database"]);
    })
    .await;
}

#[tokio::test]
async fn a_child_that_does_not_start_is_told_of() {
    bounded(async {
        let mark = Mark::new();
        let server = TestServer::start(config(), mark.sh("echo 'no config' >&2; exit 7")).await;
        for client in [server.client(), server.client().h2()] {
            let begun = Instant::now();
            let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
            told(&refused.message(), &["status 7", "no config"]);
            assert_eq!(refused.message()["id"], 0);
            assert!(begun.elapsed() < Duration::from_secs(2));
            let refused = bare(&client, "tools/list").await;
            assert_eq!(refused.json()["id"], 1);
            told(&refused.json(), &["status 7", "no config"]);
            let get = client.request("GET", "/sse").header("accept", "text/event-stream");
            let ended = client.bare(get).await;
            let known = [200, 502, 503];
            assert!(known.contains(&ended.status.as_u16()), "{ended:?}");
        }
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_child_that_never_answers_is_given_up() {
    bounded(async {
        let mark = Mark::new();
        let times = Times { call: Duration::from_secs(1), ..*config().times };
        let silent = mark.sh("exec sleep 1000");
        let server =
            TestServer::start(Config { times: times.check().unwrap(), ..config() }, silent).await;
        let client = server.client();
        let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        told(&refused.message(), &["did not answer within 1 seconds"]);
        let refused = bare(&client, "tools/list").await;
        assert_eq!(refused.json()["error"]["code"], -32_603);
        mark.gone().await;
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn a_timed_out_call_is_cancelled_at_the_child() {
    bounded(async {
        let mark = Mark::new();
        let times = Times { call: Duration::from_millis(700), ..*config().times };
        let heard = SCRIPT.replace(
            "case $line in",
            "case $line in\n *'\"notifications/cancelled\"'*'\"requestId\":1'*) say '\"method\":\"x/heard\"' ;;",
        );
        let server = TestServer::start(Config { times: times.check().unwrap(), ..config() }, mark.sh(&heard)).await;
        let session = server.client().initialize("2025-11-25").await;
        let mut standalone = session.listen(None).await.events();
        told(&session.call(1, "t/hold", json!({})).await, &["did not answer"]);
        assert_eq!(standalone.message().await["method"], "x/heard");
        pid(&session).await;
    })
    .await;
}

#[tokio::test]
async fn the_end_of_a_session_is_the_end_of_its_whole_family() {
    bounded(async {
        let mark = Mark::new();
        let family = format!("sleep 1000 & sleep 1000 & {SCRIPT}");
        let server = TestServer::start(config(), mark.sh(&family)).await;
        let session = server.client().initialize("2025-11-25").await;
        let other = server.client().initialize("2025-11-25").await;
        assert_eq!(mark.programs().len(), 6);
        let (child, spared) = (pid(&session).await, pid(&other).await);
        assert_eq!(session.delete().await.status, 204);
        eventually(|| mark.programs().len() == 3).await;
        assert!(!alive(child) && alive(spared));
        pid(&other).await;
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_stubborn_family_is_killed() {
    bounded(async {
        let mark = Mark::new();
        let stubborn = format!("trap '' TERM; (trap '' TERM; sleep 1000) & {SCRIPT} sleep 1000");
        let server = TestServer::start(config(), mark.sh(&stubborn)).await;
        let session = server.client().initialize("2025-11-25").await;
        assert!(mark.programs().len() >= 2);
        let begun = Instant::now();
        assert_eq!(session.delete().await.status, 204);
        mark.gone().await;
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn an_idle_session_takes_its_child_along() {
    bounded(async {
        let mark = Mark::new();
        let times = Times { session_idle: Duration::from_millis(500), ..*config().times };
        let server = TestServer::start(
            Config { times: times.check().unwrap(), ..config() },
            mark.diagnostics(),
        )
        .await;
        let client = server.client();
        let session = client.initialize("2025-11-25").await;
        let listened = client.initialize("2025-11-25").await;
        let stream = listened.listen(None).await.events();
        bare(&client, "tools/list").await;
        assert_eq!(mark.programs().len(), 3);
        eventually(|| mark.programs().len() == 1).await;
        let late = session.post(&call(1, "tools/list", json!({}))).await;
        assert_eq!(late.refusal(), (404, -32_001));
        listened.call(1, "tools/list", json!({})).await;
        drop(stream);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_fails_its_call_at_once_and_its_id_is_free_again() {
    bounded(async {
        let mark = Mark::new();
        let bad = SCRIPT.replace(
            "case $line in",
            r#"case $line in
             *'"t/euckr"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"text":"\307\321\261\333"}}\n' "$id" ;;
             *'"t/latin1"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"text":"caf\351"}}\n' "$id" ;;
             *'"t/nan"'*) say '"id":'"$id"',"result":{"mean":NaN}' ;;
             *'"t/deep"'*) say '"id":'"$id"',"result":'"$(printf '[%.0s' $(seq 200))$(printf ']%.0s' $(seq 200))" ;;
             *'"t/null"'*) say '"id":'"$id"',"result":{},"error":null' ;;
             *'"t/twice"'*) say '"id":'"$id"',"result":{},"result":{}' ;;"#,
        );
        let times = Times { call: Duration::from_secs(5), ..*config().times };
        let server = TestServer::start(Config { times: times.check().unwrap(), ..config() }, mark.sh(&bad)).await;
        let session = server.client().initialize("2025-11-25").await;
        let begun = Instant::now();
        for (method, why) in [
            ("t/euckr", "not UTF-8"),
            ("t/latin1", "not UTF-8"),
            ("t/nan", "NaN"),
            ("t/deep", "nested deeper than 128 levels"),
            ("t/null", "exclude each other"),
            ("t/twice", "duplicate member `result`"),
        ] {
            let answer = session.call(31, method, json!({})).await;
            told(&answer, &["the MCP server's answer cannot be read", why]);
            assert_eq!(answer["id"], 31);
            assert!(session.call(31, "t/pid", json!({})).await["result"]["pid"].is_i64());
            told(&bare(&server.client(), method).await.json(), &["cannot be read", why]);
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert_eq!(server.report().outcomes["answer_unreadable"], 12);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

/// Answers each line in a frame, as servers of the Language Server Protocol do.
const FRAMES: &str = r#"
while IFS= read -r line; do
  id=${line#*'"id":'}; id=${id%%,*}
  body='{"jsonrpc":"2.0","id":'$id',"result":{}}'
  printf 'Content-Length: %d\r\n\r\n%s' ${#body} "$body"
done
"#;

#[tokio::test]
async fn a_server_that_frames_its_messages_is_told_of_within_seconds() {
    bounded(async {
        let mark = Mark::new();
        let times = Times { call: Duration::from_secs(8), ..*config().times };
        let server = TestServer::start(
            Config { times: times.check().unwrap(), ..config() },
            mark.sh(FRAMES),
        )
        .await;
        let client = server.client();
        let words = ["the server frames its messages with Content-Length headers; MCP over stdio \
                      wants one JSON text a line"];
        let begun = Instant::now();
        let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        told(&refused.message(), &words);
        told(&bare(&client, "tools/list").await.json(), &words);
        assert!(begun.elapsed() < Duration::from_secs(7), "{:?}", begun.elapsed());
        assert_eq!(server.report().outcomes["child_no_mcp"], 2);
        mark.gone().await;
        assert!(server.stop().await);
    })
    .await;
}

#[tokio::test]
async fn what_a_child_says_on_stdout_before_it_ends_joins_its_last_words() {
    bounded(async {
        let mark = Mark::new();
        let script = "echo 'Error: no config file'; printf 'giving up'; echo hm >&2; exit 1";
        let server = TestServer::start(config(), mark.sh(script)).await;
        let client = server.client();
        let refused = client.send(client.post("/mcp", &hello("2025-11-25"))).await;
        let words = ["status 1; its last words: hm; its last words on stdout: Error: no config \
                      file\ngiving up"];
        told(&refused.message(), &words);
        told(&bare(&client, "tools/list").await.json(), &words);
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}
