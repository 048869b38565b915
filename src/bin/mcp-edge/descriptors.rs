//! Open files: as many as the system allows, and whether they are enough for what was asked for.

use mcp_edge::{Background, Limits, Settings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Pipes to the three standard streams of a child, and its pidfd.
const OF_A_CHILD: u64 = 4;
/// For all else: the runtime, the sockets that are listened on, a child that is being started.
const RESERVE: u64 = 32;

/// As many open files as the system allows; none is no limit. A client may need one, and one at the
/// upstream.
pub(crate) fn take() -> Option<u64> {
    let Rlimit { current: _, maximum } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    getrlimit(Resource::Nofile).current
}

/// What to say if so many connections as may be served would need more open files than there may be.
pub(crate) fn too_few(settings: &Settings, limit: Option<u64>) -> Option<String> {
    let connections = settings.config.limits.max_connections;
    let TooFew { needed, limit, fit } = judge(&settings.config.limits, &settings.behind, limit)?;
    let lower = if fit > 0 {
        format!("or lower --max-connections to {fit}")
    } else {
        "or lower --max-connections, --max-children and --max-sessions".to_owned()
    };
    Some(format!(
        "--max-connections {connections} and what is behind them may need {needed} open files, and the \
         limit is {limit}: raise it (LimitNOFILE= of the unit, ulimit -n, --ulimit nofile= of a \
         container), {lower}"
    ))
}

/// What is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooFew {
    needed: u64,
    limit: u64,
    /// So many connections would do.
    fit: u64,
}

/// Whether all that the limits allow at once fits into so many open files.
fn judge(limits: &Limits, behind: &Background, limit: Option<u64>) -> Option<TooFew> {
    // Of each connection: its own, and that of its call at the upstream.
    let (each, fixed) = match behind {
        Background::Diagnostics => (1, 0),
        Background::Child(_) => (1, OF_A_CHILD * u64::from(limits.max_children)),
        Background::Upstream(upstream) => {
            // Strangers make many requests over one connection.
            let idle = u64::try_from(upstream.limits.connections).unwrap_or(u64::MAX);
            let others = idle.saturating_add(upstream.open_at_once().into());
            // Each session has a stream there.
            (2, others.saturating_add(limits.max_sessions.into()))
        }
    };
    let fixed = fixed.saturating_add(RESERVE);
    let needed = fixed.saturating_add(each * u64::from(limits.max_connections));
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(TooFew { needed, limit, fit: limit.saturating_sub(fixed) / each })
}

#[cfg(test)]
mod tests {
    use mcp_edge::{ChildCommand, PassRule, Upstream, UpstreamLimits};

    use super::*;

    fn limits() -> Limits {
        Limits { max_connections: 1000, max_children: 100, max_sessions: 500, ..Limits::default() }
    }

    /// What is needed, and how many connections fit into one less.
    fn needed(behind: &Background) -> (u64, u64) {
        let TooFew { needed, limit: _, fit } = judge(&limits(), behind, Some(0)).unwrap();
        assert_eq!(fit, 0);
        assert_eq!(judge(&limits(), behind, Some(needed)), None, "it fits");
        assert_eq!(judge(&limits(), behind, None), None, "there is no limit");
        let TooFew { fit, .. } = judge(&limits(), behind, Some(needed - 1)).unwrap();
        (needed, fit)
    }

    #[test]
    fn a_connection_is_one_and_so_is_its_call_at_the_upstream() {
        assert_eq!(needed(&Background::Diagnostics), (1000 + 32, 999));
        let url = "http://127.0.0.1:8000/mcp".parse().unwrap();
        let few = UpstreamLimits { connections: 8, ..UpstreamLimits::default() };
        let upstream = Upstream { limits: few.check().unwrap(), ..Upstream::new(url) };
        let open = PassRule { path: "/health".to_owned(), beneath: false, open: true };
        let opened = Upstream { pass: vec![open], ..upstream.clone() };
        assert_eq!(needed(&Background::Upstream(Box::new(upstream))), (2000 + 508 + 32, 999));
        // Of strangers as many as have places there.
        let (more, _) = needed(&Background::Upstream(Box::new(opened)));
        assert_eq!(more, 2000 + 508 + 1024 + 32);
    }

    #[test]
    fn a_child_is_four() {
        let child = Background::Child(ChildCommand::default());
        assert_eq!(needed(&child), (1000 + 400 + 32, 999));
        let few = judge(&limits(), &child, Some(400)).unwrap();
        assert_eq!(few, TooFew { needed: 1432, limit: 400, fit: 0 });
    }
}
