//! The time limits of calls, streams and sessions, as a client sees them.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_fails_at_300_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let session = client.initialize("2025-06-18").await;
    client.post(&session, &call("hang")).await;
    let answer = client.until("-32603").await;
    assert_eq!(client.seconds(), 300);
    assert!(answer.contains("\"id\":1"), "{answer}");
    assert!(answer.contains("did not answer within 300 seconds"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_becomes_a_stream_that_shows_that_it_lives() {
    let rig = Rig::new();
    let mut client = rig.connect();
    let session = client.initialize("2025-06-18").await;
    client.post(&session, &call("late")).await;
    let head = client.until("\n:\n").await;
    assert_eq!(client.seconds(), 1);
    assert!(head.contains("text/event-stream"), "{head}");
    client.until(":\n\n").await;
    assert_eq!(client.seconds(), 16);
    let answer = client.until("result").await;
    assert_eq!(client.seconds(), 20);
    assert!(answer.contains("event: message\nid: 2-1\n"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_stream_is_commented_at_once_and_every_15_seconds() {
    let rig = Rig::new();
    let mut client = rig.connect();
    client.get("/sse", "").await;
    let head = client.until("endpoint").await;
    assert!(head.contains(":\n\n"), "{head}");
    for seconds in [15, 30, 45] {
        client.until(":\n\n").await;
        assert_eq!(client.seconds(), seconds);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_cleanly_within_its_age_and_says_when_to_come_back() {
    let rig = Rig::new();
    let session = rig.connect().initialize("2025-11-25").await;
    let mut client = rig.connect();
    client.get("/mcp", &session).await;
    let head = client.until("data:\n\n").await;
    assert!(head.contains("id: 0-0\n"), "{head}");
    let rest = client.until("\r\n0\r\n\r\n").await;
    assert!(rest.contains("retry: "), "{rest}");
    // Jitter takes up to a tenth off.
    assert!((3240..=3600).contains(&client.seconds()), "{}", client.seconds());
    assert_eq!(rig.sessions(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_after_30_idle_minutes() {
    let rig = Rig::new();
    let begun = Instant::now();
    let session = rig.connect().initialize("2025-06-18").await;
    assert!(session.len() > 60);
    tokio::time::sleep(Duration::from_secs(1799)).await;
    assert_eq!(rig.sessions(), 1);
    let mut client = rig.connect();
    client.post(&session, &call("ping")).await;
    client.until("result").await;
    while rig.sessions() > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(begun.elapsed().as_secs(), 1799 + 1800);
    let mut late = rig.connect();
    late.post(&session, &call("ping")).await;
    let answer = late.until("-32001").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_session_ends_at_24_hours_although_somebody_listens() {
    let rig = Rig::new();
    let begun = Instant::now();
    let session = rig.connect().initialize("2025-06-18").await;
    while rig.sessions() > 0 {
        // Streams end within the hour; a client opens the next.
        let mut client = rig.connect();
        client.get("/mcp", &session).await;
        let (read, _) = client.read_out().await;
        assert!(read.starts_with("HTTP/1.1 200 "), "{read}");
    }
    let hours = begun.elapsed().as_secs_f64() / 3600.0;
    assert!((24.0..24.03).contains(&hours), "{hours}");
}
