//! What becomes of what is under way when the edge is told to stop.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_ends_streams_cleanly_and_answers_what_is_in_flight() {
    let rig = Rig::new();
    let mut caller = rig.connect();
    let session = caller.initialize("2025-11-25").await;
    caller.post(&session, &call("late")).await;
    let mut listener = rig.connect();
    listener.get("/mcp", &session).await;
    listener.until("data:\n\n").await;
    let begun = Instant::now();
    let finishing = rig.edge.drain.finish(Duration::from_secs(30));
    let ((rest, seconds), answered, finished) =
        tokio::join!(listener.read_out(), caller.until("result"), finishing);
    assert!(rest.contains("retry: ") && rest.ends_with("0\r\n\r\n"), "{rest}");
    assert_eq!(seconds, 0);
    assert!(answered.contains("id: 2-1\n"), "{answered}");
    assert!(finished);
    assert_eq!(begun.elapsed().as_secs(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_outlives_the_grace_is_cut() {
    let rig = Rig::new();
    let mut caller = rig.connect();
    let session = caller.initialize("2025-11-25").await;
    caller.post(&session, &call("hang")).await;
    caller.until("data:\n\n").await;
    let begun = Instant::now();
    assert!(!rig.edge.drain.finish(Duration::from_secs(30)).await);
    assert_eq!(begun.elapsed().as_secs(), 25);
    let answer = caller.until("-32603").await;
    assert!(answer.contains("the server is stopping"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_lets_a_legacy_stream_have_its_answers() {
    let rig = Rig::new();
    let mut listener = rig.connect();
    listener.get("/sse", "").await;
    let head = listener.until("sessionId=").await;
    let id = head.split("sessionId=").nth(1).unwrap().trim();
    let id = if id.len() == 64 { id.to_owned() } else { listener.until("\n\n").await };
    let mut caller = rig.connect();
    let body = call("late");
    caller
        .send(&format!(
            "POST /messages?sessionId={} HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            id.trim(),
            body.len()
        ))
        .await;
    caller.until("202 Accepted").await;
    let begun = Instant::now();
    let finishing = rig.edge.drain.finish(Duration::from_secs(30));
    let ((rest, _), finished) = tokio::join!(listener.read_out(), finishing);
    assert!(rest.contains("\"id\":1,\"result\""), "{rest}");
    assert!(finished);
    assert_eq!(begun.elapsed().as_secs(), 20);
}
