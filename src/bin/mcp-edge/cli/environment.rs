//! Variables that somebody else set, and names that were meant to be ours.

use mcp_edge::Draft;

use super::Variables;

/// The one secret among the variables.
pub(super) const AUTH_TOKEN: &str = "MCP_AUTH_TOKEN";

/// Whose variable is it that has a name of ours, if it is somebody else's?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ForeignVariable {
    /// Kubernetes sets `X_PORT` to a URL in every pod of the namespace of a Service called x.
    Service,
    /// Docker sets `X_NAME` to a path in a container that is linked to another by the name x.
    Container,
}

impl ForeignVariable {
    /// Of all that both set beside `X_PORT` and `X_NAME`, nothing has a name of ours.
    pub(super) fn of(name: &str, value: &str) -> Option<Self> {
        let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|it| value.starts_with(it));
        match name {
            "MCP_PORT" if is_url => Some(Self::Service),
            "MCP_NAME" if value.starts_with('/') => Some(Self::Container),
            _ => None,
        }
    }

    /// What the operator is told.
    pub(super) fn warning(self, value: &str) -> String {
        match self {
            Self::Service => format!(
                "MCP_PORT is {value:?}, which Kubernetes sets beside a Service called mcp (a service \
                 link): it is ignored, and the default port is served. Set enableServiceLinks: false \
                 in the pod's spec, or give the port by --port"
            ),
            Self::Container => format!(
                "MCP_NAME is {value:?}, which Docker sets for a container that is linked as mcp: it is \
                 ignored. Use a network of your own in place of the link, or give names by --name"
            ),
        }
    }
}

/// What is odd among the variables: those of others that have a name of ours, and those that were
/// probably meant to be ours. What is handed on to the child by name is its own.
pub(super) fn notices(vars: &Variables, typed: &Draft, draft: &Draft) -> Vec<String> {
    let ours: Vec<(String, &str)> =
        mcp_edge::settings().map(|setting| (setting.variable(), setting.name)).collect();
    let is_typed = |name: &str| ours.iter().any(|(our, long)| our == name && typed.has(long));
    let mut notices = Vec::new();
    for (name, value) in vars {
        let Some(name) = name.to_str() else { continue };
        let value = value.to_string_lossy();
        match ForeignVariable::of(name, &value) {
            Some(link) if !is_typed(name) => notices.push(link.warning(&value)),
            Some(_) => {}
            None if draft.texts("pass-env").any(|passed| passed == name) => {}
            None => {
                let ours = ours.iter().map(|(our, _)| our.as_str()).chain([AUTH_TOKEN]);
                if let Some(our) = meant(name, ours) {
                    notices.push(format!(
                        "{name} is set, and nothing here reads it: is {our} meant? If it is for the \
                         server behind, --pass-env {name} says so"
                    ));
                }
            }
        }
    }
    notices
}

/// Words for which there is another one here.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("MCP_TOKEN", "MCP_AUTH_TOKEN"),
    ("MCP_BEARER_TOKEN", "MCP_AUTH_TOKEN"),
    ("MCP_TOKEN_FILE", "MCP_AUTH_TOKEN_FILE"),
    ("MCP_PATH", "MCP_SSE_PATH"),
    ("MCP_CERT_FILE", "MCP_CERT"),
    ("MCP_TLS_CERT", "MCP_CERT"),
    ("MCP_KEY_FILE", "MCP_KEY"),
    ("MCP_TLS_KEY", "MCP_KEY"),
];

/// The variable of ours that `name` was probably meant to be.
fn meant<'a>(name: &str, ours: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let rest = name.strip_prefix("MCP_")?;
    let other = OTHER_WORDS.iter().find(|(other, _)| *other == name).map(|(_, our)| *our);
    let mut near = None;
    for our in ours {
        if our == name {
            return None;
        }
        let is_near = our.strip_prefix("MCP_").is_some_and(|our| is_one_slip(rest, our));
        if other == Some(our) || (near.is_none() && is_near) {
            near = Some(our);
        }
    }
    near
}

/// One letter too many, one too few, another one, or two changed places.
fn is_one_slip(one: &str, other: &str) -> bool {
    let one = one.as_bytes();
    let other = other.as_bytes();
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let one = one.get(same..).unwrap_or(&[]);
    let other = other.get(same..).unwrap_or(&[]);
    let pairs = one.iter().rev().zip(other.iter().rev());
    let same = pairs.take_while(|(one, other)| one == other).count();
    let middle = |text: &[u8]| text.get(..text.len() - same).map(<[u8]>::to_vec);
    match (middle(one).as_deref(), middle(other).as_deref()) {
        (Some([] | [_]), Some([] | [_])) => true,
        (Some([a, b]), Some([c, d])) => a == d && b == c,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&str; 9] = [
        "MCP_PORT",
        "MCP_HOST",
        "MCP_NAME",
        "MCP_AUTH_TOKEN",
        "MCP_AUTH_TOKEN_FILE",
        "MCP_SSE_PATH",
        "MCP_CALL_TIMEOUT",
        "MCP_TRANSPORT",
        "MCP_LOG_LEVEL",
    ];

    #[test]
    fn a_slip_is_told_from_another_word() {
        let meant = |name| meant(name, OURS.into_iter());
        for (name, our) in [
            ("MCP_PROT", "MCP_PORT"),
            ("MCP_TOKEN", "MCP_AUTH_TOKEN"),
            ("MCP_TOKEN_FILE", "MCP_AUTH_TOKEN_FILE"),
            ("MCP_PATH", "MCP_SSE_PATH"),
            ("MCP_AUTH_TOKENS", "MCP_AUTH_TOKEN"),
            ("MCP_CALLTIMEOUT", "MCP_CALL_TIMEOUT"),
            ("MCP_CALL_TIME0UT", "MCP_CALL_TIMEOUT"),
            ("MCP_NAMES", "MCP_NAME"),
        ] {
            assert_eq!(meant(name), Some(our), "{name}");
        }
        for name in
            ["MCP_PORT", "PORT", "MCP_", "MCP_PORT_443_TCP", "MCP_SERVICE_PORT", "MCP_REPORT"]
        {
            assert_eq!(meant(name), None, "{name}");
        }
    }

    #[test]
    fn variables_of_links_are_not_ours() {
        assert_eq!(
            ForeignVariable::of("MCP_PORT", "tcp://10.43.7.62:443"),
            Some(ForeignVariable::Service)
        );
        assert_eq!(
            ForeignVariable::of("MCP_PORT", "udp://10.43.7.62:53"),
            Some(ForeignVariable::Service)
        );
        assert_eq!(ForeignVariable::of("MCP_NAME", "/web/mcp"), Some(ForeignVariable::Container));
        for (name, value) in
            [("MCP_PORT", "8443"), ("MCP_PORT", "http"), ("MCP_NAME", "a.test"), ("MCP_HOST", "/a")]
        {
            assert_eq!(ForeignVariable::of(name, value), None, "{name}={value}");
        }
    }
}
