//! Taking a body out of the bytes of a connection.
//!
//! Owns the chunked coding (RFC 9112 section 7.1), read strictly: every line
//! ends in CRLF, sizes are hexadecimal, and nothing is skipped. No I/O: bytes
//! in, bytes out.

use super::Malformed;
use super::head::{Fields, Framing};

/// A line of the chunked coding may have this many bytes.
const MAX_LINE: usize = 16 * 1024;

/// Decodes one body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    trailers: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes of a body with a length are missing.
    Length(u64),
    UntilClose,
    ChunkSize,
    /// So many bytes of this chunk are missing.
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl BodyDecoder {
    /// A decoder at the start of a body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, trailers: Fields::default() }
    }

    /// Whether the body is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The trailer fields; complete once done.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// Appends what `input` adds to the body to `out`, and returns how many
    /// bytes of `input` are used up. The others are wanted again, with more.
    ///
    /// # Errors
    /// If `input` is not the chunked coding.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Malformed> {
        let mut used = 0;
        while let Some(n) = self.step(&input[used..], out)? {
            used += n;
        }
        Ok(used)
    }

    /// Takes the end of the connection.
    ///
    /// # Errors
    /// If the body is not whole.
    pub fn end(&mut self) -> Result<(), Malformed> {
        match self.state {
            State::Done => Ok(()),
            State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(missing) => Err(Malformed(format!("{missing} bytes missing"))),
            _ => Err(Malformed("the last chunk missing".into())),
        }
    }

    /// Takes one piece; none if it needs more input, or no more.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
        match self.state {
            State::Done => Ok(None),
            _ if input.is_empty() => Ok(None),
            State::UntilClose => {
                out.extend_from_slice(input);
                Ok(Some(input.len()))
            }
            State::Length(missing) => {
                let (n, left) = copy(input, missing, out);
                self.state = if left == 0 { State::Done } else { State::Length(left) };
                Ok(Some(n))
            }
            State::ChunkData(missing) => {
                let (n, left) = copy(input, missing, out);
                self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                Ok(Some(n))
            }
            State::ChunkSize | State::ChunkEnd | State::Trailers => {
                let Some(line) = line(input)? else {
                    return Ok(None);
                };
                self.take_line(&String::from_utf8_lossy(line))?;
                Ok(Some(line.len() + 2))
            }
        }
    }

    fn take_line(&mut self, text: &str) -> Result<(), Malformed> {
        self.state = match self.state {
            State::ChunkSize => match chunk_size(text)? {
                0 => State::Trailers,
                size => State::ChunkData(size),
            },
            State::ChunkEnd if text.is_empty() => State::ChunkSize,
            State::ChunkEnd => return Err(Malformed(format!("chunk: got {text:?} at its end"))),
            _ if text.is_empty() => State::Done,
            state => {
                let bad = || Malformed(format!("trailer: got {text:?}, expected name: value"));
                let (name, value) = text.split_once(':').ok_or_else(bad)?;
                let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
                if name.is_empty() || !name.bytes().all(token) {
                    return Err(bad());
                }
                self.trailers.0.push((name.into(), value.trim().into()));
                state
            }
        };
        Ok(())
    }
}

/// Copies at most `missing` bytes; returns how many, and how many are left.
fn copy(input: &[u8], missing: u64, out: &mut Vec<u8>) -> (usize, u64) {
    let n = usize::try_from(missing).map_or(input.len(), |m| m.min(input.len()));
    out.extend_from_slice(&input[..n]);
    (n, missing - n as u64)
}

/// The first line without its CRLF; none if it is not whole. It may have any
/// bytes but control characters (RFC 9110 section 5.5).
fn line(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let Some(end) = input.iter().position(|&b| b == b'\n') else {
        return match input.len() {
            0..MAX_LINE => Ok(None),
            _ => Err(Malformed(format!("chunk: a line above {MAX_LINE} bytes"))),
        };
    };
    let bad = || Malformed(format!("chunk: got {:?}", String::from_utf8_lossy(&input[..end])));
    let text = input[..end].strip_suffix(b"\r").ok_or_else(bad)?;
    let plain = text.iter().all(|&b| b == b'\t' || !b.is_ascii_control());
    if plain { Ok(Some(text)) } else { Err(bad()) }
}

fn chunk_size(text: &str) -> Result<u64, Malformed> {
    let (size, _extension) = text.split_once(';').unwrap_or((text, ""));
    let hex = (1..=16).contains(&size.len()) && size.bytes().all(|b| b.is_ascii_hexdigit());
    let parsed = hex.then(|| u64::from_str_radix(size, 16).ok()).flatten();
    parsed.ok_or_else(|| Malformed(format!("chunk size: got {text:?}, expected hex digits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `input` in pieces of `cut` bytes.
    fn decode(input: &[u8], cut: usize) -> Result<(String, usize, bool), Malformed> {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let (mut out, mut used) = (Vec::new(), 0);
        for end in (0..input.len()).step_by(cut).map(|i| (i + cut).min(input.len())) {
            used += decoder.decode(&input[used..end], &mut out)?;
        }
        Ok((String::from_utf8(out).unwrap(), used, decoder.is_done()))
    }

    #[test]
    fn chunks_decode_however_they_are_cut_and_leave_what_follows() {
        let input = b"5\r\nhello\r\nA;x=y\r\n, 10 bytes\r\n0\r\nT: v\r\n\r\nGET";
        for cut in 1..input.len() {
            let expected = ("hello, 10 bytes".to_owned(), input.len() - 3, true);
            assert_eq!(decode(input, cut), Ok(expected), "cut={cut}");
        }
    }

    #[test]
    fn what_is_not_strictly_chunked_is_rejected() {
        for bad in [
            "5\nhello",
            "+5\r\n",
            "\r\n",
            "0x5\r\n",
            " 5\r\n",
            "1\r\nab\r\n",
            "0\r\nT\r\n",
            "0\r\nT: a\rb\r\n",
            "5;\0\r\n",
            "0\r\nT : a\r\n",
            "0\r\n: a\r\n",
        ] {
            assert!(decode(bad.as_bytes(), 100).is_err(), "{bad:?}");
        }
        let truncated = decode(b"5\r\nhello\r\n", 100).unwrap();
        assert!(!truncated.2);
    }
}
