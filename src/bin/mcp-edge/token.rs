//! The token that `--self-signed` makes and keeps: a step of the start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use mcp_edge::{BadTokenFile, Secret, parse_token_file, read_token_file};

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenError {
    /// The one of an earlier start is damaged.
    #[error(
        "the token kept in {file} for --self-signed (MCP_SELF_SIGNED) is unusable, {fault}; delete \
         the file to have a new one made, or set MCP_AUTH_TOKEN"
    )]
    Damaged { file: PathBuf, fault: BadTokenFile },
    /// There is no place for it.
    #[error(
        "no token is set, and one for --self-signed (MCP_SELF_SIGNED) cannot be kept in {file}: make \
         --certs-dir (MCP_CERTS_DIR) writable, or set MCP_AUTH_TOKEN"
    )]
    NotKept {
        file: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The system gave no random bytes.
    #[error("no token is set and the system gives no randomness to make one: set MCP_AUTH_TOKEN")]
    NoRandomness(#[source] getrandom::Error),
}

/// The token of an earlier start, so that clients keep working; or a new one.
pub(crate) fn kept(file: &Path, warnings: &mut Vec<String>) -> Result<Vec<Secret>, TokenError> {
    let not_kept = |source| TokenError::NotKept { file: file.to_owned(), source };
    match read_token_file(file, warnings) {
        Ok(bytes) => parse_token_file(&bytes)
            .map_err(|fault| TokenError::Damaged { file: file.to_owned(), fault }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = generate().map_err(TokenError::NoRandomness)?;
            keep(file, &token).map_err(not_kept)?;
            Ok(vec![token])
        }
        Err(error) => Err(not_kept(error)),
    }
}

/// 32 random bytes as 64 hexadecimal digits.
fn generate() -> Result<Secret, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16);
    let digits = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    Ok(Secret::new(digits.flatten().collect::<String>()))
}

/// Never writes over a file: of two starts at once the later is told so, and finds it next time.
fn keep(file: &Path, token: &Secret) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(created, "{}", token.expose())?;
    created.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn kept(file: &Path) -> Result<Vec<Secret>, TokenError> {
        super::kept(file, &mut Vec::new())
    }

    #[test]
    fn a_generated_token_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/certs/token");
        let first = kept(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let second = kept(&file).unwrap();
        assert_eq!(first[0].expose(), second[0].expose());
        assert_eq!((first[0].expose().len(), first.len(), second.len()), (64, 1, 1));

        fs::write(&file, "").unwrap();
        let text = kept(&file).unwrap_err().to_string();
        assert!(
            text.contains("--self-signed (MCP_SELF_SIGNED)") && text.contains("delete the file")
        );
        let text = kept(Path::new("/dev/null/certs/token")).unwrap_err().to_string();
        assert!(text.contains("--certs-dir (MCP_CERTS_DIR)"), "{text}");
    }
}
