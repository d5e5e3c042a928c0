//! HTTP/1.1 as it must be sent: RFC 9112 to the letter, and nothing that
//! recipients may tolerate.
//!
//! Another parser than the one in `testbed`, on purpose: what both read in the
//! same way leaves no room for a third opinion.

use anyhow::{Context, Result, ensure};
use testbed::http1::{
    body::BodyDecoder,
    head::{AnswerHead, RequestHead},
};

/// A field's name and value.
pub(crate) type Field = (String, String);

/// A request's head, as both parsers find it.
///
/// # Errors
/// It is none, or they differ.
pub(crate) fn agreed_request(head: &[u8]) -> Result<RequestHead> {
    let theirs = RequestHead::parse(head)?.context("half a head")?;
    let (line, fields) = request_head(head)?;
    ensure!(
        line == format!("{} {} HTTP/1.{}", theirs.method, theirs.target, theirs.minor_version),
        "one parser reads {line:?}, the other {:?} {:?}",
        theirs.method,
        theirs.target
    );
    ensure!(fields == theirs.fields.0, "{fields:?} is not {:?}", theirs.fields.0);
    ensure!(theirs.fields.all("host").count() == 1, "not one Host: {fields:?}");
    Ok(theirs)
}

/// An answer's head, as both parsers find it.
///
/// # Errors
/// It is none, or they differ.
pub(crate) fn agreed_answer(head: &[u8]) -> Result<AnswerHead> {
    let theirs = AnswerHead::parse(head)?.context("half a head")?;
    ensure!(theirs.len == head.len(), "a head of {} bytes in {}", theirs.len, head.len());
    let (line, fields) = lines(head)?;
    let start = format!("HTTP/1.{} {} ", theirs.minor_version, theirs.status);
    let reason = line.strip_prefix(&start).with_context(|| format!("status line {line:?}"))?;
    ensure!(reason.bytes().all(visible), "status line {line:?}");
    // Above 599 it is invalid, and taken for a server's error (RFC 9110 §15).
    ensure!((100..1000).contains(&theirs.status), "status {}", theirs.status);
    ensure!(fields == theirs.fields.0, "{fields:?} is not {:?}", theirs.fields.0);
    Ok(theirs)
}

/// The head at the beginning of `bytes`, with its empty line.
pub(crate) fn first_head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&bytes[..end + 4])
}

/// Takes a body out of `bytes`, as far as it is there; what is behind it is
/// left.
///
/// # Errors
/// It is none.
pub(crate) fn take_body(decoder: &mut BodyDecoder, bytes: &mut &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    let used = decoder.decode(bytes, &mut body)?;
    *bytes = &bytes[used..];
    Ok(body)
}

fn request_head(head: &[u8]) -> Result<(String, Vec<Field>)> {
    let (line, fields) = lines(head)?;
    ensure!(line.split(' ').count() == 3, "request line {line:?}");
    // Beyond the letter: curl and others send UTF-8 in targets as it is, and
    // every server takes such bytes for one more character.
    ensure!(line.bytes().all(|b| b != b'\t' && visible(b)), "request line {line:?}");
    Ok((line, fields))
}

fn lines(head: &[u8]) -> Result<(String, Vec<Field>)> {
    // Values may have any bytes above 127.
    let text = String::from_utf8_lossy(head);
    let text = text.strip_suffix("\r\n\r\n").context("no end")?;
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').with_context(|| format!("line {line:?}"))?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        ensure!(!name.is_empty() && name.bytes().all(token), "name {name:?}");
        ensure!(value.bytes().all(visible), "value {value:?}");
        fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
    }
    Ok((first.to_owned(), fields))
}

fn visible(b: u8) -> bool {
    b == b'\t' || (0x20..0x7f).contains(&b) || b >= 0x80
}
