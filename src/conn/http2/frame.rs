//! One HTTP/2 frame (RFC 9113 sections 4.1 and 6), as far as its head and first bytes say.

/// Types of frames (RFC 9113 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FrameType {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    Unknown,
}

impl FrameType {
    pub(super) fn of(code: u8) -> Self {
        match code {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }
}

/// One frame: its head, and how its payload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: FrameType,
    /// What its type makes of them.
    pub(super) flags: u8,
    /// Whom it is for; 0 is the connection.
    pub(super) stream: u32,
    /// Bytes of its payload.
    pub(super) length: u32,
    /// The first four bytes of its payload as a number; zeros stand for what it does not have.
    pub(super) lead: u32,
}

impl Frame {
    /// The last of its stream. Only of frames of data and headers.
    pub(super) fn ends_stream(self) -> bool {
        self.flags & 1 != 0
    }

    /// The last of a header block.
    pub(super) fn ends_headers(self) -> bool {
        matches!(self.kind, FrameType::Headers | FrameType::Continuation) && self.flags & 4 != 0
    }

    /// Has it a length that its type cannot have (RFC 9113 section 6)?
    pub(super) fn is_misfit(self) -> bool {
        match self.kind {
            FrameType::Priority => self.length != 5,
            FrameType::Reset | FrameType::WindowUpdate => self.length != 4,
            FrameType::Settings if self.flags & 1 != 0 => self.length != 0,
            FrameType::Settings => !self.length.is_multiple_of(6),
            FrameType::Ping => self.length != 8,
            FrameType::GoAway => self.length < 8,
            FrameType::Data
            | FrameType::Headers
            | FrameType::PushPromise
            | FrameType::Continuation
            | FrameType::Unknown => false,
        }
    }

    /// Bytes of data, without padding (RFC 9113 section 6.1).
    pub(super) fn data(self) -> u32 {
        let padded = self.flags & 8 != 0;
        let padding = if padded { 1 + (self.lead >> 24) } else { 0 };
        self.length.saturating_sub(padding)
    }
}

/// A frame's bytes (RFC 9113 section 4.1), for tests.
#[cfg(test)]
pub(in crate::conn) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
