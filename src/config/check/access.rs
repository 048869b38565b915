//! Who may call: the token from the environment, from files, or one that the start makes and keeps.

use std::fs::File;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::draft::Draft;
use crate::config::options::{ALLOW_ANONYMOUS, AUTH_TOKEN_FILE, HOST};
use crate::config::setting::TOKEN;
use crate::config::{
    Access, BadToken, ConfigError, Reason, Secret, TokenFault, parse_token, parse_token_file,
};

/// No token file is larger; what is larger is some other file.
const MAX_FILE: u64 = 1 << 20;

/// Where the token comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// `MCP_AUTH_TOKEN`.
    Environment,
    /// `--auth-token-file`.
    File(PathBuf),
    /// Kept in this file by an earlier start, or else to be made. The check does neither: until it is
    /// filled in, [`Access`] lets nobody in.
    Generated(PathBuf),
    /// There is none.
    None,
}

/// Finds the tokens, or decides that there are none. One that is made is kept in `keep_in`.
pub(super) fn decide(
    draft: &Draft,
    host: IpAddr,
    keep_in: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<(Access, TokenSource), ConfigError> {
    let anonymous = draft.value(&ALLOW_ANONYMOUS)?;
    let contradicts = |token| {
        let reason = Reason::Token(TokenFault::WithAnonymous(token));
        Err(draft.error(ALLOW_ANONYMOUS.setting.name, None, reason))
    };
    let name = AUTH_TOKEN_FILE.setting.name;
    match (draft.texts(TOKEN).last(), draft.option(&AUTH_TOKEN_FILE)?) {
        (Some(_), Some(file)) => {
            Err(draft.error(name, shown(&file), Reason::Token(TokenFault::Two)))
        }
        (Some(_), None) if anonymous => contradicts(TOKEN),
        (None, Some(_)) if anonymous => contradicts(name),
        (Some(token), None) => {
            let token = token.to_str().ok_or(BadToken::Characters).and_then(parse_token);
            let token = token.map_err(|fault| {
                draft.error(TOKEN, None, Reason::Token(TokenFault::Form(fault)))
            })?;
            Ok((Access::Tokens(vec![token]), TokenSource::Environment))
        }
        (None, Some(file)) => {
            let wrong = |fault| draft.error(name, shown(&file), Reason::Token(fault));
            let bytes = read_token_file(&file, warnings);
            let bytes = bytes.map_err(|source| wrong(TokenFault::FileUnread(source)))?;
            let tokens = parse_token_file(&bytes);
            let tokens = tokens.map_err(|fault| wrong(TokenFault::File(fault)))?;
            Ok((Access::Tokens(tokens), TokenSource::File(file)))
        }
        (None, None) if anonymous => {
            warnings.push(format!(
                "--allow-anonymous (MCP_ALLOW_ANONYMOUS): everybody who reaches {host} may call"
            ));
            Ok((Access::Anonymous, TokenSource::None))
        }
        (None, None) => without_token(draft, host, keep_in, warnings),
    }
}

fn without_token(
    draft: &Draft,
    host: IpAddr,
    keep_in: Option<&Path>,
    warnings: &mut Vec<String>,
) -> Result<(Access, TokenSource), ConfigError> {
    let local = host.to_canonical().is_loopback();
    match keep_in {
        _ if !local => Err(draft.error(
            HOST.setting.name,
            host.to_string(),
            Reason::Token(TokenFault::Missing),
        )),
        Some(dir) => {
            let nobody = Access::Tokens(Vec::<Secret>::new());
            Ok((nobody, TokenSource::Generated(dir.join("token"))))
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

pub(super) fn shown(file: &Path) -> String {
    file.display().to_string()
}

/// The bytes of a file with tokens, and a warning if other users may read it too.
///
/// # Errors
/// What the system says, or that it is larger than any token file.
pub fn read_token_file(path: &Path, warnings: &mut Vec<String>) -> io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{Given, settings};

    const TOKEN_TEXT: &str = "0123456789abcdef";

    type Decided = Result<(Access, TokenSource), ConfigError>;

    fn decide_at(host: IpAddr, keep_in: Option<&Path>, given: &[(&str, &str)]) -> Decided {
        let mut draft = Draft::default();
        for &(name, text) in given {
            match settings().find(|it| it.name == name) {
                Some(setting) => draft.set(setting, vec![text.into()], Given::Flag),
                None => draft.set_token(text.into()),
            }
        }
        super::decide(&draft, host, keep_in, &mut Vec::new())
    }

    /// On this machine, without a place for a token.
    fn decide(given: &[(&str, &str)]) -> Decided {
        decide_at(IpAddr::from([127, 0, 0, 1]), None, given)
    }

    fn error(given: &[(&str, &str)]) -> String {
        decide(given).unwrap_err().to_string()
    }

    const ANYBODY: (&str, &str) = ("allow-anonymous", "true");

    fn tokens(access: &Access) -> Vec<&str> {
        match access {
            Access::Tokens(tokens) => tokens.iter().map(Secret::expose).collect(),
            Access::Anonymous => Vec::new(),
        }
    }

    #[test]
    fn the_environment_gives_one_token() {
        let (access, source) = decide(&[(TOKEN, TOKEN_TEXT)]).unwrap();
        assert_eq!(tokens(&access), [TOKEN_TEXT]);
        assert_eq!(source, TokenSource::Environment);
        let text = error(&[(TOKEN, "hunter2")]);
        assert!(text.starts_with("MCP_AUTH_TOKEN is shorter than 16 characters"), "{text}");
        assert!(text.contains("openssl rand -hex 32") && !text.contains("hunter2"), "{text}");
        let text = error(&[(TOKEN, "hunter2 hunter2 hunter2")]);
        assert!(text.contains("a character that a bearer token cannot have"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn a_file_gives_many() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let given = [("auth-token-file", file.to_str().unwrap())];
        let told = format!("--auth-token-file (MCP_AUTH_TOKEN_FILE) {}", file.display());
        assert!(error(&given).starts_with(&format!("{told} cannot be read")));
        fs::write(&file, "# none\n").unwrap();
        assert!(error(&given).starts_with(&format!("{told}: holds no token")));
        fs::write(&file, "# one\nhunter2\n").unwrap();
        assert!(error(&given).starts_with(&format!("{told}: line 2 is shorter")));
        fs::write(&file, format!("{TOKEN_TEXT}\n{TOKEN_TEXT}2\n")).unwrap();
        let (access, source) = decide(&given).unwrap();
        assert_eq!(tokens(&access), [TOKEN_TEXT, &format!("{TOKEN_TEXT}2")]);
        assert_eq!(source, TokenSource::File(file.clone()));
        fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
        assert!(error(&given).contains("cannot be read"));
    }

    #[test]
    fn two_answers_to_one_question_are_refused() {
        let (token, file) = ((TOKEN, TOKEN_TEXT), ("auth-token-file", "t"));
        let text = error(&[token, file]);
        assert!(text.contains("MCP_AUTH_TOKEN and --auth-token-file (MCP_AUTH_TOKEN_FILE) t"));
        let text = error(&[token, ANYBODY]);
        assert!(
            text.contains("--allow-anonymous (MCP_ALLOW_ANONYMOUS)")
                && text.contains("MCP_AUTH_TOKEN")
        );
        assert!(!text.contains(TOKEN_TEXT));
        let text = error(&[file, ANYBODY]);
        assert!(text.contains("--auth-token-file (MCP_AUTH_TOKEN_FILE)"), "{text}");
    }

    #[test]
    fn the_network_needs_a_token_or_a_word() {
        let host = IpAddr::from([0, 0, 0, 0]);
        for keep_in in [None, Some(Path::new("/nonexistent"))] {
            let text = decide_at(host, keep_in, &[]).unwrap_err().to_string();
            assert!(text.starts_with("--host (MCP_HOST) 0.0.0.0"), "{text}");
            assert!(text.contains("--allow-anonymous (MCP_ALLOW_ANONYMOUS)"), "{text}");
        }
        let (access, source) = decide_at(host, None, &[ANYBODY]).unwrap();
        assert!(matches!(access, Access::Anonymous));
        assert_eq!(source, TokenSource::None);
        assert!(matches!(decide(&[]).unwrap().0, Access::Anonymous));
    }

    #[test]
    fn a_token_that_is_to_be_made_lets_nobody_in_until_then() {
        let dir = tempfile::tempdir().unwrap();
        let certs = dir.path().join("a/certs");
        let here = IpAddr::from([127, 0, 0, 1]);
        let (access, source) = decide_at(here, Some(&certs), &[]).unwrap();
        assert_eq!(source, TokenSource::Generated(certs.join("token")));
        assert!(matches!(access, Access::Tokens(tokens) if tokens.is_empty()));
        assert!(!certs.exists());
    }
}
