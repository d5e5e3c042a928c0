//! The secret that a client of the admin API shows. Never on a command line,
//! where every user of the machine sees it.

use std::{
    env::{self, VarError},
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::{Context, Result, bail, ensure};
use subtle::ConstantTimeEq;
use tracing::warn;

/// Where the token is when no file is named.
const VARIABLE: &str = "LB_API_TOKEN";

/// The secret itself; visible ASCII, at least one character.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// The first line of `file`, or else what is in the environment; `None` if
    /// neither is there.
    ///
    /// # Errors
    /// The file cannot be read, or the token is empty or nothing that a field
    /// of HTTP can carry.
    pub fn find(file: Option<&Path>) -> Result<Option<Token>> {
        let Some(path) = file else {
            return match env::var(VARIABLE) {
                Ok(text) => Token::new(&text).context(VARIABLE).map(Some),
                Err(VarError::NotPresent) => Ok(None),
                // The error would show what it is.
                Err(VarError::NotUnicode(_)) => bail!("{VARIABLE}: the token is not UTF-8"),
            };
        };
        let name = || format!("the token file {}", path.display());
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", name()))?;
        Token::new(text.trim_end_matches(['\r', '\n'])).with_context(name).map(Some)
    }

    fn new(text: &str) -> Result<Token> {
        ensure!(!text.is_empty(), "the token is empty");
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(visible, "the token has characters that are not visible ASCII");
        Ok(Token(text.into()))
    }

    /// Whether an `Authorization` field shows this token (RFC 6750 §2.1). How
    /// long that takes says nothing about where they differ.
    pub(super) fn is_shown_by(&self, authorization: &[u8]) -> bool {
        let Some((scheme, shown)) = authorization.split_at_checked("Bearer ".len()) else {
            return false;
        };
        let shown = shown.trim_ascii();
        scheme.eq_ignore_ascii_case(b"Bearer ") && self.0.as_bytes().ct_eq(shown).into()
    }

    /// The value of the `Authorization` field that shows it.
    pub fn to_authorization(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Says so if others than its owner can read the token's file.
pub(super) fn warn_if_open(file: &Path) {
    let mode = fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        let (path, mode) = (file.display(), mode & 0o777);
        warn!("the token file {path} is open to others (mode {mode:o}); chmod 600 {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_counts() {
        let token = Token::new("s3cret").unwrap();
        for good in ["Bearer s3cret", "bearer s3cret", "BEARER  s3cret "] {
            assert!(token.is_shown_by(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "Bearer",
            "Bearer ",
            "s3cret",
            "Basic s3cret",
            "Bearer s3cre",
            "Bearer S3cret",
            "Bearer s3crett",
        ] {
            assert!(!token.is_shown_by(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn tokens_that_no_field_can_carry_are_refused() {
        for bad in ["", "a b", "ä", "a\nb"] {
            assert!(Token::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_token_is_not_shown_in_debug_output() {
        assert!(!format!("{:?}", Token::new("s3cret").unwrap()).contains("s3cret"));
    }
}
