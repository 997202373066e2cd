//! What benches have in common: figures, the limits that the project promises of them, and how a program with benches
//! runs those that are wanted and writes down what they gave.
//!
//! - [`figure`]: a figure, and whether it keeps to its limits
//! - [`suite`]: which program has which benches, and which figures they give
//! - [`mod@run`]: a program's benches, one after the other, and [`run::FILE`]
//! - [`plot`]: a picture of some of them
//!
//! Machines are shared and noisy: what can be is measured against a baseline in the same run, in alternating pairs, and
//! given as a ratio of medians ([`median`]).

pub mod figure;
pub mod plot;
pub mod run;
pub mod suite;

pub use figure::Figure;
pub use run::{pairs, results, run};
pub use suite::Suite;

/// The middle one; NaN of none.
pub fn median(values: &mut [f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this part of all is not above; NaN of none.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    // Whole numbers far below 2^52: nothing is lost.
    let place = (values.len() as f64 * part) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let mut values: Vec<f64> = (0..100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert_eq!(quantile(&mut values, 1.0), 99.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [2.0]), 2.0);
        assert!(median(&mut []).is_nan());
    }
}
