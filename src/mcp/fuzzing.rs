//! The transports' doors for the fuzz targets: events as they are written, and a session's books.

pub use super::reason::Reason;
pub use super::session::log::Turn;
pub use super::session::state::{Onto, Routed, State, StreamId};
pub use super::sse::{EventId, error_event, event};
pub use crate::backend::During;
