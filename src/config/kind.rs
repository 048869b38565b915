//! Numbers as settings have them: how each kind is read and shown, and that it is within its range.

use std::ffi::OsStr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{ConfigError, Given, Reason, read};

/// Numbers of one kind: how they are read and shown.
pub(super) trait NumberKind {
    type Of: Copy + PartialOrd;
    /// What stands for one in the help text.
    const VALUE: &'static str;
    fn read(text: &OsStr) -> Result<Self::Of, String>;
    fn shown(value: Self::Of) -> String;
}

/// A whole number.
pub(super) struct Count;
/// A whole number that counts what lies in memory.
pub(super) struct Length;
/// Bytes.
pub(super) struct Size;
/// A length of time.
pub(super) struct Time;

impl NumberKind for Count {
    type Of = u32;
    const VALUE: &'static str = "COUNT";
    fn read(text: &OsStr) -> Result<u32, String> {
        read::count(text)
    }
    fn shown(value: u32) -> String {
        value.to_string()
    }
}

impl NumberKind for Length {
    type Of = usize;
    const VALUE: &'static str = "COUNT";
    fn read(text: &OsStr) -> Result<usize, String> {
        read::count(text)
    }
    fn shown(value: usize) -> String {
        value.to_string()
    }
}

impl NumberKind for Size {
    type Of = usize;
    const VALUE: &'static str = "SIZE";
    fn read(text: &OsStr) -> Result<usize, String> {
        read::size(text)
    }
    fn shown(value: usize) -> String {
        read::shown_size(value)
    }
}

impl NumberKind for Time {
    type Of = Duration;
    const VALUE: &'static str = "TIME";
    fn read(text: &OsStr) -> Result<Duration, String> {
        read::time(text)
    }
    fn shown(value: Duration) -> String {
        read::shown_time(value)
    }
}

/// Refuses what would stop all service, or overflow. Said of a value given in code.
pub(super) fn within<K: NumberKind>(
    name: &'static str,
    value: K::Of,
    range: &RangeInclusive<K::Of>,
) -> Result<(), ConfigError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (least, most) = (K::shown(*range.start()), K::shown(*range.end()));
    let (value, reason) = (Some(K::shown(value).into()), Reason::OutOfRange { least, most });
    Err(ConfigError { key: name, value, reason, given: Given::Code })
}
