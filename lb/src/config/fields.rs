//! Fields of a server that are texts or numbers, wherever they are written: in
//! a file, a request to the admin API, or on the command line.

use super::{Invalid, invalid};
use crate::balance::Wanted;

/// The longest name of a server, in characters.
const NAME_LIMIT: usize = 100;

/// Reads a server's weight: 0 to 4 294 967 295, in digits.
///
/// # Errors
/// It is none.
pub fn parse_weight(text: &str) -> Result<u32, Invalid> {
    match text.parse() {
        Ok(weight) if !text.starts_with('+') => Ok(weight),
        _ => invalid(format!("not a number from 0 to {}", u32::MAX)),
    }
}

/// Reads a server's name. It stands in logs and on terminals.
///
/// # Errors
/// It is empty, longer than 100 characters, or has control characters, or
/// blanks at its ends.
pub fn parse_name(text: &str) -> Result<String, Invalid> {
    if text.is_empty() {
        return invalid("must not be empty");
    }
    if text.chars().count() > NAME_LIMIT {
        return invalid(format!("must be at most {NAME_LIMIT} characters long"));
    }
    if text.chars().any(char::is_control) || text.trim() != text {
        return invalid("must have no control characters, and no blanks at its ends");
    }
    Ok(text.into())
}

/// Reads what is wanted of a server.
///
/// # Errors
/// It is none of the three states.
pub fn parse_wanted(text: &str) -> Result<Wanted, Invalid> {
    let all = [Wanted::Enabled, Wanted::Draining, Wanted::Disabled];
    match all.into_iter().find(|wanted| wanted.to_string() == text) {
        Some(wanted) => Ok(wanted),
        None => invalid("unknown state; expected enabled, draining or disabled"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights() {
        for (text, weight) in [("0", 0), ("1", 1), ("4294967295", u32::MAX)] {
            assert_eq!(parse_weight(text), Ok(weight));
        }
        for bad in ["", "-1", "+1", "1.5", "1.0", "1e2", "two", "4294967296"] {
            assert!(parse_weight(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "server one", "größer", &"x".repeat(100)] {
            assert_eq!(parse_name(good).as_deref(), Ok(good));
        }
        for bad in ["", " ", "a\nb", "a\u{1b}[2J", " a", "a ", &"x".repeat(101)] {
            assert!(parse_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn states() {
        for wanted in [Wanted::Enabled, Wanted::Draining, Wanted::Disabled] {
            assert_eq!(parse_wanted(&wanted.to_string()), Ok(wanted));
        }
        assert!(parse_wanted("up").is_err());
    }
}
