//! `lb`, as it is but for one worker.

use tokio::process::Command;

use super::Setup;

/// What follows the program's name.
pub(super) fn arguments(command: &mut Command, setup: &Setup<'_>) {
    command.args(["--workers", "1", "--bind", "127.0.0.1", "--port", &setup.port.to_string()]);
    command.args(["--health-period", "10s", "--no-api"]);
    for server in setup.servers {
        command.arg(format!("--backend={server}"));
    }
}
