//! Whole lines on a file that may be full.
//!
//! Owns what is written and what is lost; never says so itself.

use std::{
    io::{self, Write},
    mem,
};

/// Writes lines as long as there is room, and counts the others.
#[derive(Debug)]
pub(super) struct Lines<W> {
    to: W,
    /// The rest of a line whose beginning is written: it goes first as soon as
    /// there is room again, so that no line is torn.
    torn: Vec<u8>,
    /// Since somebody asked.
    lost: u64,
    lost_in_all: u64,
}

impl<W: Write> Lines<W> {
    /// Nothing is written yet.
    pub(super) fn new(to: W) -> Self {
        Lines { to, torn: Vec::new(), lost: 0, lost_in_all: 0 }
    }

    /// Writes `text`, which ends with a line. What there is no room for is
    /// dropped and counted.
    ///
    /// # Errors
    /// Why something was dropped.
    pub(super) fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let torn = mem::take(&mut self.torn);
        if let Err((written, error)) = write_most(&mut self.to, &torn) {
            self.torn = torn[written..].to_vec();
            self.lose(count(text));
            return Err(error);
        }
        let Err((written, error)) = write_most(&mut self.to, text) else { return Ok(()) };
        let left = &text[written..];
        if written > 0 && text[written - 1] != b'\n' {
            let end = memchr::memchr(b'\n', left).map_or(left.len(), |end| end + 1);
            self.torn = left[..end].to_vec();
        }
        self.lose(count(&left[self.torn.len()..]));
        Err(error)
    }

    /// Goes on in another file.
    pub(super) fn go_on_in(&mut self, to: W) {
        self.to = to;
        if !mem::take(&mut self.torn).is_empty() {
            self.lose(1);
        }
    }

    /// So many lines were lost.
    pub(super) fn lose(&mut self, lines: u64) {
        self.lost += lines;
        self.lost_in_all += lines;
    }

    /// How many lines were lost so far.
    pub(super) fn lost_in_all(&self) -> u64 {
        self.lost_in_all
    }

    /// How many lines were lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> u64 {
        mem::take(&mut self.lost)
    }
}

fn count(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

/// As `write_all`, but says how much was written when it fails.
fn write_most(to: &mut impl Write, text: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < text.len() {
        match to.write(&text[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A disk with so much room.
    #[derive(Default)]
    struct Disk {
        content: Vec<u8>,
        room: usize,
    }

    impl Write for &mut Disk {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let written = text.len().min(self.room);
            if written == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= written;
            self.content.extend_from_slice(&text[..written]);
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        /// Whatever room comes when: every line is there whole, in order and
        /// once, or counted as lost.
        #[test]
        fn a_full_disk_tears_no_line(
            batches in prop::collection::vec((0usize..5, 0usize..30), 1..20),
        ) {
            let mut disk = Disk::default();
            let mut lines = Lines::new(&mut disk);
            let mut number = 0;
            for (count, room) in batches {
                lines.to.room += room;
                let mut text = Vec::new();
                for _ in 0..count {
                    writeln!(text, "line {number}")?;
                    number += 1;
                }
                // How much of it failed is what is counted below.
                let _ = lines.write(&text);
            }
            lines.to.room = usize::MAX;
            lines.write(b"")?;
            let lost = lines.take_lost();
            let content = String::from_utf8(disk.content.clone())?;
            prop_assert!(content.is_empty() || content.ends_with('\n'));
            let mut written = Vec::new();
            for line in content.lines() {
                written.push(line.strip_prefix("line ").unwrap_or("torn").parse::<u64>()?);
            }
            prop_assert!(written.is_sorted_by(|a, b| a < b), "{written:?}");
            prop_assert_eq!(written.len() as u64 + lost, number);
        }
    }

    #[test]
    fn the_rest_of_a_line_does_not_move_to_another_file() {
        let (mut old, mut new) = (Disk { room: 5, ..Disk::default() }, Disk::default());
        new.room = 100;
        let mut lines = Lines::new(&mut old);
        assert!(lines.write(b"abcdefgh\nijk\n").is_err());
        lines.go_on_in(&mut new);
        assert!(lines.write(b"lmn\n").is_ok());
        assert_eq!(lines.take_lost(), 2);
        assert_eq!((&*old.content, &*new.content), (&b"abcde"[..], &b"lmn\n"[..]));
    }
}
