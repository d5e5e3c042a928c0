//! Where messages end in a stream of bytes.
//!
//! Decides nothing about validity: every byte is parsed once more. [`Rest`]
//! knows just enough to hand hyper one message of a client at a time, so that
//! the limits of a head hold for each, and nothing of the next is hidden in
//! hyper's buffer.

use memchr::memchr_iter;

/// The end of a head in `bytes`: behind its first empty line, which may be
/// ended by a bare line feed (RFC 9112 §2.2). Looks at line ends from `from` on.
pub(crate) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    memchr_iter(b'\n', &bytes[from..]).find_map(|at| match bytes[from + at + 1..] {
        [b'\n', ..] => Some(from + at + 2),
        [b'\r', b'\n', ..] => Some(from + at + 3),
        _ => None,
    })
}

/// How many bytes of empty lines precede a head: they are skipped (RFC 9112
/// §2.2).
pub(crate) fn leading_empty(bytes: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += match &bytes[at..] {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return at,
        };
    }
}

/// The longest line with a chunk's size and extensions, in bytes.
pub(crate) const CHUNK_LINE_LIMIT: usize = 4 * 1024;

/// What is left of a message behind its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// Nothing.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks and trailers (RFC 9112 §7.1).
    Chunked(Chunks),
}

/// Where in a chunked body the stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the line with a chunk's size, which has so many bytes so far; the size so far.
    Size(u64, usize),
    /// Behind the size, in the same line.
    Extension(u64, usize),
    /// In such a line that is too long.
    Endless,
    /// So many bytes of the chunk, its line end included, are left.
    Data(u64),
    /// In the trailers; whether the line at hand has anything in it.
    Trailer(bool),
}

impl Rest {
    /// The beginning of a chunked body.
    pub(crate) fn chunked() -> Self {
        Rest::Chunked(Chunks::Size(0, 0))
    }

    /// Whether a line with a chunk's size is longer than [`CHUNK_LINE_LIMIT`].
    pub(crate) fn is_endless(&self) -> bool {
        *self == Rest::Chunked(Chunks::Endless)
    }

    /// How many of `bytes` belong to the message; moves on behind them.
    pub(crate) fn advance(&mut self, bytes: &[u8]) -> usize {
        match self {
            Rest::Nothing => 0,
            Rest::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                if *left == 0 {
                    *self = Rest::Nothing;
                }
                taken
            }
            Rest::Chunked(chunks) => match chunks.advance(bytes) {
                Some(end) => {
                    *self = Rest::Nothing;
                    end
                }
                None => bytes.len(),
            },
        }
    }
}

impl Chunks {
    /// Where the message ends in `bytes`, if it does.
    fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if let Chunks::Data(left) = self {
                let here = (bytes.len() - at).min(usize::try_from(*left).unwrap_or(usize::MAX));
                at += here;
                *left -= here as u64;
                if *left == 0 {
                    *self = Chunks::Size(0, 0);
                }
                continue;
            }
            at += 1;
            *self = match (*self, byte) {
                (Chunks::Size(0, _) | Chunks::Extension(0, _), b'\n') => Chunks::Trailer(false),
                (Chunks::Size(size, _) | Chunks::Extension(size, _), b'\n') => {
                    Chunks::Data(size.saturating_add(2))
                }
                (
                    Chunks::Size(_, CHUNK_LINE_LIMIT..) | Chunks::Extension(_, CHUNK_LINE_LIMIT..),
                    _,
                ) => Chunks::Endless,
                (Chunks::Size(size, line), digit) => match char::from(digit).to_digit(16) {
                    Some(digit) => {
                        let size = size.saturating_mul(16).saturating_add(digit.into());
                        Chunks::Size(size, line + 1)
                    }
                    None => Chunks::Extension(size, line + 1),
                },
                (Chunks::Extension(size, line), _) => Chunks::Extension(size, line + 1),
                (Chunks::Trailer(false), b'\n') => return Some(at),
                (Chunks::Trailer(_), b'\n') => Chunks::Trailer(false),
                (Chunks::Trailer(full), b'\r') => Chunks::Trailer(full),
                (Chunks::Trailer(_), _) => Chunks::Trailer(true),
                (other, _) => other,
            };
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_behind_its_first_empty_line() {
        for (bytes, end) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET", Some(27)),
            ("GET / HTTP/1.1\nHost: a\n\nrest", Some(24)),
            ("GET / HTTP/1.1\nHost: a\n\r\nrest", Some(25)),
            ("GET / HTTP/1.1\r\nHost: a\r\n\r", None),
            ("GET / HTTP/1.1\r\n", None),
            ("", None),
        ] {
            assert_eq!(head_end(bytes.as_bytes(), 0), end, "{bytes:?}");
        }
        assert_eq!(leading_empty(b"\r\n\r\n\nGET"), 5);
        assert_eq!(leading_empty(b"\r\n\r"), 2);
        assert_eq!(leading_empty(b"\r\rGET"), 0);
    }

    /// The message's end must be found however the stream is cut.
    #[track_caller]
    fn check(rest: Rest, body: &str) {
        let stream = format!("{body}GET / HTTP/1.1");
        for piece in 1..=stream.len() {
            let mut rest = rest;
            let mut taken = 0;
            for bytes in stream.as_bytes().chunks(piece) {
                let here = rest.advance(bytes);
                taken += here;
                if here < bytes.len() {
                    break;
                }
            }
            assert_eq!((rest, taken), (Rest::Nothing, body.len()), "cut by {piece}: {body:?}");
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        check(Rest::Nothing, "");
        check(Rest::Length(5), "GET /");
        check(Rest::chunked(), "0\r\n\r\n");
        check(Rest::chunked(), "5\r\nGET /\r\n0\r\n\r\n");
        check(Rest::chunked(), "0A;n=\"v\"\r\n0\r\n\r\n0\r\n\r\n\r\n00\r\n\r\n");
        check(Rest::chunked(), "1\r\nx\r\n0 ;x\r\nA: 1\r\nB: 2\r\n\r\n");
    }

    #[test]
    fn a_line_of_a_chunk_that_is_too_long_is_told_however_it_is_cut() {
        for fill in ["0", " ", "0;", "7 "] {
            let line = |length: usize| fill.repeat(length)[..length].to_string() + "\r\n";
            for piece in [1, 1000, 100_000] {
                let is_endless = |length| {
                    let mut rest = Rest::chunked();
                    let told = |bytes: &[u8]| {
                        rest.advance(bytes);
                        rest.is_endless()
                    };
                    line(length).as_bytes().chunks(piece).any(told)
                };
                assert!(!is_endless(CHUNK_LINE_LIMIT - 1), "{fill:?} by {piece}");
                assert!(is_endless(CHUNK_LINE_LIMIT + 1), "{fill:?} by {piece}");
                assert!(is_endless(100 * CHUNK_LINE_LIMIT), "{fill:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_chunk_of_absurd_size_does_not_overflow() {
        let mut rest = Rest::chunked();
        assert_eq!(rest.advance(b"ffffffffffffffffffff\r\nxx"), 24);
        assert_ne!(rest, Rest::Nothing);
    }
}
