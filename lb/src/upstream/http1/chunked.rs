//! The chunked coding of an answer's body (RFC 9112 §7.1), undone.

use bytes::{Buf, Bytes, BytesMut};
use http_body::Frame;
use httparse::EMPTY_HEADER;

use super::{
    PIECE_BYTES, WireError,
    answer::{FIELD_LIMIT, collect},
};
use crate::framing::{CHUNK_LINE_LIMIT, head_end};

/// The longest trailers.
const TRAILER_LIMIT: usize = 32 * 1024;

/// What comes next of a body.
#[derive(Debug)]
pub(super) enum Step {
    /// A piece of it.
    Frame(Frame<Bytes>),
    /// Nothing more.
    End,
    /// More has to be read first.
    More,
}

/// Where in a chunked body the reading stands.
#[derive(Debug, Default)]
pub(super) enum Decoder {
    /// At the line with a chunk's size.
    #[default]
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// At the line end behind a chunk.
    DataEnd,
    /// Behind the last chunk.
    Trailers,
    /// Behind everything.
    Over,
}

impl Decoder {
    /// Takes the next piece from the beginning of `ahead`.
    pub(super) fn decode(&mut self, ahead: &mut BytesMut) -> Result<Step, WireError> {
        loop {
            match self {
                Decoder::Size => match take_size(ahead)? {
                    Some(0) => *self = Decoder::Trailers,
                    Some(size) => *self = Decoder::Data(size),
                    None => return Ok(Step::More),
                },
                Decoder::Data(0) => *self = Decoder::DataEnd,
                Decoder::Data(_) if ahead.is_empty() => return Ok(Step::More),
                Decoder::Data(left) => {
                    let there = ahead.len().min(PIECE_BYTES);
                    let own = there.min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= own as u64;
                    return Ok(Step::Frame(Frame::data(ahead.split_to(own).freeze())));
                }
                Decoder::DataEnd => match &ahead[..] {
                    [b'\r', b'\n', ..] => {
                        ahead.advance(2);
                        *self = Decoder::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::More),
                    _ => return Err(WireError::Garbage("a chunk is longer than its size")),
                },
                Decoder::Trailers => {
                    if ahead.starts_with(b"\r\n") {
                        ahead.advance(2);
                        *self = Decoder::Over;
                        continue;
                    }
                    let Some(trailers) = take_trailers(ahead)? else { return Ok(Step::More) };
                    *self = Decoder::Over;
                    return Ok(Step::Frame(trailers));
                }
                Decoder::Over => return Ok(Step::End),
            }
        }
    }
}

/// The size at the beginning of a chunk; extensions are dropped.
fn take_size(ahead: &mut BytesMut) -> Result<Option<u64>, WireError> {
    let garbage = Err(WireError::Garbage("the size of a chunk cannot be parsed"));
    let Some(end) = memchr::memchr(b'\n', &ahead[..ahead.len().min(CHUNK_LINE_LIMIT)]) else {
        return if ahead.len() < CHUNK_LINE_LIMIT { Ok(None) } else { garbage };
    };
    let line = ahead.split_to(end + 1);
    let Some(line) = line.strip_suffix(b"\r\n") else { return garbage };
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let blanks = line[digits..].iter().take_while(|byte| b" \t".contains(byte)).count();
    let rest = &line[digits + blanks..];
    let hidden = line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t');
    if !matches!(digits, 1..=16) || !(rest.is_empty() || rest[0] == b';') || hidden {
        return garbage;
    }
    let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    match u64::from_str_radix(text, 16) {
        Ok(size) => Ok(Some(size)),
        Err(_) => garbage,
    }
}

fn take_trailers(ahead: &mut BytesMut) -> Result<Option<Frame<Bytes>>, WireError> {
    let Some(end) = head_end(ahead, 0) else {
        return match ahead.len() < TRAILER_LIMIT {
            true => Ok(None),
            false => Err(WireError::Garbage("the trailers are too large")),
        };
    };
    let bytes = ahead.split_to(end).freeze();
    let mut fields = [EMPTY_HEADER; FIELD_LIMIT];
    match httparse::parse_headers(&bytes, &mut fields) {
        Ok(httparse::Status::Complete((_, fields))) => {
            Ok(Some(Frame::trailers(collect(fields, &bytes)?)))
        }
        _ => Err(WireError::Garbage("the trailers cannot be parsed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body`, arriving in pieces of this size: the data, the trailers
    /// and what was left, or the complaint.
    fn decoded(body: &str, piece: usize) -> String {
        let (mut decoder, mut ahead) = (Decoder::default(), BytesMut::new());
        let mut pieces = body.as_bytes().chunks(piece);
        let mut got = String::new();
        loop {
            match decoder.decode(&mut ahead) {
                Ok(Step::Frame(frame)) => match frame.into_data() {
                    Ok(data) => got.push_str(std::str::from_utf8(&data).unwrap()),
                    Err(frame) => got.push_str(&format!("{:?}", frame.into_trailers().unwrap())),
                },
                Ok(Step::End) => {
                    let rest: Vec<u8> = [&ahead[..], &pieces.collect::<Vec<_>>().concat()].concat();
                    return format!("{got}|{}", String::from_utf8(rest).unwrap());
                }
                Ok(Step::More) => match pieces.next() {
                    Some(piece) => ahead.extend_from_slice(piece),
                    None => return format!("{got}|unfinished"),
                },
                Err(error) => return error.to_string(),
            }
        }
    }

    #[track_caller]
    fn check(body: &str, expected: &str) {
        for piece in 1..=body.len() {
            assert_eq!(decoded(body, piece), expected, "{body:?} in pieces of {piece}");
        }
    }

    #[test]
    fn chunks_are_joined_however_they_are_cut() {
        check("5\r\nhello\r\n0\r\n\r\nmore", "hello|more");
        check("5\r\nhello\r\n6;x=\"y\"\r\n world\r\n000\r\n\r\n", "hello world|");
        check("A \r\n0123456789\r\n0\r\n\r\n", "0123456789|");
        check("1\r\nx\r\n0\r\nA: 1\r\nB: 2\r\n\r\nmore", "x{\"a\": \"1\", \"b\": \"2\"}|more");
        check("5\r\nhel", "hel|unfinished");
        check("0\r\n", "|unfinished");
    }

    #[test]
    fn what_is_not_a_chunk_is_an_error() {
        let size = "not HTTP: the size of a chunk cannot be parsed";
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1\nx",
            "1 1\r\n",
            "1\r;\r\n",
            "1\x0c\r\n",
            "1;a\0\r\n",
            "11111111111111111\r\n",
        ] {
            check(body, size);
        }
        check("1\r\nxx\r\n", "not HTTP: a chunk is longer than its size");
        check("0\r\nno colon\r\n\r\n", "not HTTP: the trailers cannot be parsed");
    }

    #[test]
    fn endless_lines_and_trailers_are_cut_off() {
        assert!(decoded(&format!("1;{}", "x".repeat(5_000)), 1000).contains("size of a chunk"));
        assert!(decoded(&format!("0\r\na: {}", "x".repeat(40_000)), 1000).contains("too large"));
    }
}
