//! Statistics of the timing tests, after dudect (Reparaz, Balasch, Verbauwhede 2017): kinds are drawn
//! at random, samples above a percentile of all are cropped, and Welch's t is taken between each two.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test; it prints a table. Where it is a module of the library both are allowed"
)]
#![expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "statistics")]

/// Beyond this two kinds can be told apart (dudect's "maybe").
pub(crate) const MOST: f64 = 4.5;
/// Samples above this share of all are the machine's, not ours.
const CROPPED: f64 = 0.9;

/// Numbers below `count` that nobody can foresee.
pub(crate) fn drawn(count: usize) -> impl Iterator<Item = usize> {
    let chunk = || {
        let mut bytes = [0_u8; 256];
        getrandom::fill(&mut bytes).unwrap();
        bytes
    };
    std::iter::repeat_with(chunk).flatten().map(move |byte| usize::from(byte) % count)
}

/// Mean and variance of the mean.
fn moments(samples: &[f64]) -> (f64, f64) {
    let count = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / count;
    let squares: f64 = samples.iter().map(|sample| (sample - mean).powi(2)).sum();
    (mean, squares / (count - 1.0) / count)
}

/// Welch's t of two kinds.
pub(crate) fn welch(a: &[f64], b: &[f64]) -> f64 {
    let ((a, of_a), (b, of_b)) = (moments(a), moments(b));
    (a - b) / (of_a + of_b).sqrt()
}

/// Without the outliers of all kinds together.
pub(crate) fn crop(kinds: &mut [Vec<f64>]) {
    let mut all: Vec<f64> = kinds.iter().flatten().copied().collect();
    all.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let most = *all.get((all.len() as f64 * CROPPED) as usize).unwrap();
    for samples in kinds {
        samples.retain(|sample| *sample <= most);
    }
}

/// The largest |t| between two of these; prints them all.
pub(crate) fn worst(names: &[&str], kinds: &[Vec<f64>]) -> f64 {
    let mut worst: f64 = 0.0;
    for (at, (name, samples)) in names.iter().zip(kinds).enumerate() {
        let (mean, _) = moments(samples);
        print!("{name:12} {:7} samples, mean {mean:9.1} ns, t:", samples.len());
        for (other, others) in names.iter().zip(kinds).skip(at + 1) {
            let t = welch(samples, others);
            print!("  {other} {t:.2}");
            worst = worst.max(t.abs());
        }
        println!();
    }
    worst
}
