//! Every limit, declared once: a row gives the field, the flag, the variable, the key in a file, the
//! default, the range, the help text, the row in the tables, and the documentation here.

use std::ops::{Deref, RangeInclusive};
use std::time::Duration;

use super::ConfigError;
use super::draft::Draft;
use super::kind::{COUNT, LENGTH, SIZE, TIME, within};
use super::setting::{PLAIN, Setting};

/// A value whose every part is within its range, as [`Limits::check`] makes one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checked<T>(T);

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Units of the defaults, written as an operator writes them.
#[expect(non_upper_case_globals, reason = "units have their own case")]
#[expect(clippy::min_ident_chars, reason = "units are short")]
pub(super) mod units {
    use std::time::Duration;

    pub(in crate::config) const KiB: usize = 1 << 10;
    pub(in crate::config) const MiB: usize = 1 << 20;
    pub(in crate::config) const GiB: usize = 1 << 30;
    pub(in crate::config) const s: Duration = Duration::from_secs(1);
    pub(in crate::config) const m: Duration = Duration::from_mins(1);
    pub(in crate::config) const h: Duration = Duration::from_hours(1);
}

use units::{GiB, KiB, MiB};

const MILLION: u32 = 1_000_000;
const MOMENT: Duration = Duration::from_millis(1);
/// Of 365.25 days, which humantime writes as one year.
const YEAR: Duration = Duration::from_hours(8766);
/// A time that cannot be left out.
const SOME_TIME: RangeInclusive<Duration> = MOMENT..=YEAR;
/// A time that may be zero.
pub(super) const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=YEAR;

/// Makes the struct, its defaults, its settings, and how they are read and checked. A row:
///
/// ```text
/// /// What the tables and the documentation say.
/// field: type as KIND = default, least..=most, "flag", "help text";
/// ```
macro_rules! limits {
    (
        $(#[$meta:meta])*
        $Name:ident in $group:literal {
            $(
                $(#[doc = $row:literal])+
                $field:ident: $Ty:ty as $KIND:ident = $number:literal $($unit:ident)?, $range:expr,
                $name:literal, $help:literal $(in $own:literal)?;
            )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub struct $Name {
            $(
                #[doc = concat!(
                    $help, ".\n\n`--", $name, "`, `", $number $(, stringify!($unit))?,
                    "` if nothing is given:"
                )]
                $(#[doc = $row])+
                pub $field: $Ty,
            )+
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $( $field: $(units::$unit *)? $number, )+ }
            }
        }

        impl $Name {
            pub(super) const SETTINGS: &'static [Setting] = &[$(
                Setting {
                    name: $name,
                    $(group: $own,)?
                    value: $KIND.value,
                    default: Some(concat!($number $(, stringify!($unit))?)),
                    help: $help,
                    row: concat!($($row),+),
                    is_limit: true,
                    form: |text| ($KIND.read)(text).map(drop),
                    ..Setting { group: $group, ..PLAIN }
                },
            )+];

            /// Checks each part.
            ///
            /// # Errors
            /// The first that is out of its range, which stands in the error.
            pub fn check(self) -> Result<Checked<Self>, ConfigError> {
                let Self { $($field),+ } = self;
                $( within(&$KIND, $name, $field, &($range))?; )+
                Ok(Checked(self))
            }

            pub(super) fn of(draft: &Draft) -> Result<Checked<Self>, ConfigError> {
                let Self { $($field),+ } = Self::default();
                let given = Self {
                    $( $field: draft.number(&$KIND, $name)?.unwrap_or($field), )+
                };
                draft.placed(given.check())
            }
        }
    };
}

limits! {
    /// What is kept ready for an [`Upstream`](super::Upstream), and how long it is waited for.
    UpstreamLimits in "Upstream" {
        /// idle connections to the upstream that are kept, each for 3 s; more are closed after use
        connections: usize as LENGTH = 32, 0..=10_000, "upstream-connections",
            "Idle connections to the upstream that are kept";
        /// until the upstream takes a connection; then it counts as down
        connect: Duration as TIME = 5 s, SOME_TIME, "upstream-connect-timeout",
            "Until the upstream takes a connection; then it counts as down";
        /// until the head of a response on a passed path, unless the client asks for an event stream:
        /// 504. Also between two pieces of its body, unless it is an event stream: the response breaks
        /// off
        head: Duration as TIME = 60 s, SOME_TIME, "upstream-head-timeout",
            "Until the head of a response on a passed path that is no event stream; then 504";
        /// how long a call that the upstream never got, or that is safe to repeat, waits for an
        /// upstream that is down or restarting; then a JSON-RPC error
        wait: Duration as TIME = 10 s, ANY_TIME, "upstream-wait",
            "How long a call waits for an upstream that is down or restarting; then a JSON-RPC error";
    }
}

limits! {
    /// Counts, sizes and rates, and what happens when one is reached. COMMAND is what runs behind the
    /// edge. An address is an IPv4 address or an IPv6 /64.
    Limits in "Limits" {
        /// of one address, health aside, which has a rate of its own. With the burst used up: 429,
        /// `Retry-After`, a JSON-RPC error without id, as no body is read
        requests_per_second: u32 as COUNT = 10, 1..=MILLION, "requests-per-second",
            "Requests per second from one address; more are answered 429 with Retry-After";
        /// so many requests of one address pass at once beyond the one that is due
        /// (nginx `burst=… nodelay`); then 429 as above
        burst: u32 as COUNT = 20, 0..=MILLION, "burst",
            "Requests from one address that may come at once beyond the rate; more are answered 429";
        /// the next connection of the address is closed before any TLS work. A trusted proxy may have
        /// any number; the address in its PROXY header counts
        connections_per_ip: u32 as COUNT = 20, 1..=MILLION, "connections-per-ip",
            "Connections from one address; more are closed before any TLS work";
        /// open GET streams of one address; as many more on passed paths. 429, `Retry-After`. The
        /// answer to a POST does not count. Of other requests on passed paths 64 of one address (429)
        /// and 512 in all (503) may be under way; `--pass-open` has as many places of its own, and 512
        /// for streams
        streams_per_ip: u32 as COUNT = 20, 1..=MILLION, "streams-per-ip",
            "Open event streams of one address; more are answered 429";
        /// a connection that has shown no token gives its place up; if all have shown one, the next
        /// connection is closed before any TLS work
        max_connections: u32 as COUNT = 1000, 1..=MILLION, "max-connections",
            "Connections in all; one that has shown no token is closed for the next; if there is no \
             such one, the next is closed before any TLS work";
        /// connections that have not made a request with a good token yet, their handshakes included.
        /// One of them is closed for a newcomer, also where `--max-connections` is reached: first one
        /// that has sent nothing, then one of the network (IPv4 /24, IPv6 /48) with the most of them
        /// (in steps of a sixteenth of this number), then the oldest; the newest half last. Whoever
        /// has shown a token never is
        max_unauthenticated: u32 as COUNT = 256, 1..=MILLION, "max-unauthenticated",
            "Connections without a request with a good token yet, their handshakes included; one is \
             closed for a newcomer: one that is silent, or of the network with the most of them";
        /// an idle session gives its place to the new one (below); if none is idle: 503, `Retry-After`
        max_sessions: u32 as COUNT = 1000, 1..=MILLION, "max-sessions",
            "Sessions in all; an idle one gives its place to the next; if none is idle, 503 with \
             Retry-After";
        /// an idle session of the address gives its place to the new one (below); if none is idle:
        /// 429, `Retry-After`
        sessions_per_ip: u32 as COUNT = 20, 1..=MILLION, "sessions-per-ip",
            "Sessions of one address; an idle one gives its place to the next; if none is idle, 429 \
             with Retry-After";
        /// processes of COMMAND. Idle warm ones are ended first, then an idle session (below); else
        /// 503, `Retry-After`
        max_children: u32 as COUNT = 100, 1..=MILLION, "max-children",
            "Processes of COMMAND in all; idle warm ones are ended for the next, then an idle session; \
             else 503 with Retry-After";
        /// 431
        // hyper's read buffer is never smaller than 8 KiB.
        max_header_bytes: usize as SIZE = 32 KiB, 8 * KiB..=GiB, "max-header-bytes",
            "Bytes of a request head; more are answered 431";
        /// fields of a request head: 431
        max_headers: usize as LENGTH = 100, 1..=10_000, "max-headers",
            "Fields of a request head; more are answered 431";
        /// 413
        max_body_bytes: usize as SIZE = 10 MiB, KiB..=GiB, "max-body-bytes",
            "Bytes of a request body; more are answered 413";
        /// a longer line of COMMAND's stdout is skipped, counted and logged; the call that it answers
        /// gets a JSON-RPC error. A COMMAND that has written more than that, in one line or before its
        /// first message, and no message for 30 s, is ended
        max_line_bytes: usize as SIZE = 16 MiB, KiB..=GiB, "max-line-bytes",
            "Bytes in one line that COMMAND writes; a longer one is skipped and logged, and the call \
             that it answers gets an error" in "Child";
        /// bytes of messages that are held at once: request bodies, queues, kept events, answers. One
        /// address may hold a quarter, or one message of the largest size: 429, others 503 when all is
        /// used up, both with `Retry-After`; 413 for a message that could never fit (a handler linked
        /// in reads it as values, which take more than its text); a line of COMMAND or an answer of
        /// the upstream for which there is none is lost, and its caller gets a JSON-RPC error. At
        /// three quarters, events that are only kept for clients that come back are given up. Of one
        /// stream a client that never reads holds at most 1 MiB, and one event beyond that. Memory
        /// that was given up goes back to the system within some 10 s
        max_buffered_bytes: usize as SIZE = 256 MiB, MiB..=1024 * GiB, "max-buffered-bytes",
            "Bytes of messages that are held at once: bodies, queues, streams, answers; a quarter is \
             the most for one address, which is answered 429 then, others 503 when all is used up";
    }
}

impl Limits {
    /// Bytes that one message may have, whichever way it goes.
    pub(crate) fn largest_message(&self) -> usize {
        self.max_body_bytes.max(self.max_line_bytes)
    }
}

limits! {
    /// Lengths of time, and what happens when one is over. COMMAND is what runs behind the edge.
    Times in "Time limits" {
        /// so long may a request that brings a token wait for its turn in the rate; then 429. Few
        /// clients repeat after a 429
        rate_wait: Duration as TIME = 0 s, ANY_TIME, "rate-wait",
            "How long a request over the rate waits for its turn before its 429, if it brings a token";
        /// the connection is closed
        tls_handshake: Duration as TIME = 10 s, SOME_TIME, "tls-handshake-timeout",
            "A TLS handshake; then the connection is closed";
        /// a request head, from its first byte; the first one from the connection's start. 408 and the
        /// connection is closed; a new connection that sends nothing is closed without a word
        header: Duration as TIME = 10 s, SOME_TIME, "header-timeout",
            "A request head; then 408 and the connection is closed";
        /// between two pieces of a request body: 408
        body_idle: Duration as TIME = 10 s, SOME_TIME, "body-idle-timeout",
            "Between two pieces of a request body; then 408";
        /// a whole request body: 408
        body: Duration as TIME = 60 s, SOME_TIME, "body-timeout",
            "A whole request body; then 408";
        /// a connection without a request is closed
        idle: Duration as TIME = 75 s, SOME_TIME, "idle-timeout",
            "A connection without a request; then it is closed";
        /// the caller gets a JSON-RPC error (-32603), COMMAND gets `notifications/cancelled`. An
        /// `initialize` that takes so long ends its session; the error says what COMMAND wrote
        /// meanwhile
        call: Duration as TIME = 300 s, SOME_TIME, "call-timeout",
            "One call; then a JSON-RPC error, and the server is told to cancel";
        /// a silent event stream gets a comment; another stands at its begin
        keep_alive: Duration as TIME = 15 s, SOME_TIME, "keep-alive-interval",
            "Silence on an event stream; then a comment is sent so that nothing between cuts it";
        /// a GET stream is ended cleanly, up to a tenth earlier, and may be resumed with
        /// `Last-Event-ID`; clients of 2025-11-25 are told when to come back. With HTTP+SSE this ends
        /// the session too
        stream_age: Duration as TIME = 1 h, SOME_TIME, "stream-age",
            "An event stream; then it is ended cleanly (a little earlier at random) and may be resumed";
        /// a session without a request, a waiting call or an open stream is ended, and its process;
        /// then 404
        session_idle: Duration as TIME = 30 m, SOME_TIME, "session-idle-timeout",
            "A session without a request or an open stream; then it and its process are ended";
        /// a session is ended whatever it does, and its process; waiting calls get an error; then 404
        session_age: Duration as TIME = 24 h, SOME_TIME, "session-age",
            "A session in all; then it and its process are ended";
        /// a connection that takes nothing is closed, and what was behind it freed; a stream whose
        /// reader is behind is cut off; a COMMAND that takes no message gives 503
        write: Duration as TIME = 30 s, SOME_TIME, "write-timeout",
            "A write that makes no progress; then the connection is closed";
        /// from SIGTERM, SIGINT or SIGQUIT on, what is in flight is finished; then all is closed. The
        /// last third, at most 5 s, is for the processes. A second signal ends at once
        shutdown: Duration as TIME = 30 s, ANY_TIME, "shutdown-timeout",
            "From SIGTERM, SIGINT or SIGQUIT until everything is closed; a second signal does it at once";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Given;

    #[test]
    fn the_defaults_are_within_their_ranges_and_as_they_are_shown() {
        assert!(Limits::default().check().is_ok() && Times::default().check().is_ok());
        let nothing = Draft::default();
        let read = |settings: &'static [Setting]| {
            let mut draft = Draft::default();
            for setting in settings {
                let text = setting.default.unwrap();
                draft.set(setting, vec![text.into()], Given::Code);
            }
            draft
        };
        let shown = format!("{:?}", Limits::of(&read(Limits::SETTINGS)).unwrap());
        assert_eq!(shown, format!("{:?}", Limits::of(&nothing).unwrap()));
        let shown = format!("{:?}", Times::of(&read(Times::SETTINGS)).unwrap());
        assert_eq!(shown, format!("{:?}", Times::of(&nothing).unwrap()));
        let shown = format!("{:?}", UpstreamLimits::of(&read(UpstreamLimits::SETTINGS)).unwrap());
        assert_eq!(shown, format!("{:?}", UpstreamLimits::of(&nothing).unwrap()));
    }

    #[test]
    fn what_cannot_work_is_refused_in_code_too() {
        let told = |limits: Limits| limits.check().unwrap_err().to_string();
        let limits = Limits::default();
        let no_rate = Limits { requests_per_second: 0, ..limits };
        assert_eq!(told(no_rate), "`requests-per-second` is 0: give 1 to 1000000");
        let small = Limits { max_header_bytes: 4096, ..limits };
        assert_eq!(told(small), "`max-header-bytes` is 4KiB: give 8KiB to 1GiB");
        let never = Times { call: Duration::ZERO, ..Times::default() };
        let error = never.check().unwrap_err();
        assert_eq!(error.to_string(), "`call-timeout` is 0s: give 1ms to 1year");
        assert_eq!((error.key, error.given), ("call-timeout", Given::Code));
        let many = UpstreamLimits { connections: 10_001, ..UpstreamLimits::default() };
        let error = many.check().unwrap_err().to_string();
        assert_eq!(error, "`upstream-connections` is 10001: give 0 to 10000");
    }
}
