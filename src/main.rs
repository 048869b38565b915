//! The binary: so far only the shim that children are started through.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(command) if command == "__exec" => mcp_edge::exec_shim(args),
        _ => ExitCode::FAILURE,
    }
}
