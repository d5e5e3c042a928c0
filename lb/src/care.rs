//! What a server needs for as long as it is there: its probes, and at its end
//! the time to finish what it has.
//!
//! Owns the tasks. What a server's state follows from is the core's to say.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tracing::{info, warn};

use crate::{
    balance::InFlight,
    cluster::{Arranged, LiveCluster},
    health::Prober,
    net::Net,
    upstream::Upstream,
};

/// How far apart the probers' phases are: multiples of it modulo 1 are evenly
/// spread, however many there are (the golden ratio).
const PHASE_STEP: f64 = 0.618_033_988_749_895;

/// A change of the servers, and how long those that left may take to finish.
pub type Charge = (Arranged, Duration);

/// Takes care of the servers for as long as `charges` come. Call on a thread
/// with a local task set.
pub async fn run<N: Net>(
    net: N,
    cluster: Arc<LiveCluster>,
    mut charges: mpsc::UnboundedReceiver<Charge>,
) {
    // Dropped with this future: whoever stops needs no probes.
    let mut tasks = JoinSet::new();
    let mut joined = 0_u32;
    while let Some((arranged, drain)) = charges.recv().await {
        for (id, upstream) in arranged.joined {
            let phase = (f64::from(joined) * PHASE_STEP).fract();
            joined += 1;
            let prober = Prober { net: net.clone(), cluster: cluster.clone(), id, upstream, phase };
            tasks.spawn_local(prober.run());
        }
        for (upstream, in_flight) in arranged.left {
            tasks.spawn_local(depart(cluster.clone(), upstream, in_flight, drain));
        }
        // Those that are over.
        while tasks.try_join_next().is_some() {}
    }
}

/// Lets a removed server finish what it has, for at most `drain`.
async fn depart(
    cluster: Arc<LiveCluster>,
    upstream: Arc<Upstream>,
    in_flight: Arc<InFlight>,
    drain: Duration,
) {
    let name = upstream.name.load_full();
    if timeout(drain, upstream.departure.until_empty(&in_flight)).await.is_ok() {
        info!("server={name} drained");
    } else {
        warn!("server={name} cut off in_flight={}: its drain time is over", in_flight.get());
        cluster.cut(&upstream);
    }
}
