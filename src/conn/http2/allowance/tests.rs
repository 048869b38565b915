//! Floods end, honest clients never meet their end.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::frames::FrameReader;
use super::*;

fn frame(kind: u8, flags: u8, payload: &[u8]) -> Frame {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags, 0, 0, 0, 1]);
    bytes.extend(payload);
    let mut told = None;
    FrameReader::of_server().pass(&bytes, |frame| told = Some(frame));
    told.unwrap()
}

fn data(length: usize) -> Frame {
    frame(0, 0, &vec![0; length])
}

fn headers() -> Frame {
    frame(1, 5, &[0; 200])
}

fn reset() -> Frame {
    frame(3, 0, &[0, 0, 0, 8])
}

fn ping() -> Frame {
    frame(6, 0, &[0; 8])
}

fn update() -> Frame {
    frame(8, 0, &[0, 0, 0, 1])
}

/// Sends these again and again; after how many frames the allowance is used up, and by what.
fn flood(frames: &[Frame], work: Work, every: Duration) -> (usize, Abuse) {
    let mut now = Instant::now();
    let mut allowance = Allowance::new(now);
    let mut count = 0;
    loop {
        for frame in frames {
            count += 1;
            now += every;
            if !allowance.received(*frame, now) {
                return (count, allowance.worst());
            }
            assert!(count < 1_000_000, "it never ends: {frames:?}");
        }
        allowance.worked(work);
    }
}

const NOTHING: Work = Work { answered: 0, refused: 0, pieces: 0 };

#[test]
fn what_is_longer_costs_more() {
    for (kind, length, points) in
        [(1, 200, 1), (1, 16_384, 9), (9, 0, 10), (9, 16_384, 18), (4, 0, 10), (4, 640, 20)]
    {
        let price = price(frame(kind, 0, &vec![0; length]));
        assert_eq!(price.map(|(_, points)| points), Some(points), "{kind}, {length}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_flood_ends_within_2000_frames() {
    let refused = Work { refused: 1, ..NOTHING };
    let answered = Work { answered: 1, ..NOTHING };
    let unknown = frame(0x42, 0, b"");
    let floods: [(&[Frame], Work, Abuse); 12] = [
        (&[headers(), reset()], NOTHING, Abuse::Reset),
        (&[headers(), reset()], refused, Abuse::Reset),
        // The answer was quicker than the reset.
        (&[headers(), reset()], answered, Abuse::Reset),
        (&[data(0)], NOTHING, Abuse::EmptyData),
        (&[data(1)], NOTHING, Abuse::EmptyData),
        // Nothing but padding.
        (&[frame(0, 8, &[200; 201])], NOTHING, Abuse::EmptyData),
        (&[frame(9, 0, b"")], NOTHING, Abuse::Continuation),
        (&[frame(4, 0, b"")], NOTHING, Abuse::Settings),
        (&[ping()], NOTHING, Abuse::Ping),
        (&[frame(2, 0, &[0; 5])], NOTHING, Abuse::Priority),
        (&[update()], NOTHING, Abuse::WindowUpdate),
        (&[unknown], NOTHING, Abuse::Unknown),
    ];
    for (frames, work, abuse) in floods {
        // Twenty frames a second are no flood yet; two hundred are.
        for every in [Duration::ZERO, Duration::from_millis(5)] {
            let (count, worst) = flood(frames, work, every);
            assert!(count <= 2000, "{frames:?} {work:?}: {count}");
            assert_eq!(worst, abuse, "{frames:?} {work:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_that_a_peer_provokes_are_its_own() {
    let now = Instant::now();
    for (code, counts) in [(0, false), (1, true), (2, false), (3, true), (5, true), (8, false)] {
        let mut allowance = Allowance::new(now);
        let survived = (0..1000).all(|_| allowance.wrote(frame(3, 0, &[0, 0, 0, code]), now));
        assert_eq!(survived, !counts, "{code}");
    }
    // Data on a stream that is over does not pay for the answer.
    let mut allowance = Allowance::new(now);
    let provoking = |allowance: &mut Allowance| {
        allowance.received(data(16384), now) && allowance.wrote(frame(3, 0, &[0, 0, 0, 5]), now)
    };
    assert!(!(0..1000).all(|_| provoking(&mut allowance)));
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_single_bytes_is_no_reader() {
    let now = Instant::now();
    let mut allowance = Allowance::new(now);
    let drips =
        (0..).take_while(|_| allowance.received(update(), now) && allowance.wrote(data(1), now));
    assert!(drips.count() <= 1010);
}

#[tokio::test(start_paused = true)]
async fn time_gives_back_a_point_in_a_tenth_of_a_second_and_no_more_than_all() {
    let mut now = Instant::now();
    let mut allowance = Allowance::new(now);
    while allowance.received(ping(), now) {}
    assert!(!allowance.received(ping(), now + Duration::from_millis(99)));
    now += Duration::from_secs(1);
    assert_eq!((0..100).filter(|_| allowance.received(ping(), now)).count(), 10);
    now += Duration::from_hours(1);
    assert_eq!((0..2000).filter(|_| allowance.received(ping(), now)).count(), 1000);
}

/// What honest clients do.
#[derive(Clone, Debug)]
enum Deed {
    /// A request with its small body, answered.
    Call,
    /// One that is refused.
    Refused,
    /// An upload of so many KiB in frames of 16.
    Upload(usize),
    /// A download of so many KiB, with a `WINDOW_UPDATE` for stream and connection after every 512
    /// bytes, and a PING with every 16 KiB.
    Download(u32),
    /// So many small events, each with two `WINDOW_UPDATE`s and a PING.
    Events(u32),
    /// Quiet for so many seconds, with a keep-alive PING in each.
    Quiet(u64),
    /// One call of some is cancelled.
    Cancel,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => Just(Deed::Call),
        1 => Just(Deed::Refused),
        1 => (1usize..64).prop_map(Deed::Upload),
        1 => (1u32..2000).prop_map(Deed::Download),
        2 => (1u32..2000).prop_map(Deed::Events),
        1 => (1u64..100).prop_map(Deed::Quiet),
        1 => Just(Deed::Cancel),
    ]
}

/// Does it; is there a point left?
fn does(allowance: &mut Allowance, now: &mut Instant, deed: &Deed) -> bool {
    let call = Work { answered: 1, pieces: 1, ..NOTHING };
    let fine = match deed {
        Deed::Call => {
            let fine = allowance.received(headers(), *now) && allowance.received(data(40), *now);
            allowance.worked(call);
            fine && allowance.received(update(), *now)
        }
        Deed::Refused => {
            let fine = allowance.received(headers(), *now);
            allowance.worked(Work { refused: 1, ..NOTHING });
            fine
        }
        Deed::Upload(kib) => (0..kib.div_ceil(16)).all(|_| allowance.received(data(16384), *now)),
        Deed::Download(kib) => (0..kib * 2).all(|half| {
            let probe = half % 32 != 0 || allowance.received(ping(), *now);
            let fine = allowance.wrote(data(512), *now);
            fine && probe
                && allowance.received(update(), *now)
                && allowance.received(update(), *now)
        }),
        Deed::Events(count) => (0..*count).all(|_| {
            allowance.worked(Work { pieces: 1, ..NOTHING });
            allowance.wrote(data(40), *now)
                && allowance.received(update(), *now)
                && allowance.received(update(), *now)
                && allowance.received(ping(), *now)
        }),
        Deed::Quiet(seconds) => (0..*seconds).all(|_| {
            *now += Duration::from_secs(1);
            allowance.received(ping(), *now)
        }),
        Deed::Cancel => {
            *now += Duration::from_millis(500);
            allowance.received(headers(), *now) && allowance.received(reset(), *now)
        }
    };
    assert!(allowance.left <= FULL);
    fine
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_cancelled_at_once_are_no_flood() {
    let now = Instant::now();
    let mut allowance = Allowance::new(now);
    for frame in std::iter::repeat_n(headers(), 100).chain(std::iter::repeat_n(reset(), 100)) {
        assert!(allowance.received(frame, now));
    }
}

proptest! {
    #[test]
    fn honest_clients_never_use_it_up(deeds in vec(deed(), 1..100)) {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for frame in [frame(4, 0, &[0; 24]), update(), frame(4, 1, b"")] {
            prop_assert!(allowance.received(frame, now));
        }
        for deed in &deeds {
            prop_assert!(does(&mut allowance, &mut now, deed), "{deed:?} of {deeds:?}");
        }
    }

    #[test]
    fn it_is_never_more_than_full(
        steps in vec((any::<u8>(), any::<u8>(), 0usize..300, any::<u32>(), 0u64..10_000), 0..200),
    ) {
        let mut now = Instant::now();
        let mut allowance = Allowance::new(now);
        for (kind, flags, length, done, millis) in steps {
            now += Duration::from_millis(millis);
            let frame = frame(kind, flags, &vec![kind; length]);
            let _left = allowance.received(frame, now);
            let _left = allowance.wrote(frame, now);
            allowance.worked(Work { answered: done, refused: done, pieces: done });
            prop_assert!(allowance.left <= FULL);
        }
    }
}
