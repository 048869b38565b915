//! Promise: `/readyz` says whether the backend answers, to everybody, quickly, and without costing
//! the backend more than a ping now and then.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails, helpers of it too")]

mod support;

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use mcp_edge::{Behind, Config, Limits, UpstreamKind};
use serde_json::json;
use support::{
    Answer, Client, Mark, TOOLS_SCRIPT, TestServer, bounded, config, eventually, loopback,
};
use tokio::time::{Instant, sleep};

async fn ask(client: &Client, method: &str) -> Answer {
    let answer = client.bare(client.request(method, "/readyz")).await;
    assert_eq!(answer.body.len(), 0, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    answer
}

async fn ready(client: &Client) -> bool {
    match ask(client, "GET").await.status.as_u16() {
        200 => true,
        503 => false,
        other => unreachable!("{other}"),
    }
}

fn lines(dir: &Path, name: &str) -> usize {
    std::fs::read_to_string(dir.join(name)).map_or(0, |text| text.lines().count())
}

fn switch(dir: &Path, name: &str, on: bool) {
    let file = dir.join(name);
    if on { std::fs::write(file, "").unwrap() } else { std::fs::remove_file(file).unwrap() }
}

#[tokio::test]
async fn everybody_may_ask_and_nobody_costs_more() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        let limits = Limits { requests_per_second: 1, burst: 1, ..config().limits };
        let config = Config { limits, ..config() };
        let server = TestServer::start(config, mark.sh_in(TOOLS_SCRIPT, dir.path())).await;
        let stranger = server.client().stranger();
        let begun = Instant::now();
        let askers = (0..40).map(|n| {
            let client = stranger.clone().from(loopback(10 + n % 4));
            let client = if n % 2 == 0 { client.h2() } else { client };
            async move { assert_eq!(ask(&client, "GET").await.status, 200) }
        });
        join_all(askers).await;
        assert_eq!(ask(&stranger, "HEAD").await.status, 200);
        let most = 1 + usize::try_from(begun.elapsed().as_secs() / 2).unwrap();
        assert!((1..=most).contains(&lines(dir.path(), "pings")));
        assert_eq!(mark.programs().len(), 1);
        sleep(Duration::from_millis(2100)).await;
        let before = lines(dir.path(), "pings");
        assert!(ready(&stranger).await);
        assert_eq!(lines(dir.path(), "pings"), before + 1);
        assert_eq!(lines(dir.path(), "starts"), 1);
        let post = server.client().from(loopback(99));
        let post = post.bare(post.request("POST", "/readyz")).await;
        assert_eq!((post.status.as_u16(), post.header("allow")), (405, "GET, HEAD"));
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn any_backend_can_be_asked() {
    bounded(async {
        let mark = Mark::new();
        let upstream = TestServer::start(config(), Behind::diagnostics()).await;
        for behind in [
            Behind::diagnostics(),
            mark.diagnostics(),
            upstream.as_upstream(UpstreamKind::Streamable),
            upstream.as_upstream(UpstreamKind::Sse),
        ] {
            let server = TestServer::start(config(), behind).await;
            assert!(ready(&server.client().stranger()).await);
            assert!(server.stop().await);
        }
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_not_ready_until_it_does() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        switch(dir.path(), "mute", true);
        let server = TestServer::start(config(), mark.sh_in(TOOLS_SCRIPT, dir.path())).await;
        let client = server.client().stranger();
        let begun = Instant::now();
        assert!(!ready(&client).await);
        let took = begun.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
        switch(dir.path(), "mute", false);
        while !ready(&client).await {
            sleep(Duration::from_millis(50)).await;
        }
        assert!(begun.elapsed() < Duration::from_secs(6));
        // The session is the same.
        assert_eq!(lines(dir.path(), "starts"), 1);
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_does_not_start_is_not_started_again_and_again() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        switch(dir.path(), "gone", true);
        let server = TestServer::start(config(), mark.sh_in(TOOLS_SCRIPT, dir.path())).await;
        let client = server.client().stranger();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            assert!(!ready(&client).await);
            sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(lines(dir.path(), "starts"), 1);
        switch(dir.path(), "gone", false);
        while !ready(&client).await {
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(lines(dir.path(), "starts"), 2);
        assert!(begun.elapsed() >= Duration::from_secs(5));
    })
    .await;
}

#[tokio::test]
async fn the_place_of_its_child_goes_to_whoever_needs_it() {
    bounded(async {
        let mark = Mark::new();
        let limits = Limits { max_children: 1, ..config().limits };
        let server = TestServer::start(Config { limits, ..config() }, mark.diagnostics()).await;
        let client = server.client();
        assert!(ready(&client).await);
        let session = client.initialize("2025-11-25").await;
        let stream = session.listen(None).await;
        assert_eq!(mark.programs().len(), 1);
        sleep(Duration::from_millis(2100)).await;
        // A client that came now would be refused, too.
        assert!(!ready(&client).await);
        let echo = json!({ "name": "echo", "arguments": { "text": "x" } });
        assert_eq!(session.call(1, "tools/call", echo).await["result"]["content"][0]["text"], "x");
        drop(stream);
    })
    .await;
}

#[tokio::test]
async fn an_edge_full_of_sessions_that_nobody_uses_is_ready() {
    bounded(async {
        let mark = Mark::new();
        let limits = Limits { max_children: 2, ..config().limits };
        let server = TestServer::start(Config { limits, ..config() }, mark.diagnostics()).await;
        let client = server.client();
        let (_first, _second) =
            (client.initialize("2025-11-25").await, client.initialize("2025-11-25").await);
        while !ready(&client).await {
            sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(server.report().outcomes["session_evicted"], 1);
        // A newcomer gets the place of the other session, and the probe keeps its own.
        client.initialize("2025-11-25").await;
        assert_eq!(server.report().outcomes["session_evicted"], 2);
        sleep(Duration::from_millis(2100)).await;
        assert!(ready(&client).await);
        assert_eq!(server.report().outcomes["session_evicted"], 2);
    })
    .await;
}

#[tokio::test]
async fn who_waits_when_the_drain_begins_hears_of_it_at_once() {
    bounded(async {
        let mark = Mark::new();
        let dir = tempfile::tempdir().unwrap();
        switch(dir.path(), "mute", true);
        let mut server = TestServer::start(config(), mark.sh_in(TOOLS_SCRIPT, dir.path())).await;
        let (one, other) = (server.client().stranger(), server.client().stranger().h2());
        let stopping = async {
            eventually(|| lines(dir.path(), "pings") == 1).await;
            // Both are connected by then, or nearly.
            sleep(Duration::from_millis(300)).await;
            server.begin_stop();
            Instant::now()
        };
        let (one, other, stopped) = tokio::join!(ready(&one), ready(&other), stopping);
        assert!(!one && !other);
        assert!(stopped.elapsed() < Duration::from_secs(1), "{:?}", stopped.elapsed());
        assert!(server.stop().await);
        mark.gone().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_frames_its_messages_is_not_ready_and_is_given_up_for_it() {
    bounded(async {
        let mark = Mark::new();
        let script = r"read -r line; printf 'Content-Length: 2\r\n\r\n{}'; sleep 1000";
        let server = TestServer::start(config(), mark.sh(script)).await;
        let begun = Instant::now();
        assert!(!ready(&server.client().stranger()).await);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        eventually(|| server.report().outcomes["child_no_mcp"] == 1).await;
        mark.gone().await;
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(server.stop().await);
    })
    .await;
}
