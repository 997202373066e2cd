//! Moments as people write them: so long ago, a time of here, or a time with its zone.

use jiff::Zoned;
use jiff::civil::DateTime;

/// Of a command line. The error says how to write it.
pub fn parse(text: &str) -> Result<jiff::Timestamp, String> {
    parse_at(text, &Zoned::now())
}

fn parse_at(text: &str, now: &Zoned) -> Result<jiff::Timestamp, String> {
    let text = text.trim();
    let how = "write it like 10m, 2h, 1d, \"2026-11-24 10:00\" or 2026-11-24T10:00:00Z";
    if text == "now" {
        return Ok(now.timestamp());
    }
    if let Ok(ago) = humantime::parse_duration(text.strip_suffix(" ago").unwrap_or(text)) {
        return now.timestamp().checked_sub(ago).map_err(|_| format!("that is too long ago; {how}"));
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment);
    }
    let local: DateTime = text.parse().map_err(|_| format!("that is no time; {how}"))?;
    // Of an hour that comes twice the first, and of one that is left out the time behind it.
    let moment = local.to_zoned(now.time_zone().clone()).map_err(|error| format!("{error}; {how}"))?;
    Ok(moment.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-24 10:00 UTC, an hour later in the zone of the test.
    fn moment(text: &str) -> Result<String, String> {
        let now: Zoned = "2026-11-24T11:00:00+01:00[+01:00]".parse().expect("a time");
        parse_at(text, &now).map(|moment| moment.to_string())
    }

    #[test]
    fn moments_are_read_in_every_way() {
        for (text, expected) in [
            ("now", "2026-11-24T10:00:00Z"),
            ("10m", "2026-11-24T09:50:00Z"),
            ("2h", "2026-11-24T08:00:00Z"),
            ("1d", "2026-11-23T10:00:00Z"),
            ("1h 30m ago", "2026-11-24T08:30:00Z"),
            ("2026-11-24 10:00", "2026-11-24T09:00:00Z"),
            ("2026-11-24 10:00:30.5", "2026-11-24T09:00:30.5Z"),
            ("2026-11-24", "2026-11-23T23:00:00Z"),
            ("2026-11-24T10:00:00.000001Z", "2026-11-24T10:00:00.000001Z"),
            ("2026-11-24T10:00:00+02:00", "2026-11-24T08:00:00Z"),
        ] {
            assert_eq!(moment(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_none_is_told_with_what_is_one() {
        for text in ["", "soon", "10", "-5m", "2026-13-01", "2026-11-24 25:00", "99999999999y"] {
            let error = moment(text).expect_err(text);
            assert!(error.contains("write it like 10m"), "{text}: {error}");
        }
    }
}
