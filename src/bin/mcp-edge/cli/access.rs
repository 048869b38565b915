//! Who may call: the token from the environment, a file, or made here and kept.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use mcp_edge::{Access, BadToken, BadTokenFile, Secret, parse_token, parse_token_file};

use super::ConfigError;
use super::settings::{TokenSource, Warnings};

/// No token file is larger; what is larger is some other file.
const MAX_FILE: u64 = 1 << 20;

/// All that decides who may call.
#[derive(Debug)]
pub(super) struct Asked {
    /// `MCP_AUTH_TOKEN`.
    pub(super) variable: Option<OsString>,
    /// `--auth-token-file`.
    pub(super) file: Option<PathBuf>,
    /// `--allow-anonymous`.
    pub(super) anonymous: bool,
    /// The address that is served.
    pub(super) host: IpAddr,
    /// `--certs-dir`, where --self-signed is on.
    pub(super) keep_in: Option<PathBuf>,
}

/// Finds the tokens, or decides that there are none. May make one and keep it: to be called last.
pub(super) fn decide(
    asked: Asked,
    warnings: &mut Warnings,
) -> Result<(Access, TokenSource), ConfigError> {
    let Asked { variable, file, anonymous, host, keep_in } = asked;
    match (variable, file) {
        (Some(_), Some(file)) => Err(ConfigError::TwoTokens { file }),
        (Some(_), None) if anonymous => {
            Err(ConfigError::AnonymousWithToken { token: "MCP_AUTH_TOKEN" })
        }
        (None, Some(_)) if anonymous => Err(ConfigError::AnonymousWithToken {
            token: "--auth-token-file (MCP_AUTH_TOKEN_FILE)",
        }),
        (Some(token), None) => {
            let token = token.to_str().ok_or(BadToken::Characters).and_then(parse_token);
            let token = token.map_err(ConfigError::Token)?;
            Ok((Access::Tokens(vec![token]), TokenSource::Environment))
        }
        (None, Some(file)) => {
            Ok((Access::Tokens(from_file(&file, warnings)?), TokenSource::File(file)))
        }
        (None, None) => without_token(anonymous, host, keep_in, warnings),
    }
}

fn without_token(
    anonymous: bool,
    host: IpAddr,
    keep_in: Option<PathBuf>,
    warnings: &mut Warnings,
) -> Result<(Access, TokenSource), ConfigError> {
    let local = host.to_canonical().is_loopback();
    if anonymous {
        warnings.push(format!(
            "--allow-anonymous (MCP_ALLOW_ANONYMOUS): everybody who reaches {host} may call"
        ));
        return Ok((Access::Anonymous, TokenSource::None));
    }
    match keep_in {
        _ if !local => Err(ConfigError::NoToken { host }),
        Some(dir) => {
            let file = dir.join("token");
            Ok((Access::Tokens(kept(&file, warnings)?), TokenSource::Generated(file)))
        }
        None => {
            warnings.push(
                "no token is set: everybody on this machine may call; set MCP_AUTH_TOKEN"
                    .to_owned(),
            );
            Ok((Access::Anonymous, TokenSource::None))
        }
    }
}

fn from_file(file: &Path, warnings: &mut Warnings) -> Result<Vec<Secret>, ConfigError> {
    let unread = |source| ConfigError::TokenFileUnread { file: file.to_owned(), source };
    parse_token_file(&read(file, warnings).map_err(unread)?)
        .map_err(|fault| ConfigError::TokenFile { file: file.to_owned(), fault })
}

pub(super) fn read(path: &Path, warnings: &mut Warnings) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.mode() & 0o004 != 0 {
        let path = path.display();
        warnings.push(format!("other users may read the token file {path}: `chmod 600` it"));
    }
    let mut bytes = Vec::new();
    let length = file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if u64::try_from(length).is_ok_and(|length| length > MAX_FILE) {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 1 MiB, no token file is",
        ));
    }
    Ok(bytes)
}

/// The token of an earlier start, so that clients keep working; or a new one.
fn kept(file: &Path, warnings: &mut Warnings) -> Result<Vec<Secret>, ConfigError> {
    let not_kept = |source| ConfigError::TokenNotKept { file: file.to_owned(), source };
    match read(file, warnings) {
        Ok(bytes) => parse_token_file(&bytes)
            .map_err(|fault: BadTokenFile| ConfigError::KeptToken { file: file.to_owned(), fault }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let token = generate().map_err(ConfigError::NoRandomness)?;
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

    const TOKEN: &str = "0123456789abcdef";

    fn asked() -> Asked {
        Asked {
            variable: None,
            file: None,
            anonymous: false,
            host: IpAddr::from([127, 0, 0, 1]),
            keep_in: None,
        }
    }

    fn decide(asked: Asked) -> Result<(Access, TokenSource), ConfigError> {
        super::decide(asked, &mut Warnings::new())
    }

    fn error(asked: Asked) -> String {
        decide(asked).unwrap_err().to_string()
    }

    fn tokens(access: &Access) -> Vec<&str> {
        match access {
            Access::Tokens(tokens) => tokens.iter().map(Secret::expose).collect(),
            Access::Anonymous => Vec::new(),
        }
    }

    #[test]
    fn the_environment_gives_one_token() {
        let (access, source) = decide(Asked { variable: Some(TOKEN.into()), ..asked() }).unwrap();
        assert_eq!(tokens(&access), [TOKEN]);
        assert_eq!(source, TokenSource::Environment);
        let text = error(Asked { variable: Some("hunter2".into()), ..asked() });
        assert!(text.starts_with("MCP_AUTH_TOKEN is shorter than 16 characters"), "{text}");
        assert!(text.contains("openssl rand -hex 32") && !text.contains("hunter2"), "{text}");
        let text = error(Asked { variable: Some("hunter2 hunter2 hunter2".into()), ..asked() });
        assert!(text.contains("a character that a bearer token cannot have"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_file_gives_many() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let given = || Asked { file: Some(file.clone()), ..asked() };
        let told = format!("--auth-token-file (MCP_AUTH_TOKEN_FILE) {}", file.display());
        assert!(error(given()).starts_with(&format!("{told} cannot be read")));
        fs::write(&file, "# none\n").unwrap();
        assert!(error(given()).starts_with(&format!("{told}: holds no token")));
        fs::write(&file, "# one\nhunter2\n").unwrap();
        assert!(error(given()).starts_with(&format!("{told}: line 2 is shorter")));
        fs::write(&file, format!("{TOKEN}\n{TOKEN}2\n")).unwrap();
        let (access, source) = decide(given()).unwrap();
        assert_eq!(tokens(&access), [TOKEN, &format!("{TOKEN}2")]);
        assert_eq!(source, TokenSource::File(file.clone()));
        fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
        assert!(error(given()).contains("cannot be read"));
    }

    #[test]
    fn two_answers_to_one_question_are_refused() {
        let variable = || Some(OsString::from(TOKEN));
        let text = error(Asked { variable: variable(), file: Some("t".into()), ..asked() });
        assert!(text.contains("MCP_AUTH_TOKEN and --auth-token-file (MCP_AUTH_TOKEN_FILE) t"));
        let text = error(Asked { variable: variable(), anonymous: true, ..asked() });
        assert!(
            text.contains("--allow-anonymous (MCP_ALLOW_ANONYMOUS)")
                && text.contains("MCP_AUTH_TOKEN")
        );
        let text = error(Asked { file: Some("t".into()), anonymous: true, ..asked() });
        assert!(text.contains("--auth-token-file (MCP_AUTH_TOKEN_FILE)"), "{text}");
        assert!(!error(Asked { variable: variable(), anonymous: true, ..asked() }).contains(TOKEN));
    }

    #[test]
    fn the_network_needs_a_token_or_a_word() {
        let host = IpAddr::from([0, 0, 0, 0]);
        for keep_in in [None, Some(PathBuf::from("/nonexistent"))] {
            let text = error(Asked { host, keep_in, ..asked() });
            assert!(text.starts_with("--host (MCP_HOST) 0.0.0.0"), "{text}");
            assert!(text.contains("--allow-anonymous (MCP_ALLOW_ANONYMOUS)"), "{text}");
        }
        let (access, source) = decide(Asked { host, anonymous: true, ..asked() }).unwrap();
        assert!(matches!(access, Access::Anonymous));
        assert_eq!(source, TokenSource::None);
        assert!(matches!(decide(asked()).unwrap().0, Access::Anonymous));
    }

    #[test]
    fn a_generated_token_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("a/certs");
        let given = || Asked { keep_in: Some(certs.clone()), ..asked() };
        let (first, source) = decide(given()).unwrap();
        let file = certs.join("token");
        assert_eq!(source, TokenSource::Generated(file.clone()));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let (second, _) = decide(given()).unwrap();
        assert_eq!(tokens(&first), tokens(&second));
        assert_eq!(tokens(&first)[0].len(), 64);

        fs::write(&file, "").unwrap();
        let text = error(given());
        assert!(
            text.contains("--self-signed (MCP_SELF_SIGNED)") && text.contains("delete the file")
        );
        let text = error(Asked { keep_in: Some("/dev/null/certs".into()), ..asked() });
        assert!(text.contains("--certs-dir (MCP_CERTS_DIR)"), "{text}");
    }
}
