//! What a service manager gives and is told, by systemd's protocols; nothing
//! where there is none.
//!
//! Owns no socket and no signal: only the names of what happens.

use std::os::fd::RawFd;

use sd_notify::NotifyState;
use tracing::warn;

use crate::config::{Invalid, invalid};

/// The listening sockets that were made for this process, by number
/// (`LISTEN_FDS`, `LISTEN_PID`; see sd_listen_fds(3)).
///
/// # Errors
/// The environment has them, but not as numbers of open descriptors.
pub fn sockets() -> Result<Vec<RawFd>, Invalid> {
    match sd_notify::listen_fds() {
        Ok(descriptors) => Ok(descriptors.collect()),
        Err(error) => invalid(format!(
            "the sockets of LISTEN_FDS cannot be taken: {error}; give --port or --bind to do without"
        )),
    }
}

/// Requests are served.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The configuration is being read anew; [`ready`] says that it has been.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!("the service manager cannot be told of the reload: {error}"),
    }
}

/// Nothing new is accepted; what is in flight is being finished.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!("the service manager cannot be told {}: {error}", state[0]);
    }
}
