//! Files that say how a balancer is run.

use anyhow::Result;

use crate::e2e::targets::TargetFile;

/// Any text is a target or is refused.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = TargetFile::parse(text);
    }
    Ok(())
}
