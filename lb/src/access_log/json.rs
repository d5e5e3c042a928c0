//! The line of a request as a JSON object, with the keys of the text.

use std::{io::Write as _, time::SystemTime};

use super::{
    Entry, ID_LIMIT, outcome_of,
    values::{millis, number, text, timestamp},
};
use crate::output::ends_or_controls;

/// Appends the line of one request. Written by hand: it is on the path of every
/// request.
pub(super) fn write(line: &mut Vec<u8>, entry: &Entry<'_>, wall: SystemTime) {
    line.extend_from_slice(b"{\"time\":\"");
    timestamp(line, wall);
    string(line, "\",\"client\":\"", entry.client);
    string(line, "\",\"method\":\"", entry.method);
    string(line, "\",\"target\":\"", entry.path);
    if let Some(query) = entry.query {
        string(line, "?", query);
    }
    number(line, "\",\"status\":", entry.status.map_or(499, |status| status.as_u16()).into());
    if let Some(id) = entry.id {
        text(line, ",\"id\":\"", "");
        bytes(line, &id.as_bytes()[..id.len().min(ID_LIMIT)]);
        line.push(b'"');
    }
    if let Some(server) = entry.server {
        string(line, ",\"server\":\"", &server.name.load());
        line.push(b'"');
    }
    if let Some(reason) = entry.reason {
        text(line, ",\"reason\":\"", reason.code());
        line.push(b'"');
    }
    if !entry.failed.is_empty() {
        failed(line, entry);
    }
    number(line, ",\"bytes\":", entry.bytes);
    if let Some(connected) = entry.connected {
        millis(line, ",\"connect_ms\":", connected - entry.began);
    }
    if let Some(answered) = entry.answered {
        millis(line, ",\"first_byte_ms\":", answered - entry.began);
    }
    millis(line, ",\"total_ms\":", entry.ended - entry.began);
    text(line, ",\"end\":\"", entry.outcome.word());
    line.extend_from_slice(b"\"}\n");
}

fn failed(line: &mut Vec<u8>, entry: &Entry<'_>) {
    for (index, attempt) in entry.failed.iter().enumerate() {
        let key = if index == 0 { ",\"failed\":[{\"server\":\"" } else { ",{\"server\":\"" };
        string(line, key, &attempt.server.name.load());
        text(line, "\",\"outcome\":\"", outcome_of(attempt.failure, &mut itoa::Buffer::new()));
        millis(line, "\",\"at_ms\":", attempt.at - entry.began);
        line.push(b'}');
    }
    line.push(b']');
}

/// Text within quotes, escaped (RFC 8259 §7).
fn string(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    if !value.is_ascii() {
        return value.chars().for_each(|char| string_char(line, char));
    }
    let mut rest = value.as_bytes();
    let special = |byte: &u8| matches!(byte, 0..0x20 | b'"' | b'\\');
    while let Some(at) = rest.iter().position(special) {
        line.extend_from_slice(&rest[..at]);
        match rest[at] {
            byte @ (b'"' | b'\\') => line.extend_from_slice(&[b'\\', byte]),
            byte => {
                let digit = |value: u8| b"0123456789abcdef"[usize::from(value)];
                line.extend_from_slice(b"\\u00");
                line.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
        }
        rest = &rest[at + 1..];
    }
    line.extend_from_slice(rest);
}

fn string_char(line: &mut Vec<u8>, char: char) {
    match char {
        '"' | '\\' => drop(write!(line, "\\{char}")),
        _ if ends_or_controls(char) => drop(write!(line, "\\u{:04x}", u32::from(char))),
        _ => drop(write!(line, "{char}")),
    }
}

/// What may not be UTF-8, and then has U+FFFD where it is not.
fn bytes(line: &mut Vec<u8>, value: &[u8]) {
    for chunk in value.utf8_chunks() {
        string(line, "", chunk.valid());
        if !chunk.invalid().is_empty() {
            text(line, "", "\u{fffd}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use hyper::{StatusCode, header::HeaderValue};
    use proptest::{option, prelude::*};
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::{
        access_log::{Attempt, Outcome},
        balance::Failure,
        config::{HealthCheck, Server},
        error::Reason,
        upstream::Upstream,
    };

    fn upstream(name: &str) -> Arc<Upstream> {
        let authority = "127.0.0.1:80".parse().unwrap();
        let health = HealthCheck::default();
        Arc::new(Upstream::new(&Server {
            name: name.into(),
            authority,
            weight: 1,
            health,
            wanted: None,
        }))
    }

    /// Milliseconds with three decimals, as a reader of JSON has them.
    fn read_millis(micros: u64) -> f64 {
        format!("{}.{:03}", micros / 1000, micros % 1000).parse().unwrap()
    }

    fn put(object: &mut Value, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            object[key] = value.into();
        }
    }

    prop_compose! {
        /// What may stand in a field: all but control characters.
        fn field()(bytes in prop::collection::vec(prop_oneof![0x20u8..0x7f, 0x80u8..=0xff], 0..100))
            -> HeaderValue
        {
            HeaderValue::from_bytes(&bytes).unwrap()
        }
    }

    proptest! {
        #[test]
        fn every_line_is_an_object_with_the_same_values(
            (client, method, path) in (any::<String>(), "[A-Z!#$%&'*+.^_`|~-]{1,9}", any::<String>()),
            query in option::of(any::<String>()),
            id in option::of(field()),
            server in option::of(any::<String>()),
            status in option::of(100u16..600),
            refused in any::<bool>(),
            attempts in prop::collection::vec((any::<String>(), 0u64..1 << 40), 0..4),
            (bytes, total) in (any::<u64>(), 0u64..1 << 50),
            (connected, answered) in (option::of(0u64..1 << 40), option::of(0u64..1 << 40)),
            second in 0u64..1 << 33,
        ) {
            let began = Instant::now();
            let after = |micros| began + Duration::from_micros(micros);
            let server = server.map(|name| upstream(&name));
            let failures = [Failure::ConnectRefused, Failure::RetriedStatus(503)];
            let failed: Vec<Attempt> = attempts.iter().enumerate().map(|(index, (name, at))| Attempt {
                server: upstream(name),
                failure: failures[index % 2],
                at: after(*at),
            }).collect();
            let entry = Entry {
                client: &client,
                id: id.as_ref(),
                method: &method,
                path: &path,
                query: query.as_deref(),
                status: status.map(|status| StatusCode::from_u16(status).unwrap()),
                reason: refused.then_some(Reason::NoServer),
                server: server.as_deref(),
                failed: &failed,
                bytes,
                began,
                connected: connected.map(after),
                answered: answered.map(after),
                ended: after(total),
                outcome: Outcome::ClientGone,
            };
            let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            let mut line = Vec::new();
            write(&mut line, &entry, wall);
            let text = std::str::from_utf8(&line)?;
            prop_assert_eq!(text.find(ends_or_controls), Some(line.len() - 1));

            let mut expected = json!({
                "time": humantime::format_rfc3339_millis(wall).to_string(),
                "client": client,
                "method": method,
                "target": query.map_or(path.clone(), |query| format!("{path}?{query}")),
                "status": status.unwrap_or(499),
                "bytes": bytes,
                "total_ms": read_millis(total),
                "end": "client_gone",
            });
            let id = id.as_ref().map(|id| String::from_utf8_lossy(&id.as_bytes()[..id.len().min(64)]));
            put(&mut expected, "id", id);
            put(&mut expected, "server", server.map(|server| server.name.load().to_string()));
            put(&mut expected, "reason", refused.then_some("no_server"));
            put(&mut expected, "connect_ms", connected.map(read_millis));
            put(&mut expected, "first_byte_ms", answered.map(read_millis));
            let outcomes = ["refused", "503"];
            let failed = attempts.iter().enumerate().map(|(index, (name, at))| json!({
                "server": name,
                "outcome": outcomes[index % 2],
                "at_ms": read_millis(*at),
            }));
            put(&mut expected, "failed", (!attempts.is_empty()).then(|| failed.collect::<Value>()));
            prop_assert_eq!(serde_json::from_slice::<Value>(&line)?, expected);
        }
    }
}
