//! Invariant: no bytes panic; they give the same lines in whatever pieces they come, the lines that
//! a naive splitter gives; of a line that is too long the beginning; no more is held than one line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_edge::fuzzing::lines;
use mcp_edge_fuzz::{pieces, seeded_twice};

fn naively(bytes: &[u8], max: usize) -> Vec<(&[u8], bool)> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter_map(|line| {
            if line.len() > max {
                // 8 KiB of it are enough to see what it was.
                return Some((&line[..max.min(8192)], true));
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (!line.trim_ascii().is_empty()).then_some((line, false))
        })
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let (data, sizes, max) = seeded_twice(data);
    // Some are longer than what a pipe's buffer starts with.
    let data = if sizes == 255 { data.repeat(40) } else { data.to_vec() };
    for max in [usize::from(max), 9000] {
        let split = lines(&pieces(&data, sizes), max);
        let split: Vec<(&[u8], bool)> = split.iter().map(|(line, cut)| (&line[..], *cut)).collect();
        assert_eq!(split, naively(&data, max));
    }
});
