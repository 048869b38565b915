//! Invariant: a request is admitted if there is exactly one `Authorization` field, and that is
//! `Bearer` and one of the known tokens; and in no other case.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::guard;
use mcp_edge_fuzz::headers;

const TOKENS: [&str; 3] =
    ["a-token-of-the-fuzzer", "another.token+of/it==", "x1234567890123456789012345678901234567890"];

fuzz_target!(|data: &[u8]| {
    let map = headers(data);
    let fields: Vec<&[u8]> = map.get_all("authorization").iter().map(|it| it.as_bytes()).collect();
    let expected = match fields.as_slice() {
        [only] => TOKENS.iter().any(|token| {
            let split = only.split_at_checked(7);
            split.is_some_and(|(scheme, rest)| {
                scheme.eq_ignore_ascii_case(b"bearer ") && rest.trim_ascii() == token.as_bytes()
            })
        }),
        _ => false,
    };
    assert_eq!(guard::is_valid(&TOKENS, &map), expected);
    assert!(!guard::is_valid(&[], &map));
    if let Some(bearer) = guard::bearer(&map) {
        assert!(!bearer.is_empty() && bearer.iter().all(u8::is_ascii_graphic));
    }
});
