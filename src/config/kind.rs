//! Numbers as settings have them: how each kind is read and shown, and that it is within its range.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigError, Given, Reason, read};

/// Numbers of one kind: how they are read and shown.
pub(super) struct NumberKind<T> {
    /// What stands for one in the help text.
    pub(super) value: &'static str,
    pub(super) read: fn(&OsStr) -> Result<T, String>,
    shown: fn(T) -> String,
}

/// A whole number.
pub(super) const COUNT: NumberKind<u32> =
    NumberKind { value: "COUNT", read: read::count, shown: |count| count.to_string() };
/// A whole number that counts what lies in memory.
pub(super) const LENGTH: NumberKind<usize> =
    NumberKind { value: "COUNT", read: read::count, shown: |count| count.to_string() };
/// Bytes.
pub(super) const SIZE: NumberKind<usize> =
    NumberKind { value: "SIZE", read: read::size, shown: read::shown_size };
/// A length of time.
pub(super) const TIME: NumberKind<Duration> =
    NumberKind { value: "TIME", read: read::time, shown: read::shown_time };

/// Refuses what would stop all service, or overflow. Said of a value given in code.
pub(super) fn within<T: Copy + PartialOrd>(
    kind: &NumberKind<T>,
    name: &'static str,
    value: T,
    range: &RangeInclusive<T>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = ((kind.shown)(*range.start()), (kind.shown)(*range.end()));
    let (value, reason) = (Some((kind.shown)(value).into()), Reason::OutOfRange { least, most });
    Err(ConfigError { key: name, value, reason, given: Given::Code })
}
