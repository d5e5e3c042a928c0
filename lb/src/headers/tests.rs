//! Fields, before and behind.

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
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    for host in ["", "a", "a:", "a:65535", "[::1]", "[::1]:80", "1.2.3.4:8", "a_b-c.%41:0"] {
        assert!(is_host(host.as_bytes()), "{host}");
    }
    for host in
        ["a:65536", "a:+8", "a:b", "a:1:2", "::1", "[::1", "[]", "[::1]x", "[g]", "a]", "\u{e9}"]
    {
        assert!(!is_host(host.as_bytes()), "{host}");
    }
    for uri in ["http://:80/", "http://:80"] {
        assert_eq!(prepared(uri, Version::HTTP_11, &[("host", "a")]), "bad_request");
    }
}

#[test]
fn bytes_that_are_no_text_hide_nothing() {
    let mut headers = HeaderMap::new();
    let list = HeaderValue::from_bytes(b"close, x-one, \xff").unwrap();
    headers.insert(header::CONNECTION, list);
    headers.insert("x-one", HeaderValue::from_static("1"));
    prepare_response(&mut headers);
    assert!(headers.is_empty(), "{headers:?}");
    assert!(lists(&HeaderValue::from_bytes(b"h2c, \xff").unwrap(), "h2c"));
}

#[test]
fn what_says_how_to_read_a_message_may_not_trail() {
    let mut trailers = HeaderMap::new();
    for name in ["x-lb-reason", "keep-alive", "set-cookie", "content-length", "grpc-status"] {
        trailers.insert(name, HeaderValue::from_static("1"));
    }
    filter_trailers(&mut trailers);
    assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
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
fn a_client_does_not_say_where_it_comes_from() {
    let claims = ["x-forwarded-host", "x_forwarded_for", "x-forwarded_proto"];
    let mut request = Request::builder().uri("/").version(Version::HTTP_10);
    for claim in claims.into_iter().chain(["forwarded", "x-real-ip", "x-forwarded-port"]) {
        request = request.header(claim, "evil");
    }
    let (mut head, ()) = request.body(()).unwrap().into_parts();
    let mut trusted = head.clone();
    prepare_request(&mut head, untrusted()).unwrap();
    let mut left: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    left.sort();
    let expected =
        ["forwarded", "x-forwarded-for", "x-forwarded-port", "x-forwarded-proto", "x-real-ip"];
    assert_eq!(left, expected);
    prepare_request(&mut trusted, Origin { trusted: true, ..untrusted() }).unwrap();
    let believed = claims.map(|claim| trusted.headers.contains_key(claim));
    assert_eq!(believed, [true, false, false]);
}

#[test]
fn a_trusted_proxy_is_believed_and_appended() {
    let request = Request::builder()
        .uri("/")
        .header("host", "h:1")
        .header("x-forwarded-for", "203.0.113.9, 203.0.113.8")
        .header("x-forwarded-for", "")
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
