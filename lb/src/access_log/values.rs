//! Times and numbers as both formats write them: by hand, as they are on the
//! path of every request.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

/// RFC 3339 with milliseconds. The date changes once a second: until then each
/// thread keeps it.
pub(super) fn timestamp(line: &mut Vec<u8>, wall: SystemTime) {
    thread_local! {
        static SECOND: Cell<(u64, [u8; 20])> = const { Cell::new((u64::MAX, [0; 20])) };
    }
    let since_epoch = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (mut second, mut date) = SECOND.get();
    if second != since_epoch.as_secs() {
        second = since_epoch.as_secs();
        // "2026-11-21T09:16:00Z", 20 bytes until the year 10000.
        let text = humantime::format_rfc3339_seconds(wall).to_string();
        let bytes = text.bytes().chain(std::iter::repeat(b' '));
        date.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        SECOND.set((second, date));
    }
    line.extend_from_slice(&date[..19]);
    let millis = since_epoch.subsec_millis() as u16;
    thousandths(line, millis);
    line.push(b'Z');
}

pub(super) fn text(line: &mut Vec<u8>, key: &str, value: &str) {
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(value.as_bytes());
}

pub(super) fn number(line: &mut Vec<u8>, key: &str, value: u64) {
    text(line, key, itoa::Buffer::new().format(value));
}

/// Milliseconds with three decimals.
pub(super) fn millis(line: &mut Vec<u8>, key: &str, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(line, key, micros / 1000);
    thousandths(line, (micros % 1000) as u16);
}

fn thousandths(line: &mut Vec<u8>, count: u16) {
    let digit = |place: u16| b'0' + (count / place % 10) as u8;
    line.extend_from_slice(&[b'.', digit(100), digit(10), digit(1)]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let mut line = Vec::new();
        for millis in [0, 7, 1_000, 1_795_252_560_123] {
            timestamp(&mut line, at(millis));
            assert_eq!(line, humantime::format_rfc3339_millis(at(millis)).to_string().as_bytes());
            line.clear();
        }
    }

    #[test]
    fn milliseconds_have_three_decimals() {
        let mut line = Vec::new();
        for micros in [0, 7, 70, 999, 1_000, 12_034_567] {
            millis(&mut line, " ", Duration::from_micros(micros));
        }
        assert_eq!(line, b" 0.000 0.007 0.070 0.999 1.000 12034.567");
    }
}
