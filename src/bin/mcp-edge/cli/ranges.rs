//! Numbers, sizes and times that can work. What is out of range would stop all service, or overflow.

use std::fmt::Display;
use std::num::NonZeroUsize;
use std::time::Duration;

use mcp_edge::{Limits, Times};

use super::value::{self, Bytes};
use super::{ConfigError, args, twin};

const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;
pub(super) const MOMENT: Duration = Duration::from_millis(1);
/// Of 365.25 days, which humantime writes as one year.
const YEAR: Duration = Duration::from_hours(8766);
const COUNT: u32 = 1_000_000;

fn within<T: Copy + PartialOrd, D: Display>(
    long: &str,
    value: T,
    (least, most): (T, T),
    show: impl Fn(T) -> D,
) -> Result<T, ConfigError> {
    if value >= least && value <= most {
        return Ok(value);
    }
    Err(ConfigError::OutOfRange {
        option: format!("--{long} ({})", twin(long)),
        value: show(value).to_string(),
        least: show(least).to_string(),
        most: show(most).to_string(),
    })
}

fn count(long: &str, value: u32, least: u32) -> Result<u32, ConfigError> {
    within(long, value, (least, COUNT), |it| it)
}

fn size(long: &str, value: Bytes, least: usize) -> Result<usize, ConfigError> {
    within(long, value.0, (least, GIB), Bytes)
}

pub(super) fn time(long: &str, value: Duration, least: Duration) -> Result<Duration, ConfigError> {
    within(long, value, (least, YEAR), humantime::format_duration)
}

/// Threads that serve.
pub(super) fn workers(workers: Option<usize>) -> Result<Option<NonZeroUsize>, ConfigError> {
    let workers = workers.map(|it| within("workers", it, (1, 1024), |it| it)).transpose()?;
    Ok(workers.and_then(NonZeroUsize::new))
}

/// Between two reports; zero is never.
pub(super) fn report_interval(interval: value::Duration) -> Result<Option<Duration>, ConfigError> {
    let interval = time("report-interval", *interval, Duration::ZERO)?;
    Ok(Some(interval).filter(|interval| !interval.is_zero()))
}

/// Private memory of a process. Below the least hardly anything starts.
pub(super) fn child_memory(bytes: Bytes) -> Result<u64, ConfigError> {
    let bytes = within("child-memory", bytes.0, (16 * KIB * KIB, 1024 * GIB), Bytes)?;
    Ok(u64::try_from(bytes).unwrap_or(u64::MAX))
}

/// Idle connections to the upstream.
pub(super) fn upstream_connections(connections: usize) -> Result<usize, ConfigError> {
    within("upstream-connections", connections, (0, 10_000), |it| it)
}

/// Every count and size.
pub(super) fn limits(limits: &args::Limits, line: Bytes) -> Result<Limits, ConfigError> {
    let args::Limits {
        requests_per_second,
        burst,
        connections_per_ip,
        streams_per_ip,
        max_connections,
        max_unauthenticated,
        max_sessions,
        sessions_per_ip,
        max_children,
        max_header_bytes,
        max_headers,
        max_body_bytes,
        max_buffered_bytes,
    } = *limits;
    Ok(Limits {
        requests_per_second: count("requests-per-second", requests_per_second, 1)?,
        // None beyond the rate is a fair wish, as in nginx.
        burst: count("burst", burst, 0)?,
        connections_per_ip: count("connections-per-ip", connections_per_ip, 1)?,
        streams_per_ip: count("streams-per-ip", streams_per_ip, 1)?,
        max_connections: count("max-connections", max_connections, 1)?,
        max_unauthenticated: count("max-unauthenticated", max_unauthenticated, 1)?,
        max_sessions: count("max-sessions", max_sessions, 1)?,
        sessions_per_ip: count("sessions-per-ip", sessions_per_ip, 1)?,
        max_children: count("max-children", max_children, 1)?,
        // hyper's read buffer is never smaller than 8 KiB.
        max_header_bytes: size("max-header-bytes", max_header_bytes, 8 * KIB)?,
        max_headers: within("max-headers", max_headers, (1, 10_000), |it| it)?,
        max_body_bytes: size("max-body-bytes", max_body_bytes, KIB)?,
        max_line_bytes: size("max-line-bytes", line, KIB)?,
        max_buffered_bytes: {
            let (least, most) = (Bytes(1024 * KIB), Bytes(1024 * GIB));
            let range = (least.0, most.0);
            within("max-buffered-bytes", max_buffered_bytes.0, range, Bytes)?
        },
    })
}

/// Every length of time.
pub(super) fn times(times: &args::Times) -> Result<Times, ConfigError> {
    let args::Times {
        rate_wait,
        tls_handshake_timeout,
        header_timeout,
        body_idle_timeout,
        body_timeout,
        idle_timeout,
        call_timeout,
        keep_alive_interval,
        stream_age,
        session_idle_timeout,
        session_age,
        write_timeout,
        shutdown_timeout,
    } = *times;
    Ok(Times {
        rate_wait: time("rate-wait", *rate_wait, Duration::ZERO)?,
        tls_handshake: time("tls-handshake-timeout", *tls_handshake_timeout, MOMENT)?,
        header: time("header-timeout", *header_timeout, MOMENT)?,
        body_idle: time("body-idle-timeout", *body_idle_timeout, MOMENT)?,
        body: time("body-timeout", *body_timeout, MOMENT)?,
        idle: time("idle-timeout", *idle_timeout, MOMENT)?,
        call: time("call-timeout", *call_timeout, MOMENT)?,
        keep_alive: time("keep-alive-interval", *keep_alive_interval, MOMENT)?,
        stream_age: time("stream-age", *stream_age, MOMENT)?,
        session_idle: time("session-idle-timeout", *session_idle_timeout, MOMENT)?,
        session_age: time("session-age", *session_age, MOMENT)?,
        write: time("write-timeout", *write_timeout, MOMENT)?,
        shutdown: time("shutdown-timeout", *shutdown_timeout, Duration::ZERO)?,
    })
}
