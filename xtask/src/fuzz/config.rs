//! Configuration files.

use anyhow::{Result, ensure};
use lb::config;

/// Any bytes are a configuration, or have mistakes that are told with their
/// place; the same each time.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    let read = || config::parse(bytes, "lb.yaml");
    let config = match read() {
        Err(problems) => {
            ensure!(read().is_err_and(|again| again == problems), "other mistakes: {problems}");
            for line in problems.to_string().lines() {
                ensure!(line.starts_with("lb.yaml:"), "told without its file: {line}");
            }
            return Ok(());
        }
        Ok(config) => config,
    };
    let again = read()?;
    ensure!(config.servers == again.servers, "other servers the second time");
    ensure!(config.settings.differences(&again.settings).is_empty(), "other settings");
    ensure!(config.fixed_differences(&again).is_empty(), "other addresses");
    for (index, server) in config.servers.iter().enumerate() {
        let others = &config.servers[..index];
        ensure!(others.iter().all(|o| o.authority != server.authority), "twice: {server:?}");
        ensure!(server.authority.port != 0, "port 0: {server:?}");
        ensure!(!server.name.trim().is_empty(), "no name: {server:?}");
        ensure!(!server.health.period.is_zero(), "no period: {server:?}");
        ensure!(server.health.timeout <= server.health.period, "{server:?}");
    }
    Ok(())
}
