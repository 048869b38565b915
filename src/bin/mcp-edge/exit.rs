//! How the process ends, after sysexits.h.

use std::process::ExitCode;

/// Every way to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All done; after a signal, too.
    Success,
    /// `health`: the edge does not live.
    Unhealthy,
    /// The command line cannot be understood.
    Usage,
    /// The address cannot be listened on.
    Unavailable,
    /// A fault of ours, or of the system beneath.
    Internal,
    /// Settings, certificates or tokens are wrong.
    Config,
    /// A second signal came before everything was finished.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Success => 0,
            Exit::Unhealthy => 1,
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::Config => 78,
            Exit::Interrupted => 130,
        })
    }
}
