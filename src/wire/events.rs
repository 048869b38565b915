//! Server-sent events out of bytes, as a client reads them (WHATWG HTML 9.2.6).
//!
//! [`Decoder`] holds no source and never waits. Lines are taken as they come and only what an event
//! says is kept, so that comments may come for ever; what is kept for one event is bounded. Other
//! than in a browser every block that says something is handed out: MCP primes a stream with an
//! event that has an id and no more. The buffer is small again after a huge event, so that a quiet
//! stream costs little.
#![cfg_attr(not(fuzzing), expect(unreachable_pub, reason = "the fuzz targets reach it"))]

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

/// What a quiet stream's buffer takes, and the length from which data keeps the buffer it is in.
const SMALL: usize = 8 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its type; none means `message`.
    pub kind: Option<Box<str>>,
    /// The id that this event brought itself; an empty one resets what was before.
    pub id: Option<Box<str>>,
    /// Its data lines joined with LF; none if there was no data line at all.
    pub data: Option<Bytes>,
    /// How long to wait before connecting anew.
    pub retry: Option<Duration>,
}

/// An event is longer than allowed; nothing more can be read from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event in the stream is longer than allowed")]
pub(crate) struct TooLong;

/// The data lines so far.
#[derive(Debug, Default)]
enum Data {
    #[default]
    Nothing,
    Line(Bytes),
    Lines(Vec<u8>),
}

/// The event whose blank line has not come yet.
#[derive(Debug, Default)]
struct PendingEvent {
    event: Event,
    data: Data,
    /// It has a field that was not ignored.
    said: bool,
    /// The length of its lines, without their ends.
    length: usize,
}

impl PendingEvent {
    fn append(&mut self, value: &[u8], max: usize) {
        let mut lines = match std::mem::take(&mut self.data) {
            Data::Nothing => Vec::new(),
            Data::Line(line) => {
                let mut lines = Vec::with_capacity(line.len() + 1 + value.len());
                lines.extend_from_slice(&line);
                lines.push(b'\n');
                lines
            }
            Data::Lines(mut lines) => {
                reserve(&mut lines, value.len() + 1, max);
                lines.push(b'\n');
                lines
            }
        };
        lines.extend_from_slice(value);
        self.data = Data::Lines(lines);
    }

    fn finish(self) -> Option<Event> {
        let data = match self.data {
            Data::Nothing => None,
            Data::Line(line) => Some(line),
            Data::Lines(mut lines) => {
                lines.shrink_to_fit();
                Some(lines.into())
            }
        };
        self.said.then_some(Event { data, ..self.event })
    }
}

/// Reads the events of one stream.
#[derive(Debug)]
pub(crate) struct Decoder {
    buffer: Vec<u8>,
    /// Where the next line starts.
    start: usize,
    /// From `start` to here is no line end.
    scanned: usize,
    /// No line has been taken yet: a byte order mark may stand here.
    fresh: bool,
    /// The last line ended in CR: an LF right behind it belongs to the same end.
    after_cr: bool,
    /// An event was too long.
    failed: bool,
    pending: PendingEvent,
    /// Bytes that the lines of one event may have together, their ends aside.
    max: usize,
}

impl Decoder {
    pub(crate) fn new(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            fresh: true,
            after_cr: false,
            failed: false,
            pending: PendingEvent::default(),
            max,
        }
    }

    /// Takes the next bytes of the stream. [`Self::next`] must have given `None` before: a caller
    /// that lets more than `max` bytes pile up has a stream that is too long.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.tidy();
        if self.check(self.buffer.len()).is_err() {
            self.fail();
        }
        if !self.failed {
            reserve(&mut self.buffer, bytes.len(), self.max.saturating_add(bytes.len()));
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that it holds, beyond what an idle one has.
    pub(crate) fn held(&self) -> usize {
        let lines = match &self.pending.data {
            Data::Nothing => 0,
            Data::Line(line) => line.len(),
            Data::Lines(lines) => lines.capacity(),
        };
        lines.saturating_add(self.buffer.capacity()).saturating_sub(SMALL)
    }

    /// The next event that is complete. One that is incomplete when the stream ends is never
    /// handed out.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        let next = self.advance();
        if next.is_err() {
            self.fail();
        }
        next
    }

    fn advance(&mut self) -> Result<Option<Event>, TooLong> {
        if self.failed {
            return Err(TooLong);
        }
        while let Some(end) = self.line_end() {
            // Comments too, whose beginning may have been refused before their end came.
            self.check(end - self.start)?;
            self.skip_mark();
            let line = self.start..end;
            self.after_cr = self.buffer.get(end) == Some(&b'\r');
            self.start = end + 1;
            if !line.is_empty() {
                self.take_field(line);
                self.check(0)?;
            } else if let Some(event) = std::mem::take(&mut self.pending).finish() {
                return Ok(Some(event));
            }
        }
        self.tidy();
        self.check(self.buffer.len())?;
        Ok(None)
    }

    /// Where the line that starts at `start` ends, if its end is there.
    fn line_end(&mut self) -> Option<usize> {
        if self.after_cr {
            let byte = *self.buffer.get(self.start)?;
            self.after_cr = false;
            self.start += usize::from(byte == b'\n');
        }
        let from = self.scanned.max(self.start);
        let end = self
            .buffer
            .get(from..)?
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'))
            .map(|at| from + at);
        self.scanned = end.unwrap_or(self.buffer.len());
        end
    }

    fn skip_mark(&mut self) {
        if std::mem::take(&mut self.fresh)
            && self.buffer.get(self.start..).is_some_and(|rest| rest.starts_with(BYTE_ORDER_MARK))
        {
            self.start += BYTE_ORDER_MARK.len();
        }
    }

    /// Keeps what a line says, which `start` is past already.
    fn take_field(&mut self, line: Range<usize>) {
        let mut length = line.len();
        let end = line.end;
        let (name, value) = split(self.buffer.get(line).unwrap_or_default());
        // Bytes that are no UTF-8 become longer.
        let growth = |text: &str| text.len().saturating_sub(value.len());
        match name {
            b"data" if matches!(self.pending.data, Data::Nothing) => {
                let from = end - value.len();
                self.pending.data = Data::Line(self.cut(from..end));
            }
            b"data" => self.pending.append(value, self.max),
            b"event" => {
                let kind = text(value);
                length += growth(&kind);
                self.pending.event.kind = (!kind.is_empty()).then_some(kind);
            }
            b"id" if !value.contains(&0) => {
                let id = text(value);
                length += growth(&id);
                self.pending.event.id = Some(id);
            }
            b"retry" if let Some(retry) = milliseconds(value) => {
                self.pending.event.retry = Some(retry);
            }
            _ => return,
        }
        self.pending.said = true;
        self.pending.length += length;
    }

    /// The bytes there, which `start` is past already.
    fn cut(&mut self, data: Range<usize>) -> Bytes {
        let rest = self.buffer.len().saturating_sub(self.start);
        if data.len() < SMALL.max(data.start).max(rest) {
            return Bytes::copy_from_slice(self.buffer.get(data).unwrap_or_default());
        }
        // Long data keeps the buffer instead of being copied; the fewer bytes behind it move.
        let rest = self.buffer.split_off(self.start);
        let mut kept = std::mem::replace(&mut self.buffer, rest);
        (self.start, self.scanned) = (0, 0);
        kept.truncate(data.end);
        kept.shrink_to_fit();
        Bytes::from(kept).slice(data)
    }

    /// May the event have `more` bytes?
    fn check(&self, more: usize) -> Result<(), TooLong> {
        if self.pending.length.saturating_add(more) > self.max { Err(TooLong) } else { Ok(()) }
    }

    /// Is no more held than one event, and the piece that was just fed?
    #[cfg(fuzzing)]
    pub(crate) fn check_held(&self, fed: usize) {
        let data = match &self.pending.data {
            Data::Nothing => 0,
            Data::Line(line) => line.len(),
            Data::Lines(lines) => lines.len(),
        };
        let Event { kind, id, .. } = &self.pending.event;
        let names: usize = [kind, id].into_iter().flatten().map(|text| text.len()).sum();
        let most = self.max.saturating_add(fed);
        assert!(
            self.buffer.len() - self.start + data + names <= most,
            "more than an event is held"
        );
        assert!(self.buffer.capacity() <= most.max(SMALL));
    }

    fn fail(&mut self) {
        self.failed = true;
        self.buffer = Vec::new();
        (self.start, self.scanned) = (0, 0);
        self.pending = PendingEvent::default();
    }

    /// Forgets what has been taken, and gives back the room it had.
    fn tidy(&mut self) {
        self.buffer.drain(..self.start.min(self.buffer.len()));
        self.scanned = self.scanned.saturating_sub(self.start);
        self.start = 0;
        if self.buffer.capacity() / 4 > self.buffer.len() {
            self.buffer.shrink_to(SMALL);
        }
    }
}

/// Makes room for `more` bytes. It doubles, so that small pieces cost little, but not past `most`.
fn reserve(buffer: &mut Vec<u8>, more: usize, most: usize) {
    let needed = buffer.len().saturating_add(more);
    if needed > buffer.capacity() {
        let aim = buffer.capacity().saturating_mul(2).min(most).max(needed);
        buffer.reserve_exact(aim - buffer.len());
    }
}

/// A line's field and its value. The name of a comment is empty.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = line.splitn(2, |byte| *byte == b':');
    let name = parts.next().unwrap_or_default();
    let value = parts.next().unwrap_or_default();
    (name, value.strip_prefix(b" ").unwrap_or(value))
}

fn text(value: &[u8]) -> Box<str> {
    String::from_utf8_lossy(value).into()
}

fn milliseconds(value: &[u8]) -> Option<Duration> {
    // `parse` would take a plus sign, too.
    let digits = value.iter().all(u8::is_ascii_digit);
    let number = digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?;
    number.map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 1000;

    /// Feeds `bytes` in pieces of the sizes given; checks at each step what is held.
    fn decode(bytes: &[u8], sizes: &[usize], max: usize) -> (Vec<Event>, Option<TooLong>) {
        let mut decoder = Decoder::new(max);
        let mut events = Vec::new();
        let mut sizes = sizes.iter().copied().cycle();
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(sizes.next().unwrap_or(1).clamp(1, rest.len()));
            rest = after;
            decoder.feed(piece);
            assert!(held(&decoder) <= max + piece.len());
            assert!(decoder.buffer.capacity() <= (max + piece.len()).max(SMALL));
            loop {
                match decoder.next() {
                    Ok(Some(event)) => events.push(event),
                    Ok(None) => break,
                    Err(error) => {
                        decoder.feed(b"data: more\n\n");
                        assert_eq!(decoder.next(), Err(TooLong));
                        assert_eq!((held(&decoder), decoder.buffer.capacity()), (0, 0));
                        return (events, Some(error));
                    }
                }
            }
            assert!(held(&decoder) <= max);
        }
        (events, None)
    }

    fn held(decoder: &Decoder) -> usize {
        let PendingEvent { event, data, .. } = &decoder.pending;
        let data = match data {
            Data::Nothing => 0,
            Data::Line(line) => line.len(),
            Data::Lines(lines) => lines.len(),
        };
        let names = [&event.kind, &event.id].into_iter().flatten().map(|text| text.len());
        decoder.buffer.len() - decoder.start + data + names.sum::<usize>()
    }

    /// The events of `text`, whether it comes at once or byte by byte.
    fn events(text: impl AsRef<[u8]>) -> Vec<Event> {
        let whole = decode(text.as_ref(), &[usize::MAX], MAX);
        assert_eq!(whole, decode(text.as_ref(), &[1], MAX));
        assert_eq!(whole.1, None);
        whole.0
    }

    fn data(text: &str) -> Event {
        Event { data: Some(Bytes::copy_from_slice(text.as_bytes())), ..Event::default() }
    }

    #[test]
    fn the_common_case() {
        let message = Event { kind: Some("message".into()), ..data("{}") };
        assert_eq!(events("event: message\ndata: {}\n\n"), [message]);
    }

    #[test]
    fn lines_end_in_lf_or_cr_or_both() {
        for text in ["data: a\ndata: b\n\n", "data: a\rdata: b\r\r", "data: a\r\ndata: b\r\n\r\n"] {
            assert_eq!(events(text), [data("a\nb")], "{text:?}");
        }
        assert_eq!(events("data: a\n\rdata: b\r\n\r"), [data("a"), data("b")]);
    }

    #[test]
    fn a_cr_ends_the_event_at_once_and_its_lf_may_come_later() {
        let mut decoder = Decoder::new(MAX);
        decoder.feed(b"data: a\r\n\r");
        assert_eq!(decoder.next(), Ok(Some(data("a"))));
        decoder.feed(b"\ndata: b\r");
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(b"\n");
        assert_eq!(decoder.next(), Ok(None));
        decoder.feed(b"\n");
        assert_eq!(decoder.next(), Ok(Some(data("b"))));
    }

    #[test]
    fn a_byte_order_mark_is_ignored_at_the_start_only() {
        assert_eq!(events("\u{feff}data: a\n\n"), [data("a")]);
        assert_eq!(events("\u{feff}\ndata: a\n\n"), [data("a")]);
        assert_eq!(events("\u{feff}\u{feff}data: a\n\n"), []);
        assert_eq!(events("data: a\n\n\u{feff}data: b\n\n"), [data("a")]);
    }

    #[test]
    fn comments_and_unknown_fields_are_ignored_and_cost_nothing() {
        assert_eq!(events(":\n\n: a\n\ndata: a\n:data: b\nDATA: c\ndata : d\n\n"), [data("a")]);
        let comments = ": still here\n".repeat(MAX);
        assert_eq!(events(format!("data: a\n{comments}\n")), [data("a")]);
        assert_eq!(events(format!("{comments}foo\n\n")), []);
    }

    #[test]
    fn one_space_after_the_colon_goes_and_the_colon_may_be_missing() {
        assert_eq!(events("data:a\ndata:  b: c\ndata\ndata:\n\n"), [data("a\n b: c\n\n")]);
        assert_eq!(events("data\n\n"), [data("")]);
        assert_eq!(events("event\nid\n\n"), [Event { id: Some("".into()), ..Event::default() }]);
    }

    #[test]
    fn a_block_without_data_is_handed_out_if_it_says_anything() {
        let primed = Event { id: Some("7".into()), ..Event::default() };
        assert_eq!(events("id: 7\n\n"), [primed]);
        let primed = Event { id: Some("7".into()), ..data("") };
        assert_eq!(events("id: 7\ndata: \n\n"), [primed]);
        let retry = Event { retry: Some(Duration::from_millis(1500)), ..Event::default() };
        assert_eq!(events("retry: 1500\n\n"), [retry]);
        assert_eq!(events("\n\n\r\n"), []);
    }

    #[test]
    fn the_last_of_several_counts_and_none_lasts_beyond_its_event() {
        let first = Event { id: Some("2".into()), kind: Some("b".into()), ..data("x") };
        let text = "id: 1\nevent: a\nid: 2\nevent: b\ndata: x\n\ndata: y\n\n";
        assert_eq!(events(text), [first, data("y")]);
    }

    #[test]
    fn values_that_mean_nothing_are_ignored() {
        assert_eq!(events("id: a\0b\n\n"), []);
        for retry in ["", "+1", "-1", "1s", "1.5", "99999999999999999999999"] {
            assert_eq!(events(format!("retry: {retry}\n\n")), [], "{retry}");
        }
        assert_eq!(events("event: a\nevent:\ndata: x\n\n"), [data("x")]);
    }

    #[test]
    fn data_stays_as_it_came_and_names_are_made_readable() {
        let kept = Event {
            kind: Some("a\u{fffd}".into()),
            id: Some("\u{fffd}b".into()),
            data: Some(Bytes::from_static(b"\xff\0\xc3")),
            retry: None,
        };
        assert_eq!(events(b"event: a\xff\nid: \xc3b\ndata: \xff\0\xc3\n\n"), [kept]);
    }

    #[test]
    fn what_is_incomplete_at_the_end_is_not_handed_out() {
        for text in ["data: a", "data: a\n", "data: a\r\n", "data: a\r"] {
            assert_eq!(events(text), []);
        }
    }

    #[test]
    fn an_event_of_the_limit_is_read_and_one_byte_more_is_too_long() {
        for sizes in [[1], [7], [1000]] {
            let fits = decode(b"id: 1\ndata: a\n\n: 3456789012\n\n", &sizes, 12);
            assert_eq!(fits, (vec![Event { id: Some("1".into()), ..data("a") }], None));
            for text in
                ["id: 1\ndata: ab\n\n", "data: 7890123", ": 34567890123\n", "id\n: 5678901234"]
            {
                let text = format!("data: a\n\n{text}");
                assert_eq!(decode(text.as_bytes(), &sizes, 12), (vec![data("a")], Some(TooLong)));
            }
            // Empty lines of data are not free, nor is what replaces a broken byte.
            assert_eq!(decode(&b"data\n".repeat(4), &sizes, 12), (vec![], Some(TooLong)));
            assert_eq!(decode(b"id:\xff\xff\xff\xff\xff\n", &sizes, 12), (vec![], Some(TooLong)));
        }
    }

    #[test]
    fn what_nobody_takes_does_not_pile_up() {
        let mut decoder = Decoder::new(MAX);
        for _ in 0..MAX {
            decoder.feed(b"data: a\n\n");
            assert!(held(&decoder) <= MAX + 9);
        }
        assert_eq!(decoder.next(), Err(TooLong));
    }

    #[test]
    fn the_buffer_is_small_again_after_a_huge_event() {
        let huge = "x".repeat(1 << 20);
        for lines in [1, 3] {
            let mut decoder = Decoder::new(1 << 22);
            let text = format!("{}\ndata: ne", format!("data: {huge}\n").repeat(lines));
            for piece in text.as_bytes().chunks(10_000) {
                decoder.feed(piece);
                if let Some(event) = decoder.next().unwrap() {
                    assert_eq!(event.data.unwrap().len(), (huge.len() + 1) * lines - 1);
                    assert_eq!(decoder.next(), Ok(None));
                }
            }
            assert!(decoder.buffer.capacity() <= SMALL);
            decoder.feed(b"xt\n\n");
            assert_eq!(decoder.next(), Ok(Some(data("next"))));
            assert!(decoder.buffer.capacity() <= SMALL);
        }
    }

    #[test]
    fn a_quiet_stream_may_have_eight_kibibytes_of_its_own() {
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(&vec![b':'; 8 * 1024]);
        assert_eq!((decoder.next(), decoder.held()), (Ok(None), 0));
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(&vec![b':'; 8 * 1024 + 7]);
        assert_eq!((decoder.next(), decoder.held()), (Ok(None), 7));
        // What its lines have come to counts, too; their room grows no further than an event may.
        let mut decoder = Decoder::new(50_000);
        let line = format!("data: {}\n", "x".repeat(20_000));
        for (line, held) in [(&*line, 20_000), (&*line, 40_001), ("data\n", 50_000)] {
            decoder.feed(line.as_bytes());
            assert_eq!(decoder.next(), Ok(None));
            let beside = decoder.buffer.capacity();
            assert_eq!(decoder.held(), held + beside - SMALL.min(held + beside));
            assert!(beside <= SMALL);
        }
    }

    #[test]
    fn the_room_doubles_when_it_is_full_and_stays_while_a_line_comes() {
        let mut decoder = Decoder::new(1 << 20);
        for (piece, room) in [(50_000, 50_000), (25_000, 100_000), (25_000, 100_000), (1, 200_000)]
        {
            decoder.feed(&vec![b'x'; piece]);
            assert_eq!((decoder.next(), decoder.buffer.capacity()), (Ok(None), room));
        }
    }

    #[test]
    fn short_data_is_copied_and_long_data_keeps_its_buffer() {
        let mut decoder = Decoder::new(1 << 20);
        decoder.feed(b"data: a\n\n");
        let buffer = decoder.buffer.as_ptr();
        assert_eq!(decoder.next(), Ok(Some(data("a"))));
        assert_eq!((decoder.next(), decoder.buffer.as_ptr()), (Ok(None), buffer));
        assert!(decoder.buffer.capacity() > 0);
        decoder.feed(format!("data: {}\n\n", "x".repeat(100_000)).as_bytes());
        let event = decoder.next().unwrap().unwrap();
        assert_eq!(event.data.unwrap().len(), 100_000);
        assert!(decoder.buffer.capacity() <= 1, "the buffer went with the data");
    }

    #[test]
    fn a_type_is_not_free() {
        for sizes in [[1], [1000]] {
            let fits = decode(b"event:1\ndata:\n\n", &sizes, 12);
            assert_eq!(fits, (vec![Event { kind: Some("1".into()), ..data("") }], None));
            for text in [&b"event:1\ndata:x\n\n"[..], b"event:\xff\xff\xff\xff\n"] {
                assert_eq!(decode(text, &sizes, 12), (vec![], Some(TooLong)), "{text:?}");
            }
        }
    }

    /// The standard's words, with all bytes at hand.
    fn simply(bytes: &[u8]) -> Vec<Event> {
        let unified = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
        let unified: Vec<u8> = unified
            .iter()
            .zip([0].iter().chain(unified))
            .filter(|(byte, before)| (**byte, **before) != (b'\n', b'\r'))
            .map(|(byte, _)| if *byte == b'\r' { b'\n' } else { *byte })
            .collect();
        let mut lines: Vec<&[u8]> = unified.split(|byte| *byte == b'\n').collect();
        lines.pop();
        let mut events = Vec::new();
        let mut now = Event::default();
        let mut said = false;
        for line in lines {
            if line.is_empty() {
                let event = std::mem::take(&mut now);
                events.extend(std::mem::take(&mut said).then_some(event));
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let words = String::from_utf8_lossy(value).into_owned();
            match &line[..colon] {
                b"event" => now.kind = (!words.is_empty()).then(|| words.into()),
                b"id" if !value.contains(&0) => now.id = Some(words.into()),
                b"data" => {
                    let mut all = now.data.map_or_else(Vec::new, |it| [&it[..], b"\n"].concat());
                    all.extend_from_slice(value);
                    now.data = Some(all.into());
                }
                b"retry" if words.bytes().all(|byte| byte.is_ascii_digit()) => {
                    match words.parse() {
                        Ok(number) => now.retry = Some(Duration::from_millis(number)),
                        Err(_) => continue,
                    }
                }
                _ => continue,
            }
            said = true;
        }
        events
    }

    fn encode(event: &Event, end: &str) -> Vec<u8> {
        let mut text = String::new();
        for (name, value) in [("event", &event.kind), ("id", &event.id)] {
            if let Some(value) = value {
                write!(text, "{name}: {value}{end}").unwrap();
            }
        }
        if let Some(retry) = event.retry {
            write!(text, "retry: {}{end}", retry.as_millis()).unwrap();
        }
        let mut bytes = text.into_bytes();
        for line in event.data.iter().flat_map(|data| data.split(|byte| *byte == b'\n')) {
            bytes.extend_from_slice(&[b"data: ", line, end.as_bytes()].concat());
        }
        bytes.extend_from_slice(end.as_bytes());
        bytes
    }

    /// Bytes of which something may be understood.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let pieces = vec![
            "data", "event", "id", "retry", ":", " ", "\n", "\n", "\r", "\r\n", "1", "x",
            "\u{feff}",
        ];
        let piece = prop_oneof![
            8 => proptest::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
            1 => vec(any::<u8>(), 0..3),
        ];
        vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    fn event() -> impl Strategy<Value = Event> {
        let data = vec(any::<u8>().prop_filter("a CR ends a line", |byte| *byte != b'\r'), 0..100);
        (
            proptest::option::of("[^\r\n]{1,9}"),
            proptest::option::of("[^\r\n\0]{0,9}"),
            proptest::option::of(data),
            proptest::option::of(any::<u64>()),
        )
            .prop_filter("an empty block is no event", |(kind, id, data, retry)| {
                kind.is_some() || id.is_some() || data.is_some() || retry.is_some()
            })
            .prop_map(|(kind, id, data, retry)| Event {
                kind: kind.map(Into::into),
                id: id.map(Into::into),
                data: data.map(Into::into),
                retry: retry.map(Duration::from_millis),
            })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            bytes in stream(),
            sizes in vec(1_usize..50, 1..20),
        ) {
            prop_assert_eq!(decode(&bytes, &sizes, usize::MAX / 2), (simply(&bytes), None));
        }

        #[test]
        fn any_split_meets_the_limit_at_the_same_event(
            bytes in stream(),
            sizes in vec(1_usize..50, 1..20),
            max in 0_usize..40,
        ) {
            prop_assert_eq!(decode(&bytes, &sizes, max), decode(&bytes, &[usize::MAX], max));
        }

        #[test]
        fn no_bytes_panic(
            bytes in vec(any::<u8>(), 0..400),
            sizes in vec(1_usize..50, 1..20),
        ) {
            prop_assert_eq!(decode(&bytes, &sizes, usize::MAX / 2), (simply(&bytes), None));
        }

        #[test]
        fn what_is_written_is_read_back(
            sent in vec(event(), 0..5),
            end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
            sizes in vec(1_usize..100, 1..20),
        ) {
            let bytes: Vec<u8> = sent.iter().flat_map(|event| encode(event, end)).collect();
            prop_assert_eq!(decode(&bytes, &sizes, MAX), (sent, None));
        }

        #[test]
        fn long_data_is_no_different(
            lengths in vec(0_usize..40_000, 1..8),
            sizes in vec(1_usize..70_000, 1..5),
            blank in any::<[bool; 8]>(),
        ) {
            let mut text = String::new();
            for ((length, blank), letter) in lengths.iter().zip(blank).zip('a'..) {
                let line = String::from(letter).repeat(*length);
                write!(text, "data: {line}\n{}", if blank { "\n" } else { "" }).unwrap();
            }
            prop_assert_eq!(decode(text.as_bytes(), &sizes, 400_000), (simply(text.as_bytes()), None));
        }
    }
}
