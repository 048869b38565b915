//! What is wrong with the settings: which one, where it was given, which value, and what to do.

use std::borrow::Cow;
use std::error::Error;
use std::fmt::{self, Display};
use std::io;

use super::setting::{Named, TOKEN};
use super::{BadToken, BadTokenFile, Given};

/// A setting that is wrong, or contradicts another. No text holds a secret.
#[derive(Debug)]
pub struct ConfigError {
    /// The setting: the name of its flag, `auth-token` or `command`.
    pub key: &'static str,
    /// Its value, if that may be shown.
    pub value: Option<Box<str>>,
    /// What is wrong, and what to do.
    pub reason: Reason,
    /// Where the value was given.
    pub given: Given,
}

/// What is wrong with a setting.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// The value cannot be read.
    Form(String),
    /// The value can be read and is not allowed.
    Value(Cow<'static, str>),
    /// A number, size or time that cannot work.
    OutOfRange {
        /// The least that does.
        least: String,
        /// The most that does.
        most: String,
    },
    /// It contradicts another setting.
    Contradiction(&'static str),
    /// It is about an upstream, and there is none.
    NeedsUpstream,

    /// Nothing says how to serve.
    NoCertificate,
    /// Certificates and keys do not pair up.
    UnpairedKeys {
        /// How many certificates there are.
        certs: usize,
        /// How many keys.
        keys: usize,
    },
    /// Plain HTTP for all to read.
    InsecureOnNetwork,
    /// About tokens.
    Token(TokenFault),
    /// About what runs behind the edge.
    Child(ChildFault),
}

/// What is wrong with a token, or that there is none.
#[derive(Debug)]
#[non_exhaustive]
pub enum TokenFault {
    /// A token file beside a token.
    Two,
    /// A token that is none.
    Form(BadToken),
    /// The token file is not there, or not ours to read.
    FileUnread(io::Error),
    /// The token file holds something else.
    File(BadTokenFile),
    /// A token for nobody: the setting that gives one.
    WithAnonymous(&'static str),
    /// Open to the network without a token.
    Missing,
    /// Every web page could call.
    MissingForNull,
    /// The file with the upstream's token is not there, or not ours to read.
    UpstreamFileUnread(io::Error),
    /// The file with the upstream's token holds something else.
    UpstreamFile,
}

/// What is wrong with the command behind the edge, or with its environment.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChildFault {
    /// A variable for the child without a value, counted from one. The text may be secret.
    EnvForm(usize),
    /// A name of a variable that cannot be one, counted from one. The text may be secret.
    PassEnvForm(usize),
    /// The one variable that no child gets.
    GetsToken,
    /// `--`, and no program.
    Empty,
    /// A command line in quotes: its first word. What follows may be secret.
    Quoted(String),
    /// `NAME=value program`, as shells have it: the name. The value may be secret.
    VariableBefore(String),
    /// A directory in place of a program.
    IsDirectory,
    /// The program is not there: also not in these directories.
    Missing(&'static str),
    /// The program is there and cannot run.
    NotExecutable,
}

impl ConfigError {
    /// A value that can be read and is not allowed. It counts as given in code, unless [`Self::of`]
    /// says where it was given.
    pub(super) fn value(
        key: &'static str,
        value: impl Into<Box<str>>,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        let reason = Reason::Value(why.into());
        Self { key, value: Some(value.into()), reason, given: Given::Code }
    }

    /// The same error about this setting, which was given there.
    pub(super) fn of(self, key: &'static str, given: Given) -> Self {
        Self { key, given, ..self }
    }

    /// About what stands behind `--`.
    pub(super) fn command(program: &str, fault: ChildFault) -> Self {
        // The faults with a text of their own leave out what may be secret.
        let is_shown = matches!(
            fault,
            ChildFault::IsDirectory | ChildFault::Missing(_) | ChildFault::NotExecutable
        );
        let value = is_shown.then(|| program.into());
        Self { key: "command", value, reason: Reason::Child(fault), given: Given::Flag }
    }
}

impl Error for ConfigError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let Reason::Token(TokenFault::FileUnread(source) | TokenFault::UpstreamFileUnread(source)) =
            &self.reason
        else {
            return None;
        };
        Some(source)
    }
}

impl Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, reason, given } = self;
        let at = Named { name: key, given };
        let other = |name| Named { name, given: &Given::Flag };
        let is_hidden = value.is_none();
        let value = value.as_deref().unwrap_or_default();
        match reason {
            Reason::Form(why) if is_hidden => write!(f, "{at}: {why}"),
            Reason::Form(why) => write!(f, "{at} {value:?}: {why}"),
            Reason::Value(why) => write!(f, "{at} {value:?} {why}"),
            Reason::OutOfRange { least, most } => {
                write!(f, "{at} is {value}: give {least} to {most}")
            }
            Reason::Contradiction(other) => {
                write!(f, "{at} and {other} contradict each other: keep one of them")
            }
            Reason::NeedsUpstream => write!(
                f,
                "{at} needs an --upstream (MCP_UPSTREAM) that speaks HTTP: give its URL"
            ),
            Reason::NoCertificate => f.write_str(
                "no certificate: give --cert FILE and --key FILE (MCP_CERT, MCP_KEY), or --self-signed \
                 (MCP_SELF_SIGNED=1) for a local CA, or --insecure-http (MCP_INSECURE_HTTP=1) for plain \
                 HTTP on a loopback address",
            ),
            Reason::UnpairedKeys { certs, keys } => write!(
                f,
                "{at} names {certs} file(s) and {} {keys}: give one key for each certificate, in the \
                 same order",
                other("key")
            ),
            Reason::InsecureOnNetwork => write!(
                f,
                "{at} is refused on --host (MCP_HOST) {value}, which other machines can reach: use \
                 127.0.0.1 or ::1, or serve TLS with --cert and --key or --self-signed"
            ),
            Reason::Token(fault) => fault.write(f, at, value),
            Reason::Child(fault) => fault.write(f, at, value),
        }
    }
}

impl TokenFault {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: Named<'_>, value: &str) -> fmt::Result {
        let token = Named { name: TOKEN, given: &Given::Flag };
        match self {
            Self::Two => write!(
                f,
                "{token} and {at} {value} are both given: keep one of them; a file can hold several tokens, \
                 one a line"
            ),
            Self::Form(fault) => write!(f, "{at} {fault}"),
            Self::FileUnread(_) => write!(
                f,
                "{at} {value} cannot be read: give a file that this user may read, with one token a line"
            ),
            Self::File(fault) => write!(f, "{at} {value}: {fault}"),
            Self::WithAnonymous(name) => {
                let token = Named { name, given: &Given::Flag };
                write!(f, "{at} lets everybody call, yet {token} is given: drop one of them")
            }
            Self::Missing => write!(
                f,
                "{at} {value} can be reached from other machines and no token is set: set {token} (make one \
                 with `openssl rand -hex 32`) or --auth-token-file (MCP_AUTH_TOKEN_FILE), or let everybody \
                 in with --allow-anonymous (MCP_ALLOW_ANONYMOUS)"
            ),
            Self::MissingForNull => write!(
                f,
                "{at} null lets any web page call, and no token is set: set {token} or --auth-token-file \
                 (MCP_AUTH_TOKEN_FILE), or leave null out"
            ),
            Self::UpstreamFileUnread(_) => write!(
                f,
                "{at} {value} cannot be read: give a file that this user may read, with the token alone in it"
            ),
            Self::UpstreamFile => {
                write!(
                    f,
                    "{at} {value} holds no token: write the token alone in it, in visible ASCII"
                )
            }
        }
    }
}

impl ChildFault {
    fn write(&self, f: &mut fmt::Formatter<'_>, at: Named<'_>, program: &str) -> fmt::Result {
        match self {
            Self::EnvForm(number) => write!(
                f,
                "value {number} of {at} is not NAME=VALUE: give the name, `=`, and the value; to hand on a \
                 variable of this environment use --pass-env NAME (MCP_PASS_ENV)"
            ),
            Self::PassEnvForm(number) => write!(
                f,
                "{at} takes names only and value {number} is none: give NAME; to set a variable use --env \
                 NAME=VALUE (MCP_ENV)"
            ),
            Self::GetsToken => write!(
                f,
                "{at} names MCP_AUTH_TOKEN, which the child never gets: give its own secrets other names"
            ),
            Self::Quoted(word) => write!(
                f,
                "the command \"{word} …\" is one word with spaces in it, and no such file exists: drop the \
                 quotes around it, as in `-- npx -y some-mcp-server`"
            ),
            Self::VariableBefore(name) => write!(
                f,
                "the command begins with a value for {name}, which only a shell would set: give --env \
                 {name}=VALUE (MCP_ENV) before `--`, or --pass-env {name} (MCP_PASS_ENV) where this \
                 environment has it"
            ),
            Self::IsDirectory => write!(
                f,
                "the command {program:?} is a directory: give the program in it, or its interpreter first, \
                 as in `-- node {program}/index.js`"
            ),
            Self::Missing(place) => write!(
                f,
                "command {program:?} is not found{place}: check the spelling, install it, or give its full \
                 path behind `--`"
            ),
            Self::NotExecutable => write!(
                f,
                "command {program:?} is no executable file: make it one with `chmod +x`, or put its \
                 interpreter first, as in `-- python3 server.py`"
            ),
            Self::Empty => f.write_str(
                "nothing stands behind `--` (is a variable empty?): give the command there, or leave `--` \
                 out to have the built-in diagnostics server answer",
            ),
        }
    }
}
