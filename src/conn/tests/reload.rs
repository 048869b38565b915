//! A reload changes the time limits of what begins after it, and of nothing that has begun.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_keeps_the_times_that_it_was_accepted_under() {
    let (plain, tls) = (Rig::new(), Rig::with_tls());
    let second = Duration::from_secs(1);
    let [mut silent, mut idle] = [(); 2].map(|()| plain.connect());
    let mut handshake = tls.connect();
    let head = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
    idle.send(head).await;
    idle.until("\r\n\r\n").await;
    let times = Times {
        tls_handshake: 2 * second,
        header: 3 * second,
        idle: 4 * second,
        ..Times::default()
    };
    for rig in [&plain, &tls] {
        rig.keep_to(times);
    }
    let [mut new_silent, mut new_idle] = [(); 2].map(|()| plain.connect());
    let mut new_handshake = tls.connect();
    new_idle.send(head).await;
    new_idle.until("\r\n\r\n").await;
    tokio::join!(
        async { assert_eq!(new_handshake.read_out().await.1, 2) },
        async { assert_eq!(new_silent.read_out().await.1, 3) },
        async { assert_eq!(new_idle.read_out().await.1, 4) },
        async { assert_eq!(handshake.read_out().await.1, 10) },
        async { assert_eq!(silent.read_out().await.1, 10) },
        async { assert_eq!(idle.read_out().await.1, 75) },
    );
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_cut_by_the_time_of_its_connection() {
    let rig = Rig::new();
    let mut old = rig.connect();
    let session = old.initialize("2025-06-18").await;
    rig.keep_to(Times { write: Duration::from_secs(5), ..Times::default() });
    let mut new = rig.connect();
    old.post(&session, &call("huge")).await;
    new.post("", &call("huge")).await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert_eq!(rig.connections(), 1);
    tokio::time::sleep(Duration::from_secs(24)).await;
    assert_eq!(rig.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_has_the_times_of_its_own_beginning() {
    let rig = Rig::new();
    let mut clients = [(); 3].map(|()| rig.connect());
    let second = Duration::from_secs(1);
    let times =
        Times { body_idle: 2 * second, body: 5 * second, call: 4 * second, ..Times::default() };
    rig.keep_to(times);
    let [idle, drips, calls] = &mut clients;
    let idle = async {
        idle.begin_post("{").await;
        let (answer, seconds) = idle.read_out().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && seconds == 2, "{seconds} {answer}");
    };
    let drips = async {
        drips.begin_post("{").await;
        for _ in 0..4 {
            tokio::time::sleep(second).await;
            drips.send(" ").await;
        }
        let (answer, seconds) = drips.read_out().await;
        assert!(answer.starts_with("HTTP/1.1 408 ") && seconds == 5, "{seconds} {answer}");
    };
    let calls = async {
        calls.post("", &call("hang")).await;
        calls.until("did not answer within 4 seconds").await;
        assert_eq!(calls.seconds(), 4);
    };
    tokio::join!(idle, drips, calls);
}

#[tokio::test(start_paused = true)]
async fn sessions_and_streams_keep_the_times_of_their_start() {
    let rig = Rig::new();
    let second = Duration::from_secs(1);
    let mut old = rig.connect();
    let old_session = old.initialize("2025-06-18").await;
    let mut old_stream = rig.connect();
    old_stream.get("/mcp", &old_session).await;
    old_stream.until(":\n\n").await;
    rig.keep_to(Times {
        call: 20 * second,
        keep_alive: 5 * second,
        stream_age: 60 * second,
        session_idle: 120 * second,
        session_age: 600 * second,
        ..Times::default()
    });
    let mut new = rig.connect();
    let new_session = new.initialize("2025-06-18").await;
    new.post(&new_session, &call("hang")).await;
    new.until("did not answer within 20 seconds").await;
    assert_eq!(new.seconds(), 20);
    // A new stream of the old session has the new times, the old stream its own.
    let mut stream = rig.connect();
    drop(old_stream);
    stream.get("/mcp", &old_session).await;
    stream.until(":\n\n").await;
    stream.until(":\n\n").await;
    assert_eq!(stream.seconds(), 5);
    stream.until("\r\n0\r\n\r\n").await;
    assert!((54..=60).contains(&stream.seconds()), "{}", stream.seconds());
    let mut late = rig.connect();
    late.post(&old_session, &call("hang")).await;
    late.until("did not answer within 300 seconds").await;
    // The new session was idle for too long meanwhile.
    assert_eq!(rig.sessions(), 1);
    let begun = Instant::now();
    let mut aged = rig.connect();
    let aged_session = aged.initialize("2025-06-18").await;
    while rig.sessions() > 1 {
        // It is used all the time.
        tokio::time::sleep(10 * second).await;
        let mut client = rig.connect();
        client.post(&aged_session, &call("ping")).await;
        client.until("\r\n\r\n").await;
    }
    assert!((600..=610).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}
