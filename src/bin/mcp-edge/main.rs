//! The street door: from a process to a running server, and from its end to an exit code.

mod banner;
mod cli;
mod descriptors;
mod exit;
mod log;
mod run;
mod signals;
mod stderr;

use std::process::ExitCode;

use cli::{Args, Asked};
use exit::Exit;
use tikv_jemallocator::Jemalloc;

/// Memory that a crowd took goes back to the system within some 10 s after it has left (jemalloc's decay
/// of dirty pages): at once would cost every call the pages that it uses.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let mut rest = std::env::args_os();
    let program = rest.next();
    let mut rest = rest.peekable();
    if rest.peek().is_some_and(|first| mcp_edge::is_shim_stage(first)) {
        return mcp_edge::run_shim(rest);
    }
    let typed = program.into_iter().chain(rest);
    let exit = match cli::parse(typed, std::env::vars_os()) {
        Ok(Asked::Run(args)) => start(*args),
        Ok(Asked::Health(health)) => run::ask(&health.check()),
        Err(error) => explain(&error),
    };
    log::finish();
    exit.into()
}

fn start(args: Args) -> Exit {
    let log = args.log();
    log::start(log);
    match args.check() {
        Ok(settings) => run::run(settings, log),
        Err(error) => {
            log::complain(log, &error);
            Exit::Config
        }
    }
}

/// Prints what clap has to say: help on stdout, errors on stderr.
fn explain(error: &clap::Error) -> Exit {
    // Nobody is left to be told that stdout or stderr is closed.
    let _told = error.print();
    if !error.use_stderr() {
        return Exit::Success;
    }
    if let Some(hint) = cli::hint(error) {
        log::say(format_args!("{hint}"));
    }
    Exit::Usage
}
