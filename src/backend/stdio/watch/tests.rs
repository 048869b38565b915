//! Children on a paused clock, over pipes in memory.

use std::ffi::OsStr;
use std::sync::Mutex;

use serde_json::json;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::stderr::{self, LastWords};
use super::super::stdout::{self, Noise};
use super::*;
use crate::limits::bytes::Quota;
use crate::limits::lines::Frames;
use crate::observe::metrics::Metrics;

const MAX_LINE: usize = 1000;
/// Longer than anything is waited for here.
const LONG: Duration = Duration::from_secs(200);
const SECOND: Duration = Duration::from_secs(1);
const TWO_SECONDS: Duration = Duration::from_secs(2);
const TEN_SECONDS: Duration = Duration::from_secs(10);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

fn just_under(time: Duration) -> Duration {
    time.saturating_sub(Duration::from_millis(1))
}

/// The ends of the pipes that the child holds.
struct Child {
    stdout: DuplexStream,
    stderr: DuplexStream,
}

impl Child {
    async fn says(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdout.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn mutters(&mut self, text: &str) {
        self.stderr.write_all(text.as_bytes()).await.unwrap();
    }
}

/// What became of a child: after which time.
#[derive(Debug, Default)]
struct Story {
    warned: Vec<(Duration, String)>,
    ended: Option<(Duration, NoMcp)>,
}

impl Story {
    /// The one warning, which came after 10 seconds.
    fn warning(&self) -> &str {
        let [(TEN_SECONDS, text)] = &self.warned[..] else { panic!("{self:?}") };
        assert_eq!(self.ended, None);
        text
    }

    fn is_quiet(&self) -> bool {
        self.warned.is_empty() && self.ended.is_none()
    }
}

/// Plays a child that was told `initialize`, for as long as [`LONG`].
async fn play(child: impl AsyncFnOnce(&mut Child)) -> Story {
    play_told(true, child).await
}

async fn play_told(told: bool, child: impl AsyncFnOnce(&mut Child)) -> Story {
    let begun = Instant::now();
    let watch = Watch::new(MAX_LINE);
    let redactor = Redactor::new([OsStr::new("the-secret-key")].into_iter());
    let last_words = LastWords::default();
    let mut noise = Noise::of(1, &redactor, Metrics::default(), (&watch, &last_words));
    let (say, mut said) = mpsc::channel(4);
    let [spoke, ending, exited] = [(); 3].map(|()| CancellationToken::new());
    let ((stdout, out), (stderr, err)) = (duplex(64 * 1024), duplex(64 * 1024));
    let out = Frames::new(out, MAX_LINE, exited.clone(), Quota::unbounded());
    let err = Frames::new(err, stderr::MAX_LINE, exited, Quota::unbounded());
    let (warned, mut played) =
        (Mutex::<Vec<(Duration, String)>>::default(), Child { stdout, stderr });
    if told {
        watch.note_sent(&Message::request(&1.into(), "initialize", &json!({})));
    }
    let tell = |text| warned.lock().unwrap().push((begun.elapsed(), text));
    let ended = timeout(LONG, async {
        tokio::select! {
            what = watch.verdict(&redactor, tell) => (begun.elapsed(), what),
            ((), (), (), never) = async { tokio::join!(
                stdout::hand_on(out, &say, &spoke, &ending, &mut noise),
                stderr::listen(err, 1, &redactor, &last_words, &watch),
                async { while said.recv().await.is_some() {} },
                async { child(&mut played).await; std::future::pending().await },
            ) } => never,
        }
    });
    let ended = ended.await.ok();
    Story { warned: warned.into_inner().unwrap(), ended }
}

#[tokio::test(start_paused = true)]
async fn a_line_without_an_end_and_bytes_without_text_are_not_called_silence() {
    for bytes in [vec![b'x'; 5000], vec![0; 100]] {
        let story = play(async |child| child.says(bytes).await).await;
        let text = "it writes to stdout what is no line of text, and not this answer".to_owned();
        assert_eq!(story.warned, [(TEN_SECONDS, text)]);
    }
}

const ANSWER: &str = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n";

#[tokio::test(start_paused = true)]
async fn a_question_without_the_end_of_its_line_is_told_of_after_10_seconds_and_once() {
    let story = play(async |child| child.says("Proceed? [y/N] ").await).await;
    assert_eq!(
        story.warning(),
        "it wrote \"Proceed? [y/N] \" to stdout, without the end of the line, which looks like a \
         question: nobody can answer it here, so start COMMAND with the option or variable that \
         does (often `-y` or `--yes`)"
    );
    let story = play(async |child| {
        child.says("Banner\n").await;
        child.mutters("\u{1b}[1mPassword:\u{1b}[0m ").await;
    });
    let story = story.await;
    let text = story.warning();
    assert!(text.starts_with("it wrote \"Password: \" to stderr, without"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_http_server_a_banner_and_silence_are_told_apart() {
    let story = play(async |child| {
        child.mutters("INFO: Uvicorn running on http://127.0.0.1:8000 (CTRL+C)\n").await;
        child.mutters("INFO: ready\n").await;
    });
    let story = story.await;
    let text = story.warning();
    assert!(text.contains("Uvicorn running on http://127.0.0.1:8000"), "{text}");
    assert!(text.contains("to stderr, which looks like an HTTP server: "), "{text}");
    let story = play(async |child| child.says("Welcome to a shell\n").await).await;
    let text = story.warning();
    assert!(
        text.starts_with("it wrote \"Welcome to a shell\" to stdout, which looks like a banner")
    );
    let story = play(async |child| child.mutters("loading\n").await).await;
    assert!(story.warning().starts_with("it wrote nothing to stdout: it may still be starting"));
    let note = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n";
    let story = play(async |child| child.says(note).await).await;
    assert_eq!(story.warning(), "it sends messages, and not this answer");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_is_short_plain_and_without_secrets() {
    for line in ["key the-secret-key? ", "key the-secret-k"] {
        let story = play(async |child| child.says(line).await).await;
        let text = story.warning();
        assert!(text.starts_with("it wrote \"key ") && !text.contains("the-sec"), "{text}");
    }
    // A progress line is begun again and again.
    let progress = (0..300).map(|n| format!("\rloading {n}")).collect::<Vec<_>>().concat();
    let story = play(async |child| child.mutters(&progress).await).await;
    assert!(story.warning().starts_with("it wrote \"loading 299\" to stderr"));
    let long = "x".repeat(900);
    let story = play(async |child| child.says(&long).await).await;
    assert!(story.warning().len() < 500);
}

#[tokio::test(start_paused = true)]
async fn who_answers_within_10_seconds_or_was_not_asked_is_left_alone() {
    let story = play(async |child| {
        child.says("Starting up\nProceed? [y/N] \n").await;
        sleep(just_under(TEN_SECONDS)).await;
        child.says(ANSWER).await;
    });
    assert!(story.await.is_quiet());
    let story = play_told(false, async |child| child.says("Proceed? [y/N] ").await).await;
    assert!(story.is_quiet());
    // A slow one is reported, and goes on.
    let story = play(async |child| {
        for n in 0..60 {
            child.says(format!("installing {n}\n")).await;
            sleep(SECOND).await;
        }
        child.says(ANSWER).await;
    });
    assert!(story.await.warning().starts_with("it wrote \"installing 9\" to stdout"));
}

#[tokio::test(start_paused = true)]
async fn messages_behind_content_length_headers_end_a_child_after_2_seconds() {
    let body = ANSWER.trim_end();
    let frame = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    for frame in [
        frame.clone(),
        format!("Starting\n{frame}{frame}"),
        frame.replace(
            "\r\n\r\n",
            "\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n",
        ),
    ] {
        let story = play(async |child| {
            sleep(SECOND).await;
            child.says(&frame).await;
        });
        let story = story.await;
        assert_eq!(story.ended, Some((SECOND + TWO_SECONDS, NoMcp::Framed)));
        assert!(story.warned.is_empty());
    }
    let pretty = "Content-Length: 40\r\n\r\n{\n  \"jsonrpc\": \"2.0\"\n}\n";
    let story = play(async |child| child.says(pretty).await).await;
    assert_eq!(story.ended, Some((TWO_SECONDS, NoMcp::Framed)));
}

#[tokio::test(start_paused = true)]
async fn headers_are_no_reason_where_messages_come_or_where_they_are_http() {
    // The end of the line comes after all.
    let story = play(async |child| {
        child.says(format!("Content-Length: 36\r\n\r\n{}", ANSWER.trim_end())).await;
        sleep(just_under(TWO_SECONDS)).await;
        child.says("\n").await;
    });
    assert!(story.await.is_quiet());
    // Its start-up script asks somebody whether he lives.
    let story = play(async |child| {
        child.says("HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"alive\":true}\n").await;
        sleep(5 * SECOND).await;
        child.says(ANSWER).await;
    });
    assert!(story.await.is_quiet());
    let story = play(async |child| {
        child.says("Content-Length: 139\n").await;
        sleep(5 * SECOND).await;
        child.says(ANSWER).await;
        child.says("Content-Length: 139\n\n{\"no\":\"message\"}\n").await;
    });
    assert!(story.await.is_quiet());
    // The headers alone may be anything, but look like this.
    let story = play(async |child| child.says("Content-Length: 139\n").await).await;
    assert!(story.warning().contains("which looks like Content-Length headers"));
}

#[tokio::test(start_paused = true)]
async fn a_line_without_an_end_ends_a_child_30_seconds_after_it_is_too_long() {
    let babble = async |child: &mut Child| {
        for _ in 0..100 {
            child.says([b'x'; 500]).await;
            sleep(SECOND).await;
        }
    };
    // 1500 bytes are there after two seconds.
    let due = Some((2 * SECOND + HALF_A_MINUTE, NoMcp::Endless));
    assert_eq!(play_told(false, babble).await.ended, due);
    let story = play_told(false, async |child| {
        child.says(ANSWER).await;
        babble(child).await;
    });
    assert_eq!(story.await.ended, due);
    let story = play(async |child| {
        child.says(ANSWER).await;
        child.says([b'x'; 1500]).await;
        sleep(just_under(HALF_A_MINUTE)).await;
        child.says("\n").await;
    });
    assert!(story.await.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn much_noise_before_the_first_message_is_as_good_as_an_endless_line() {
    let noise = async |child: &mut Child| {
        for _ in 0..100 {
            child.says(format!("{}\n", "x".repeat(499))).await;
            sleep(SECOND).await;
        }
    };
    assert_eq!(
        play_told(false, noise).await.ended,
        Some((2 * SECOND + HALF_A_MINUTE, NoMcp::Endless))
    );
    // Who has spoken may print what it likes.
    let story = play_told(false, async |child| {
        child.says(ANSWER).await;
        noise(child).await;
    });
    assert!(story.await.is_quiet());
    let story = play_told(false, async |child| {
        let enough = timeout(HALF_A_MINUTE, noise(child)).await;
        assert!(enough.is_err());
        child.says(ANSWER).await;
    });
    assert!(story.await.is_quiet());
}
