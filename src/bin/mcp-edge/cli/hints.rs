//! What helps beyond clap's own words.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::twin;

/// Options as other programs have them, and what there is here.
const ELSEWHERE: [(&[&str], &str); 6] = [
    (
        &["--token", "--auth-token", "--bearer-token", "--bearer", "--api-key"],
        "The token has no option, for options show in `ps`: set MCP_AUTH_TOKEN, or give \
         --auth-token-file",
    ),
    (
        &[
            "--ssl-cert",
            "--ssl-certfile",
            "--ssl-key",
            "--ssl-keyfile",
            "--tls-cert",
            "--tls-key",
            "--cert-file",
            "--key-file",
            "--certificate",
            "--private-key",
        ],
        "The certificate is given by --cert, its key by --key (MCP_CERT, MCP_KEY)",
    ),
    (
        &["--listen", "--bind", "--address", "--addr", "--ip"],
        "The address is given by --host, its port by --port (MCP_HOST, MCP_PORT)",
    ),
    (
        &["--url", "--target", "--backend", "--proxy", "--proxy-pass", "--server"],
        "A server that speaks HTTP itself is given by --upstream URL (MCP_UPSTREAM)",
    ),
    (
        &["--sse", "--http", "--stdio", "--streamable-http"],
        "The transport is given by --transport (MCP_TRANSPORT): http is all of HTTP at once, stdio is \
         stdin and stdout",
    ),
    (
        &["--sse-path", "--mcp-path", "--endpoint", "--base-path"],
        "The path is given by --path (MCP_SSE_PATH)",
    ),
];

/// Has an error about an option name its variable as well, and keeps to tips that help.
pub(super) fn in_our_words(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::UnknownArgument {
        // clap says how to hand it to the command, which a misspelt option is not meant for.
        error.remove(ContextKind::Suggested);
        if elsewhere(&error).is_some() {
            error.remove(ContextKind::SuggestedArg);
        }
        return error;
    }
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return error;
    }
    let Some(ContextValue::String(told)) = error.get(ContextKind::InvalidArg) else { return error };
    if let Some(long) = told.strip_prefix("--").and_then(|it| it.split(['=', '[', ' ']).next()) {
        let told = format!("{told} ({})", twin(long));
        error.insert(ContextKind::InvalidArg, ContextValue::String(told));
    }
    error
}

/// The next step: the command to run is easily typed without `--`, and options have other names
/// elsewhere.
pub(crate) fn hint(error: &clap::Error) -> Option<&'static str> {
    if !matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument) {
        return None;
    }
    let of_command = "Options of the command stand behind it, and it behind `--`: mcp-edge \
                      --self-signed -- npx -y some-mcp-server";
    Some(match (elsewhere(error), unknown(error)) {
        (Some(known), _) => known,
        (None, Some(option)) if option.starts_with('-') => of_command,
        (None, _) => {
            "The command to run stands behind `--`: mcp-edge --self-signed -- npx -y some-mcp-server"
        }
    })
}

fn elsewhere(error: &clap::Error) -> Option<&'static str> {
    let option = unknown(error)?.split('=').next()?;
    ELSEWHERE.iter().find(|(options, _)| options.contains(&option)).map(|(_, told)| *told)
}

fn unknown(error: &clap::Error) -> Option<&str> {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) => Some(option),
        _ => None,
    }
}
