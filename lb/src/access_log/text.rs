//! The line of a request as text: `key=value` words.

use std::{io::Write as _, time::SystemTime};

use super::{
    Entry, ID_LIMIT, outcome_of,
    values::{millis, number, text, timestamp},
};
use crate::output::ends_or_controls;

/// Appends the line of one request. Written by hand, not with `write!`: it is
/// on the path of every request, and formatting would cost more than proxying.
pub(super) fn write(line: &mut Vec<u8>, entry: &Entry<'_>, wall: SystemTime) {
    timestamp(line, wall);
    text(line, " client=", entry.client);
    text(line, " method=", entry.method);
    quoted(line, " target=\"", entry.path);
    if let Some(query) = entry.query {
        quoted(line, "?", query);
    }
    number(line, "\" status=", entry.status.map_or(499, |status| status.as_u16()).into());
    if let Some(id) = entry.id {
        identifier(line, id.as_bytes());
    }
    if let Some(server) = entry.server {
        text(line, " server=", &server.name.load());
    }
    if let Some(reason) = entry.reason {
        text(line, " reason=", reason.code());
    }
    for (index, attempt) in entry.failed.iter().enumerate() {
        text(line, if index == 0 { " failed=" } else { "," }, &attempt.server.name.load());
        text(line, ":", outcome_of(attempt.failure, &mut itoa::Buffer::new()));
        millis(line, "@", attempt.at - entry.began);
    }
    number(line, " bytes=", entry.bytes);
    if let Some(connected) = entry.connected {
        millis(line, " connect_ms=", connected - entry.began);
    }
    if let Some(answered) = entry.answered {
        millis(line, " first_byte_ms=", answered - entry.began);
    }
    millis(line, " total_ms=", entry.ended - entry.began);
    text(line, " end=", entry.outcome.word());
    line.push(b'\n');
}

/// A client's own id may be anything: only what cannot be mistaken for another
/// field is printed, and not too much of it.
fn identifier(line: &mut Vec<u8>, id: &[u8]) {
    line.extend_from_slice(b" id=");
    let plain = |byte: &&u8| byte.is_ascii_graphic() && !b"\"\\=,".contains(byte);
    line.extend(id.iter().take(ID_LIMIT).filter(plain));
}

/// A value between quotes: what would end them, or the line, is escaped, so
/// that no client can write fields of its own.
fn quoted(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    if !value.is_ascii() {
        return value.chars().for_each(|char| quoted_char(line, char));
    }
    for byte in value.bytes() {
        match byte {
            b'"' | b'\\' => line.extend_from_slice(&[b'\\', byte]),
            0..0x20 | 0x7f => drop(write!(line, "\\x{byte:02x}")),
            _ => line.push(byte),
        }
    }
}

/// Terminals obey controls above ASCII as well, and readers see ends of lines in
/// some.
fn quoted_char(line: &mut Vec<u8>, char: char) {
    match char {
        '"' | '\\' => drop(write!(line, "\\{char}")),
        _ if ends_or_controls(char) => drop(write!(line, "\\u{{{:x}}}", u32::from(char))),
        _ => drop(write!(line, "{char}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_can_end_the_quotes() {
        let mut line = Vec::new();
        quoted(&mut line, "target=\"", "/a\" status=999\\\n");
        assert_eq!(line, b"target=\"/a\\\" status=999\\\\\\x0a");
        line.clear();
        quoted(&mut line, "", "\u{e9}\"\n\u{85}\u{9b}31m\u{2028}");
        assert_eq!(line, "\u{e9}\\\"\\u{a}\\u{85}\\u{9b}31m\\u{2028}".as_bytes());
    }
}
