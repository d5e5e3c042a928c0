//! The cases, in groups that one rule decides. In the bytes, `@` stands for the
//! target that tells the cases apart, and every accepted request asks for the
//! connection's end.

/// Cases that one rule decides.
pub(super) struct Group {
    /// What they are about, and the sections that say what may come of them.
    pub(super) rule: &'static str,
    pub(super) cases: &'static [Case],
}

/// What may be forwarded of a request that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// Nothing.
    Nothing,
    /// Its head: what is wrong comes after it.
    PerhapsItsHead,
}

/// One connection's bytes, and what may come of them.
pub(super) struct Case {
    pub(super) name: &'static str,
    bytes: &'static str,
    /// The statuses that may be answered.
    pub(super) allowed: &'static [u16],
    pub(super) forwarded: Forwarded,
}

impl Case {
    /// The bytes with this target.
    pub(super) fn bytes(&self, target: &str) -> Vec<u8> {
        // Latin 1, so that any byte can be written; the wide at sign is a real
        // one, which no target replaces.
        let text = self.bytes.replace('@', target).replace('\u{ff20}', "@");
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
    }
}

/// Wrong in its head.
const fn head(name: &'static str, bytes: &'static str, allowed: &'static [u16]) -> Case {
    Case { name, bytes, allowed, forwarded: Forwarded::Nothing }
}

/// Wrong in its body.
const fn body(name: &'static str, bytes: &'static str, allowed: &'static [u16]) -> Case {
    Case { name, bytes, allowed, forwarded: Forwarded::PerhapsItsHead }
}

#[rustfmt::skip]
pub(super) const GROUPS: &[Group] = &[
    Group { rule: "Nothing wrong: the table's own check (RFC 9112 §2.1, §2.2)", cases: &[
        head("plain", "GET @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200]),
        head("empty lines before", "\r\n\r\nGET @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200]),
        head("length", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", &[200]),
        head("chunked", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", &[200]),
        head("chunked in capitals", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n", &[200]),
        head("length 0", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", &[200]),
        head("length with zeros before", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 002\r\n\r\nok", &[200, 400]),
        head("an unknown method", "BREW @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200]),
        head("empty values", "GET @ HTTP/1.1\r\nHost: a\r\nX:\r\nY: \r\nConnection: close\r\n\r\n", &[200]),
        head("blanks around a value", "GET @ HTTP/1.1\r\nHost: \t a \t\r\nConnection: close\r\n\r\n", &[200]),
    ] },
    Group { rule: "The request line (RFC 9112 §2.3, §3, §3.2; a recipient need not be lenient, §2.2)", cases: &[
        head("no version", "GET @\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/2.0", "GET @ HTTP/2.0\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/1.2", "GET @ HTTP/1.2\r\nHost: a\r\nConnection: close\r\n\r\n", &[200, 400]),
        head("http/1.1", "GET @ http/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/1.10", "GET @ HTTP/1.10\r\nHost: a\r\n\r\n", &[400]),
        head("two spaces", "GET  @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[400]),
        head("two spaces behind", "GET @  HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[400]),
        head("tab", "GET\t@\tHTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("space in the target", "GET @ x HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("space before the method", " GET @ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("no method", "@ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("method with a slash", "GE/T @ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("NUL in the target", "GET @\0 HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("bare CR in the target", "GET @\r HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("another scheme", "GET ftp://a@ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200, 400]),
        head("TLS", "\u{16}\u{3}\u{1}\0\u{a5}\u{1}\0\0\u{a1}\u{3}\u{3}\r\n\r\n", &[400]),
        head("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[400]),
        head("absolute, another Host", "GET http://b@ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", &[200]),
        head("absolute with a user", "GET http://u:p\u{ff20}b/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("no target", "GET HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("nothing but a version", "HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("an answer", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &[400]),
        head("a trailing space", "GET @ HTTP/1.1 \r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/1.", "GET @ HTTP/1.\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/01.1", "GET @ HTTP/01.1\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/1,1", "GET @ HTTP/1,1\r\nHost: a\r\n\r\n", &[400]),
        head("HTTPS/1.1", "GET @ HTTPS/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("HTTP/0.9 by name", "GET @ HTTP/0.9\r\nHost: a\r\n\r\n", &[400]),
        head("a vertical tab for a space", "GET\u{b}@\u{b}HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("NUL in the method", "G\0ET @ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("a high byte in the method", "G\u{e4}T @ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("DEL in the target", "GET @\u{7f} HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("a fragment in the target", "GET @#f HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("LF between method and target", "GET\n@ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("two request lines", "GET @ HTTP/1.1\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
        head("CONNECT", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", &[400, 405, 501]),
        head("an asterisk for a GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ] },
    Group { rule: "Host (RFC 9112 §3.2, RFC 9110 §4.2.4, §7.2)", cases: &[
        head("no Host", "GET @ HTTP/1.1\r\n\r\n", &[400]),
        head("two Hosts", "GET @ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
        head("the same Host twice", "GET @ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
        head("empty Host", "GET @ HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", &[200, 400]),
        head("Host with a path", "GET @ HTTP/1.1\r\nHost: a/b\r\n\r\n", &[400]),
        head("Host with a space", "GET @ HTTP/1.1\r\nHost: a b\r\n\r\n", &[400]),
        head("Host list", "GET @ HTTP/1.1\r\nHost: a, b\r\n\r\n", &[400]),
        head("Host with a user", "GET @ HTTP/1.1\r\nHost: u\u{ff20}a\r\n\r\n", &[400]),
        head("no Host in HTTP/1.0", "GET @ HTTP/1.0\r\n\r\n", &[200]),
        head("Host with a query", "GET @ HTTP/1.1\r\nHost: a?b\r\n\r\n", &[400]),
        head("Host with a fragment", "GET @ HTTP/1.1\r\nHost: a#b\r\n\r\n", &[400]),
        head("Host with a backslash", "GET @ HTTP/1.1\r\nHost: a\\b\r\n\r\n", &[400]),
        head("Host in two cases", "GET @ HTTP/1.1\r\nHost: a\r\nhOST: b\r\n\r\n", &[400]),
        head("Host behind a fold", "GET @ HTTP/1.1\r\nX: 1\r\n Host: b\r\nHost: a\r\n\r\n", &[400]),
        head("Host with a high byte", "GET @ HTTP/1.1\r\nHost: \u{e4}\r\n\r\n", &[400]),
        head("absolute and two Hosts", "GET http://b@ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
        head("absolute and no Host", "GET http://b@ HTTP/1.1\r\n\r\n", &[400]),
    ] },
    Group { rule: "Fields (RFC 9112 §5, §5.1, §5.2; RFC 9110 §5.5, §5.6.2)", cases: &[
        head("space before the colon", "GET @ HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", &[400]),
        head("length with a space before the colon", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\nok", &[400]),
        head("no colon", "GET @ HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", &[400]),
        head("no name", "GET @ HTTP/1.1\r\nHost: a\r\n: 1\r\n\r\n", &[400]),
        head("obs-fold", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", &[400]),
        head("obs-fold at once", "GET @ HTTP/1.1\r\n Host: a\r\n\r\n", &[400]),
        head("folded coding", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", &[400]),
        head("NUL in a value", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\x002\r\n\r\n", &[400]),
        head("NUL in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX\0Y: 1\r\n\r\n", &[400]),
        head("bare CR in a value", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", &[400]),
        head("bare LF", "GET @ HTTP/1.1\nHost: a\nConnection: close\n\n", &[200, 400]),
        head("bare LF hides a field", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", &[200, 400]),
        head("control in a value", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\u{7f}2\r\n\r\n", &[400]),
        head("high byte in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX\u{e4}: 1\r\n\r\n", &[400]),
        head("brackets in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX[]: 1\r\n\r\n", &[400]),
        head("tab before the colon", "GET @ HTTP/1.1\r\nHost: a\r\nX\t: 1\r\n\r\n", &[400]),
        head("obs-fold with a tab", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\r\n\t2\r\n\r\n", &[400]),
        head("a folded length", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 2\r\n\r\nok", &[400]),
        head("a space in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX Y: 1\r\n\r\n", &[400]),
        head("a name in quotes", "GET @ HTTP/1.1\r\nHost: a\r\n\"X\": 1\r\n\r\n", &[400]),
        head("a comma in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX,Y: 1\r\n\r\n", &[400]),
        head("a slash in a name", "GET @ HTTP/1.1\r\nHost: a\r\nX/Y: 1\r\n\r\n", &[400]),
        head("CR before the colon", "GET @ HTTP/1.1\r\nHost: a\r\nX\r: 1\r\n\r\n", &[400]),
        head("CR CR LF", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\r\r\n\r\n", &[400]),
        head("bell in a value", "GET @ HTTP/1.1\r\nHost: a\r\nX: 1\u{7}2\r\n\r\n", &[400]),
        head("NUL ends a coding", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n", &[400]),
    ] },
    Group { rule: "Lengths (RFC 9110 §8.6, RFC 9112 §6.3)", cases: &[
        head("two lengths", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", &[400]),
        head("the same length twice", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", &[200, 400]),
        head("a list of lengths", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 3\r\n\r\nok!", &[400]),
        head("a list of equal lengths", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2, 2\r\n\r\nok", &[200, 400]),
        head("length +2", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nok", &[400]),
        head("length -2", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nok", &[400]),
        head("length 0x2", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nok", &[400]),
        head("length 2.0", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2.0\r\n\r\nok", &[400]),
        head("length 2 0", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2 0\r\n\r\nok", &[400]),
        head("no length", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nok", &[400]),
        head("length above u64", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551618\r\n\r\nok", &[400, 413]),
        head("length with a letter", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2a\r\n\r\nok", &[400]),
        head("length in quotes", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: \"2\"\r\n\r\nok", &[400]),
        head("length 2e0", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2e0\r\n\r\nok", &[400]),
        head("length with an underline", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nok", &[400]),
        head("length of a wide digit", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: \u{b2}\r\n\r\nok", &[400]),
        head("lengths of which one is empty", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length:\r\n\r\nok", &[400]),
        head("a list that ends in a comma", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 2,\r\n\r\nok", &[400]),
        head("length -0", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: -0\r\n\r\n", &[400]),
    ] },
    Group { rule: "Codings; of both, the coding alone may be obeyed and the connection closed (RFC 9112 §6.1, §6.3, §7)", cases: &[
        head("length and coding", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 400]),
        head("coding and length", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", &[200, 400]),
        head("chunked twice", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", &[400]),
        head("chunked in two fields", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
        head("gzip, chunked", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked, gzip", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("identity", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", &[400, 501]),
        head("xchunked", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked with a parameter", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked behind a vertical tab", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("empty coding", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\nContent-Length: 2\r\n\r\nok", &[400, 501]),
        head("coding in HTTP/1.0", "POST @ HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", &[400]),
        head("coding of a GET", "GET @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", &[200]),
        head("an empty coding, chunked", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", &[200, 400, 501]),
        head("chunked, identity", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked and then gzip in two fields", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked in quotes", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked with a high byte", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\u{a0}\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chun ked", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chun ked\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("chunked, unknown, and a length", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: cow\r\n\r\n0\r\n\r\n", &[400, 501]),
        head("a coding named by Connection", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", &[200, 400]),
        head("a length named by Connection", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close, Content-Length\r\nContent-Length: 2\r\n\r\nok", &[200, 400]),
    ] },
    Group { rule: "Chunks (RFC 9112 §7.1, §7.1.1, §7.1.2, §8)", cases: &[
        body("chunk size 0x2", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nok\r\n0\r\n\r\n", &[400]),
        body("chunk size +2", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+2\r\nok\r\n0\r\n\r\n", &[400]),
        body("chunk size -2", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", &[400]),
        body("no chunk size", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nok\r\n0\r\n\r\n", &[400]),
        body("chunk size of 17 digits", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nok\r\n0\r\n\r\n", &[400]),
        body("chunk size above all", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", &[400]),
        body("a chunk that is longer", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", &[400]),
        body("a chunk without its end", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok0\r\n\r\n", &[400]),
        body("a chunk ended by LF", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\nok\n0\n\n", &[200, 400, 408]),
        body("CR in an extension", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;x\ry\r\nok\r\n0\r\n\r\n", &[400]),
        body("LF in an extension", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;x\ny\r\nok\r\n0\r\n\r\n", &[400, 408]),
        body("extensions", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\nok\r\n0;e\r\n\r\n", &[200]),
        body("bad trailer", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : 1\r\n\r\n", &[400]),
        body("chunks that stop", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe", &[408]),
        body("a body that stops", "POST @ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe", &[408]),
        body("a space before a chunk size", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 2\r\nok\r\n0\r\n\r\n", &[400]),
        body("a chunk size with a letter", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2g\r\nok\r\n0\r\n\r\n", &[400]),
        body("a chunk size with an underline", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0_2\r\nok\r\n0\r\n\r\n", &[400]),
        body("NUL behind a chunk size", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\0\r\nok\r\n0\r\n\r\n", &[400]),
        body("CR alone behind a chunk size", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\rok\r\n0\r\n\r\n", &[400]),
        body("a chunk that is shorter", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok\r\n0\r\n\r\n", &[400, 408]),
        body("a folded trailer", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\r\n 2\r\n\r\n", &[400]),
        body("a trailer without a colon", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n", &[400]),
        body("NUL in a trailer", "POST @ HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: 1\0\r\n\r\n", &[400]),
        body("a last chunk that stops", "POST @ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", &[408]),
    ] },
];
