//! The one path on which the configuration of a running balancer changes:
//! from its file, by signal, or by the admin API.
//!
//! Owns the configuration as it is at the moment. A change is made to a copy,
//! checked whole, and applied at once or not at all. What follows for each
//! server is the [cluster](crate::cluster)'s.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::{
    balance::Wanted,
    care::Charge,
    cluster::{LiveCluster, Status},
    config::{Authority, Config, HealthCheck, Server, Settings},
    feed::Feed,
    stats::Reloads,
};

/// Why a change was not made. Nothing has changed then.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refused {
    /// There is no such server.
    #[error("server http://{0} does not exist")]
    Unknown(Authority),
    /// There is one already.
    #[error("server http://{0} already exists")]
    Duplicate(Authority),
}

/// Changes a running balancer; shared by all who may.
#[derive(Debug)]
pub struct Control {
    /// The servers as they are dealt to and observed.
    pub cluster: Arc<LiveCluster>,
    /// What holds for requests that begin now.
    pub settings: Arc<ArcSwap<Settings>>,
    /// What became of new configurations.
    pub reloads: Reloads,
    /// What passes at the workers, while somebody watches.
    pub feed: Arc<Feed>,
    config: Mutex<Config>,
    care: mpsc::UnboundedSender<Charge>,
}

impl Control {
    /// Begins with `config`. The servers are taken care of at the other end of
    /// `care`.
    pub fn new(config: Config, care: mpsc::UnboundedSender<Charge>) -> Control {
        let control = Control {
            cluster: Arc::default(),
            settings: Arc::new(ArcSwap::from_pointee(config.settings.clone())),
            reloads: Reloads::default(),
            feed: Arc::default(),
            config: Mutex::new(config),
            care,
        };
        control.apply(&control.config(), None);
        control
    }

    /// How the health of a server is checked that says nothing else.
    pub fn default_check(&self) -> HealthCheck {
        self.config().health.clone()
    }

    /// Adds a server at the end of configuration order; it gets no request
    /// before a probe passes. Returns how it stands.
    ///
    /// # Errors
    /// There is one at that address already.
    pub fn add(&self, server: Server, cause: &str) -> Result<Status, Refused> {
        let authority = server.authority.clone();
        let _held = self.change(cause, |config| {
            if config.servers.iter().any(|other| other.authority == server.authority) {
                return Err(Refused::Duplicate(server.authority.clone()));
            }
            config.servers.push(server);
            Ok(())
        })?;
        self.cluster.status_of(&authority).ok_or(Refused::Unknown(authority))
    }

    /// Changes a server by `edit`, which must leave its address alone. Returns
    /// how it stands.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn update(
        &self,
        authority: &Authority,
        edit: impl FnOnce(&mut Server),
        cause: &str,
    ) -> Result<Status, Refused> {
        let unknown = || Refused::Unknown(authority.clone());
        let _held = self.change(cause, |config| {
            let server = config.servers.iter_mut().find(|server| server.authority == *authority);
            edit(server.ok_or_else(unknown)?);
            Ok(())
        })?;
        self.cluster.status_of(authority).ok_or_else(unknown)
    }

    /// Says what is wanted of a server. Returns how it stands.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn want(
        &self,
        authority: &Authority,
        wanted: Wanted,
        cause: &str,
    ) -> Result<Status, Refused> {
        self.update(authority, |server| server.wanted = Some(wanted), cause)
    }

    /// Removes a server. What it has in flight goes on, for at most the drain
    /// time.
    ///
    /// # Errors
    /// There is none at that address.
    pub fn delete(&self, authority: &Authority, cause: &str) -> Result<(), Refused> {
        self.change(cause, |config| {
            let count = config.servers.len();
            config.servers.retain(|server| server.authority != *authority);
            let found = config.servers.len() < count;
            if found { Ok(()) } else { Err(Refused::Unknown(authority.clone())) }
        })
        .map(drop)
    }

    /// Makes `next` the configuration. What only holds from the start on is
    /// left as it is, and said.
    pub fn replace(&self, next: Config, cause: &str) {
        let mut config = self.config();
        for what in config.fixed_differences(&next) {
            warn!("{what} has changed, and will when lb is started again");
        }
        config.servers = next.servers;
        config.settings = next.settings;
        config.health = next.health;
        self.apply(&config, Some(cause));
        self.reloads.succeeded();
    }

    /// Returns the lock: while it is held nothing else changes.
    fn change(
        &self,
        cause: &str,
        edit: impl FnOnce(&mut Config) -> Result<(), Refused>,
    ) -> Result<MutexGuard<'_, Config>, Refused> {
        let mut config = self.config();
        let mut next = config.clone();
        edit(&mut next)?;
        *config = next;
        self.apply(&config, Some(cause));
        Ok(config)
    }

    /// Called with the lock held, so that changes are applied in their order.
    fn apply(&self, config: &Config, cause: Option<&str>) {
        for what in self.settings.load().differences(&config.settings) {
            info!("{what} changed cause=\"{}\"", cause.unwrap_or_default());
        }
        self.settings.store(Arc::new(config.settings.clone()));
        let arranged = self.cluster.arrange(&config.servers, &config.settings, cause);
        // Nobody takes care any more only when the process ends.
        let _ = self.care.send((arranged, config.settings.timeouts.drain));
    }

    fn config(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
