//! How fast the processor's time stamp counter counts. An emulated VM sees that counter as its own, and its kernel, which
//! finds the speed out by counting between two ticks of an emulated timer, finds one that is many times too low when this
//! host lets it wait in between. Its clock then runs many times too fast, for as long as it runs: so it is told.
#![allow(unsafe_code)] // Reading the counter has no safe form.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long is counted. A look at the clock and the counter together takes less than a microsecond.
const SPAN: Duration = Duration::from_millis(100);
/// The closest of so many looks counts: whoever looks may be interrupted.
const LOOKS: usize = 16;

/// Ticks in a millisecond; `None` on a processor that has no such counter. The first call takes a tenth of a second.
pub fn khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> Option<u64> {
    let (began, first) = look()?;
    std::thread::sleep(SPAN);
    let (ended, last) = look()?;
    let nanoseconds = ended.duration_since(began).as_nanos();
    let ticks = u128::from(last.checked_sub(first)?);
    u64::try_from(ticks * 1_000_000 / nanoseconds.max(1)).ok().filter(|khz| *khz > 0)
}

/// The clock, and the counter of the same moment.
fn look() -> Option<(Instant, u64)> {
    let looks = (0..LOOKS).filter_map(|_| {
        let before = Instant::now();
        let ticks = read()?;
        Some((before.elapsed(), before, ticks))
    });
    looks.min_by_key(|(took, ..)| *took).map(|(_, at, ticks)| (at, ticks))
}

#[cfg(target_arch = "x86_64")]
fn read() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction; it reads a register and touches no memory.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> Option<u64> {
    None
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::measure;

    #[test]
    fn twice_the_same_is_found() {
        let (one, other) = (measure().expect("a counter"), measure().expect("a counter"));
        assert!((100_000..20_000_000).contains(&one), "{one} kHz");
        assert!(one.abs_diff(other) * 1_000 <= one, "{one} and {other} kHz");
    }
}
