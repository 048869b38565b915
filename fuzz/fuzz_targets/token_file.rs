//! Invariant: no file panics; every token of one that is accepted stands on a line of its own, is
//! long enough, can stand in a header and is then admitted; what is refused is told by its line.
#![no_main]

use http::HeaderMap;
use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::guard;
use mcp_edge::{BadTokenFile, MIN_TOKEN, parse_token, parse_token_file};

fuzz_target!(|data: &[u8]| {
    let lines: Vec<&[u8]> = data.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    let counts = |line: &&&[u8]| !line.is_empty() && !line.starts_with(b"#");
    match parse_token_file(data) {
        Ok(tokens) => {
            let expected: Vec<&&[u8]> = lines.iter().filter(counts).collect();
            assert_eq!(tokens.len(), expected.len());
            assert!(!tokens.is_empty());
            let texts: Vec<&str> = tokens.iter().map(|token| token.expose()).collect();
            for (token, line) in texts.iter().zip(expected) {
                assert_eq!(Ok(*token), std::str::from_utf8(line).map(str::trim));
                assert!(token.len() >= MIN_TOKEN);
                let mut map = HeaderMap::new();
                let value = format!("Bearer {token}").parse().expect("can stand in a header");
                map.insert("authorization", value);
                assert_eq!(guard::is_valid(&texts, &map), token.len() <= 1024);
            }
        }
        Err(BadTokenFile::Empty) => assert!(!lines.iter().any(|line| counts(&line))),
        Err(BadTokenFile::Line { number, .. }) => {
            let line = lines.get(number - 1).expect("a line of the file");
            assert!(counts(&line));
            assert!(std::str::from_utf8(line).map_or(true, |text| parse_token(text).is_err()));
        }
    }
});
