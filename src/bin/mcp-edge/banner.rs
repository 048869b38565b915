//! What the operator is told at start: where, what, how to trust it, and lines that work as printed.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mcp_edge::{Secret, TokenSource};

/// All that is known once the port is taken.
#[derive(Debug)]
pub(crate) struct Banner {
    /// Where it listens, with the real port.
    pub(crate) address: SocketAddr,
    /// Where it sends plain HTTP to TLS.
    pub(crate) redirect: Option<SocketAddr>,
    /// The unified path.
    pub(crate) path: String,
    /// What stands behind, in words.
    pub(crate) behind: String,
    /// TLS, or plain HTTP?
    pub(crate) tls: bool,
    /// The local CA, where there is one.
    pub(crate) ca: Option<PathBuf>,
    /// Names of the certificate, the most telling first.
    pub(crate) names: Vec<String>,
    /// Those of them that the operator asked for.
    pub(crate) asked_names: Vec<String>,
    /// Where the token came from.
    pub(crate) token_source: TokenSource,
    /// The generated token; none from elsewhere, so that it cannot be printed.
    pub(crate) generated: Option<Secret>,
}

impl Banner {
    /// The URL for clients.
    pub(crate) fn url(&self) -> String {
        self.url_of(&self.path)
    }

    fn url_of(&self, path: &str) -> String {
        self.url_at(&host_of(self.address.ip(), &self.names), path)
    }

    fn url_at(&self, host: &str, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{host}:{}{path}", self.address.port())
    }

    /// The URL for Claude Code, if there is one that it can use: `BoringSSL` does not check addresses
    /// under a constrained CA, so that it needs a name.
    fn claude_url(&self) -> Option<String> {
        let ip = self.address.ip();
        if self.ca.is_none() || !is_address(&host_of(ip, &self.names)) {
            return Some(self.url());
        }
        let is_name = |name: &&String| !is_address(name) && *name != "localhost";
        // The machine's own name leads to every address of it, as far as anybody knows it.
        let own = self.names.iter().find(is_name).filter(|_| ip.is_unspecified());
        let name = self.asked_names.iter().find(is_name).or(own)?;
        Some(self.url_at(name, &self.path))
    }

    /// One event for machines, in either log format.
    pub(crate) fn log(&self) {
        let shown = |path: &Path| absolute(path).display().to_string();
        let (source, file) = match &self.token_source {
            TokenSource::Environment => ("environment", None),
            TokenSource::File(file) => ("file", Some(file)),
            TokenSource::Generated(file) => ("generated", Some(file)),
            TokenSource::None => ("none", None),
        };
        tracing::info!(
            url = self.url(),
            sse_url = self.url_of("/sse"),
            address = %self.address.ip(),
            port = self.address.port(),
            redirect = self.redirect.map(|it| it.to_string()),
            path = self.path,
            transport = "http",
            behind = self.behind,
            tls = self.tls,
            names = self.names.join(","),
            ca = self.ca.as_deref().map(shown),
            token_source = source,
            token_file = file.map(|file| shown(file)),
            "serving"
        );
    }

    fn bearer(&self) -> Option<String> {
        match &self.token_source {
            TokenSource::Environment => Some("$MCP_AUTH_TOKEN".to_owned()),
            // The first line that is a token: comments may stand before it.
            TokenSource::File(file) => {
                Some(format!("$(grep -m1 '^[^#[:space:]]' {})", quoted_path(file)))
            }
            TokenSource::Generated(file) => Some(format!("$(cat {})", quoted_path(file))),
            TokenSource::None => None,
        }
    }

    fn header_option(&self, option: &str) -> String {
        let header = |bearer| format!(" {option} \"Authorization: Bearer {bearer}\"");
        self.bearer().map(header).unwrap_or_default()
    }

    fn curl(&self) -> String {
        let ca = self.ca.as_deref().map(|ca| format!(" --cacert {}", quoted_path(ca)));
        let ca = ca.unwrap_or_default();
        let header = self.header_option("-H");
        let url = quoted(&self.url());
        format!(
            "curl -sS{ca}{header} -H 'Content-Type: application/json' \
             -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}}' {url}"
        )
    }

    fn claude(&self) -> Option<String> {
        let url = self.claude_url()?;
        let ca = self.ca.as_deref().map(|ca| format!("NODE_EXTRA_CA_CERTS={} ", quoted_path(ca)));
        let ca = ca.unwrap_or_default();
        let header = self.header_option("--header");
        Some(format!("{ca}claude mcp add --transport http edge {}{header}", quoted(&url)))
    }

    fn write_claude(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nAdd it to Claude Code:")?;
        let Some(line) = self.claude() else {
            let address = self.address.ip();
            return writeln!(
                f,
                "  it cannot check an address under a local CA (UNSUPPORTED_CONSTRAINT_TYPE): start \
                 again with\n  --name NAME, a host name that leads clients to {address}, and trust the \
                 new ca.pem"
            );
        };
        writeln!(f, "  {line}")?;
        if self.ca.is_some() {
            writeln!(f, "(and have NODE_EXTRA_CA_CERTS set as above whenever you start claude)")?;
        }
        Ok(())
    }

    fn write_trust(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(ca) = &self.ca else { return Ok(()) };
        let ca = quoted_path(ca);
        writeln!(f, "\nTrust its certificate (in the environment that the client starts in):")?;
        line(f, "Node", format_args!("export NODE_EXTRA_CA_CERTS={ca}"))?;
        line(f, "Python", format_args!("export SSL_CERT_FILE={ca}"))?;
        line(f, "curl", format_args!("curl --cacert {ca}"))?;
        line(f, "browsers", format_args!("import {ca} as a certificate authority"))
    }

    fn write_token(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.token_source, &self.generated) {
            (TokenSource::Environment, _) => line(f, "token", "from MCP_AUTH_TOKEN"),
            (TokenSource::File(file), _) => {
                line(f, "token", format_args!("any of {}", absolute(file).display()))
            }
            (TokenSource::Generated(file), Some(token)) => {
                let token = token.expose();
                let file = absolute(file);
                line(f, "token", format_args!("{token} (generated, kept in {})", file.display()))
            }
            (TokenSource::Generated(file), None) => {
                line(f, "token", format_args!("kept in {}", absolute(file).display()))
            }
            (TokenSource::None, _) => line(f, "token", "none: whoever reaches it may call"),
        }
    }
}

/// The text for people.
impl Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "mcp-edge {} serves MCP", env!("CARGO_PKG_VERSION"))?;
        line(f, "url", self.url())?;
        line(f, "sse", format_args!("{} (older clients)", self.url_of("/sse")))?;
        line(f, "listens", self.address)?;
        if let Some(redirect) = self.redirect {
            line(f, "redirects", format_args!("plain HTTP on {redirect}"))?;
        }
        line(f, "behind", &self.behind)?;
        self.write_token(f)?;
        self.write_trust(f)?;
        writeln!(f, "\nTry it:\n  {}", self.curl())?;
        self.write_claude(f)
    }
}

fn line(f: &mut fmt::Formatter<'_>, what: &str, value: impl Display) -> fmt::Result {
    writeln!(f, "  {what:<9} {value}")
}

/// The name by which clients reach the address, one that the certificate has if possible.
fn host_of(address: IpAddr, names: &[String]) -> String {
    let shown = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    };
    let local =
        |name: &str| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|it| it.is_loopback());
    let usable = |name: &&String| !name.starts_with('*') && !local(name);
    if [IpAddr::from([127, 0, 0, 1]), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]
        .contains(&address)
    {
        // Of a certificate that is not for localhost, a name that it is for will do with an entry in
        // the hosts file, and localhost will not.
        let other = names.iter().find(usable);
        let covered = names.iter().any(|name| local(name));
        return other.filter(|_| !covered).map_or_else(|| "localhost".to_owned(), Clone::clone);
    }
    if address.is_loopback() {
        return shown(address);
    }
    match names.iter().find(usable) {
        Some(name) => name.parse().map_or_else(|_not_an_address| name.clone(), shown),
        None if address.is_unspecified() => "localhost".to_owned(),
        None => shown(address),
    }
}

/// Of a URL, or as a certificate has it.
fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_no_directory| path.to_owned())
}

fn quoted_path(path: &Path) -> String {
    quoted(&absolute(path).display().to_string())
}

/// As one word of a POSIX shell. What needs no quotes gets none.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,=".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(token_source: TokenSource) -> Banner {
        Banner {
            address: SocketAddr::from(([127, 0, 0, 1], 8443)),
            redirect: None,
            path: "/mcp".to_owned(),
            behind: "the built-in diagnostics server".to_owned(),
            tls: true,
            ca: Some("/etc/my certs/ca.pem".into()),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "edge.test".to_owned()],
            asked_names: Vec::new(),
            token_source,
            generated: None,
        }
    }

    #[test]
    fn the_generated_token_is_said_once_and_used_from_its_file() {
        let kept = TokenSource::Generated("/etc/my certs/token".into());
        let text = Banner { generated: Some(Secret::new("s3cret")), ..banner(kept) }.to_string();
        assert_eq!(text.matches("s3cret").count(), 1);
        for line in [
            "  url       https://localhost:8443/mcp\n",
            "  sse       https://localhost:8443/sse (older clients)\n",
            "  behind    the built-in diagnostics server\n",
            "  token     s3cret (generated, kept in /etc/my certs/token)\n",
            "  Node      export NODE_EXTRA_CA_CERTS='/etc/my certs/ca.pem'\n",
            "  Python    export SSL_CERT_FILE='/etc/my certs/ca.pem'\n",
            "  curl      curl --cacert '/etc/my certs/ca.pem'\n",
            "  curl -sS --cacert '/etc/my certs/ca.pem' -H \"Authorization: Bearer $(cat '/etc/my certs/token')\" -H 'Content-Type: application/json' -d '{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}' https://localhost:8443/mcp\n",
            "  NODE_EXTRA_CA_CERTS='/etc/my certs/ca.pem' claude mcp add --transport http edge https://localhost:8443/mcp --header \"Authorization: Bearer $(cat '/etc/my certs/token')\"\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn other_tokens_are_named_and_not_said() {
        let text = banner(TokenSource::Environment).to_string();
        assert!(text.contains("token     from MCP_AUTH_TOKEN"), "{text}");
        assert_eq!(text.matches("Bearer $MCP_AUTH_TOKEN\"").count(), 2, "{text}");
        let text = banner(TokenSource::File("/run/tokens".into())).to_string();
        assert_eq!(text.matches("Bearer $(grep -m1 '^[^#[:space:]]' /run/tokens)\"").count(), 2);
        let plain = Banner { ca: None, tls: false, ..banner(TokenSource::None) };
        let text = plain.to_string();
        assert!(!text.contains("Authorization") && !text.contains("CA_CERTS"), "{text}");
        assert!(text.contains("whoever reaches it may call"), "{text}");
        assert!(text.contains("claude mcp add --transport http edge http://localhost:8443/mcp\n"));
    }

    #[test]
    fn a_shell_runs_the_lines_as_printed() {
        let dir = tempfile::Builder::new().prefix("it's a ").tempdir().unwrap();
        let (ca, file) = (dir.path().join("ca.pem"), dir.path().join("token"));
        std::fs::write(&file, "# new\n\ns3cret\nolder\n").unwrap();
        let run = |token_source, line: fn(&Banner) -> String| {
            let line = line(&Banner { ca: Some(ca.clone()), ..banner(token_source) });
            let show = r#"show() { printf '%s|' "$NODE_EXTRA_CA_CERTS" "$@"; }"#;
            let script =
                format!("{show}; curl() {{ show \"$@\"; }}; claude() {{ show \"$@\"; }}; {line}");
            let output = std::process::Command::new("sh")
                .args(["-c", &script])
                .env_remove("NODE_EXTRA_CA_CERTS")
                .env("MCP_AUTH_TOKEN", "s3cret")
                .output()
                .unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{line}");
            String::from_utf8(output.stdout).unwrap()
        };
        let claude = |banner: &Banner| banner.claude().unwrap();
        let shown = ca.display();
        let wanted = format!(
            "|-sS|--cacert|{shown}|-H|Authorization: Bearer s3cret|-H|Content-Type: application/json|-d|{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}}|https://localhost:8443/mcp|"
        );
        assert_eq!(run(TokenSource::File(file.clone()), Banner::curl), wanted);
        assert_eq!(run(TokenSource::Environment, Banner::curl), wanted);
        let wanted = format!(
            "{shown}|mcp|add|--transport|http|edge|https://localhost:8443/mcp|--header|Authorization: Bearer s3cret|"
        );
        assert_eq!(run(TokenSource::File(file.clone()), claude), wanted);
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(run(TokenSource::Generated(file.clone()), claude), wanted);
    }

    #[test]
    fn claude_code_gets_a_name_wherever_there_is_one() {
        let url = |ip: &str, names: &[&str], asked: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let address = SocketAddr::new(ip.parse().unwrap(), 443);
            let (names, asked_names) = (owned(names), owned(asked));
            Banner { address, names, asked_names, ..banner(TokenSource::None) }.claude_url()
        };
        let own = ["localhost", "127.0.0.1", "::1", "192.0.2.7", "machine"];
        assert_eq!(url("192.0.2.7", &own, &["192.0.2.7"]), None);
        assert_eq!(url("2001:db8::1", &["localhost", "2001:db8::1", "machine"], &[]), None);
        assert_eq!(url("127.0.0.2", &["localhost", "127.0.0.2"], &[]), None);
        let at = |host: &str| Some(format!("https://{host}:443/mcp"));
        assert_eq!(url("192.0.2.7", &own, &["192.0.2.7", "edge.test"]), at("edge.test"));
        assert_eq!(url("0.0.0.0", &own, &["192.0.2.7"]), at("machine"));
        assert_eq!(url("127.0.0.1", &own[..3], &[]), at("localhost"));
        // A CA without constraints may be asked for an address.
        let address = "192.0.2.7:443".parse().unwrap();
        let names = vec!["192.0.2.7".to_owned()];
        let other = Banner { ca: None, address, names, ..banner(TokenSource::None) };
        assert_eq!(other.claude_url(), at("192.0.2.7"));
    }

    #[test]
    fn the_url_has_a_name_that_works() {
        let names: Vec<_> = ["localhost", "::1", "*.a.test", "a.test"].map(str::to_owned).into();
        let host = |ip: &str, names: &[String]| host_of(ip.parse().unwrap(), names);
        assert_eq!(host("127.0.0.1", &names), "localhost");
        assert_eq!(host("::1", &names), "localhost");
        assert_eq!(host("127.0.0.2", &names), "127.0.0.2");
        assert_eq!(host("0.0.0.0", &names), "a.test");
        assert_eq!(host("::", &[]), "localhost");
        assert_eq!(host("192.0.2.1", &[]), "192.0.2.1");
        assert_eq!(host("2001:db8::1", &["2001:db8::1".to_owned()]), "[2001:db8::1]");
    }

    #[test]
    fn a_shell_reads_back_what_was_quoted() {
        assert_eq!(quoted("/a/b-c.pem"), "/a/b-c.pem");
        for text in ["", "a b", "it's", "$HOME `x` \"y\" \\", "'", "a\nb", "*[x]"] {
            let printed = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", quoted(text))])
                .output()
                .unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), text);
        }
    }
}
