//! What lines come to, one by one.

use super::*;
use crate::wire::jsonrpc::Message;

/// A child that was told `initialize` under id 1, or nothing.
struct Rig {
    redactor: Redactor,
    metrics: Metrics,
    watch: Watch,
    last_words: LastWords,
}

impl Rig {
    fn new() -> Self {
        Self {
            redactor: Redactor::default(),
            metrics: Metrics::default(),
            watch: Watch::new(1000),
            last_words: LastWords::default(),
        }
    }

    fn after_sending(self, id: u64, method: &str) -> Self {
        self.watch.note_sent(&Message::request(&id.into(), method, &serde_json::Value::Null));
        self
    }

    fn hears_line(&self, line: Line, broken_off: bool) -> Vec<FromBackend> {
        let mut noise =
            Noise::of(1, &self.redactor, self.metrics.clone(), (&self.watch, &self.last_words));
        heard(line, broken_off, &mut noise)
    }

    fn note_received(&self, line: impl AsRef<[u8]>) -> Vec<FromBackend> {
        self.hears_line(Line::Whole(Bytes::copy_from_slice(line.as_ref())), false)
    }

    fn count(&self, outcome: &str) -> u64 {
        self.metrics.outcomes()[outcome]
    }
}

/// The calls that a line fails, each with its code and text.
fn failed(from_backend: Vec<FromBackend>) -> Vec<(String, i32, String)> {
    let failed = |from_backend| match from_backend {
        FromBackend::Unanswered { id, code, text } => (id.to_string(), code, text),
        other @ (FromBackend::Message { .. }
        | FromBackend::Suspect(_)
        | FromBackend::Taken(_)
        | FromBackend::Gone(_)) => {
            panic!("{other:?}")
        }
    };
    from_backend.into_iter().map(failed).collect()
}

#[tokio::test(start_paused = true)]
async fn a_line_is_a_message_or_a_batch_or_noise() {
    let read = |line: &str| {
        let rig = Rig::new();
        (rig.note_received(line).len(), rig.count("line_skipped"))
    };
    let note = r#"{"jsonrpc":"2.0","method":"a"}"#;
    assert_eq!(read(note), (1, 0));
    assert_eq!(read(&format!(" [{note},{note}]")), (2, 0));
    assert_eq!(read("Listening on stdio"), (0, 1));
    assert_eq!(read("7"), (0, 1));
    assert_eq!(read(&format!("[{note},7]")), (0, 1));
    assert_eq!(read("[]"), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_fails_its_call_and_says_why() {
    let deep =
        |n| format!(r#"{{"jsonrpc":"2.0","id":31,"result":{}1{}}}"#, "[".repeat(n), "]".repeat(n));
    let with = |rest: &[u8]| [&br#"{"jsonrpc":"2.0","id":31,"#[..], rest].concat();
    for (line, why) in [
        (with(b"\"result\":{\"text\":\"\xc7\xd1\xb1\xdb\"}}"), "not UTF-8 from its byte 44 on"),
        (with(b"\"result\":{\"text\":\"caf\xe9\"}}"), "not UTF-8 from its byte 47 on"),
        (with(br#""result":{"t":"NaN","mean":NaN}}"#), "NaN or Infinity"),
        (with(br#""result":[-Infinity]}"#), "NaN or Infinity"),
        (with(br#""result":{"t":"NaN"#), "not valid JSON"),
        (deep(200).into(), "nested deeper than 128 levels"),
        (with(br#""result":{},"error":null}"#), "exclude each other"),
        (with(br#""result":null,"error":{"code":1,"message":"m"}}"#), "exclude each other"),
        (with(br#""result":{},"result":{}}"#), "duplicate member"),
        (with(br#""result":{},"ID":4}"#), "another member"),
        (with(br#""rsult":{}}"#), "neither `method` nor `result`"),
        (br#"{"id":31,"result":{}}"#.to_vec(), "`jsonrpc` must be"),
        (br#"{"jsonrpc":"2.0","id":31.0,"result":{}}"#.to_vec(), "`id` must be"),
        (
            b"{\0\"\0i\0d\0\"\0:\x003\x001\0,\0\"\0r\0e\0s\0u\0l\0t\0\"\0:\x001\0}\0".to_vec(),
            "zero bytes",
        ),
    ] {
        let rig = Rig::new().after_sending(1, "initialize").after_sending(31, "tools/call");
        let shown = String::from_utf8_lossy(&line);
        let [(id, code, text)] = &failed(rig.note_received(&line))[..] else { panic!("{shown}") };
        assert_eq!((&**id, *code), ("31", code::INTERNAL_ERROR), "{shown}");
        let all = format!("the MCP server's answer cannot be read: {text}");
        assert!(text.starts_with("the MCP server's answer cannot be read: "), "{all}");
        assert!(text.contains(why), "{shown}: {text}");
        assert_eq!((rig.count("answer_unreadable"), rig.count("line_skipped")), (1, 0));
        assert_eq!(rig.last_words.after("it ended"), "it ended");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_that_cannot_be_read_each_call_fails() {
    let rig = Rig::new();
    let line = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","id":"b","result":NaN}]"#;
    let ids: Vec<_> = failed(rig.note_received(line)).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(ids, ["1", "\"b\""]);
}

#[tokio::test(start_paused = true)]
async fn a_log_line_with_an_answer_in_it_fails_nothing() {
    let rig = Rig::new();
    for line in [
        r#"DEBUG -> {"jsonrpc":"2.0","id":31,"result":{}}"#,
        r#"{"level":"info","id":31,"msg":"served"}"#,
        "{'jsonrpc': '2.0', 'id': 31, 'result': {}}",
    ] {
        assert!(rig.note_received(line).is_empty(), "{line}");
    }
    assert_eq!((rig.count("answer_unreadable"), rig.count("line_skipped")), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_its_child_broke_off_is_left_to_the_end_of_the_child() {
    let rig = Rig::new();
    let line = Bytes::from_static(br#"{"jsonrpc":"2.0","id":31,"result":{"te"#);
    assert!(rig.hears_line(Line::Whole(line), true).is_empty());
    // What it was about to say is no reason for its end.
    assert_eq!(rig.last_words.after("it ended"), "it ended");
    assert!(rig.hears_line(Line::Whole(Bytes::from_static(b"no config")), true).is_empty());
    assert_eq!(rig.last_words.after("it ended"), "it ended; its last words on stdout: no config");
}

#[tokio::test(start_paused = true)]
async fn whatever_answers_the_first_initialize_is_its_answer() {
    let fault = r#""error":{"code":-32700,"message":"bad id"}"#;
    for (named, how) in
        [("", "without an id"), (r#""id":null,"#, "without an id"), (r#""id":0,"#, "under id 0")]
    {
        let rig = Rig::new().after_sending(1, "initialize");
        let failed = failed(rig.note_received(format!(r#"{{"jsonrpc":"2.0",{named}{fault}}}"#)));
        let text = format!("the MCP server answered `initialize` {how}, not under 1: bad id");
        assert_eq!(failed, [("1".to_owned(), -32_700, text)]);
        // It is answered: what comes now is another thing.
        assert!(rig.note_received(format!(r#"{{"jsonrpc":"2.0",{fault}}}"#)).is_empty());
    }
    let rig = Rig::new().after_sending(1, "initialize");
    let failed = failed(rig.note_received(r#"{"jsonrpc":"2.0","id":0,"result":{}}"#));
    let text = "the MCP server answered `initialize` under id 0, not under 1";
    assert_eq!(failed, [("1".to_owned(), code::INTERNAL_ERROR, text.to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn an_error_without_an_id_is_nobodys_where_more_was_said() {
    // Some servers refuse notifications that they do not know.
    let fault = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"m"}}"#;
    let rig = Rig::new().after_sending(1, "initialize").after_sending(2, "tools/list");
    assert!(rig.note_received(fault).is_empty());
    let rig = Rig::new().after_sending(1, "initialize");
    assert_eq!(rig.note_received(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#).len(), 1);
    assert!(rig.note_received(fault).is_empty());
    assert_eq!(rig.count("line_skipped"), 1);
}
