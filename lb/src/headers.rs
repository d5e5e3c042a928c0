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
    remove_claims(&mut head.headers, origin.trusted);
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

/// Removes what a client says about where it comes from. A trusted proxy speaks in the
/// fields' own names: with `_` for `-` it is a client that speaks through it.
fn remove_claims(headers: &mut HeaderMap, trusted: bool) {
    let is_false = |name: &&HeaderName| is_claim(name) && (!trusted || name.as_str().contains('_'));
    let claims: Vec<HeaderName> = headers.keys().filter(is_false).cloned().collect();
    for claim in claims {
        headers.remove(claim);
    }
}

/// Whether a field is one of those that `lb` says itself. Servers that hand fields to
/// programs as variables take `_` and `-` for the same (RFC 3875 §4.1.18).
fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str().as_bytes();
    let same = |own: &HeaderName| {
        let pairs = || name.iter().zip(own.as_str().as_bytes());
        let alike = |(byte, own): (&u8, &u8)| byte == own || *byte == b'_' && *own == b'-';
        name.len() == own.as_str().len() && pairs().all(alike)
    };
    name.first() == Some(&b'x')
        && (same(&FORWARDED_FOR) || same(&FORWARDED_PROTO) || same(&FORWARDED_HOST))
}

/// Says who asks. A trusted proxy's word stands, and its address is appended.
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
    for before in headers.get_all(&FORWARDED_FOR).iter().filter(|before| !before.is_empty()) {
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
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter().flat_map(items);
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

/// Whether `text` is a host and perhaps a port (RFC 3986 §3.2.2), without the
/// characters that would mean something else to another parser. Empty is for who has
/// no name to give (RFC 9112 §3.2).
fn is_host(text: &[u8]) -> bool {
    let (host_is_good, rest) = match text.strip_prefix(b"[") {
        Some(literal) => {
            let Some(end) = literal.iter().position(|b| *b == b']') else { return false };
            let allowed = |b: &u8| b.is_ascii_hexdigit() || b":.".contains(b);
            (end > 0 && literal[..end].iter().all(allowed), &literal[end + 1..])
        }
        None => {
            let end = text.iter().position(|b| *b == b':').unwrap_or(text.len());
            let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(b);
            (text[..end].iter().all(allowed), &text[end..])
        }
    };
    host_is_good && (rest.is_empty() || rest[0] == b':' && is_port(&rest[1..]))
}

/// Nothing, or a number that can be a port (RFC 3986 §3.2.3).
fn is_port(text: &[u8]) -> bool {
    let number = || std::str::from_utf8(text).ok()?.parse::<u16>().ok();
    text.is_empty() || text.iter().all(u8::is_ascii_digit) && number().is_some()
}

/// Rewrites an absolute-form target; its authority replaces `Host` (RFC 9112
/// §3.2.2). A target that is an authority alone is CONNECT's (§3.2.3).
fn to_origin_form(head: &mut request::Parts) -> Result<(), Reason> {
    let Some(authority) = head.uri.authority() else { return Ok(()) };
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Reason::BadRequest)?;
    let http =
        head.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
    // "A recipient MUST reject it" without a host (RFC 9110 §4.2.1).
    if !http || authority.host().is_empty() || !is_host(host.as_bytes()) {
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
        .flat_map(items)
        .filter_map(|name| HeaderName::from_bytes(name).ok())
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
    items(value).any(|item| {
        let name = item.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(token.as_bytes())
    })
}

/// The items of a list (RFC 9110 §5.6.1), whatever bytes are among them.
fn items(value: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Removes the fields that may not stand behind a body.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    let others: Vec<HeaderName> =
        trailers.keys().filter(|name| !may_trail(name)).cloned().collect();
    for other in others {
        trailers.remove(other);
    }
}

/// Whether a field may stand behind the body: none that says how to read or
/// route the message, who sent it or what it may (RFC 9110 §6.5.1). Whoever gets it
/// may merge trailers into the head, where such a field has been checked.
pub fn may_trail(name: &HeaderName) -> bool {
    const PREFIXES: [&str; 6] = ["content-", "x-forwarded", "proxy-", "if-", "x-lb-", "http2-"];
    let forbidden = [
        header::TRANSFER_ENCODING,
        header::HOST,
        header::CONNECTION,
        header::TRAILER,
        header::TE,
        header::UPGRADE,
        header::AUTHORIZATION,
        header::WWW_AUTHENTICATE,
        header::COOKIE,
        header::SET_COOKIE,
        header::EXPECT,
        header::RANGE,
        header::CACHE_CONTROL,
        header::MAX_FORWARDS,
        header::FORWARDED,
        header::LOCATION,
        header::DATE,
        header::AGE,
        header::EXPIRES,
        header::VARY,
        header::RETRY_AFTER,
    ];
    let text = name.as_str();
    !forbidden.contains(name)
        && !is_claim(name)
        && !PREFIXES.iter().any(|prefix| text.starts_with(prefix))
        && !matches!(text, "keep-alive" | "x-request-id" | "x-real-ip")
}

/// Whether executing the request twice is the same as once (RFC 9110 §9.2.2).
pub fn is_idempotent<B>(request: &Request<B>) -> bool {
    matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

#[cfg(test)]
mod tests;
