//! May this URL be asked at all? Pure. A URL is judged as it is sent: with its dots resolved.

use reqwest::Url;

/// A URL that may be asked; the error is a reason.
pub(super) fn allowed(url: &str, may_fetch: &(dyn Fn(&str) -> bool + Sync)) -> Result<Url, String> {
    let parsed = Url::parse(url).map_err(|error| format!("{url:?} is no URL: {error}"))?;
    judge(parsed, may_fetch)
}

/// Where a redirect leads to.
pub(super) fn redirected(
    from: &Url,
    location: &str,
    may_fetch: &(dyn Fn(&str) -> bool + Sync),
) -> Result<Url, String> {
    let to = from.join(location).map_err(|error| format!("{from} leads to {location:?}: {error}"))?;
    judge(to, may_fetch).map_err(|why| format!("{from} leads elsewhere: {why}"))
}

fn judge(url: Url, may_fetch: &(dyn Fn(&str) -> bool + Sync)) -> Result<Url, String> {
    if url.scheme() != "https" {
        return Err(format!("{url} is {}, expected https", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("the URL of {} names a user", url.host_str().unwrap_or_default()));
    }
    if url.fragment().is_some() {
        return Err(format!("{url} has a fragment"));
    }
    if !may_fetch(url.as_str()) {
        return Err(format!("{url} is below no prefix that plugin.toml declares"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn below(url: &str) -> bool {
        url.starts_with("https://example.org/project/")
    }

    #[test]
    fn only_https_below_a_prefix_may_be_asked() {
        assert!(allowed("https://example.org/project/v1/all.yaml", &below).is_ok());
        for (url, why) in [
            ("http://example.org/project/all.yaml", "expected https"),
            ("file:///etc/passwd", "expected https"),
            ("https://user:word@example.org/project/all.yaml", "names a user"),
            ("https://example.org/project/all.yaml#part", "fragment"),
            ("https://example.org/other/all.yaml", "no prefix"),
            ("https://example.org/project/../other/all.yaml", "no prefix"),
            ("https://example.org/project/%2e%2e/other/all.yaml", "no prefix"),
            ("https://example.org.evil.example/project/all.yaml", "no prefix"),
            ("project/all.yaml", "no URL"),
        ] {
            let said = allowed(url, &below).expect_err(url);
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[test]
    fn a_redirect_may_lead_to_another_file_of_the_same_place_and_nowhere_else() {
        let from = allowed("https://example.org/project/latest/all.yaml", &below).expect("it may");
        let to = redirected(&from, "../v1/all.yaml", &below).expect("it may");
        assert_eq!(to.as_str(), "https://example.org/project/v1/all.yaml");
        for location in
            ["/other/all.yaml", "https://evil.example/project/all.yaml", "http://example.org/project/a"]
        {
            let said = redirected(&from, location, &below).expect_err(location);
            assert!(said.contains("leads elsewhere"), "{said}");
        }
    }
}
