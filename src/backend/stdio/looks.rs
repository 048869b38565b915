//! What a line of a program's output tells of the program, where an answer was expected.

/// Bytes of a line that are shown.
const SHOWN: usize = 200;

/// What a program seems to be. What is greater says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Looks {
    /// It writes text where messages are due.
    Text,
    /// It asks something, and waits.
    Question,
    /// It serves HTTP.
    Http,
    /// It frames its messages as the Language Server Protocol does.
    Framed,
}

impl Looks {
    /// Of a whole line. What stands on stderr is a log line, if nothing else.
    pub(super) fn of_line(line: &str, on_stdout: bool) -> Option<Self> {
        let low = line.to_ascii_lowercase();
        if on_stdout && is_length_header(line.as_bytes()) {
            Some(Self::Framed)
        } else if is_http(&low) {
            Some(Self::Http)
        } else if asks(&low) {
            Some(Self::Question)
        } else {
            (on_stdout && !line.is_empty()).then_some(Self::Text)
        }
    }

    /// Of a line that has no end: the program may wait for somebody to type behind it.
    pub(super) fn of_prompt(line: &str) -> Self {
        let known = Self::of_line(line, true).unwrap_or(Self::Text);
        let waits = line.trim_end().ends_with(['?', ':', '>', ']', ')', '$', '#']);
        if waits { known.max(Self::Question) } else { known }
    }

    /// What it looks like, and what to do about it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Text => {
                "a banner or a log, not MCP: it may still be starting; if not, look for its option for MCP on stdin \
                 and stdout (often `stdio` or `--stdio`)"
            }
            Self::Question => {
                "a question: nobody can answer it here, so start COMMAND with the option or \
                 variable that does (often `-y` or `--yes`)"
            }
            Self::Http => {
                "an HTTP server: start it apart from the edge and give its URL by --upstream, or \
                 start it with its option for MCP on stdin and stdout (often `--transport stdio`)"
            }
            Self::Framed => {
                "Content-Length headers before its messages; MCP over stdio wants one JSON text a \
                 line"
            }
        }
    }
}

/// `Content-Length: 139`
pub(super) fn is_length_header(line: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length:";
    let line = line.trim_ascii();
    let named = line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME));
    let value = line.get(NAME.len()..).unwrap_or_default().trim_ascii();
    named && !value.is_empty() && value.iter().all(u8::is_ascii_digit)
}

fn is_http(low: &str) -> bool {
    let any = |words: &[&str]| words.iter().any(|word| low.contains(word));
    let url = any(&["http://", "https://"]);
    let serves = any(&[
        "running on",
        "running at",
        "listening",
        "serving",
        "started",
        "available at",
        "ready on",
        "ready at",
        "local:",
        "accepting",
    ]);
    let port =
        any(&["listening on port", "listening at port", "running on port", "started on port"])
            || any(&["serving http on", "listening on 0.0.0.0:", "listening on 127.0.0.1:"])
            || any(&["listening on :", "listening on localhost:", "listening on [::"]);
    port || (url && serves)
}

fn asks(low: &str) -> bool {
    [
        "[y/n]",
        "(y/n)",
        "(y/n/",
        "[yes/no]",
        "(yes/no)",
        "ok to proceed?",
        "press enter",
        "press any key",
        "password:",
        "passphrase:",
        "passphrase for",
    ]
    .iter()
    .any(|word| low.contains(word))
}

/// The text without signs that move a cursor or set a colour, and no longer than is shown.
pub(super) fn shown(text: &str) -> String {
    let mut plain = String::with_capacity(text.len().min(SHOWN));
    let mut signs = text.chars();
    while let Some(sign) = signs.next() {
        if sign == '\u{1b}' {
            // ECMA-48: a control sequence ends with a letter, or a sign beside those.
            if signs.clone().next() == Some('[') {
                signs.by_ref().skip(1).find(|sign| ('@'..='~').contains(sign));
            }
        } else if !sign.is_control() || sign == '\t' {
            plain.push(sign);
        }
        if plain.len() >= SHOWN {
            break;
        }
    }
    plain.truncate(plain.floor_char_boundary(SHOWN));
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_its_program_is() {
        for (line, looks) in [
            (
                "INFO:     Uvicorn running on http://127.0.0.1:8000 (Press CTRL+C to quit)",
                Looks::Http,
            ),
            ("Server listening on port 3000", Looks::Http),
            ("Serving HTTP on 0.0.0.0 port 8000 (http://0.0.0.0:8000/) ...", Looks::Http),
            ("  Local:   http://localhost:5173/", Looks::Http),
            ("MCP server started at http://0.0.0.0:8080/sse", Looks::Http),
            ("Proceed? [y/N]", Looks::Question),
            ("Enter passphrase for key:", Looks::Question),
            ("Content-Length: 139", Looks::Framed),
            ("content-length:139\r", Looks::Framed),
            ("Content-Length: many", Looks::Text),
            ("See https://example.org/docs", Looks::Text),
            ("Listening on stdio", Looks::Text),
        ] {
            assert_eq!(Looks::of_line(line, true), Some(looks), "{line}");
        }
        assert_eq!(Looks::of_line("loading the model", false), None);
        assert_eq!(Looks::of_line("running on http://[::1]:8000", false), Some(Looks::Http));
    }

    #[test]
    fn a_line_without_an_end_may_be_a_prompt() {
        for line in ["Proceed? [y/N] ", "Password: ", "Which one? ", "> ", "Name: ", "(env) $ "] {
            assert_eq!(Looks::of_prompt(line), Looks::Question, "{line}");
        }
        assert_eq!(Looks::of_prompt("loading"), Looks::Text);
        assert_eq!(Looks::of_prompt("listening on port 80"), Looks::Http);
    }

    #[test]
    fn what_is_shown_is_plain_and_short() {
        let text = "\u{1b}[1;32m?\u{1b}[0m Proceed\u{7} \u{1b}[2K[y/N] ";
        assert_eq!(shown(text), "? Proceed [y/N] ");
        assert_eq!(shown(&"é".repeat(500)).len(), SHOWN);
        assert_eq!(shown("\u{1b}"), "");
        assert_eq!(shown("\u{1b}["), "");
    }
}
