//! The life of the process: runtime, signals, and what each way to end means.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use mcp_edge::{
    Background, Behind, ChildCommand, Config, Control, HealthCheck, LogFormat, LogSettings, Mode,
    Reporter, Secret, Server, Settings, StartError, TlsSource, TokenSource,
};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::banner::{Banner, quoted};
use crate::bind;
use crate::descriptors;
use crate::exit::Exit;
use crate::log::{self, complain, say};
use crate::signals::{Signals, Told};

/// Serves, or speaks on stdin and stdout, until it is told to stop.
pub(crate) fn run(mut settings: Settings, log: LogSettings) -> Exit {
    let open_files = descriptors::take();
    forbid_dumps(settings.mode);
    if settings.mode == Mode::Serve {
        let too_few = descriptors::too_few(&settings, open_files);
        settings.warnings.extend(too_few);
    }
    let runtime = match threads(settings.workers).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(log, &error),
    };
    let exit = caught(|| runtime.block_on(until_told(settings, log)), log);
    // Waits for nothing: what still blocks, a read of stdin say, ends with the process.
    runtime.shutdown_background();
    exit
}

/// An edge that has lost a part of itself ends, so that whoever keeps it starts a whole one.
fn caught(run: impl FnOnce() -> Exit, log: LogSettings) -> Exit {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| {
        // Where it was has been logged, by the panic itself.
        failed(log, &io::Error::other("a panic that the edge cannot go on after: ending"))
    })
}

/// The memory of the edge holds tokens and keys: it is left on no disk, and no other process of
/// the same user reads it. A limit of 0 alone is not asked where cores go to a program (core(5)).
fn forbid_dumps(mode: Mode) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let mut forbidden = setrlimit(Resource::Core, none);
    // On stdin and stdout there is no token, and it may be debugged by the client that starts it.
    if mode == Mode::Serve {
        forbidden = forbidden.and(set_dumpable_behavior(DumpableBehavior::NotDumpable));
    }
    if let Err(error) = forbidden {
        tracing::warn!(%error, "core dumps cannot be forbidden");
    }
}

/// So many threads, or one for each CPU. One alone needs no word from another.
fn threads(workers: Option<NonZeroUsize>) -> Builder {
    let cpus = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    match workers.map_or_else(cpus, NonZeroUsize::get) {
        1 => Builder::new_current_thread(),
        several => {
            let mut builder = Builder::new_multi_thread();
            builder.worker_threads(several);
            builder
        }
    }
}

/// Asks a running edge whether it lives.
pub(crate) fn ask(check: &HealthCheck) -> Exit {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(format_args!("unhealthy: {error}"));
            return Exit::Unhealthy;
        }
    };
    match runtime.block_on(check.run()) {
        Ok(()) => {
            // A closed stdout is no sign of illness.
            let _told =
                writeln!(io::stdout(), "healthy: {} answered 200 to GET /livez", check.reachable());
            Exit::Success
        }
        Err(error) => {
            say(format_args!("unhealthy: {}", mcp_edge::chain(&error)));
            Exit::Unhealthy
        }
    }
}

fn failed(log: LogSettings, error: &(dyn std::error::Error + 'static)) -> Exit {
    complain(log, error);
    Exit::Internal
}

async fn until_told(settings: Settings, log: LogSettings) -> Exit {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return failed(log, &error),
    };
    let told = CancellationToken::new();
    let renewals = Notify::new();
    let twice = async {
        loop {
            match signals.next().await {
                Told::Finish(name) if told.is_cancelled() => return name,
                // Shells and systemd send SIGHUP right behind the signal that counts.
                Told::Reread | Told::TerminalGone if told.is_cancelled() => {}
                Told::Reread => renewals.notify_one(),
                Told::Finish(name) => finish(name, &told),
                Told::TerminalGone => finish("SIGHUP, for the terminal has gone", &told),
            }
        }
    };
    let shutdown = told.clone().cancelled_owned();
    tokio::select! {
        exit = live(settings, log, &renewals, shutdown) => exit,
        name = twice => {
            tracing::warn!("{name}: ending at once");
            Exit::Interrupted
        }
    }
}

fn finish(name: &str, told: &CancellationToken) {
    tracing::info!("{name}: finishing what is in flight; a second signal ends at once");
    told.cancel();
}

async fn live(
    settings: Settings,
    log: LogSettings,
    renewals: &Notify,
    shutdown: impl Future<Output = ()>,
) -> Exit {
    let Settings { mode, config, behind, workers: _, token_source, report, warnings } = settings;
    let (behind, backend) = match behind {
        Background::Diagnostics => {
            ("the built-in diagnostics server".to_owned(), Behind::diagnostics())
        }
        Background::Child(command) => (described(&command), Behind::child(command)),
        Background::Upstream(upstream) => {
            (format!("the upstream at {}", upstream.shown()), Behind::upstream(*upstream))
        }
    };
    if mode == Mode::Stdio {
        warn_of(&warnings);
        tracing::info!(transport = "stdio", behind, "speaking on stdin and stdout");
        let speaking = mcp_edge::serve_stdio(&config, backend, shutdown);
        let ended = tokio::select! {
            ended = speaking => ended,
            never = reread(None, renewals) => match never {},
        };
        return match ended {
            Ok(true) => Exit::Success,
            // It has been said why.
            Ok(false) => Exit::Internal,
            Err(error) => not_started(log, &error),
        };
    }
    let asked = config.clone();
    let server = match Server::bind(config, backend).await {
        Ok(server) => server,
        Err(error @ StartError::Tls(_)) => {
            let error = io::Error::other(format!("{}: {error}", tls_options(&asked.tls)));
            complain(log, &error);
            return Exit::Config;
        }
        Err(error) => return not_started(log, &error),
    };
    warn_of(&warnings);
    tell(&banner(asked, &server, behind, token_source), log);
    let reporting = report_every(report, server.reporter());
    let rereading = reread(Some(server.control()), renewals);
    let finished = tokio::select! {
        finished = server.run(shutdown) => finished,
        never = reporting => match never {},
        never = rereading => match never {},
    };
    if !finished {
        tracing::warn!("the time of --shutdown-timeout is over: closed what was left");
    }
    Exit::Success
}

fn warn_of(oddities: &[String]) {
    for oddity in oddities {
        tracing::warn!("{oddity}");
    }
}

/// Reads the certificates again, as often as it is asked for.
async fn reread(control: Option<Control>, renewals: &Notify) -> Infallible {
    loop {
        renewals.notified().await;
        let control = control.clone();
        let read = move || control.map_or(Ok(None), |control| control.reload_certificates());
        // A disk may be slow, and a named pipe never end.
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(None)) => tracing::info!(
                "SIGHUP: no certificate is served, so that there is nothing to read again"
            ),
            Ok(Ok(Some(loaded))) => {
                let files: Vec<_> =
                    loaded.files.iter().map(|it| it.display().to_string()).collect();
                tracing::info!(
                    names = loaded.names.join(","),
                    not_after = %humantime::format_rfc3339_seconds(loaded.not_after),
                    "SIGHUP: read the certificates and keys again: {}; new connections get them, open \
                     ones go on. Tokens, --upstream-ca and options are read at the start only",
                    files.join(", ")
                );
            }
            Ok(Err(error)) => tracing::error!(
                "SIGHUP: nothing was replaced, the certificates of before are still served: {}",
                mcp_edge::chain(&error)
            ),
            // The panic has logged where it was.
            Err(_panicked) => {}
        }
    }
}

/// Writes how the server stands, this often.
async fn report_every(interval: Option<Duration>, reporter: Reporter) -> Infallible {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        log::report(&reporter.now());
    }
}

fn not_started(log: LogSettings, error: &StartError) -> Exit {
    if let Some(text) = bind::advice(error) {
        complain(log, &io::Error::other(text));
        return Exit::Unavailable;
    }
    complain(log, error);
    Exit::Config
}

/// The options that an error of the certificates is about.
fn tls_options(source: &TlsSource) -> String {
    match source {
        TlsSource::SelfSigned { dir, .. } => {
            format!("--self-signed with --certs-dir {} (MCP_CERTS_DIR)", dir.display())
        }
        TlsSource::Files(_) | TlsSource::None => "--cert, --key (MCP_CERT, MCP_KEY)".to_owned(),
    }
}

fn banner(asked: Config, server: &Server, behind: String, token_source: TokenSource) -> Banner {
    let generated = match (&token_source, asked.access) {
        (TokenSource::Generated(_), mcp_edge::Access::Tokens(tokens)) => tokens.into_iter().next(),
        _ => None::<Secret>,
    };
    Banner {
        address: server.local_addr(),
        redirect: server.redirect_addr(),
        path: asked.path.to_string(),
        behind,
        tls: !matches!(asked.tls, TlsSource::None),
        asked_names: match asked.tls {
            TlsSource::SelfSigned { dir: _, names } => names,
            TlsSource::Files(_) | TlsSource::None => Vec::new(),
        },
        ca: server.ca(),
        names: server.names().to_vec(),
        token_source,
        generated,
    }
}

fn tell(banner: &Banner, log: LogSettings) {
    if log.format == LogFormat::Text {
        let mut stdout = io::stdout().lock();
        // A closed stdout is no reason not to serve.
        let _told = write!(stdout, "{banner}").and_then(|()| stdout.flush());
        if io::stdout().is_terminal() && io::stderr().is_terminal() {
            return;
        }
    }
    // Scripts read this line; it is JSON whatever the log's format is.
    log::as_json(|| banner.log());
}

/// Programs whose first plain argument names the server they run.
const RUNNERS: [&str; 12] = [
    "npx", "bunx", "uvx", "pipx", "uv", "node", "bun", "deno", "python", "python3", "docker",
    "podman",
];

/// The command as far as it tells what runs. Further arguments often hold passwords.
fn described(command: &ChildCommand) -> String {
    let ChildCommand { program, args, .. } = command;
    let name = Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let flags = args.iter().take_while(|arg| arg.starts_with('-')).count();
    let shown = if RUNNERS.contains(&name) { (flags + 1).min(args.len()) } else { 0 };
    let mut words: Vec<_> = args.iter().take(shown).map(|arg| quoted(arg)).collect();
    words.insert(0, quoted(program));
    if args.len() > shown {
        words.push("…".to_owned());
    }
    format!("{}, one process for each session", words.join(" "))
}

#[cfg(test)]
mod tests {
    use mcp_edge::LogLevel;

    use super::*;

    #[test]
    fn a_panic_of_the_server_ends_with_70() {
        let log = LogSettings { level: LogLevel::Error, format: LogFormat::Json };
        assert_eq!(caught(|| panic!("for the test"), log), Exit::Internal);
        assert_eq!(caught(|| Exit::Success, log), Exit::Success);
    }
}
