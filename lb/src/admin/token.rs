//! The secret that a client of the admin API shows. Never on a command line,
//! where every user of the machine sees it.

use std::{
    env::{self, VarError},
    fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, bail, ensure};
use subtle::ConstantTimeEq;
use tracing::{info, warn};

/// Where the token is when no file is named.
const VARIABLE: &str = "LB_API_TOKEN";

/// The longest token file, in bytes.
const LIMIT: u64 = 16 * 1024;

/// The secret itself; visible ASCII, at least one character.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// What is in `file`, or else in the environment; `None` if neither is there.
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
        Token::read(path).map(Some)
    }

    fn read(path: &Path) -> Result<Token> {
        let name = || format!("the token file {}", path.display());
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LIMIT + 1).read_to_string(&mut text));
        read.with_context(|| format!("cannot read {}", name()))?;
        ensure!(text.len() as u64 <= LIMIT, "{} is longer than {LIMIT} bytes", name());
        Token::new(text.trim_end_matches(['\r', '\n'])).with_context(name)
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

/// What clients have to show. A file is read again for each request: whoever replaces
/// a token that others know need not restart anything.
#[derive(Debug, Default)]
pub(super) struct Secret {
    /// None for what can be read only once: the environment, a pipe.
    file: Option<PathBuf>,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    token: Option<Token>,
    /// What was last wrong with the file.
    trouble: Option<String>,
}

impl Secret {
    /// As [`Token::find`] does. Says so if others than its owner can read the file.
    ///
    /// # Errors
    /// As there.
    pub(super) fn find(file: Option<&Path>) -> Result<Secret> {
        let token = Token::find(file)?;
        file.inspect(|path| warn_if_open(path));
        let file = file.filter(|path| can_be_read_again(path)).map(Path::to_path_buf);
        Ok(Secret { file, last: Mutex::new(Last { token, trouble: None }) })
    }

    /// The token as it is now; `None` if none is needed. While the file is not
    /// good the last one counts.
    pub(super) fn current(&self) -> Option<Token> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = self.file.as_deref().filter(|path| can_be_read_again(path)) {
            match Token::read(path).map(Some) {
                Ok(token) => {
                    if token != last.token {
                        info!("the token file {} has changed: what it says counts", path.display());
                        warn_if_open(path);
                    }
                    *last = Last { token, trouble: None };
                }
                Err(error) => {
                    let trouble = Some(format!("{error:#}"));
                    if trouble != last.trouble {
                        warn!("{error:#}; the token before still counts");
                    }
                    last.trouble = trouble;
                }
            }
        }
        last.token.clone()
    }
}

/// Not a pipe, nor a device. Of what is not there, reading it says so.
fn can_be_read_again(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |metadata| metadata.is_file())
}

/// Says so if others than its owner can read the token's file.
fn warn_if_open(file: &Path) {
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

    #[test]
    fn what_the_file_says_now_counts_and_while_it_is_not_good_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "first\n").unwrap();
        let secret = Secret::find(Some(&path)).unwrap();
        let current = || secret.current().map(|token| token.0);
        assert_eq!(current().as_deref(), Some("first"));
        fs::write(&path, "second\n").unwrap();
        assert_eq!(current().as_deref(), Some("second"));
        for bad in ["", "a b", &"x".repeat(20_000)] {
            fs::write(&path, bad).unwrap();
            assert_eq!(current().as_deref(), Some("second"), "{bad:.10}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(current().as_deref(), Some("second"));
        fs::write(&path, "third").unwrap();
        assert_eq!(current().as_deref(), Some("third"));
    }
}
