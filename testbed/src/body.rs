//! Bodies: what they are compared by, and where their bytes come from.
//!
//! Owns the digest that stands for a body in events and headers, and the
//! deterministic bytes that large bodies are made of. Never does I/O. Called
//! by backends, clients and the ledger.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::Xxh3;

/// A body's length and hash. Two bodies with equal digests are taken as equal.
///
/// Its text form is `LEN:HEX`, as in the `X-Received` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BodyDigest {
    /// Length in bytes.
    pub len: u64,
    /// XXH3, 64 bits, without a seed.
    pub hash: u64,
}

/// A text that is not `LEN:HEX`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("body digest: got {0:?}, expected LEN:HEX such as 5:9555e8555c62dcfd")]
pub struct NotADigest(String);

/// Digests a body that arrives in pieces.
#[derive(Clone, Default)]
pub struct BodyHasher {
    len: u64,
    hash: Xxh3,
}

/// Deterministic pseudo-random bytes: the same seed gives the same bytes,
/// however they are cut into pieces.
#[derive(Clone, Debug)]
pub struct Pattern {
    seed: u64,
    position: u64,
}

impl BodyDigest {
    /// The digest of a whole body.
    pub fn of(body: &[u8]) -> Self {
        let mut hasher = BodyHasher::default();
        hasher.update(body);
        hasher.finish()
    }
}

impl Default for BodyDigest {
    /// The digest of the empty body.
    fn default() -> Self {
        Self::of(&[])
    }
}

impl fmt::Display for BodyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{:016x}", self.len, self.hash)
    }
}

impl FromStr for BodyDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let parse = || {
            let (len, hash) = text.split_once(':')?;
            Some(Self { len: len.parse().ok()?, hash: u64::from_str_radix(hash, 16).ok()? })
        };
        parse().ok_or_else(|| NotADigest(text.to_owned()))
    }
}

impl BodyHasher {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.len += piece.len() as u64;
        self.hash.update(piece);
    }

    /// The digest of all pieces so far.
    pub fn finish(&self) -> BodyDigest {
        BodyDigest { len: self.len, hash: self.hash.digest() }
    }
}

impl fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BodyHasher({})", self.finish())
    }
}

impl Pattern {
    /// The bytes of `seed`, from the first one on.
    pub fn new(seed: u64) -> Self {
        Self { seed: mix(seed), position: 0 }
    }

    /// Fills `out` with the next bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        let mut rest = out;
        while !rest.is_empty() {
            let word = mix(self.seed ^ (self.position / 8)).to_le_bytes();
            let from = (self.position % 8) as usize;
            let take = rest.len().min(8 - from);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(&word[from..from + take]);
            self.position += take as u64;
            rest = later;
        }
    }
}

/// The first `len` bytes of the [`Pattern`] of `seed`.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

/// The chunked coding of `body`, cut into chunks of 1 byte to 16 KiB whose sizes
/// follow from `seed`. Without `last` the last chunk and the blank line are
/// left out, which makes the body a truncated one.
pub(crate) fn encode_chunked(body: &[u8], seed: u64, last: bool) -> Vec<u8> {
    let mut wire = Vec::with_capacity(body.len() + body.len() / 64 + 64);
    let mut rest = body;
    let mut draw = seed;
    while !rest.is_empty() {
        draw = mix(draw);
        let size = 1 + (draw >> 8) % (1 << (draw % 15));
        let (chunk, later) = rest.split_at(rest.len().min(size as usize));
        push_chunk(&mut wire, chunk);
        rest = later;
    }
    if last {
        wire.extend_from_slice(LAST_CHUNK);
    }
    wire
}

/// What ends a chunked body without trailers.
pub(crate) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends one chunk, which must not be empty.
pub(crate) fn push_chunk(wire: &mut Vec<u8>, chunk: &[u8]) {
    wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
    wire.extend_from_slice(chunk);
    wire.extend_from_slice(b"\r\n");
}

/// The finaliser of splitmix64: near inputs give unrelated outputs.
pub(crate) fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_does_not_depend_on_how_it_is_cut() {
        let whole = pattern(7, 1000);
        let mut cut = vec![0; 1000];
        let mut source = Pattern::new(7);
        let (first, rest) = cut.split_at_mut(3);
        source.fill(first);
        rest.chunks_mut(17).for_each(|piece| source.fill(piece));
        assert_eq!(whole, cut);
        assert_ne!(whole, pattern(8, 1000));
    }

    #[test]
    fn a_digest_survives_its_text_form_and_its_cutting() {
        let body = pattern(1, 5000);
        let digest = BodyDigest::of(&body);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        let mut hasher = BodyHasher::default();
        body.chunks(7).for_each(|piece| hasher.update(piece));
        assert_eq!(hasher.finish(), digest);
        assert!("12".parse::<BodyDigest>().is_err());
        assert!("x:1".parse::<BodyDigest>().is_err());
    }
}
