//! Moments as people write them on a command line: in full, by the clock on the wall, or as so long ago.

use jiff::civil::{DateTime, Time};
use jiff::{Timestamp, Zoned};

/// What is taken, for those who wrote something else.
const FORMS: &str = "write it like 10m, 2h, 1d for so long ago, 18:00, today or \"2026-11-24 18:00\" by the clock of this \
                     host, or 2026-11-24T18:00:00Z";

/// The moment that a text means: `now`; RFC 3339 with an offset; date, date and time, or time of today in the time zone of
/// this host; the beginning of `today` or `yesterday` there; or a length of time before now. Of a time that the clock shows
/// twice it is the first. What is wrong is said in one line.
pub fn parse(text: &str) -> Result<Timestamp, String> {
    parse_at(text, &Zoned::now())
}

/// For an argument that means the past: as [`parse`], and a moment that is still to come is a mistake.
pub fn past(text: &str) -> Result<Timestamp, String> {
    past_at(text, &Zoned::now())
}

/// The same moment in a message.
pub fn stamp(moment: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: moment.as_second(), nanos: moment.subsec_nanosecond() }
}

fn past_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let (moment, now) = (parse_at(text, now)?, now.timestamp());
    if moment > now {
        return Err(format!("{moment:.0} is in the future: it is {now:.0} now"));
    }
    Ok(moment)
}

fn parse_at(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    if text == "now" {
        return Ok(now.timestamp());
    }
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    if let Some(shown) = on_the_wall(text, now) {
        return now.time_zone().to_timestamp(shown).map_err(|error| format!("{error}; {FORMS}"));
    }
    let ago = humantime::parse_duration(text.strip_suffix(" ago").unwrap_or(text));
    let ago = ago.map_err(|_| format!("that is no time; {FORMS}"))?;
    now.timestamp().checked_sub(ago).map_err(|_| format!("that is too long ago; {FORMS}"))
}

/// What a clock on the wall shows then. It knows of no zone: whoever names one says when that is.
fn on_the_wall(text: &str, now: &Zoned) -> Option<DateTime> {
    let day = match text {
        "today" => Some(now.date()),
        "yesterday" => now.date().yesterday().ok(),
        _ => None,
    };
    if let Some(day) = day {
        return Some(day.to_datetime(Time::midnight()));
    }
    let is_made_of = |others: &str| text.chars().all(|c| c.is_ascii_digit() || others.contains(c));
    // A bare number is nothing, and no hour of today either.
    if text.contains(':') && is_made_of(":.") {
        return Some(now.date().to_datetime(text.parse::<Time>().ok()?));
    }
    if text.contains('-') && is_made_of("-:. Tt") { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;

    /// Central Europe without a database of time zones.
    fn zone() -> TimeZone {
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a rule")
    }

    fn now(text: &str) -> Zoned {
        text.parse::<Timestamp>().expect("a time").to_zoned(zone())
    }

    fn parsed(text: &str) -> Result<String, String> {
        parse_at(text, &now("2026-11-28T18:30:00Z")).map(|moment| moment.to_string())
    }

    #[test]
    fn a_moment_can_be_written_in_many_ways() {
        for (text, meant) in [
            ("now", "2026-11-28T18:30:00Z"),
            ("2026-11-28T18:00:00Z", "2026-11-28T18:00:00Z"),
            ("2026-11-28t18:00:00.5z", "2026-11-28T18:00:00.5Z"),
            ("2026-11-28T18:00:00.000001Z", "2026-11-28T18:00:00.000001Z"),
            ("2026-11-28T18:00:00.123456789+05:30", "2026-11-28T12:30:00.123456789Z"),
            (" 2026-11-28 18:00:00Z ", "2026-11-28T18:00:00Z"),
            ("2026-11-28T18:00:00", "2026-11-28T17:00:00Z"),
            ("2026-11-28 18:00", "2026-11-28T17:00:00Z"),
            ("2026-11-28 18:00:30.5", "2026-11-28T17:00:30.5Z"),
            ("2026-07-28 18:00", "2026-07-28T16:00:00Z"),
            ("2026-11-28", "2026-11-27T23:00:00Z"),
            ("18:00", "2026-11-28T17:00:00Z"),
            ("18:00:30.25", "2026-11-28T17:00:30.25Z"),
            ("today", "2026-11-27T23:00:00Z"),
            ("yesterday", "2026-11-26T23:00:00Z"),
            ("10m", "2026-11-28T18:20:00Z"),
            ("2h", "2026-11-28T16:30:00Z"),
            ("1d", "2026-11-27T18:30:00Z"),
            ("1h 30m", "2026-11-28T17:00:00Z"),
            ("1h 30m ago", "2026-11-28T17:00:00Z"),
            ("90s", "2026-11-28T18:28:30Z"),
            ("0s", "2026-11-28T18:30:00Z"),
        ] {
            assert_eq!(parsed(text).as_deref(), Ok(meant), "{text}");
        }
    }

    #[test]
    fn what_is_no_moment_is_answered_with_what_is_one() {
        for text in [
            "",
            "soon",
            "ago",
            "10",
            "18",
            "-10m",
            "10 parsecs",
            "2026",
            "20261128",
            "2026-13-01",
            "2026-11-31",
            "25:00",
            "2026-11-24 25:00",
            "18:60",
            "18:",
            "18:00-05:00",
            "2026-11-28T18:00[Europe/Berlin]",
            "2026-11-28T18:00:00Zulu",
            "99999999999d",
            "1 000 000y",
        ] {
            let error = parsed(text).expect_err(text);
            assert!(error.contains("write it like 10m, 2h, 1d"), "{text}: {error}");
        }
    }

    #[test]
    fn clocks_that_are_changed_lead_nobody_astray() {
        // Twice there: the first, so that a `since` loses nothing.
        assert_eq!(parsed("2026-10-25 02:30").as_deref(), Ok("2026-10-25T00:30:00Z"));
        // Not there at all: as if the clock had not been changed yet.
        assert_eq!(parsed("2026-03-29 02:30").as_deref(), Ok("2026-03-29T01:30:00Z"));
        // Hours ago are hours, whatever the clock shows.
        let ago = parse_at("24h", &now("2026-10-25T12:00:00Z")).expect("a time");
        assert_eq!(ago.to_string(), "2026-10-24T12:00:00Z");
    }

    #[test]
    fn the_past_does_not_lie_in_the_future() {
        let past = |text| past_at(text, &now("2026-11-28T18:30:00Z"));
        assert!(past("2026-11-28T18:30:00Z").is_ok() && past("now").is_ok() && past("19:30").is_ok());
        let error = past("2026-11-28T18:30:01Z").expect_err("a second too late");
        assert_eq!(error, "2026-11-28T18:30:01Z is in the future: it is 2026-11-28T18:30:00Z now");
        assert!(past("19:31").expect_err("later today").contains("in the future"));
        assert!(past("soon").expect_err("no time").contains("write it like"));
    }
}
