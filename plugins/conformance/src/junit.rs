//! Results as a CI system reads them. Pure.

use std::fmt::Write as _;

use crate::CheckResult;

/// A test suite with a case per check.
pub fn junit(plugin: &str, results: &[CheckResult]) -> String {
    let failed = results.iter().filter(|result| !result.passed).count();
    let seconds: f64 = results.iter().map(|result| result.took.as_secs_f64()).sum();
    let plugin = escaped(plugin);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"plugin {plugin}\" tests=\"{}\" failures=\"{failed}\" time=\"{seconds:.3}\">\n",
        results.len()
    );
    for CheckResult { number, name, passed, details, took } in results {
        let seconds = took.as_secs_f64();
        // Writing into a text cannot fail.
        let _ = write!(
            text,
            "  <testcase classname=\"{plugin}\" name=\"{number} {}\" time=\"{seconds:.3}\"",
            escaped(name)
        );
        if *passed {
            text.push_str("/>\n");
            continue;
        }
        let first = details.first().map(|line| escaped(line)).unwrap_or_default();
        let all = escaped(&details.join("\n"));
        let _ = write!(text, ">\n    <failure message=\"{first}\">{all}</failure>\n  </testcase>\n");
    }
    text.push_str("</testsuite>\n");
    text
}

fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            // XML has no way to write these.
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn result(number: u8, name: &'static str, details: &[&str]) -> CheckResult {
        let details: Vec<String> = details.iter().map(|&line| line.to_owned()).collect();
        CheckResult { number, name, passed: details.is_empty(), details, took: Duration::from_millis(1500) }
    }

    #[test]
    fn failures_are_counted_and_what_they_say_is_escaped() {
        let results = [result(1, "versions", &[]), result(2, "manifest", &["<a> & \"b\"\u{1b}", "more"])];
        let text = junit("metallb", &results);
        assert!(text.contains("tests=\"2\" failures=\"1\" time=\"3.000\""), "{text}");
        assert!(text.contains("name=\"1 versions\" time=\"1.500\"/>"), "{text}");
        assert!(text.contains("message=\"&lt;a&gt; &amp; &quot;b&quot;\u{fffd}\""), "{text}");
        assert!(text.contains("more</failure>") && text.ends_with("</testsuite>\n"), "{text}");
    }
}
