//! mcp-edge: puts any MCP server straight on the internet.
#![cfg_attr(
    fuzzing,
    allow(missing_docs, private_interfaces, unnameable_types, reason = "no door is an interface")
)]

mod backend;
mod caller;
mod client;
mod config;
mod conn;
mod drain;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod health;
mod http;
mod limits;
mod listener;
mod mcp;
mod observe;
mod policy;
mod server;
mod wire;

pub use backend::diagnostics::Diagnostics;
pub use backend::embedded::{Call, CallError, Handler, ServerInfo};
pub use backend::stdio::CommandError;
/// What runs between the edge and a child's program. For the binary only.
#[doc(hidden)]
pub use backend::stdio::custody::shim::{is_stage as is_shim_stage, run as run_shim};
pub use caller::{Alpn, Caller, Principal, TlsFacts, TokenId, Transport};
pub use client::UpstreamError;
/// May `--forward-header` name this field?
pub use config::may_go_up;
pub use config::{
    Access, AllowedOrigin, Background, BadToken, BadTokenFile, CertFiles, Checked, ChildCommand,
    ChildFault, ChildLimits, Config, ConfigError, Draft, Given, HostName, Limits, LogFormat,
    LogLevel, LogSettings, MIN_TOKEN, Mode, Origin, PassRule, Reason, Repeats, Secret, Setting,
    Settings, Takes, Times, TlsRules, TlsSource, TlsVersion, TokenFault, TokenSource, UnifiedPath,
    Upstream, UpstreamHost, UpstreamKind, UpstreamLimits, parse_token, parse_token_file,
    read_token_file, settings,
};
pub use conn::tls::TlsError;
pub use health::{HealthCheck, Unhealthy};
pub use limits::addr::ClientAddr;
/// For the binary only: the library's way to write an error with its causes.
#[doc(hidden)]
pub use observe::chain;
pub use observe::report::{Report, Reporter};
pub use server::{
    Behind, Control, LoadedCertificates, ReloadError, Server, StartError, serve_stdio,
};
pub use wire::jsonrpc;
