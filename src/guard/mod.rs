//! Who may pass. The floor's one verb is [`Guard::admit`]: it gathers facts, and [`decide`] judges.
//!
//! Nothing here sees a body or knows MCP. Every request is charged to its client's rate before its
//! token is looked at, so that no more tokens are ever compared than the rate lets through.

#[cfg(fuzzing)]
pub mod fuzzing;
mod origin;
mod rate;
mod roles;
mod token;
mod visit;

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderValue, request};

pub(crate) use self::origin::OriginMatch;
pub(crate) use self::roles::{Denied, ToolPolicy, permit};
pub(crate) use self::visit::{ConnInfo, Visit};

use self::origin::{HostMatch, OriginPolicy, SiteMatch};
use self::rate::{Pace, Rate, RateMatch};
use self::token::{TokenMatch, Tokens};
use crate::caller::{Grant, Principal};
use crate::config::{Access, Config, TlsSource};
use crate::limits::addr::{ClientAddr, ClientKey};
use crate::observe::metrics::Metrics;
use crate::wire::forwarded::Prefix;

/// How often one address may ask for health: a second, and at once beyond the first. No probe comes
/// near it.
const PROBES: Pace = Pace::new(NonZeroU32::MIN.saturating_add(99), 100);

/// Counts how fast clients ask, whatever the admission is at present.
#[derive(Debug)]
pub(crate) struct Guard {
    rate: Rate,
    /// Of questions for health, which no other request is charged to.
    probes: Rate,
}

/// What a request has to be like to be admitted.
#[derive(Debug)]
pub(crate) struct Admission {
    origins: OriginPolicy,
    pace: Pace,
    rate_wait: Duration,
    access: Lock,
}

#[derive(Debug)]
enum Lock {
    Open,
    Tokens(Tokens),
}

/// What is known of a request when it is judged.
#[derive(Debug)]
struct Facts {
    host: HostMatch,
    origin: OriginMatch,
    site: SiteMatch,
    rate: RateMatch,
    need: Need,
    token: TokenMatch,
}

/// What a request must bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A good token.
    Token,
    /// No credential: everybody may have what it asks for.
    Nothing,
}

/// Proof that a request may pass, and what it is granted.
#[derive(Clone, Debug)]
#[must_use]
pub(crate) struct Admitted {
    grant: Grant,
}

impl Admitted {
    /// What its credential entitles it to.
    pub(crate) fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whose request it is.
    pub(crate) fn principal(&self) -> &Principal {
        &self.grant.principal
    }
}

/// Why a request may not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deny {
    /// It does not say to whom it goes, or says it twice.
    HostMalformed,
    /// It goes to somebody else.
    Host,
    /// It comes from a page of somebody else's.
    Origin,
    /// It comes from a page of another site, which does not say where that is.
    Site,
    /// Its client asks too fast; this long until the next place.
    Rate(Duration),
    /// There is no token.
    TokenMissing,
    /// The token is wrong.
    TokenWrong,
    /// The `Authorization` header is not of the form.
    TokenMalformed,
}

/// May it pass? Deny by default.
fn decide(facts: Facts) -> Result<Admitted, Deny> {
    match facts {
        Facts { host: HostMatch::Malformed, .. } => Err(Deny::HostMalformed),
        Facts { host: HostMatch::Foreign, .. } => Err(Deny::Host),
        Facts { origin: OriginMatch::Foreign, .. } => Err(Deny::Origin),
        // An origin that is known says more than its site.
        Facts { site: SiteMatch::Foreign, origin: OriginMatch::Absent, .. } => Err(Deny::Site),
        Facts { rate: RateMatch::Over(wait), .. } => Err(Deny::Rate(wait)),
        Facts {
            host: HostMatch::Ours,
            origin: OriginMatch::Absent,
            site: SiteMatch::Absent | SiteMatch::Own,
            rate: RateMatch::Within,
            need,
            token,
        }
        | Facts {
            host: HostMatch::Ours,
            origin: OriginMatch::Own | OriginMatch::Allowed,
            site: SiteMatch::Absent | SiteMatch::Own | SiteMatch::Foreign,
            rate: RateMatch::Within,
            need,
            token,
        } => Ok(Admitted { grant: granted(need, token)? }),
    }
}

/// What a request is granted that nothing else speaks against.
fn granted(need: Need, token: TokenMatch) -> Result<Grant, Deny> {
    match (need, token) {
        (Need::Nothing, _) => Ok(Grant::ANONYMOUS),
        (Need::Token, TokenMatch::Valid(grant)) => Ok(grant),
        (Need::Token, TokenMatch::Malformed) => Err(Deny::TokenMalformed),
        (Need::Token, TokenMatch::Wrong) => Err(Deny::TokenWrong),
        (Need::Token, TokenMatch::Missing | TokenMatch::NotCompared) => Err(Deny::TokenMissing),
    }
}

impl Admission {
    /// The admission of this configuration. `names` are those of the certificates.
    pub(crate) fn new(config: &Config, names: &[String]) -> Self {
        let allowed = config.allow_hosts.iter().map(ToString::to_string);
        let hosts: Vec<String> = names.iter().cloned().chain(allowed).collect();
        let loopback = config.listen.ip().is_loopback();
        let scheme = match config.tls {
            TlsSource::None => "http",
            TlsSource::Files(_) | TlsSource::SelfSigned { .. } => "https",
        };
        let per_second = NonZeroU32::new(config.limits.requests_per_second);
        Self {
            origins: OriginPolicy::new(&hosts, config.allow_origins.clone(), loopback, scheme),
            pace: Pace::new(per_second.unwrap_or(NonZeroU32::MIN), config.limits.burst),
            rate_wait: config.times.rate_wait,
            access: match &config.access {
                Access::Tokens(tokens) => Lock::Tokens(Tokens::new(tokens)),
                Access::Anonymous => Lock::Open,
            },
        }
    }

    /// The request with this head, from this client. Its origin is judged here, once.
    pub(crate) fn visit<'a>(
        &self,
        conn: &'a ConnInfo,
        client: ClientAddr,
        head: &'a request::Parts,
        prefix: &'a Prefix,
        tag: &'a HeaderValue,
    ) -> Visit<'a> {
        let origin = self.origins.origin(&head.uri, &head.headers, conn.local);
        Visit { conn, client, head, prefix, tag, origin }
    }

    /// What an operator would allow if a request that was denied should have passed, as far as it
    /// can be shown; `None` if it is not said, or if one of the tokens stands in it.
    pub(crate) fn shown(&self, visit: Visit<'_>, deny: Deny) -> Option<String> {
        let asked = match deny {
            Deny::Host => origin::shown_host(visit.uri(), visit.headers()),
            Deny::Origin => origin::shown_origin(visit.headers()).map(str::to_owned),
            Deny::HostMalformed
            | Deny::Site
            | Deny::Rate(_)
            | Deny::TokenMissing
            | Deny::TokenWrong
            | Deny::TokenMalformed => None,
        }?;
        match &self.access {
            Lock::Tokens(tokens) if tokens.stand_in(&asked) => None,
            Lock::Tokens(_) | Lock::Open => Some(asked.to_ascii_lowercase()),
        }
    }

    fn facts(&self, visit: Visit<'_>, rate: RateMatch, need: Need, token: TokenMatch) -> Facts {
        let host = self.origins.host(visit.uri(), visit.headers(), visit.conn.local);
        let site = SiteMatch::of(visit.headers());
        Facts { host, origin: visit.origin(), site, rate, need, token }
    }
}

impl Guard {
    /// A guard that has seen nobody.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { rate: Rate::new(metrics.clone()), probes: Rate::new(metrics) }
    }

    /// Lets a request pass that carries a good token, goes to us, comes from where it may, and
    /// keeps to its client's rate.
    ///
    /// A request that brings a bearer may wait `rate_wait` for its turn. It waits before its token
    /// is compared, so that waiting buys nobody more guesses than the rate.
    pub(crate) async fn admit(
        &self,
        admission: &Admission,
        visit: Visit<'_>,
    ) -> Result<Admitted, Deny> {
        let presented = token::presented(visit.headers());
        let rate = match presented {
            token::Presented::Bearer(_) => self.turn(admission, visit.key()).await,
            token::Presented::Nothing | token::Presented::Malformed => {
                self.rate.take(visit.key(), admission.pace)
            }
        };
        let (need, token) = match (&admission.access, rate) {
            (Lock::Open, _) => (Need::Nothing, TokenMatch::NotCompared),
            (Lock::Tokens(_), RateMatch::Over(_)) => (Need::Token, TokenMatch::NotCompared),
            (Lock::Tokens(tokens), RateMatch::Within) => (Need::Token, tokens.compare(presented)),
        };
        decide(admission.facts(visit, rate, need, token))
    }

    /// Lets a request pass that needs no token (a preflight, a discovery probe).
    pub(crate) fn admit_stranger(
        &self,
        admission: &Admission,
        visit: Visit<'_>,
    ) -> Result<(), Deny> {
        decide(self.facts_of_stranger(admission, visit)).map(drop)
    }

    /// Lets a request pass that is only sent on to where it is looked at: a link on any page may
    /// lead there.
    pub(crate) fn admit_onward(&self, admission: &Admission, visit: Visit<'_>) -> Result<(), Deny> {
        let facts = self.facts_of_stranger(admission, visit);
        decide(Facts { site: SiteMatch::Absent, ..facts }).map(drop)
    }

    fn facts_of_stranger(&self, admission: &Admission, visit: Visit<'_>) -> Facts {
        let rate = self.rate.take(visit.key(), admission.pace);
        admission.facts(visit, rate, Need::Nothing, TokenMatch::NotCompared)
    }

    /// Lets a question for health pass. It needs no token, may come from anywhere, and has a rate
    /// of its own.
    pub(crate) fn admit_probe(&self, client: ClientKey) -> Result<(), Deny> {
        match self.probes.take(client, PROBES) {
            RateMatch::Within => Ok(()),
            RateMatch::Over(wait) => Err(Deny::Rate(wait)),
        }
    }

    /// Forgets clients that were not seen for a while; runs for ever.
    pub(crate) async fn keep_swept(&self) {
        tokio::join!(self.rate.keep_swept(), self.probes.keep_swept());
    }

    /// Takes a place in the client's bucket, and waits for one within `rate_wait`.
    async fn turn(&self, admission: &Admission, client: ClientKey) -> RateMatch {
        let last = tokio::time::Instant::now() + admission.rate_wait;
        loop {
            match self.rate.take(client, admission.pace) {
                RateMatch::Over(wait) if tokio::time::Instant::now() + wait <= last => {
                    tokio::time::sleep(wait).await;
                }
                verdict @ (RateMatch::Within | RateMatch::Over(_)) => return verdict,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use http::Request;

    use super::*;
    use crate::config::{Limits, Secret, Times};

    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn fine() -> Facts {
        Facts {
            host: HostMatch::Ours,
            origin: OriginMatch::Absent,
            site: SiteMatch::Absent,
            rate: RateMatch::Within,
            need: Need::Token,
            token: TokenMatch::Valid(Grant::ANONYMOUS),
        }
    }

    #[test]
    fn who_needs_no_token_passes_with_any_and_by_all_other_rules() {
        let open = || Facts { need: Need::Nothing, token: TokenMatch::NotCompared, ..fine() };
        for token in [TokenMatch::NotCompared, TokenMatch::Missing, TokenMatch::Wrong] {
            let admitted = decide(Facts { token, ..open() }).unwrap();
            assert_eq!(*admitted.principal(), Principal::Anonymous);
        }
        let second = Duration::from_secs(1);
        for (facts, deny) in [
            (Facts { host: HostMatch::Foreign, ..open() }, Deny::Host),
            (Facts { origin: OriginMatch::Foreign, ..open() }, Deny::Origin),
            (Facts { site: SiteMatch::Foreign, ..open() }, Deny::Site),
            (Facts { rate: RateMatch::Over(second), ..open() }, Deny::Rate(second)),
        ] {
            assert_eq!(decide(facts).unwrap_err(), deny);
        }
    }

    #[test]
    fn one_bad_fact_is_enough_and_the_first_is_named() {
        let second = Duration::from_secs(1);
        assert!(decide(fine()).is_ok());
        for (facts, deny) in [
            (Facts { host: HostMatch::Foreign, ..fine() }, Deny::Host),
            (Facts { host: HostMatch::Malformed, ..fine() }, Deny::HostMalformed),
            (Facts { origin: OriginMatch::Foreign, ..fine() }, Deny::Origin),
            (Facts { site: SiteMatch::Foreign, ..fine() }, Deny::Site),
            (Facts { site: SiteMatch::Foreign, token: TokenMatch::Missing, ..fine() }, Deny::Site),
            (Facts { site: SiteMatch::Own, origin: OriginMatch::Foreign, ..fine() }, Deny::Origin),
            (Facts { rate: RateMatch::Over(second), ..fine() }, Deny::Rate(second)),
            (Facts { token: TokenMatch::Missing, ..fine() }, Deny::TokenMissing),
            (Facts { token: TokenMatch::Wrong, ..fine() }, Deny::TokenWrong),
            (Facts { token: TokenMatch::Malformed, ..fine() }, Deny::TokenMalformed),
            (Facts { token: TokenMatch::NotCompared, ..fine() }, Deny::TokenMissing),
            (
                Facts { rate: RateMatch::Over(second), token: TokenMatch::Wrong, ..fine() },
                Deny::Rate(second),
            ),
        ] {
            assert_eq!(decide(facts).unwrap_err(), deny);
        }
    }

    #[test]
    fn a_page_of_another_site_needs_an_origin_that_may_call() {
        for origin in [OriginMatch::Own, OriginMatch::Allowed] {
            let facts = Facts { site: SiteMatch::Foreign, origin, ..fine() };
            assert!(decide(facts).is_ok(), "{origin:?}");
        }
        assert!(decide(Facts { site: SiteMatch::Own, ..fine() }).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_may_ask_for_health_101_times_at_once_and_100_times_a_second() {
        let door = door(Duration::ZERO);
        let guard = &door.0;
        let (one, other) = (ClientKey::from(LOCAL), ClientKey::from(IpAddr::from([192, 0, 2, 7])));
        let passed = |client| (0..500).filter(|_| guard.admit_probe(client).is_ok()).count();
        assert_eq!((passed(one), passed(other)), (101, 101));
        assert_eq!(guard.admit_probe(one), Err(Deny::Rate(Duration::from_millis(10))));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(passed(one), 100);
        // The rate of all other requests is another.
        assert!(visit(&door, Some("Bearer sixteen-characters")).await.is_ok());
    }

    fn door(rate_wait: Duration) -> (Guard, Admission) {
        let limits = Limits { requests_per_second: 1, burst: 0, ..Limits::default() };
        let times = Times { rate_wait, ..Times::default() };
        let config = Config {
            access: Access::Tokens(vec![Secret::new("sixteen-characters")]),
            limits: limits.check().unwrap(),
            times: times.check().unwrap(),
            ..Config::default()
        };
        (Guard::new(Metrics::default()), Admission::new(&config, &[]))
    }

    async fn visit(
        (guard, admission): &(Guard, Admission),
        authorization: Option<&str>,
    ) -> Result<Admitted, Deny> {
        let mut request = Request::get("/mcp").header("host", "localhost");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let client = ClientAddr::from_peer(SocketAddr::new(LOCAL, 9));
        let conn = ConnInfo { client, local: LOCAL, tls: None, speaks_for: false, stranger: None };
        let (prefix, tag) = (Prefix::default(), HeaderValue::from_static("0"));
        let visit = admission.visit(&conn, client, &head, &prefix, &tag);
        guard.admit(admission, visit).await
    }

    #[tokio::test(start_paused = true)]
    async fn over_the_rate_not_even_a_good_token_is_looked_at() {
        let guard = door(Duration::ZERO);
        assert_eq!(visit(&guard, None).await.unwrap_err(), Deny::TokenMissing);
        let denied = visit(&guard, Some("Bearer sixteen-characters")).await.unwrap_err();
        assert_eq!(denied, Deny::Rate(Duration::from_secs(1)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bearer_waits_for_its_turn_and_a_stranger_does_not() {
        let guard = door(Duration::from_secs(2));
        let begun = tokio::time::Instant::now();
        for turn in 0..3 {
            assert!(visit(&guard, Some("Bearer sixteen-characters")).await.is_ok());
            assert_eq!(begun.elapsed(), Duration::from_secs(turn));
        }
        assert!(matches!(visit(&guard, None).await.unwrap_err(), Deny::Rate(_)));
        assert_eq!(begun.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn another_admission_counts_from_the_next_request_on() {
        let (guard, admission) = door(Duration::ZERO);
        let (first, second) =
            (Some("Bearer sixteen-characters"), Some("Bearer seventeen-characters"));
        let limits = Limits { requests_per_second: 1, burst: 4, ..Limits::default() };
        let config = Config {
            access: Access::Tokens(vec![Secret::new("seventeen-characters")]),
            limits: limits.check().unwrap(),
            ..Config::default()
        };
        let mut door = (guard, admission);
        assert!(visit(&door, first).await.is_ok());
        assert!(matches!(visit(&door, first).await, Err(Deny::Rate(_))));
        door.1 = Admission::new(&config, &[]);
        // What was taken at the old pace stays taken, of five that there may be now.
        assert_eq!(visit(&door, first).await.unwrap_err(), Deny::TokenWrong);
        for _ in 0..3 {
            assert!(visit(&door, second).await.is_ok());
        }
        assert!(matches!(visit(&door, second).await, Err(Deny::Rate(_))));
        let times = Times { rate_wait: Duration::from_secs(1), ..Times::default() };
        let config = Config { times: times.check().unwrap(), ..config };
        door.1 = Admission::new(&config, &[]);
        assert!(visit(&door, second).await.is_ok(), "it waits");
    }

    /// What is made of a visit with these fields.
    fn given<T>(
        admission: &Admission,
        fields: &[(&str, &str)],
        then: impl FnOnce(Visit<'_>) -> T,
    ) -> T {
        let request =
            fields.iter().fold(Request::get("/mcp"), |it, (name, value)| it.header(*name, *value));
        let (head, ()) = request.body(()).unwrap().into_parts();
        let client = ClientAddr::from_peer(SocketAddr::new(LOCAL, 9));
        let conn = ConnInfo { client, local: LOCAL, tls: None, speaks_for: false, stranger: None };
        let (prefix, tag) = (Prefix::default(), HeaderValue::from_static("0"));
        then(admission.visit(&conn, client, &head, &prefix, &tag))
    }

    #[tokio::test(start_paused = true)]
    async fn who_needs_no_token_still_keeps_to_host_origin_site_and_rate() {
        let (ours, foreign) = (("host", "localhost"), ("origin", "https://evil.example"));
        let linked = ("sec-fetch-site", "cross-site");
        for (fields, stranger, onward) in [
            (&[ours][..], Ok(()), Ok(())),
            (&[("host", "evil.example")], Err(Deny::Host), Err(Deny::Host)),
            (&[ours, foreign], Err(Deny::Origin), Err(Deny::Origin)),
            // A link on any page may lead to where a request is only sent on.
            (&[ours, linked], Err(Deny::Site), Ok(())),
        ] {
            let (guard, admission) = door(Duration::ZERO);
            let said = given(&admission, fields, |visit| guard.admit_stranger(&admission, visit));
            assert_eq!(said, stranger, "{fields:?}");
            let (guard, admission) = door(Duration::ZERO);
            let said = given(&admission, fields, |visit| guard.admit_onward(&admission, visit));
            assert_eq!(said, onward, "{fields:?}");
        }
        let (guard, admission) = door(Duration::ZERO);
        let over = Err(Deny::Rate(Duration::from_secs(1)));
        given(&admission, &[ours], |visit| {
            assert_eq!(guard.admit_onward(&admission, visit), Ok(()));
            assert_eq!(guard.admit_onward(&admission, visit), over);
            assert_eq!(guard.admit_stranger(&admission, visit), over);
        });
    }

    #[test]
    fn what_an_operator_would_allow_is_shown_unless_a_token_stands_in_it() {
        let fields = [("host", "Evil.example:8443"), ("origin", "https://Page.example")];
        let (_guard, admission) = door(Duration::ZERO);
        given(&admission, &fields, |visit| {
            assert_eq!(admission.shown(visit, Deny::Host).as_deref(), Some("evil.example"));
            assert_eq!(
                admission.shown(visit, Deny::Origin).as_deref(),
                Some("https://page.example")
            );
            assert_eq!(admission.shown(visit, Deny::TokenWrong), None);
        });
        let fields = [("host", "sixteen-characters.example")];
        given(&admission, &fields, |visit| assert_eq!(admission.shown(visit, Deny::Host), None));
        let open = Admission::new(&Config { access: Access::Anonymous, ..Config::default() }, &[]);
        let shown = given(&open, &fields, |visit| open.shown(visit, Deny::Host));
        assert_eq!(shown.as_deref(), Some("sixteen-characters.example"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_swept_for_ever() {
        let (guard, _admission) = door(Duration::ZERO);
        let sweeping = tokio::time::timeout(Duration::from_hours(1), guard.keep_swept());
        assert!(sweeping.await.is_err());
    }
}
