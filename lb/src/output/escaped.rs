//! Text of others, for a terminal or a line of a log.

use std::fmt::{self, Display, Formatter, Write};

/// Shows a text without what a terminal obeys or a reader takes for the end of a
/// line: those characters stand as `\u{9b}`.
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match ends_or_controls(char) {
            true => write!(f, "\\u{{{:x}}}", u32::from(char)),
            false => f.write_char(char),
        })
    }
}

/// Whether what reads lines, or shows them, may take the character for an end or an
/// order: a control (above ASCII, too), or U+2028 or U+2029.
pub(crate) fn ends_or_controls(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_that_is_obeyed() {
        let shown = Escaped("/\u{e9}\"\\ \u{1b}[2J\r\n\u{85}\u{9b}31m\u{2028}").to_string();
        assert_eq!(shown, "/\u{e9}\"\\ \\u{1b}[2J\\u{d}\\u{a}\\u{85}\\u{9b}31m\\u{2028}");
    }
}
