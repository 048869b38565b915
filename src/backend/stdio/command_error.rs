//! Why a child's command cannot be run.

/// Why a command cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// No program.
    #[error("the command is empty")]
    Empty,
    /// Not in `PATH`.
    #[error("`{0}` was not found in PATH")]
    NotFound(String),
    /// No such file, or none that can be reached.
    #[error("cannot run `{program}`")]
    File {
        /// The program as configured.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A directory or the like.
    #[error("`{0}` is not a file")]
    NotAFile(String),
    /// A file that may not be run.
    #[error("`{0}` is not executable")]
    NotExecutable(String),
    /// A zero byte in the program's name or an argument.
    #[error("the program and its arguments cannot hold zero bytes")]
    Argument,
    /// Not a name of a variable.
    #[error("{0:?} is not a name of an environment variable")]
    Name(String),
    /// A zero byte in a value.
    #[error("the value of `{0}` cannot hold a zero byte")]
    Value(String),
    /// The token's variable was to be handed on.
    #[error("MCP_AUTH_TOKEN is the edge's own token and is never handed to the child")]
    TokenName,
    /// The token was to be handed on under another name.
    #[error("`{0}` would hand the edge's token to the child")]
    TokenValue(String),
}
