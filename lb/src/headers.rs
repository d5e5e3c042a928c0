//! The rules for fields: what is checked, removed and added on the way.
//!
//! Owns RFC 9110 §7.6.1 (fields that belong to one connection) for both
//! directions, the `Host` rules (RFC 9112 §3.2) and the forwarded fields.
//! Never looks at bodies.

use std::time::Duration;

use hyper::{
    HeaderMap, Method, Request, Uri, Version,
    header::{self, Entry, HeaderName, HeaderValue},
    http::{request, uri::Scheme},
};

use crate::error::Reason;

static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
static HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Why `lb` answers a request itself.
pub static REASON: HeaderName = HeaderName::from_static("x-lb-reason");
/// What a request is called on its way through several programs.
pub static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Checks a client's request and turns its head into what goes to a server.
///
/// The target is in origin form afterwards, `Host` is present if the client
/// named one, fields of the client's connection are gone, and the forwarded
/// fields say where it comes from.
///
/// # Errors
/// The request is one that `lb` answers itself.
pub fn prepare_request(head: &mut request::Parts, origin: Origin<'_>) -> Result<(), Reason> {
    if matches!(head.method, Method::TRACE | Method::CONNECT) {
        return Err(Reason::MethodNotAllowed);
    }
    check_host(head)?;
    if head.uri.path() == "*" && head.method != Method::OPTIONS {
        return Err(Reason::BadRequest);
    }
    to_origin_form(head)?;
    if has_connection_field(&head.headers) {
        check_transfer_coding(&head.headers)?;
        remove_connection_fields(&mut head.headers);
    }
    add_forwarded_fields(&mut head.headers, origin);
    head.version = Version::HTTP_11;
    Ok(())
}

/// The protocols that a client offers to switch to (RFC 9110 §7.8).
pub fn upgrade_offer(head: &request::Parts) -> Option<HeaderValue> {
    if !has_connection_field(&head.headers) {
        return None;
    }
    let protocols = head.headers.get(header::UPGRADE)?;
    let mut options = head.headers.get_all(header::CONNECTION).iter();
    let offered = head.version == Version::HTTP_11 && options.any(|value| lists(value, "upgrade"));
    // HTTP/2 would carry requests past every rule.
    let http2 = head.headers.get_all(header::UPGRADE).iter().any(|value| lists(value, "h2c"));
    (offered && !http2).then(|| protocols.clone())
}

/// Says who asks. What an untrusted client says about that is replaced; a
/// trusted proxy's word stands, and its address is appended.
fn add_forwarded_fields(headers: &mut HeaderMap, origin: Origin<'_>) {
    let http = HeaderValue::from_static("http");
    if !origin.trusted {
        if let Some(host) = headers.get(header::HOST).cloned() {
            headers.insert(&FORWARDED_HOST, host);
        }
        headers.insert(&FORWARDED_FOR, origin.address.clone());
        headers.insert(&FORWARDED_PROTO, http);
        return;
    }
    let mut path: Vec<u8> = Vec::new();
    for before in headers.get_all(&FORWARDED_FOR) {
        path.extend_from_slice(before.as_bytes());
        path.extend_from_slice(b", ");
    }
    path.extend_from_slice(origin.address.as_bytes());
    // What was made of valid values is one.
    let path = HeaderValue::from_bytes(&path).unwrap_or_else(|_| origin.address.clone());
    headers.insert(&FORWARDED_FOR, path);
    headers.entry(&FORWARDED_PROTO).or_insert(http);
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(&FORWARDED_HOST).or_insert(host);
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The peer's IP address.
    pub address: &'a HeaderValue,
    /// Whether the peer is a proxy whose forwarded fields are believed.
    pub trusted: bool,
}

/// One `Host`, and only HTTP/1.0 may do without (RFC 9112 §3.2).
fn check_host(head: &request::Parts) -> Result<(), Reason> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host.as_bytes()) => Ok(()),
        (None, _) if head.version == Version::HTTP_10 => Ok(()),
        _ => Err(Reason::BadRequest),
    }
}

/// `chunked`, once, is the only coding that can be forwarded as it is: it is
/// undone and done again (RFC 9112 §6.1). Another would be lost on the way.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), Reason> {
    let mut codings = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    match (codings.next(), codings.next()) {
        (None, _) => Ok(()),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Ok(()),
        (Some(coding), Some(next))
            if coding.eq_ignore_ascii_case(b"chunked") && next.eq_ignore_ascii_case(b"chunked") =>
        {
            Err(Reason::BadRequest)
        }
        _ => Err(Reason::UnknownTransferCoding),
    }
}

/// Whether `text` can be a host and a port: none of the characters that would
/// mean something else to another parser.
fn is_host(text: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b);
    text.iter().all(allowed)
}

/// Rewrites an absolute-form target; its authority replaces `Host` (RFC 9112
/// §3.2.2). A target that is an authority alone is CONNECT's (§3.2.3).
fn to_origin_form(head: &mut request::Parts) -> Result<(), Reason> {
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadRequest)?;
    let http =
        head.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    if !http || !is_host(host.as_bytes()) {
        return Err(Reason::BadRequest);
    }
    head.headers.insert(header::HOST, host);
    head.uri = match head.uri.path_and_query() {
        Some(path) if path.as_str().starts_with('/') => Uri::from(path.clone()),
        // A query alone; written as text it gets its slash.
        Some(path) => path.to_string().parse().map_err(|_| Reason::BadRequest)?,
        None => Uri::from_static("/"),
    };
    Ok(())
}

/// Makes the head of a server's answer fit to be relayed. Returns how long the
/// connection may be kept, if the server says so.
pub fn prepare_response(headers: &mut HeaderMap) -> Option<Duration> {
    if !has_connection_field(headers) {
        return None;
    }
    // A length beside a coding is not the body's (RFC 9112 §6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    let kept = headers.get(&KEEP_ALIVE).and_then(idle_limit);
    remove_connection_fields(headers);
    kept
}

/// `Keep-Alive: timeout=5` (RFC 2068 §19.7.1.1), less one second in which the
/// server's close may be under way.
fn idle_limit(keep_alive: &HeaderValue) -> Option<Duration> {
    let text = keep_alive.to_str().ok()?;
    let seconds = text.split(',').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        let value = name.trim().eq_ignore_ascii_case("timeout").then_some(value)?;
        value.trim().trim_matches('"').parse::<u64>().ok()
    })?;
    Some(Duration::from_secs(seconds.saturating_sub(1)))
}

/// Removes the fields that concern one connection only, and all that
/// `Connection` names (RFC 9110 §7.6.1). `TE` keeps `trailers` alone.
fn remove_connection_fields(headers: &mut HeaderMap) {
    remove_named_by_connection(headers);
    // An expectation is met by hyper, once a server is connected and the body
    // is wanted.
    let own = [&header::CONNECTION, &header::TRANSFER_ENCODING, &header::UPGRADE, &header::EXPECT];
    for name in own {
        headers.remove(name);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(&HTTP2_SETTINGS);
    // Not of the connection, but `lb`'s own: nobody else speaks for it.
    headers.remove(&REASON);
    if let Entry::Occupied(mut te) = headers.entry(header::TE) {
        let trailers = te.iter().any(|value| lists(value, "trailers"));
        match trailers {
            true => drop(te.insert_mult(HeaderValue::from_static("trailers"))),
            false => drop(te.remove_entry_mult()),
        }
    }
}

/// Whether any field concerns one connection only. Most messages have none:
/// one look at each name, not one hash for each candidate.
fn has_connection_field(headers: &HeaderMap) -> bool {
    headers.keys().any(is_connection_field)
}

fn is_connection_field(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::EXPECT
        || *name == header::TRANSFER_ENCODING
        || *name == header::TE
        || *name == header::UPGRADE
        || *name == KEEP_ALIVE
        || *name == PROXY_CONNECTION
        || *name == REASON
        || *name == HTTP2_SETTINGS
}

fn remove_named_by_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        // Naming these would take the message itself apart (RFC 9110 §7.6.1).
        .filter(|name| {
            *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TE
        })
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn lists(value: &HeaderValue, token: &str) -> bool {
    let text = value.to_str().unwrap_or_default();
    text.split(',')
        .any(|part| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(token))
}

/// Whether executing the request twice is the same as once (RFC 9110 §9.2.2).
pub fn is_idempotent<B>(request: &Request<B>) -> bool {
    matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn untrusted() -> Origin<'static> {
        static ADDRESS: HeaderValue = HeaderValue::from_static("192.0.2.1");
        Origin { address: &ADDRESS, trusted: false }
    }

    /// Prepares a request of the given target, version and fields; returns
    /// target and fields as text, or the reason code.
    fn prepared(uri: &str, version: Version, fields: &[(&str, &str)]) -> String {
        let mut request = Request::builder().uri(uri).version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        if let Err(reason) = prepare_request(&mut head, untrusted()) {
            return reason.code().into();
        }
        let mut lines: Vec<String> = head
            .headers
            .iter()
            .filter(|(name, _)| !name.as_str().starts_with("x-forwarded"))
            .map(|(name, value)| format!("{name}:{}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        format!("{} {}", head.uri, lines.join(" "))
    }

    #[track_caller]
    fn check(fields: &[(&str, &str)], expected: &str) {
        assert_eq!(prepared("/p?q", Version::HTTP_11, fields), expected);
    }

    #[test]
    fn host_is_required_once() {
        check(&[("host", "a:1")], "/p?q host:a:1");
        check(&[], "bad_request");
        check(&[("host", "a"), ("host", "a")], "bad_request");
        check(&[("host", "a/b")], "bad_request");
        check(&[("host", "a@b")], "bad_request");
        assert_eq!(prepared("/", Version::HTTP_10, &[]), "/ ");
    }

    #[test]
    fn chunked_is_the_only_coding() {
        check(&[("host", "a"), ("transfer-encoding", "Chunked")], "/p?q host:a");
        let unknown = "unknown_transfer_coding";
        check(&[("host", "a"), ("transfer-encoding", "gzip, chunked")], unknown);
        check(&[("host", "a"), ("transfer-encoding", "chunked, gzip")], unknown);
        check(&[("host", "a"), ("transfer-encoding", "")], unknown);
        check(&[("host", "a"), ("transfer-encoding", "chunked,chunked")], "bad_request");
    }

    #[test]
    fn a_length_beside_a_coding_is_dropped() {
        let mut headers = HeaderMap::new();
        headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
        headers.insert("content-length", HeaderValue::from_static("3"));
        prepare_response(&mut headers);
        assert!(headers.is_empty());
    }

    #[test]
    fn absolute_form_replaces_host() {
        let got = prepared("http://a.example:81/p?q", Version::HTTP_11, &[("host", "b")]);
        assert_eq!(got, "/p?q host:a.example:81");
        assert_eq!(prepared("http://a", Version::HTTP_11, &[("host", "b")]), "/ host:a");
        assert_eq!(prepared("http://u@a/", Version::HTTP_11, &[("host", "b")]), "bad_request");
    }

    #[test]
    fn fields_of_the_connection_are_removed() {
        check(
            &[
                ("host", "a"),
                ("connection", "close, X-One ,x-two"),
                ("connection", "host"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("keep-alive", "5"),
                ("proxy-connection", "x"),
                ("upgrade", "h2c"),
                ("te", "gzip;q=1, trailers"),
            ],
            "/p?q host:a te:trailers x-three:3",
        );
        check(&[("host", "a"), ("te", "gzip")], "/p?q host:a");
    }

    #[test]
    fn forwarded_fields_are_replaced() {
        let request = Request::builder()
            .uri("/")
            .header("host", "h:1")
            .header("x-forwarded-for", "203.0.113.9")
            .header("x-forwarded-for", "203.0.113.8");
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        prepare_request(&mut head, untrusted()).unwrap();
        let all: Vec<_> = head.headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["192.0.2.1"]);
        assert_eq!(head.headers["x-forwarded-host"], "h:1");
        assert_eq!(head.headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_appended() {
        let request = Request::builder()
            .uri("/")
            .header("host", "h:1")
            .header("x-forwarded-for", "203.0.113.9, 203.0.113.8")
            .header("x-forwarded-for", "203.0.113.7")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "outside");
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        prepare_request(&mut head, Origin { trusted: true, ..untrusted() }).unwrap();
        let all: Vec<_> = head.headers.get_all("x-forwarded-for").iter().collect();
        assert_eq!(all, ["203.0.113.9, 203.0.113.8, 203.0.113.7, 192.0.2.1"]);
        assert_eq!(head.headers["x-forwarded-host"], "outside");
        assert_eq!(head.headers["x-forwarded-proto"], "https");
        let (mut head, ()) = Request::get("/").header("host", "h:1").body(()).unwrap().into_parts();
        prepare_request(&mut head, Origin { trusted: true, ..untrusted() }).unwrap();
        assert_eq!(head.headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(head.headers["x-forwarded-host"], "h:1");
        assert_eq!(head.headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn a_server_may_say_how_long_it_keeps_a_connection() {
        let kept = |value| {
            let mut headers = HeaderMap::new();
            headers.insert("keep-alive", HeaderValue::from_static(value));
            prepare_response(&mut headers).map(|kept| kept.as_secs())
        };
        assert_eq!(kept("timeout=5"), Some(4));
        assert_eq!(kept("max=100, Timeout = \"3\""), Some(2));
        assert_eq!(kept("timeout=0"), Some(0));
        assert_eq!(kept("max=100"), None);
        assert_eq!(kept("timeout=soon"), None);
    }

    #[test]
    fn trace_and_connect_are_not_forwarded() {
        for method in [Method::TRACE, Method::CONNECT] {
            let request = Request::builder().method(method).uri("/").header("host", "a");
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(prepare_request(&mut head, untrusted()), Err(Reason::MethodNotAllowed));
        }
    }
}
