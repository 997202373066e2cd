//! Ranges of IPv4 addresses, and whether they meet.

use std::net::Ipv4Addr;

/// Addresses from the first to the last one, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    first: u32,
    last: u32,
}

impl Range {
    /// `FIRST-LAST`, or a network without bits behind its prefix; the error says what it is instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some((first, last)) = text.split_once('-') {
            let range =
                Self::of(first, last).ok_or_else(|| format!("{text:?} is no range of IPv4 addresses"))?;
            if range.first > range.last {
                return Err(format!("{text} ends before it begins"));
            }
            return Ok(range);
        }
        let network = Self::network(text).ok_or_else(|| format!("{text:?} is no range of IPv4 addresses"))?;
        let address = text.split('/').next().and_then(parsed);
        if address != Some(network.first) {
            let first = Ipv4Addr::from(network.first);
            return Err(format!("{text} begins at {first}: bits behind the prefix say nothing"));
        }
        Ok(network)
    }

    /// From one address to another, in whatever order they are.
    pub(crate) fn of(first: &str, last: &str) -> Option<Self> {
        Some(Self { first: parsed(first)?, last: parsed(last)? })
    }

    /// One address.
    pub(crate) fn single(address: &str) -> Option<Self> {
        Self::of(address, address)
    }

    /// All addresses of `ADDRESS/PREFIX`.
    pub(crate) fn network(cidr: &str) -> Option<Self> {
        let (address, prefix) = cidr.split_once('/')?;
        let (address, prefix) =
            (parsed(address)?, prefix.parse::<u32>().ok().filter(|prefix| *prefix <= 32)?);
        let hosts = u32::MAX.checked_shr(prefix).unwrap_or_default();
        Some(Self { first: address & !hosts, last: address | hosts })
    }

    /// Without the first and the last address, which stand for the network and for everybody in it.
    pub(crate) fn usable(self) -> Self {
        if self.last - self.first < 3 {
            return self;
        }
        Self { first: self.first + 1, last: self.last - 1 }
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// How many addresses.
    pub(crate) fn count(self) -> u64 {
        u64::from(self.last.saturating_sub(self.first)) + 1
    }
}

/// Four numbers, nothing before or behind them.
fn parsed(text: &str) -> Option<u32> {
    text.parse::<Ipv4Addr>().ok().map(u32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        Range::parse(text).expect(text)
    }

    #[test]
    fn ranges_are_written_in_two_ways() {
        assert_eq!(range("10.0.0.4-10.0.0.7"), range("10.0.0.4/30"));
        assert_eq!(Range::single("10.0.0.4"), Some(range("10.0.0.4/32")));
        assert_eq!(range("0.0.0.0/0").count(), 1 << 32);
        for (text, why) in [
            ("10.0.0.7-10.0.0.4", "ends before it begins"),
            ("10.0.0.5/30", "begins at 10.0.0.4"),
            ("10.0.0.5", "is no range"),
            ("10.0.0.4 - 10.0.0.7", "is no range"),
            ("10.0.0.4-10.0.0", "is no range"),
            ("10.0.0.4/33", "is no range"),
            ("fd00::1-fd00::2", "is no range"),
            ("", "is no range"),
        ] {
            let error = Range::parse(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn ranges_meet_where_they_have_an_address_in_common() {
        let pool = range("10.0.0.10-10.0.0.20");
        for (other, overlaps) in [
            ("10.0.0.1-10.0.0.9", false),
            ("10.0.0.1-10.0.0.10", true),
            ("10.0.0.12-10.0.0.13", true),
            ("10.0.0.0/24", true),
            ("10.0.0.21-10.0.0.22", false),
        ] {
            assert_eq!(pool.overlaps(range(other)), overlaps, "{other}");
            assert_eq!(range(other).overlaps(pool), overlaps, "{other}");
        }
        assert!(range("10.0.0.0/24").contains(pool) && !pool.contains(range("10.0.0.0/24")));
        assert_eq!(range("10.0.0.0/24").usable(), range("10.0.0.1-10.0.0.254"));
        assert_eq!(range("10.0.0.0/31").usable(), range("10.0.0.0/31"));
    }
}
