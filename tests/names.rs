//! Servers that are configured by name, while the resolver hangs, fails or
//! changes its mind; in virtual time.

use std::{sync::Arc, time::Duration};

use lb::{
    balance::ServerId,
    cluster::LiveCluster,
    config::{HealthCheck, Server, Settings},
    health::Prober,
    upstream::Upstream,
};
use tokio::time::{Instant, sleep, timeout};

use super::probes::{
    Mood, OneServer, PERIOD, Resolver, TICK, TIMEOUT, in_virtual_time as virtually, until,
};

const HERE: [u8; 4] = [10, 0, 0, 1];
const THERE: [u8; 4] = [10, 0, 0, 2];
const AT_ONCE: Duration = Duration::ZERO;
const HEALTHY: Mood = Mood::Answers(200, AT_ONCE);

/// A healthy server that is probed by its name.
struct Named {
    net: OneServer,
    cluster: Arc<LiveCluster>,
    one: (ServerId, Arc<Upstream>),
}

impl Named {
    fn start(resolver: Resolver) -> Named {
        let net = OneServer::new(HEALTHY);
        *net.resolver.lock().unwrap() = resolver;
        let health = HealthCheck { period: PERIOD, timeout: TIMEOUT, ..HealthCheck::default() };
        let authority = "app.test:80".parse().unwrap();
        let server = Server { name: "one".into(), authority, weight: 1, health, wanted: None };
        let cluster = Arc::new(LiveCluster::new());
        let one = cluster.arrange(&[server], &Settings::default(), None).joined.remove(0);
        let (id, upstream) = one.clone();
        let (net, cluster_) = (net, cluster.clone());
        let prober = Prober { net: net.clone(), cluster: cluster_, id, upstream, phase: 0.0 };
        tokio::task::spawn_local(prober.run());
        Named { net, cluster, one }
    }

    fn resolver(&self, does: Resolver) {
        *self.net.resolver.lock().unwrap() = does;
    }

    /// That it becomes up, or not, within `limit`.
    async fn expect(&self, up: bool, limit: Duration) {
        let changed = timeout(limit + TICK, until(&self.cluster, &self.one, up)).await;
        assert!(changed.is_ok(), "not {} within {limit:?}", if up { "up" } else { "down" });
    }

    /// That it is never out for so long.
    async fn expect_up_for(&self, so_long: Duration) {
        let out = timeout(so_long, until(&self.cluster, &self.one, false)).await;
        assert!(out.is_err(), "a healthy server was put out");
    }

    fn addresses(&self) -> Vec<String> {
        self.one.1.addresses.load().iter().map(ToString::to_string).collect()
    }
}

#[test]
fn a_resolver_that_hangs_or_fails_takes_no_known_server_out() {
    for does in [
        Resolver::Hangs,
        Resolver::Fails(AT_ONCE),
        Resolver::Fails(TIMEOUT / 4),
        Resolver::Fails(PERIOD * 2),
        Resolver::Finds(HERE, PERIOD * 2),
    ] {
        virtually(async {
            let named = Named::start(Resolver::Finds(HERE, AT_ONCE));
            named.expect(true, AT_ONCE).await;
            named.resolver(does);
            named.expect_up_for(PERIOD * 20).await;
            assert_eq!(named.addresses(), ["10.0.0.1:80"]);
        });
    }
}

#[test]
fn a_server_is_put_out_in_its_time_also_while_the_resolver_hangs() {
    for broken in [Mood::Refuses, Mood::Silent, Mood::Hangs, Mood::Answers(500, AT_ONCE)] {
        virtually(async {
            let named = Named::start(Resolver::Finds(HERE, AT_ONCE));
            named.expect(true, AT_ONCE).await;
            named.resolver(Resolver::Hangs);
            sleep(PERIOD * 3).await;
            named.net.set(broken);
            named.expect(false, PERIOD + TIMEOUT).await;
            named.net.set(HEALTHY);
            named.expect(true, PERIOD + TIMEOUT).await;
        });
    }
}

#[test]
fn a_server_that_moves_is_found_by_the_probe_that_misses_it() {
    for takes in [AT_ONCE, TIMEOUT / 4] {
        virtually(async {
            let named = Named::start(Resolver::Finds(HERE, takes));
            named.expect(true, takes).await;
            named.resolver(Resolver::Finds(THERE, takes));
            named.net.leaves(HERE);
            named.expect_up_for(PERIOD * 5).await;
            assert_eq!(named.addresses(), ["10.0.0.2:80"]);
        });
    }
}

#[test]
fn one_lookup_is_under_way_and_its_result_counts_whenever_it_comes() {
    virtually(async {
        let named = Named::start(Resolver::Hangs);
        sleep(PERIOD * 50).await;
        assert_eq!(named.net.lookups(), (1, 1), "lookups pile up");
    });
    virtually(async {
        let named = Named::start(Resolver::Finds(HERE, PERIOD * 5 + PERIOD / 2));
        let began = Instant::now();
        named.expect(true, PERIOD * 6 + TIMEOUT).await;
        assert!(began.elapsed() > PERIOD * 5, "up before anybody knew where it is");
        assert_eq!(named.net.lookups().0, 2, "one took five periods, and is not begun again");
    });
}
