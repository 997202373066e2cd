//! Who is let in, to what. Pure.
//!
//! - The token in the path: whoever has not seen the URL, another user or a page of a stranger, has nothing.
//! - The host: a name of a stranger that leads here (DNS rebinding) is none of ours.
//! - The origin: where a browser names one, it is ours.
//! - `GET` and nothing else.

use hyper::header::HeaderMap;
use hyper::{Method, Request, StatusCode};
use subtle::ConstantTimeEq as _;

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The page.
    Page,
    /// Its style.
    Style,
    /// Its script.
    Script,
    /// What changes, with the log's lines behind this number.
    Live {
        /// 0 means: all that are kept.
        after: u64,
    },
    /// The page, whose URL ends with a slash.
    Slash,
}

/// Why somebody is not let in: what a browser is told.
pub type Refused = (StatusCode, &'static str);

/// See the module. It has the token, and is printed nowhere.
pub struct Door {
    token: String,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Door {
    /// For what listens on this port.
    pub fn new(port: u16, token: String) -> Self {
        let names = ["127.0.0.1", "localhost"];
        let mut hosts: Vec<String> = names.iter().map(|name| format!("{name}:{port}")).collect();
        if port == 80 {
            // Browsers leave it out.
            hosts.extend(names.map(str::to_owned));
        }
        let origins = hosts.iter().map(|host| format!("http://{host}")).collect();
        Self { token, hosts, origins }
    }

    /// What a request may have.
    pub fn admit<B>(&self, request: &Request<B>) -> Result<Wanted, Refused> {
        let headers = request.headers();
        let is_ours = |host: &str| self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host));
        let named = request.uri().authority();
        if !only(headers, "host").is_some_and(is_ours) || named.is_some_and(|named| !is_ours(named.as_str()))
        {
            return Err((StatusCode::FORBIDDEN, "this host has another name"));
        }
        let is_origin = |origin: &str| self.origins.iter().any(|ours| ours.eq_ignore_ascii_case(origin));
        if headers.contains_key("origin") && !only(headers, "origin").is_some_and(is_origin) {
            return Err((StatusCode::FORBIDDEN, "no other page is let in"));
        }
        let path = request.uri().path();
        let (token, rest) = match path.strip_prefix('/').unwrap_or_default().split_once('/') {
            Some((token, rest)) => (token, Some(rest)),
            None => (path.trim_start_matches('/'), None),
        };
        if !bool::from(token.as_bytes().ct_eq(self.token.as_bytes())) {
            return Err((StatusCode::FORBIDDEN, "open the URL that k8sctl dashboard printed, all of it"));
        }
        if request.method() != Method::GET {
            return Err((StatusCode::METHOD_NOT_ALLOWED, "it only shows"));
        }
        match rest {
            Some("") => Ok(Wanted::Page),
            Some("page.css") => Ok(Wanted::Style),
            Some("page.js") => Ok(Wanted::Script),
            Some("live") => {
                // Sent by a browser that was interrupted: where it was.
                let after = only(headers, "last-event-id").and_then(|id| id.parse().ok()).unwrap_or(0);
                Ok(Wanted::Live { after })
            }
            None => Ok(Wanted::Slash),
            Some(_) => Err((StatusCode::NOT_FOUND, "there is nothing here")),
        }
    }
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn asked(method: &str, uri: &str, headers: &[(&str, &str)]) -> Result<Wanted, u16> {
        let request = Request::builder().method(method).uri(uri);
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let door = Door::new(4711, TOKEN.to_owned());
        door.admit(&request.body(()).expect("a request")).map_err(|(status, _)| status.as_u16())
    }

    fn get(path: &str) -> Result<Wanted, u16> {
        asked("GET", path, &[("host", "127.0.0.1:4711")])
    }

    #[test]
    fn whoever_has_the_url_is_let_in() {
        assert_eq!(get("/0123456789abcdef/"), Ok(Wanted::Page));
        assert_eq!(get("/0123456789abcdef/?x=1"), Ok(Wanted::Page));
        assert_eq!(get("/0123456789abcdef"), Ok(Wanted::Slash));
        assert_eq!(get("/0123456789abcdef/page.css"), Ok(Wanted::Style));
        assert_eq!(get("/0123456789abcdef/page.js"), Ok(Wanted::Script));
        assert_eq!(get("/0123456789abcdef/live"), Ok(Wanted::Live { after: 0 }));
        assert_eq!(get("/0123456789abcdef/../etc/passwd"), Err(404));
        let again = [("host", "localhost:4711"), ("last-event-id", "17")];
        assert_eq!(asked("GET", "/0123456789abcdef/live", &again), Ok(Wanted::Live { after: 17 }));
        let odd = [("host", "LOCALHOST:4711"), ("last-event-id", "-1")];
        assert_eq!(asked("GET", "/0123456789abcdef/live", &odd), Ok(Wanted::Live { after: 0 }));
    }

    #[test]
    fn without_the_token_there_is_nothing() {
        for path in [
            "/",
            "/live",
            "/favicon.ico",
            "//",
            "/0123456789abcde/",
            "/0123456789abcdef0/",
            "/0123456789abcdeF/live",
            "//0123456789abcdef/",
            "/?0123456789abcdef/",
            "/x/0123456789abcdef/",
        ] {
            assert_eq!(get(path), Err(403), "{path}");
        }
    }

    #[test]
    fn a_strangers_name_for_this_host_is_none() {
        let path = "/0123456789abcdef/";
        let with_host = |host: &str| asked("GET", path, &[("host", host)]);
        for host in [
            "evil.example",
            "evil.example:4711",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.1.evil.example:4711",
            "",
            "[::1]:4711",
        ] {
            assert_eq!(with_host(host), Err(403), "{host}");
        }
        assert_eq!(asked("GET", path, &[]), Err(403), "none");
        let twice = [("host", "127.0.0.1:4711"), ("host", "evil.example")];
        assert_eq!(asked("GET", path, &twice), Err(403), "two");
        let absolute = asked("GET", "http://evil.example/0123456789abcdef/", &[("host", "127.0.0.1:4711")]);
        assert_eq!(absolute, Err(403));
        // The port that browsers leave out.
        let door = Door::new(80, TOKEN.to_owned());
        let request = Request::builder().uri(path).header("host", "localhost").body(()).expect("a request");
        assert_eq!(door.admit(&request), Ok(Wanted::Page));
    }

    #[test]
    fn another_page_or_another_method_gets_nothing() {
        let path = "/0123456789abcdef/live";
        let from = |origin| asked("GET", path, &[("host", "127.0.0.1:4711"), ("origin", origin)]);
        assert_eq!(from("http://127.0.0.1:4711"), Ok(Wanted::Live { after: 0 }));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:4712", "https://127.0.0.1:4711"] {
            assert_eq!(from(origin), Err(403), "{origin}");
        }
        for method in ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT"] {
            assert_eq!(asked(method, path, &[("host", "127.0.0.1:4711")]), Err(405), "{method}");
        }
    }
}
