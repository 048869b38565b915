//! The street door: from a process to a running server, and from its end to an exit code.

mod banner;
mod bind;
mod cli;
mod descriptors;
mod exit;
mod log;
mod run;
mod signals;
mod stderr;
mod token;

use std::process::ExitCode;

use cli::Invocation;
use exit::Exit;
use mcp_edge::{Access, Background, ConfigError, Draft, HealthCheck, Settings, TokenSource};
use rustix::process::{Resource, getrlimit};
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
        Ok(Invocation::Run(draft, notices)) => start(&draft, &notices),
        Ok(Invocation::Health(draft)) => ask(&draft),
        Err(error) => explain(&error),
    };
    stderr::finish();
    exit.into()
}

fn start(draft: &Draft, notices: &[String]) -> Exit {
    let log = match draft.log() {
        Ok(log) => log,
        Err(error) => return unread(&error),
    };
    log::start(log);
    // At once: they may well be the reason of an error.
    for notice in notices {
        tracing::warn!("{notice}");
    }
    let mut settings = match draft.check() {
        Ok(settings) => settings,
        Err(error) => {
            log::complain(log, &error);
            return Exit::Config;
        }
    };
    if let Err(error) = prepare(&mut settings) {
        log::complain(log, &error);
        return Exit::Config;
    }
    run::run(settings, log)
}

/// Adds to checked settings what only this process knows: the token that it makes and keeps, and how
/// it starts children.
fn prepare(settings: &mut Settings) -> Result<(), token::TokenError> {
    let Settings { config, behind, token_source, warnings, .. } = settings;
    if let TokenSource::Generated(file) = token_source {
        config.access = Access::Tokens(token::kept(file, warnings)?);
    }
    if let Background::Child(command) = behind {
        command.shim = std::env::current_exe().ok();
        // The edge raises its own limit later; programs that use select(2) cannot live with that.
        command.limits.open_files = getrlimit(Resource::Nofile).current;
        // This process is the edge, and has no other children.
        command.adopt = true;
    }
    Ok(())
}

fn ask(draft: &Draft) -> Exit {
    match draft.whereabouts() {
        Ok((address, trust)) => run::ask(&HealthCheck { address, trust }),
        Err(error) => unread(&error),
    }
}

/// Each value of the command line was read before, so that this does not happen.
fn unread(error: &ConfigError) -> Exit {
    log::say(format_args!("{error}"));
    Exit::Config
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
