//! Plans of the simulation.

use anyhow::{Result, ensure};

use crate::sim::Plan;

/// What is a plan is the same one when it has been written down and read again.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let Ok(text) = str::from_utf8(bytes) else { return Ok(()) };
    let Ok(plan) = Plan::parse(text) else { return Ok(()) };
    let written = plan.to_text()?;
    ensure!(Plan::parse(&written)? == plan, "read again it is another one: {written}");
    Ok(())
}
