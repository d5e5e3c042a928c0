//! Who may ask the admin API for what.
//!
//! Owns the checks that come before any route: the name under which a client
//! asks (against DNS rebinding), the page that a browser asks for (against
//! forged requests), and the token.

use std::net::{IpAddr, SocketAddr};

use axum::http::{
    HeaderMap, Method, Request, StatusCode, header,
    uri::{Authority, Uri},
};

use super::{answer::Problem, token::Secret};
use crate::metrics::Refusal;

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entrance {
    /// At this address.
    Tcp(SocketAddr),
    /// At the Unix socket, which no web page can reach.
    Unix,
}

/// The rules of one run.
#[derive(Debug)]
pub(super) struct Guard {
    /// The address that is listened on.
    pub(super) bound: Option<IpAddr>,
    /// Names under which clients may ask, in lower case.
    pub(super) hosts: Vec<String>,
    /// What they have to show.
    pub(super) token: Secret,
}

impl Guard {
    /// Whether a request may pass on to its route; why not, and the answer.
    pub(super) fn check<B>(
        &self,
        request: &Request<B>,
        entrance: Entrance,
    ) -> Result<(), (Refusal, Problem)> {
        let host = host(request.uri(), request.headers());
        let page = |problem| (Refusal::Page, problem);
        if let Entrance::Tcp(local) = entrance {
            let named = self.check_host(host.as_ref(), local.ip());
            named.map_err(|problem| (Refusal::Host, problem))?;
        }
        check_origin(request.headers(), host.as_ref()).map_err(page)?;
        check_site(request).map_err(page)?;
        self.check_token(request, entrance)
    }

    fn check_host(&self, host: Option<&Authority>, local: IpAddr) -> Result<(), Problem> {
        const EXPECTED: &str =
            "localhost, an address of loopback, the bound address, or a name given by --api-host";
        let Some(host) = host else {
            let error = Problem::new(StatusCode::BAD_REQUEST, "the Host field is missing or wrong");
            return Err(error.in_field("Host", None, EXPECTED));
        };
        let name = host.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        // A socket of both families has the addresses of IPv4 in those of IPv6.
        let bound = self.bound.map(|bound| bound.to_canonical());
        let known = match name.parse::<IpAddr>().map(|address| address.to_canonical()) {
            Ok(address) => {
                address.is_loopback() || address == local.to_canonical() || bound == Some(address)
            }
            Err(_) => name == "localhost",
        };
        if known || self.hosts.contains(&name) {
            return Ok(());
        }
        let sentence = format!("Host {name}: not a name of this admin API; see --api-host");
        let error = Problem::new(StatusCode::FORBIDDEN, sentence);
        Err(error.in_field("Host", Some(host.as_str().into()), EXPECTED))
    }

    fn check_token<B>(
        &self,
        request: &Request<B>,
        entrance: Entrance,
    ) -> Result<(), (Refusal, Problem)> {
        // Where the socket is bound counts, not where the client is: a proxy
        // on this machine would make all of them local.
        let loopback = match entrance {
            Entrance::Tcp(_) => self.bound.is_some_and(|address| address.is_loopback()),
            Entrance::Unix => true,
        };
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let public = matches!(request.uri().path(), "/" | "/health");
        if reads && (loopback || public) {
            return Ok(());
        }
        let Some(token) = self.token.current() else { return Ok(()) };
        let shown = request.headers().get(header::AUTHORIZATION);
        if shown.is_some_and(|shown| token.is_shown_by(shown.as_bytes())) {
            return Ok(());
        }
        let (refusal, sentence) = match shown {
            None => (Refusal::NoToken, "a token is required: Authorization: Bearer TOKEN"),
            Some(_) => (Refusal::WrongToken, "the token is wrong"),
        };
        let error = Problem::new(StatusCode::UNAUTHORIZED, sentence);
        Err((refusal, error.in_field("Authorization", None, "Bearer TOKEN")))
    }
}

/// The name under which the client asks: that of an absolute target, else the
/// one `Host` field (RFC 9112 §3.2.2).
fn host(uri: &Uri, headers: &HeaderMap) -> Option<Authority> {
    let authority = match uri.authority() {
        Some(authority) => authority.clone(),
        None => {
            let mut fields = headers.get_all(header::HOST).into_iter();
            let only = fields.next().filter(|_| fields.next().is_none())?;
            only.to_str().ok()?.parse().ok()?
        }
    };
    let plain = !authority.as_str().contains('@') && !authority.host().is_empty();
    plain.then_some(authority)
}

/// A browser says which page asks; it must be one of ours.
fn check_origin(headers: &HeaderMap, host: Option<&Authority>) -> Result<(), Problem> {
    for origin in headers.get_all(header::ORIGIN) {
        let text = String::from_utf8_lossy(origin.as_bytes());
        let authority = text.split_once("://").map(|(_, authority)| authority);
        let same =
            |host: &Authority| authority.is_some_and(|a| a.eq_ignore_ascii_case(host.as_str()));
        if !host.is_some_and(same) {
            let sentence = format!("Origin {text}: pages of others may not use the admin API");
            let error = Problem::new(StatusCode::FORBIDDEN, sentence);
            return Err(error.in_field("Origin", Some(text.into()), "the host that is asked"));
        }
    }
    Ok(())
}

/// What a page of others fetches, frames or shows is refused too where that
/// carries no `Origin` (W3C Fetch Metadata Request Headers, `Sec-Fetch-Site` and
/// `Sec-Fetch-Mode`). They may link to the status page. Only browsers send this,
/// and only to loopback or over TLS; elsewhere the token keeps such pages out.
fn check_site<B>(request: &Request<B>) -> Result<(), Problem> {
    const EXPECTED: &str = "same-origin or none";
    let headers = request.headers();
    let navigates = headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    if navigates && request.uri().path() == "/" {
        return Ok(());
    }
    for site in headers.get_all("sec-fetch-site") {
        if site != "same-origin" && site != "none" {
            let text = String::from_utf8_lossy(site.as_bytes());
            let sentence =
                format!("Sec-Fetch-Site {text}: pages of others may not use the admin API");
            let error = Problem::new(StatusCode::FORBIDDEN, sentence);
            return Err(error.in_field("Sec-Fetch-Site", Some(text.into()), EXPECTED));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a guard of `bound`; the status of its answer, 200 if it lets pass.
    fn ask(bound: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let guard = Guard {
            bound: bound.parse().ok(),
            hosts: vec!["lb.example".into()],
            token: Secret::default(),
        };
        let local = match bound {
            "0.0.0.0" => "192.0.2.1",
            "::" => "::ffff:192.0.2.1",
            bound => bound,
        };
        let entrance = match local.parse() {
            Ok(ip) => Entrance::Tcp(SocketAddr::new(ip, 8000)),
            Err(_) => Entrance::Unix,
        };
        let mut request = Request::get(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let checked = guard.check(&request.body(()).unwrap(), entrance);
        checked.map_or_else(|(_, problem)| problem.status().as_u16(), |()| 200)
    }

    #[track_caller]
    fn check(bound: &str, host: &str, expected: u16) {
        assert_eq!(ask(bound, "/", &[("host", host)]), expected, "{host} at {bound}");
    }

    #[test]
    fn hosts() {
        for good in ["localhost", "LocalHost:8000", "127.0.0.1", "127.9.9.9:1", "[::1]:8000"] {
            check("127.0.0.1", good, 200);
        }
        check("127.0.0.1", "LB.example:8000", 200);
        check("192.0.2.7", "192.0.2.7:8000", 200);
        check("0.0.0.0", "192.0.2.1", 200);
        for bad in ["evil.example", "localhost.evil.example", "192.0.2.7", "0.0.0.0", "localhost."]
        {
            check("127.0.0.1", bad, 403);
        }
        check("0.0.0.0", "192.0.2.2", 403);
        for same in ["192.0.2.1", "[::ffff:192.0.2.1]", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            check("::", same, 200);
        }
        check("::ffff:192.0.2.1", "192.0.2.1", 200);
        check("::", "192.0.2.2", 403);
        for broken in ["", "me@localhost", "a b"] {
            check("127.0.0.1", broken, 400);
        }
        assert_eq!(ask("127.0.0.1", "/", &[]), 400);
        assert_eq!(ask("127.0.0.1", "/", &[("host", "localhost"), ("host", "localhost")]), 400);
        assert_eq!(ask("127.0.0.1", "http://evil.example/", &[("host", "localhost")]), 403);
        check("unix", "anything", 200);
    }

    #[test]
    fn origins() {
        let origin =
            |origin| ask("127.0.0.1", "/", &[("host", "localhost:8000"), ("origin", origin)]);
        assert_eq!(origin("http://localhost:8000"), 200);
        assert_eq!(origin("https://LOCALHOST:8000"), 200);
        for bad in ["null", "", "http://localhost", "http://127.0.0.1:8000", "http://evil.example"]
        {
            assert_eq!(origin(bad), 403, "{bad}");
        }
        assert_eq!(ask("unix", "/", &[("origin", "http://evil.example")]), 403);
    }

    #[test]
    fn sites() {
        let site = |target, site, mode| {
            let fields =
                [("host", "localhost"), ("sec-fetch-site", site), ("sec-fetch-mode", mode)];
            ask("127.0.0.1", target, &fields)
        };
        for own in ["same-origin", "none"] {
            assert_eq!(site("/live", own, "cors"), 200, "{own}");
        }
        for other in ["cross-site", "same-site", "", "None"] {
            for mode in ["no-cors", "navigate", "cors", ""] {
                assert_eq!(site("/live", other, mode), 403, "{other} {mode}");
            }
            assert_eq!(site("/", other, "no-cors"), 403, "{other}");
            assert_eq!(site("/?a", other, "navigate"), 200, "{other}");
        }
        let twice = [("host", "localhost"), ("sec-fetch-site", "none"), ("sec-fetch-site", "x")];
        assert_eq!(ask("127.0.0.1", "/live", &twice), 403);
        assert_eq!(ask("unix", "/live", &[("sec-fetch-site", "cross-site")]), 403);
    }
}
