//! Heads of requests and answers, and how long the body is that follows.
//!
//! Owns the parsing and the framing rules (RFC 9112 section 6), in their
//! strict reading: both lengths, two lengths and unknown codings are errors.

use std::sync::Arc;

use httparse::{EMPTY_HEADER, Header, Status};

use super::Malformed;

/// A head may have this many fields.
const MAX_FIELDS: usize = 256;

/// A head may have this many bytes.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// After the last chunk and the trailers.
    Chunked,
    /// With the connection. Only answers.
    UntilClose,
}

/// The fields of a head, in order, as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

/// A request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// `GET`, `POST`, ...
    pub method: Arc<str>,
    /// Path and query, or whatever else came.
    pub target: String,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The fields.
    pub fields: Fields,
    /// How the body ends.
    pub framing: Framing,
    /// The bytes, with the blank line.
    pub raw: Arc<[u8]>,
}

/// An answer's head.
#[derive(Clone, Debug)]
pub struct AnswerHead {
    /// The status code.
    pub status: u16,
    /// 0 for HTTP/1.0, 1 for HTTP/1.1.
    pub minor_version: u8,
    /// The fields.
    pub fields: Fields,
    /// Bytes of the head.
    pub len: usize,
}

impl Fields {
    /// The first value of a field, if any. Names match in any case.
    pub fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name));
        field.map(|(_, value)| &**value)
    }

    /// All values of a field, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let wanted = move |(field, _): &&(String, String)| field.eq_ignore_ascii_case(name);
        self.0.iter().filter(wanted).map(|(_, value)| &**value)
    }

    /// Whether a list-valued field such as `Connection` has this member.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|got| got.trim().eq_ignore_ascii_case(member))
    }

    /// Whether the connection may be used again, as far as these fields say.
    pub fn keep_alive(&self, minor_version: u8) -> bool {
        match minor_version {
            0 => self.lists("connection", "keep-alive"),
            _ => !self.lists("connection", "close"),
        }
    }

    /// The framing that these fields name; none if they name none.
    fn framing(&self) -> Result<Option<Framing>, Malformed> {
        let lengths: Vec<_> = self.all("content-length").collect();
        let codings: Vec<_> = self.all("transfer-encoding").collect();
        match (&lengths[..], &codings[..]) {
            ([], []) => Ok(None),
            ([one], []) => length(one).map(Some),
            ([], [one]) if one.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            (_, []) => Err(Malformed(format!("{} content-lengths", lengths.len()))),
            ([], _) => Err(Malformed(format!("transfer-encoding: {codings:?}"))),
            _ => Err(Malformed("content-length and transfer-encoding".into())),
        }
    }

    fn of(parsed: &[Header<'_>]) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let field = |h: &Header<'_>| (h.name.to_owned(), text(h.value));
        Self(parsed.iter().map(field).collect())
    }
}

impl RequestHead {
    /// Parses the head at the start of `bytes`; none if it is not whole yet.
    ///
    /// # Errors
    /// If it is no head, is too large, or leaves the body's end open.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Request::new(&mut fields);
        let Some(len) = whole(head.parse(bytes), bytes)? else {
            return Ok(None);
        };
        let fields = Fields::of(head.headers);
        Ok(Some(Self {
            method: head.method.unwrap_or_default().into(),
            target: head.path.unwrap_or_default().to_owned(),
            minor_version: head.version.unwrap_or_default(),
            framing: fields.framing()?.unwrap_or(Framing::Length(0)),
            fields,
            raw: bytes[..len].into(),
        }))
    }
}

impl AnswerHead {
    /// Parses the head at the start of `bytes`; none if it is not whole yet.
    ///
    /// # Errors
    /// If it is no head or is too large.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut head = httparse::Response::new(&mut fields);
        let Some(len) = whole(head.parse(bytes), bytes)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            status: head.code.unwrap_or_default(),
            minor_version: head.version.unwrap_or_default(),
            fields: Fields::of(head.headers),
            len,
        }))
    }

    /// Whether another head follows (RFC 9110 section 15.2). 101 is final: what
    /// follows it is no HTTP/1.
    pub fn is_interim(&self) -> bool {
        matches!(self.status, 100 | 102..=199)
    }

    /// How the body ends, given what was asked (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// If the fields contradict each other.
    pub fn framing(&self, method: &str) -> Result<Framing, Malformed> {
        let named = self.fields.framing()?;
        let bodiless = method == "HEAD" || matches!(self.status, 101 | 204 | 304);
        match bodiless {
            true => Ok(Framing::Length(0)),
            false => Ok(named.unwrap_or(Framing::UntilClose)),
        }
    }
}

fn whole(parsed: httparse::Result<usize>, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    match parsed {
        Ok(Status::Complete(len)) => Ok(Some(len)),
        Ok(Status::Partial) if bytes.len() < MAX_BYTES => Ok(None),
        Ok(Status::Partial) => Err(Malformed(format!("a head above {MAX_BYTES} bytes"))),
        Err(error) => {
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            Err(Malformed(format!("{error} in {start:?}")))
        }
    }
}

/// Digits only: no sign, no list (RFC 9110 section 8.6).
fn length(text: &str) -> Result<Framing, Malformed> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let parsed = digits.then(|| text.parse().ok()).flatten();
    let bad = || Malformed(format!("content-length: got {text:?}, expected digits"));
    parsed.map(Framing::Length).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fields: &str, expected: Result<Framing, &str>) {
        let head = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        let parsed = RequestHead::parse(head.as_bytes());
        let framing = parsed.map(|head| head.unwrap().framing);
        assert_eq!(framing, expected.map_err(|e| Malformed(e.into())));
    }

    #[test]
    fn framing_is_read_strictly() {
        check("", Ok(Framing::Length(0)));
        check("Content-Length: 12\r\n", Ok(Framing::Length(12)));
        check("transfer-encoding: Chunked\r\n", Ok(Framing::Chunked));
        check("Content-Length: 1\r\nContent-Length: 1\r\n", Err("2 content-lengths"));
        check(
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            Err("content-length and transfer-encoding"),
        );
        check(
            "Transfer-Encoding: gzip, chunked\r\n",
            Err(r#"transfer-encoding: ["gzip, chunked"]"#),
        );
        check("Content-Length: +1\r\n", Err(r#"content-length: got "+1", expected digits"#));
    }

    #[test]
    fn a_head_is_none_until_its_blank_line() {
        let text = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
        for len in 0..text.len() {
            assert!(RequestHead::parse(&text[..len]).unwrap().is_none());
        }
        let head = RequestHead::parse(text).unwrap().unwrap();
        assert_eq!((&*head.method, &*head.target), ("GET", "/x"));
        assert_eq!(&*head.raw, text);
    }
}
