//! The lookups of a server's name.
//!
//! Owns that there is one at a time: what is asked of the operating system's
//! resolver cannot be taken back, and holds a thread until it gives up. Never
//! decides how long a lookup is waited for: see [`health`](crate::health).

use std::{io, sync::Arc};

use tokio::task::JoinSet;

use super::{Upstream, known_addresses};
use crate::net::Net;

/// The lookups of one server's name. Dropped, the one under way finds nothing.
pub struct Lookup<N> {
    net: N,
    upstream: Arc<Upstream>,
    /// One at most.
    under_way: JoinSet<io::Result<()>>,
}

impl<N: Net> Lookup<N> {
    /// None under way yet.
    pub fn new(net: N, upstream: Arc<Upstream>) -> Self {
        Lookup { net, upstream, under_way: JoinSet::new() }
    }

    /// Looks the name up anew, beside what the caller does, unless the lookup
    /// before has not ended. Addresses need no looking up. Call on a thread
    /// with a local task set.
    pub fn begin(&mut self) {
        // What the one before has found is known already.
        while self.under_way.try_join_next().is_some() {}
        let needless = !known_addresses(&self.upstream.authority).is_empty();
        if needless || self.is_under_way() {
            return;
        }
        let (net, upstream) = (self.net.clone(), self.upstream.clone());
        self.under_way.spawn_local(async move {
            let authority = &upstream.authority;
            let found = net.resolve(&authority.host, authority.port).await?;
            upstream.addresses.store(Arc::new(found.to_vec()));
            Ok(())
        });
    }

    /// Whether a lookup has begun whose end nobody has seen.
    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Waits for the end of the lookup under way, if there is one: the
    /// server's addresses are then what it has found.
    ///
    /// # Errors
    /// The resolver failed: the addresses are as they were.
    pub async fn ended(&mut self) -> io::Result<()> {
        match self.under_way.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }
}
