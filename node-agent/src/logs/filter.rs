//! Which lines of those that are read pass: by time, to the microsecond, and by a regular expression.

use k8sctl_proto::node::v1::LogSelector;
use k8sctl_types::logs::grep::Grep;
use k8sctl_types::logs::merge::Micros;
use prost_types::Timestamp;

use super::LogError;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// First moment.
    pub since: Option<Micros>,
    /// Last moment.
    pub until: Option<Micros>,
    grep: Grep,
    has_grep: bool,
}

impl Filter {
    /// Of a request. Whoever goes on from a cursor has the first moment in there.
    pub fn of(selector: &LogSelector) -> Result<Self, LogError> {
        let goes_on = !selector.after_cursor.is_empty();
        Ok(Self {
            since: selector.since.as_ref().map(micros).filter(|_| !goes_on),
            until: selector.until.as_ref().map(micros),
            grep: Grep::new(&selector.grep).map_err(LogError::Grep)?,
            has_grep: !selector.grep.is_empty(),
        })
    }

    /// Whether everything from the first moment on passes.
    pub fn passes_to_the_end(&self) -> bool {
        self.until.is_none() && !self.has_grep
    }

    /// Whether a line passes.
    pub fn accepts(&self, time: Micros, text: &str) -> bool {
        self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time <= until)
            && self.grep.is_match(text)
    }
}

/// Microseconds since 1970; what is below one is cut off.
pub fn micros(stamp: &Timestamp) -> Micros {
    stamp.seconds.saturating_mul(1_000_000).saturating_add(i64::from(stamp.nanos) / 1_000)
}

/// The time of a line, from microseconds since 1970.
pub fn stamp(micros: Micros) -> Timestamp {
    let nanos = micros.rem_euclid(1_000_000) * 1_000;
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: i32::try_from(nanos).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_it_to_the_microsecond() {
        let at = |nanos: i32| Some(Timestamp { seconds: 7, nanos });
        let selector = LogSelector { since: at(2_500), until: at(4_999), ..LogSelector::default() };
        let filter = Filter::of(&selector).expect("it is one");
        let passes: Vec<Micros> = (0..8).filter(|micro| filter.accepts(7_000_000 + micro, "x")).collect();
        assert_eq!(passes, [2, 3, 4]);
        let goes_on = LogSelector { after_cursor: "1{}".to_owned(), ..selector };
        assert!(Filter::of(&goes_on).expect("it is one").accepts(0, "x"));
    }

    #[test]
    fn times_are_the_same_both_ways() {
        for time in [0, 1, 1_700_000_000_123_456, -1, -1_500_000] {
            assert_eq!(micros(&stamp(time)), time);
        }
    }

    #[test]
    fn a_bad_expression_is_told() {
        let selector = LogSelector { grep: "a(".to_owned(), ..LogSelector::default() };
        let error = Filter::of(&selector).expect_err("it is none");
        assert!(k8sctl_rpc::chain(&error).to_string().contains("at character 2"), "{error:?}");
    }
}
