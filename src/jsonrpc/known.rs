//! The members of parameters and results that the edge reads; all others are the backend's.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
pub(super) struct Negotiated {
    #[serde(rename = "protocolVersion")]
    pub(super) protocol_version: String,
}

#[derive(Deserialize)]
pub(super) struct KnownParams<'a> {
    #[serde(borrow, default, rename = "_meta")]
    pub(super) meta: Option<KnownMeta<'a>>,
    #[serde(borrow, default, rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "requestId")]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) uri: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
pub(super) struct KnownMeta<'a> {
    #[serde(borrow, default, rename = "progressToken")]
    pub(super) progress_token: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "io.modelcontextprotocol/protocolVersion")]
    pub(super) version: Option<&'a RawValue>,
}
