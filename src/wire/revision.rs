//! The revisions of MCP, and which of them this edge speaks.

/// A revision of the protocol that the edge carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ProtocolVersion {
    /// HTTP+SSE with two URLs.
    V2024_11_05,
    /// The first Streamable HTTP; the only one with batches.
    V2025_03_26,
    /// With a version header on every request.
    V2025_06_18,
    /// With priming events and retry hints on streams.
    V2025_11_25,
}

impl ProtocolVersion {
    /// The newest revision with a handshake.
    pub(crate) const LATEST: Self = Self::V2025_11_25;

    /// The revision that a session without a word of it is taken to speak
    /// (2025-06-18, "Protocol Version Header").
    pub(crate) const ASSUMED: Self = Self::V2025_03_26;

    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// The revision with this name. The draft `2024-10-07` is read as what became of it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "2024-10-07" | "2024-11-05" => Self::V2024_11_05,
            "2025-03-26" => Self::V2025_03_26,
            "2025-06-18" => Self::V2025_06_18,
            "2025-11-25" => Self::V2025_11_25,
            _ => return None,
        })
    }

    /// May a client send arrays of messages?
    pub(crate) fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }

    /// May an event have an id and empty data? Older clients parse the empty data and fail.
    pub(crate) fn has_priming(self) -> bool {
        self >= Self::V2025_11_25
    }
}

/// Does this name a revision without handshake and sessions (2026-07-28 and later)?
///
/// Revisions are dates, so that they sort as text; anything that is no date is not modern.
pub(crate) fn is_modern(name: &str) -> bool {
    let is_date = name.len() == 10
        && name.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    is_date && name >= "2026-07-28"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for version in [
            ProtocolVersion::V2024_11_05,
            ProtocolVersion::V2025_03_26,
            ProtocolVersion::V2025_06_18,
            ProtocolVersion::V2025_11_25,
        ] {
            assert_eq!(ProtocolVersion::parse(version.name()), Some(version));
            assert!(!is_modern(version.name()));
        }
        assert_eq!(ProtocolVersion::parse("2026-07-28"), None);
    }

    #[test]
    fn only_dates_from_the_cut_on_are_modern() {
        assert!(is_modern("2026-07-28"));
        assert!(is_modern("2030-01-01"));
        for name in ["2026-07-27", "9", "zzzz-zz-zz", "2026-07-28 ", "draft"] {
            assert!(!is_modern(name), "{name}");
        }
    }

    #[test]
    fn a_draft_and_what_became_of_it_are_one_revision_and_abilities_have_their_revisions() {
        let all = ["2024-10-07", "2025-03-26", "2025-06-18", "2025-11-25"]
            .map(|name| ProtocolVersion::parse(name).unwrap());
        assert_eq!(all[0], ProtocolVersion::V2024_11_05);
        assert_eq!(all.map(ProtocolVersion::has_batches), [false, true, false, false]);
        assert_eq!(all.map(ProtocolVersion::has_priming), [false, false, false, true]);
    }
}
