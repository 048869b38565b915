//! Invariant: whatever the facts, only a request for us, from no foreign page or site, within the
//! rate, and with a good token passes; and a whole guard admits none but such, at most burst + rate x time.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use arbitrary::Arbitrary;
use http::Uri;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::guard::{Door, Verdict, passes};
use mcp_edge::{Access, Config, Limits, Secret};
use mcp_edge_fuzz::edge::{TOKEN, run};
use mcp_edge_fuzz::headers;

#[derive(Arbitrary, Debug)]
struct Visit {
    host: u8,
    origin: u8,
    site: u8,
    token: u8,
    client: u8,
    wait: u16,
}

#[derive(Arbitrary, Debug)]
struct Input {
    facts: (u8, u8, u8, u8, u8, u32),
    open: bool,
    rate: u8,
    burst: u8,
    visits: Vec<Visit>,
}

const HOSTS: [&str; 4] = ["mcp.example.com", "evil.example", "mcp.example.com:8443", ""];
const ORIGINS: [&str; 4] = ["", "https://app.example", "https://evil.example", "null"];
const SITES: [&str; 5] = ["", "none", "same-origin", "same-site", "cross-site"];

fuzz_target!(|input: Input| {
    let (host, origin, site, rate, token, wait) = input.facts;
    let from_here = match origin % 4 {
        0 => site % 3 != 2,
        page => page != 3,
    };
    let fine = host % 3 == 0 && from_here && rate % 2 == 0 && token % 5 == 0;
    assert_eq!(passes(host, origin, site, rate, token, Duration::from_millis(wait.into())), fine);

    let per_second = u32::from(input.rate % 20) + 1;
    let access = match input.open {
        true => Access::Anonymous,
        false => Access::Tokens(vec![Secret::new(TOKEN)]),
    };
    let (burst, limits) = (input.burst.into(), Limits::default());
    let limits = Limits { requests_per_second: per_second, burst, ..limits };
    let config = Config {
        listen: ([192, 0, 2, 1], 443).into(),
        allow_hosts: vec!["mcp.example.com".parse().unwrap()],
        allow_origins: vec!["https://app.example".parse().unwrap()],
        access,
        limits: limits.check().unwrap(),
        ..Config::default()
    };
    run(async {
        let door = Door::new(&config);
        let (mut time, mut admitted) = (Duration::ZERO, [0_u64; 2]);
        for visit in input.visits.iter().take(200) {
            let wait = Duration::from_millis((visit.wait % 2000).into());
            tokio::time::sleep(wait).await;
            // The clock counts whole milliseconds.
            time += wait + Duration::from_millis(1);
            let host = HOSTS[usize::from(visit.host % 4)];
            let origin = ORIGINS[usize::from(visit.origin % 4)];
            let site = SITES[usize::from(visit.site % 5)];
            let bearer = [TOKEN, "another-token-of-it", ""][usize::from(visit.token % 3)];
            let mut text = String::new();
            for (name, value) in [("host", host), ("origin", origin), ("sec-fetch-site", site)] {
                if !value.is_empty() {
                    text.push_str(&format!("{name}: {value}\n"));
                }
            }
            if !bearer.is_empty() {
                text.push_str(&format!("authorization: Bearer {bearer}\n"));
            }
            let map = headers(text.as_bytes());
            let client = usize::from(visit.client % 2);
            let ip = IpAddr::from([203, 0, 113, client as u8]);
            let verdict = door.visit(ip, &Uri::from_static("/mcp"), &map).await;
            let fine = host.starts_with("mcp.")
                && matches!((visit.origin % 4, visit.site % 5), (0, 0..=2) | (1, _))
                && (input.open || bearer == TOKEN);
            assert!(verdict != Verdict::Admitted || fine, "{visit:?} was admitted");
            admitted[client] += u64::from(verdict == Verdict::Admitted);
            let due = (time.as_secs_f64() * f64::from(per_second)).ceil() as u64;
            assert!(admitted[client] <= u64::from(input.burst) + 1 + due);
        }
    });
});
