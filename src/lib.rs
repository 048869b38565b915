//! mcp-edge: puts any MCP server straight on the internet.
#![allow(dead_code, reason = "the floors are being laid")]

mod addr;
mod backend;
mod config;
mod jsonrpc;
mod shutdown;

pub use config::*;
