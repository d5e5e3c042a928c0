//! Everything that one scenario plays with, and what is checked after it.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use testbed::{
    backend::{Backend, Builder},
    fairness, ledger,
    log::{DEFAULT_WATCHDOG, Event, EventKind, EventLog},
    net::Net,
};

use super::{
    Balancer, Client, Clock,
    network::{Network, Stream},
    simulated::Site,
    targets::{Routing, Target, Unsupported},
};
use crate::programs::Programs;

/// Where a scenario plays.
#[derive(Clone)]
pub(crate) enum Place {
    /// Our `lb` program, on real sockets.
    Local,
    /// Our `lb` in process, on simulated ones.
    Simulated(Site),
    /// Another balancer, on real ones.
    Target(Arc<Target>),
}

impl Place {
    /// Whose balancer is judged; ours if there is none.
    pub(super) fn target(&self) -> Option<&Arc<Target>> {
        match self {
            Place::Target(target) => Some(target),
            Place::Local | Place::Simulated(_) => None,
        }
    }
}

/// The backends, the balancers, the clients and the log of one scenario.
pub(crate) struct World {
    /// What all parties did.
    pub(crate) log: EventLog,
    /// The programs under test.
    pub(crate) programs: Programs,
    name: String,
    /// How the scenario judges time.
    pub(super) clock: Clock,
    place: Place,
    backends: Vec<Backend>,
    balancers: Vec<Balancer>,
    errors_expected: bool,
    changes_allowed: bool,
}

impl World {
    pub(crate) fn new(name: String, clock: Clock, programs: Programs, place: Place) -> Self {
        let patience = place.target().map_or(Duration::ZERO, |target| target.patience());
        World {
            log: EventLog::with_watchdog(DEFAULT_WATCHDOG + patience),
            programs,
            name,
            clock,
            place,
            backends: Vec::new(),
            balancers: Vec::new(),
            errors_expected: false,
            changes_allowed: true,
        }
    }

    /// Starts healthy backends of these names, in this order.
    pub(crate) async fn backends<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[Backend; N]> {
        let mut started = Vec::new();
        for name in names {
            started.push(self.backend(Backend::builder(name)).await?);
        }
        started.try_into().ok().context("as many backends as names")
    }

    /// Starts one backend.
    pub(crate) async fn backend(&mut self, builder: Builder) -> Result<Backend> {
        let started = match &self.place {
            Place::Local => builder.start(&self.log).await,
            Place::Simulated(site) => {
                builder.bind(site.server_address()).start_on(site.servers(), &self.log).await
            }
            Place::Target(target) => {
                builder.health_path(target.health_path()).start(&self.log).await
            }
        };
        let backend = started.context("cannot start a backend")?;
        self.backends.push(backend.clone());
        Ok(backend)
    }

    /// Starts a balancer with `flags` in front of all backends so far.
    /// Probes come every 30 s and there are two workers, unless `flags` say
    /// otherwise.
    pub(crate) async fn balance(&mut self, flags: &[&str]) -> Result<usize> {
        let servers = self.addresses();
        self.start(None, &servers, flags).await
    }

    /// The flags for probes every `period`. Ours time out after a period at the
    /// latest: a machine that stalls for so long is not to put a server out.
    pub(crate) fn probing(&self, period: &'static str) -> Vec<&'static str> {
        let fall: &[&str] = if self.is_ours() { &["--fall", "3"] } else { &[] };
        [&["--health-period", period], fall].concat()
    }

    /// `flags`, and the one that makes ours tell the result of each probe.
    pub(crate) fn telling<'a>(&self, flags: &[&'a str]) -> Vec<&'a str> {
        let level: &[&str] = if self.is_ours() { &["--log-level", "debug"] } else { &[] };
        [flags, level].concat()
    }

    /// Starts a balancer that inherits `listener`, in front of all backends.
    pub(crate) async fn balance_on(
        &mut self,
        listener: &TcpListener,
        flags: &[&str],
    ) -> Result<usize> {
        let servers = self.addresses();
        self.start(Some(listener), &servers, flags).await
    }

    /// Starts a balancer in front of `servers`.
    pub(crate) async fn balance_over(
        &mut self,
        servers: &[SocketAddr],
        flags: &[&str],
    ) -> Result<usize> {
        self.start(None, servers, flags).await
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.backends.iter().map(Backend::addr).collect()
    }

    async fn start(
        &mut self,
        inherited: Option<&TcpListener>,
        servers: &[SocketAddr],
        flags: &[&str],
    ) -> Result<usize> {
        let mut all = flags.to_vec();
        for (flag, value) in [("--health-period", "30s"), ("--workers", "2")] {
            if !flags.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        let name = format!("lb{}", self.balancers.len());
        let (program, log) = (&self.programs.lb, &self.log);
        let balancer = match (&self.place, inherited) {
            (Place::Simulated(_), Some(_)) => {
                bail!(Unsupported("listeners are inherited by processes alone".into()))
            }
            (Place::Simulated(site), None) => {
                Balancer::start_simulated(site, &name, servers, &all, log).await?
            }
            (Place::Local, _) => {
                Balancer::start(program, &name, inherited, servers, &all, log).await?
            }
            (Place::Target(_), Some(_)) => {
                bail!(Unsupported("listeners that are inherited are told by lb's flags".into()))
            }
            (Place::Target(target), None) => {
                Balancer::start_target(target, &name, servers, &all, &self.backends, log).await?
            }
        };
        self.balancers.push(balancer);
        Ok(self.balancers.len() - 1)
    }

    /// The balancer that was started last.
    pub(crate) fn lb(&mut self) -> Result<&mut Balancer> {
        self.balancers.last_mut().context("no balancer was started")
    }

    /// The balancer of this number.
    pub(crate) fn balancer(&mut self, number: usize) -> Result<&mut Balancer> {
        self.balancers.get_mut(number).context("no such balancer")
    }

    /// A recording client of the balancer that was started last.
    pub(crate) fn client(&mut self, name: &str) -> Result<Client> {
        let addr = self.lb()?.addr;
        Ok(Client::on(self.network(), name, addr, &self.log))
    }

    /// A bare connection to the balancer that was started last.
    pub(crate) async fn connect(&mut self) -> Result<Stream> {
        let addr = self.lb()?.addr;
        Ok(self.network().connect(addr).await?)
    }

    /// Where its clients are.
    pub(crate) fn network(&self) -> Network {
        match &self.place {
            Place::Simulated(site) => Network::Simulated(site.clients()),
            Place::Local | Place::Target(_) => Network::Real,
        }
    }

    /// Whether its time is virtual: then bounds hold exactly.
    pub(super) fn is_virtual(&self) -> bool {
        matches!(self.place, Place::Simulated(_))
    }

    /// The scenario provokes answers that are errors.
    pub(crate) fn expect_errors(&mut self) {
        self.errors_expected = true;
    }

    /// No server may be put out. Judged at the end, when the balancer's last
    /// line is here.
    pub(crate) fn expect_no_change(&mut self) {
        self.changes_allowed = false;
    }

    /// That the balancer claims to deal at least so evenly: what is asserted next
    /// is about that.
    ///
    /// # Errors
    /// [`Unsupported`] if it claims less.
    pub(crate) fn expect_routing(&self, least: Routing) -> Result<()> {
        let claimed = self.place.target().map_or(Routing::Strict, |target| target.routing());
        if claimed < least {
            bail!(Unsupported(format!("it claims {claimed} routing, and this asserts {least}")));
        }
        Ok(())
    }

    /// Sends a GET for each of `expected`, one after the other, and checks who
    /// answers.
    #[track_caller]
    pub(crate) fn expect_sequence<'a>(
        &self,
        client: &'a mut Client,
        expected: &'a str,
    ) -> impl std::future::Future<Output = Result<()>> + Send + use<'a, '_> {
        let place = std::panic::Location::caller();
        async move {
            self.expect_routing(Routing::Cyclic)?;
            let mut got = String::new();
            for _ in 0..expected.chars().count() {
                let reply = client.get("/").await?;
                got.push_str(if reply.backend().is_empty() { "-" } else { reply.backend() });
            }
            ensure!(got == expected, "{place}: dealt {got}, expected {expected}");
            Ok(())
        }
    }

    /// The same; of another balancer than ours only that each `round` of answers
    /// has everybody's share, in whatever order.
    pub(crate) async fn expect_rounds(
        &self,
        client: &mut Client,
        expected: &str,
        round: usize,
    ) -> Result<()> {
        if self.is_ours() {
            return self.expect_sequence(client, expected).await;
        }
        self.expect_routing(Routing::Window)?;
        let sorted = |names: &str| {
            let mut names: Vec<char> = names.chars().collect();
            names.chunks_mut(round).for_each(<[char]>::sort_unstable);
            names
        };
        let mut got = String::new();
        for _ in expected.chars() {
            got.push_str(client.get("/").await?.backend());
        }
        ensure!(sorted(&got) == sorted(expected), "dealt {got}, expected {expected} or as fair");
        Ok(())
    }

    /// Whether it is `lb` that is judged.
    pub(crate) fn is_ours(&self) -> bool {
        self.place.target().is_none()
    }

    /// That so many events came before a change. Of another balancer the change
    /// is seen a moment later than it happens, so there may be more by then.
    pub(crate) fn expect_count(&self, got: usize, expected: usize, what: &str) -> Result<()> {
        let good = if self.is_ours() { got == expected } else { got >= expected };
        ensure!(good, "{got} {what}, expected {expected}");
        Ok(())
    }

    /// How many requests of this method reached a backend.
    pub(crate) fn arrivals(&self, method: &str) -> usize {
        let arrived = |event: &&Event| matches!(&event.kind, EventKind::Received { method: got, .. } if **got == *method);
        with_processes(self.log.events()).iter().filter(arrived).count()
    }

    /// Ends the balancers.
    ///
    /// # Errors
    /// Our own does not end cleanly.
    pub(crate) async fn end(&mut self) -> Result<()> {
        for balancer in &mut self.balancers {
            balancer.terminate()?;
        }
        for balancer in &mut self.balancers {
            balancer.exited().await?;
        }
        Ok(())
    }

    /// What holds after every scenario: the balancers end cleanly on SIGTERM,
    /// no backend panicked, the ledger balances.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.backends.iter().for_each(Backend::release);
        self.end().await?;
        let changes: usize = self.balancers.iter().map(Balancer::put_out).sum();
        ensure!(self.changes_allowed || changes == 0, "{changes} servers were put out");
        let panics = self.log.panics();
        ensure!(panics.is_empty(), "it panicked: {}", panics.join("; "));
        let events = with_processes(self.log.events());
        let summary = match ledger::check(&events) {
            Ok(summary) => summary,
            Err(violations) => bail!("the ledger does not balance: {violations}"),
        };
        ensure!(
            self.errors_expected || summary.client_errors == 0,
            "{} of {} requests met an error in {}; answered: {}",
            summary.client_errors,
            summary.requests,
            self.name,
            fairness::show(&fairness::counts(&events)),
        );
        Ok(())
    }
}

/// Backends in processes of their own print what they execute: puts it into
/// the words of those in this process, for the ledger.
pub(crate) fn with_processes(events: Vec<Event>) -> Vec<Event> {
    events.into_iter().flat_map(|event| executed(&event).unwrap_or_else(|| vec![event])).collect()
}

/// `received nonce=N method=M body=LEN:HASH`, printed before the answer.
fn executed(event: &Event) -> Option<Vec<Event>> {
    let EventKind::Output { source, line } = &event.kind else { return None };
    let words = line.strip_prefix("received ")?;
    let word = |key: &str| words.split(' ').find_map(|word| word.strip_prefix(key));
    let nonce = Some(word("nonce=")?.parse().ok()?);
    let (backend, connection) = (source.clone(), 0);
    let method: Arc<str> = word("method=")?.into();
    let body = word("body=")?.parse().ok()?;
    let received = EventKind::Received {
        backend: backend.clone(),
        connection,
        nonce,
        method: Arc::clone(&method),
        target: String::new(),
        head: Arc::new([]),
    };
    let executed = EventKind::Executed { backend, connection, nonce, method, body };
    Some([received, executed].map(|kind| Event { seq: event.seq, at: event.at, kind }).into())
}
