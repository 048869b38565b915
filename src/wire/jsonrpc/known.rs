//! The members of parameters and results that the edge reads; all others are the backend's.

use std::fmt;

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::envelope::{Text, folded, text};

/// The key of a modern request's `params._meta` that names its protocol version.
pub(super) const ENVELOPE_VERSION: &str = "io.modelcontextprotocol/protocolVersion";

#[derive(Deserialize)]
pub(super) struct Negotiated {
    #[serde(rename = "protocolVersion")]
    pub(super) protocol_version: String,
}

/// What the edge reads of parameters.
#[derive(Default)]
pub(super) struct KnownParams<'a> {
    pub(super) progress_token: Option<&'a RawValue>,
    pub(super) request_id: Option<&'a RawValue>,
    pub(super) name: Option<&'a RawValue>,
    pub(super) uri: Option<&'a RawValue>,
    pub(super) protocol_version: Option<&'a RawValue>,
    pub(super) meta: KnownMeta<'a>,
}

/// What it reads of their `_meta`.
#[derive(Default)]
pub(super) struct KnownMeta<'a> {
    pub(super) progress_token: Option<&'a RawValue>,
    pub(super) version: Option<&'a RawValue>,
}

impl<'a> KnownParams<'a> {
    /// Reads them; of an array there are none, for that would be read by position.
    ///
    /// # Errors
    /// Where one of them stands there twice, or by another spelling: servers differ in which of
    /// two they take.
    pub(super) fn read(params: &'a str) -> Result<Self, serde_json::Error> {
        const NAMES: [&str; 6] =
            ["progressToken", "requestId", "name", "uri", "protocolVersion", "_meta"];
        let [progress_token, request_id, name, uri, protocol_version, meta] =
            members(params, NAMES)?;
        let meta = match meta {
            Some(meta) => KnownMeta::read(meta.get())?,
            None => KnownMeta::default(),
        };
        Ok(Self { progress_token, request_id, name, uri, protocol_version, meta })
    }
}

impl<'a> KnownMeta<'a> {
    fn read(meta: &'a str) -> Result<Self, serde_json::Error> {
        let [progress_token, version] = members(meta, ["progressToken", ENVELOPE_VERSION])?;
        Ok(Self { progress_token, version })
    }
}

/// The string that a member is; none where it is something else.
pub(super) fn string(member: Option<&RawValue>) -> Option<std::borrow::Cow<'_, str>> {
    text(member?)
}

/// The members of an object that have these names; of anything else there are none.
fn members<'a, const N: usize>(
    object: &'a str,
    names: [&'static str; N],
) -> Result<[Option<&'a RawValue>; N], serde_json::Error> {
    if !object.starts_with('{') {
        return Ok([None; N]);
    }
    let mut from = serde_json::Deserializer::from_str(object);
    NamedMembers(names).deserialize(&mut from)
}

struct NamedMembers<const N: usize>([&'static str; N]);

impl<'de, const N: usize> DeserializeSeed<'de> for NamedMembers<N> {
    type Value = [Option<&'de RawValue>; N];

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for NamedMembers<N> {
    type Value = [Option<&'de RawValue>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(Text(name)) = map.next_key()? {
            let mut named = found.iter_mut().zip(self.0);
            if let Some((member, _)) = named.find(|(_, known)| *known == name) {
                if member.replace(map.next_value()?).is_some() {
                    return Err(A::Error::custom(format!("duplicate member `{name}`")));
                }
                continue;
            }
            let folded_name = folded(&name);
            if self.0.iter().any(|known| folded(known) == folded_name) {
                return Err(A::Error::custom(format!("`{name}` can be read as another member")));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(found)
    }
}
