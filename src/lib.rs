//! mcp-edge: puts any MCP server straight on the internet.

mod addr;
mod backend;
mod body;
mod budget;
mod caller;
mod config;
mod conn;
mod events;
mod frames;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guard;
mod health;
mod http;
pub mod jsonrpc;
mod limit;
mod listener;
mod mcp;
mod pem;
mod protocol;
mod proxied;
mod report;
mod sample;
mod server;
mod shutdown;
mod strangers;
mod tally;
mod upstream;

pub use addr::ClientAddr;
pub use backend::diagnostics::Diagnostics;
pub use backend::embedded::{Call, CallError, Handler, ServerInfo};
pub use backend::stdio::CommandError;
/// What runs between the edge and a child's program. For the binary only.
#[doc(hidden)]
pub use backend::stdio::shim::{is_stage as is_shim_stage, run as run_shim};
pub use caller::{Alpn, Caller, Principal, TlsFacts, TokenId, Transport};
pub use config::{
    Access, BadToken, BadTokenFile, CertFiles, ChildCommand, ChildLimits, Config, Limits,
    MIN_TOKEN, PassRule, Secret, Times, TlsRules, TlsSource, TlsVersion, Upstream, UpstreamHost,
    UpstreamKind, parse_token, parse_token_file,
};
pub use conn::tls::TlsError;
pub use health::{HealthCheck, Unhealthy};
pub use report::{Report, Reporter};
pub use server::{Behind, Certificates, LoadedCertificates, Server, StartError, serve_stdio};
pub use upstream::UpstreamError;
/// May `--forward-header` name this field?
pub use upstream::may_go_up;
