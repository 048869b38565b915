//! The members of a message, each once and none by another spelling.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::id::RequestId;
use super::kind::Kind;

/// The members of a message; others are let through, but for twins.
#[derive(Default)]
pub(super) struct Envelope<'a> {
    jsonrpc: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    method: Option<&'a RawValue>,
    pub(super) params: Option<&'a RawValue>,
    pub(super) result: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Envelope<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Only from an object: an array would be read by position.
        from.deserialize_map(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Text(name)) = map.next_key()? {
            let member = match &*name {
                "jsonrpc" => &mut envelope.jsonrpc,
                "id" => &mut envelope.id,
                "method" => &mut envelope.method,
                "params" => &mut envelope.params,
                "result" => &mut envelope.result,
                "error" => &mut envelope.error,
                other if is_twin(other) => {
                    return Err(A::Error::custom(format!(
                        "`{other}` can be read as another member"
                    )));
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if member.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom(format!("duplicate member `{name}`")));
            }
        }
        Ok(envelope)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The members of an array: the first ones, and how many there are in all. An array of nothing but
/// numbers has many, each of which would cost more than it is long.
pub(super) struct Members<'a> {
    pub(super) first: Vec<&'a RawValue>,
    pub(super) count: usize,
}

impl<'a> Members<'a> {
    /// Keeps no more than `most`.
    pub(super) fn read(text: &'a str, most: usize) -> serde_json::Result<Self> {
        let mut from = serde_json::Deserializer::from_str(text);
        let members = from.deserialize_seq(MembersVisitor { most })?;
        from.end()?;
        Ok(members)
    }
}

struct MembersVisitor {
    most: usize,
}

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Members<'de>, A::Error> {
        let mut members = Members { first: Vec::new(), count: 0 };
        while members.first.len() < self.most {
            let Some(member) = seq.next_element()? else { return Ok(members) };
            members.first.push(member);
            members.count += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            members.count += 1;
        }
        Ok(members)
    }
}

pub(super) fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|Text(text)| text)
}

/// Would a reader that does not mind case (Go's encoding/json) take this for one of the members?
fn is_twin(name: &str) -> bool {
    ["jsonrpc", "id", "method", "params", "result", "error"].contains(&folded(name).as_str())
}

/// A name as such a reader compares it.
pub(super) fn folded(name: &str) -> String {
    // Two characters beyond ASCII fold into it: the long s, and the sign of kelvin.
    name.to_lowercase().replace('\u{17f}', "s").replace('\u{212a}', "k")
}

impl Envelope<'_> {
    /// What the message is, whose id was read as `id`; or what is wrong with it.
    pub(super) fn kind(&self, id: Option<&RequestId>) -> Result<Kind, &'static str> {
        let Self { jsonrpc, id: raw_id, method, params, result, error } = self;
        if jsonrpc.and_then(text).as_deref() != Some("2.0") {
            return Err("`jsonrpc` must be \"2.0\"");
        }
        if raw_id.is_some() && id.is_none() {
            return Err("`id` must be a string or an integer, of at most 1024 bytes");
        }
        if params.is_some_and(|raw| !raw.get().starts_with(['{', '['])) {
            return Err("`params` must be an object or an array");
        }
        match (method, result, error) {
            (Some(method), None, None) => {
                let method = text(method).ok_or("`method` must be a string")?.into();
                Ok(match id {
                    Some(id) => Kind::Request { id: id.clone(), method },
                    None => Kind::Notification { method },
                })
            }
            (None, Some(_), None) | (None, None, Some(_)) => {
                Ok(Kind::Response { id: id.ok_or("a response needs an `id`")?.clone() })
            }
            (None, None, None) => Err("neither `method` nor `result` nor `error`"),
            (_, _, _) => Err("`method`, `result` and `error` exclude each other"),
        }
    }
}
