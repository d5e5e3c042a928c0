//! The head of a server's answer.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};
use httparse::ParserConfig;
use hyper::{
    HeaderMap, Method, Response, StatusCode, Version,
    ext::ReasonPhrase,
    header::{self, HeaderName, HeaderValue},
    http::response,
};

use super::{Incoming, WireError, chunked::Decoder};
use crate::framing::{head_end, leading_empty};

/// How many fields an answer may have.
pub(super) const FIELD_LIMIT: usize = 100;

/// An answer's head, and what it says of the rest.
pub(super) struct Answer {
    pub(super) head: response::Parts,
    pub(super) incoming: Incoming,
    /// Whether the server keeps the connection (RFC 9112 §9.3).
    pub(super) keep: bool,
}

/// Takes the answer to a request of this method from the beginning of
/// `ahead`; none if its head is not there in whole.
pub(super) fn parse(ahead: &mut BytesMut, method: &Method) -> Result<Option<Answer>, WireError> {
    ahead.advance(leading_empty(ahead));
    let Some(end) = head_end(ahead, 0) else {
        return match may_begin(ahead) {
            true => Ok(None),
            // Not awaited: who speaks another protocol may wait for us to speak.
            false => Err(WireError::Garbage("what comes is not HTTP/1")),
        };
    };
    let bytes = ahead.split_to(end).freeze();
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut parsed = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    let status = config.parse_response_with_uninit_headers(&mut parsed, &bytes, &mut fields);
    let (Ok(httparse::Status::Complete(_)), Some(code)) = (status, parsed.code) else {
        return Err(WireError::Garbage("the head cannot be parsed"));
    };
    let mut headers = collect(parsed.headers, &bytes)?;
    let minor = parsed.version;
    let status = StatusCode::from_u16(code)
        .map_err(|_| WireError::Garbage("the status is not between 100 and 999"))?;
    let incoming = incoming(&mut headers, status, method, minor == Some(0))?;
    let keep = keeps(&headers, minor == Some(0)) && !matches!(incoming, Incoming::UntilClose);
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = status;
    if let Some(phrase) = parsed.reason.filter(|phrase| status.canonical_reason() != Some(phrase))
        && let Ok(phrase) = ReasonPhrase::try_from(phrase.as_bytes())
    {
        head.extensions.insert(phrase);
    }
    head.version = if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    head.headers = headers;
    Ok(Some(Answer { head, incoming, keep }))
}

/// Whether this may become the beginning of a head (RFC 9112 §4).
fn may_begin(bytes: &[u8]) -> bool {
    // Half an empty line.
    bytes == b"\r" || bytes.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected)
}

/// Fields as a map whose values share `bytes`.
pub(super) fn collect(
    fields: &[httparse::Header<'_>],
    bytes: &Bytes,
) -> Result<HeaderMap, WireError> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(field.value));
        match (name, value) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => return Err(WireError::Garbage("a field cannot be parsed")),
        }
    }
    Ok(headers)
}

/// How the body is framed (RFC 9112 §6.3). Of equal lengths one is left, and none where
/// there is to be none (RFC 9110 §8.6).
fn incoming(
    headers: &mut HeaderMap,
    status: StatusCode,
    method: &Method,
    http10: bool,
) -> Result<Incoming, WireError> {
    let length = length(headers)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        headers.remove(header::CONTENT_LENGTH);
    }
    let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if *method == Method::HEAD || status.is_informational() || bodiless.contains(&status) {
        return Ok(Incoming::Over);
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        let chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        return match chunked && codings.next().is_none() && !http10 {
            true => Ok(Incoming::Chunked(Decoder::default())),
            // Passed on without its coding the body would be another.
            false => Err(WireError::Garbage("the transfer coding is not chunked")),
        };
    }
    Ok(match length {
        None => Incoming::UntilClose,
        Some(0) => Incoming::Over,
        Some(length) => Incoming::Length(length),
    })
}

/// The length that the head says, once.
fn length(headers: &mut HeaderMap) -> Result<Option<u64>, WireError> {
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return Ok(None) };
    let length = number(&first).ok_or(WireError::Garbage("the length is not a number"))?;
    let (others, equal) =
        lengths.fold((0, true), |(n, equal), other| (n + 1, equal && *other == first));
    if !equal {
        return Err(WireError::Garbage("two lengths that differ"));
    }
    if others > 0 {
        headers.insert(header::CONTENT_LENGTH, first);
    }
    Ok(Some(length))
}

/// Digits alone: no sign, no spaces.
fn number(value: &HeaderValue) -> Option<u64> {
    let text = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

fn keeps(headers: &HeaderMap, http10: bool) -> bool {
    let mut options = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
    match http10 {
        true => options.any(|option| option.eq_ignore_ascii_case(b"keep-alive")),
        false => !options.any(|option| option.eq_ignore_ascii_case(b"close")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an answer to GET says: status, how its body is framed, whether the
    /// connection is kept.
    fn said(text: &str) -> String {
        said_to(&Method::GET, text)
    }

    fn said_to(method: &Method, text: &str) -> String {
        let mut ahead = BytesMut::from(text);
        match parse(&mut ahead, method) {
            Ok(Some(answer)) => {
                let incoming = match answer.incoming {
                    Incoming::Length(length) => length.to_string(),
                    Incoming::Chunked(_) => "chunked".into(),
                    other => format!("{other:?}").to_lowercase(),
                };
                let keep = if answer.keep { "keep" } else { "close" };
                format!(
                    "{} {incoming} {keep} {:?}",
                    answer.head.status.as_u16(),
                    String::from_utf8_lossy(&ahead)
                )
            }
            Ok(None) => "more".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_answer_that_cannot_have_a_body_says_no_length() {
        for (status, kept) in [(204, false), (103, false), (200, true), (304, true)] {
            let text = format!("HTTP/1.1 {status} X\r\nContent-Length: 5\r\n\r\n");
            let answer = parse(&mut BytesMut::from(&text[..]), &Method::HEAD).unwrap().unwrap();
            assert_eq!(answer.head.headers.contains_key("content-length"), kept, "{status}");
        }
    }

    #[test]
    fn framing_follows_the_rules() {
        let ok = "HTTP/1.1 200 OK\r\n";
        assert_eq!(said(&format!("{ok}Content-Length: 5\r\n\r\nhello")), "200 5 keep \"hello\"");
        assert_eq!(said(&format!("{ok}Content-Length: 0\r\n\r\n")), "200 over keep \"\"");
        assert_eq!(said(&format!("{ok}\r\nx")), "200 untilclose close \"x\"");
        let chunked = "Transfer-Encoding: Chunked\r\n";
        assert_eq!(said(&format!("{ok}{chunked}\r\n")), "200 chunked keep \"\"");
        assert_eq!(
            said(&format!("{ok}{chunked}Content-Length: 5\r\n\r\n")),
            "200 chunked keep \"\""
        );
        assert_eq!(said("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n"), "204 over keep \"\"");
        assert_eq!(said("HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n"), "304 over keep \"\"");
        let length = format!("{ok}Content-Length: 5\r\n\r\n");
        assert_eq!(said_to(&Method::HEAD, &length), "200 over keep \"\"");
        assert_eq!(said("\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 1\n\nx"), "200 1 keep \"x\"");
    }

    #[test]
    fn connections_are_kept_as_the_server_says() {
        let length = "Content-Length: 1\r\n";
        assert_eq!(said(&format!("HTTP/1.0 200 OK\r\n{length}\r\n")), "200 1 close \"\"");
        let kept = format!("HTTP/1.0 200 OK\r\n{length}Connection: Keep-Alive\r\n\r\n");
        assert_eq!(said(&kept), "200 1 keep \"\"");
        let closed = format!("HTTP/1.1 200 OK\r\n{length}Connection: x, Close\r\n\r\n");
        assert_eq!(said(&closed), "200 1 close \"\"");
    }

    #[test]
    fn what_is_ambiguous_is_no_answer() {
        for (fields, complaint) in [
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "two lengths"),
            ("Content-Length: +5\r\n", "not a number"),
            ("Content-Length: 5, 5\r\n", "not a number"),
            ("Content-Length: -1\r\n", "not a number"),
            ("Content-Length: \r\n", "not a number"),
            ("Content-Length: 99999999999999999999\r\n", "not a number"),
            ("Transfer-Encoding: gzip\r\n", "coding"),
            ("Transfer-Encoding: gzip, chunked\r\n", "coding"),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "coding"),
            ("no colon\r\n", "cannot be parsed"),
            (" folded: x\r\n", "cannot be parsed"),
            ("a: b\r\n c\r\n", "cannot be parsed"),
            ("a : b\r\n", "cannot be parsed"),
            ("a: b\0c\r\n", "cannot be parsed"),
        ] {
            let said = said(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
            assert!(said.contains(complaint), "{fields:?}: {said}");
        }
        assert!(said("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").contains("coding"));
        assert!(said("HTTP/2 200 OK\r\n\r\n").contains("cannot be parsed"));
        assert!(said("garbage\r\n\r\n").contains("cannot be parsed"));
    }

    #[test]
    fn what_cannot_become_an_answer_is_not_awaited() {
        let head = "\r\n\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n";
        for cut in 0..head.len() {
            assert_eq!(said(&head[..cut]), "more", "{cut}");
        }
        for other in ["220 smtp ready\r\n", "SSH-2.0", "HTTP/2", "http/1.1", "\rH", " H", "x"] {
            assert!(said(other).contains("not HTTP/1"), "{other:?}: {}", said(other));
        }
    }
}
