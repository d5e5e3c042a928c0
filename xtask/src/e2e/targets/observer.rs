//! What can be known of a balancer from outside: by asking it.
//!
//! `lb` says in its log when a server is out or back. Of another balancer it is
//! seen from who answers: it has noticed once it deals over those servers that
//! are left, in turn, as long as it takes to be sure.

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use testbed::{
    backend::Backend,
    client::Client,
    fault::Health,
    log::{Event, EventKind, EventLog},
};
use tokio::time::{Instant, interval};

use super::{Bounds, Routing, Setup, Target, Unsupported};

/// An upper bound by the wall is at least this, and twenty times what it bounds.
const PATIENCE: Duration = Duration::from_secs(5);

/// From one request to the next, where the first few did not show it.
const PACE: Duration = Duration::from_millis(5);

/// How long a balancer may take to deal to all its servers, before it is judged
/// as it is.
const BEGINNING: Duration = Duration::from_secs(3);

/// A server, as the observer sees it.
#[derive(Clone, Debug)]
struct Server {
    address: SocketAddr,
    name: Arc<str>,
    weight: u32,
    /// Whether it is meant to get requests.
    expected: bool,
}

/// Asks a balancer, to see whom it deals to.
pub(crate) struct Observer {
    servers: Vec<Server>,
    in_turn: bool,
    routing: Routing,
    bounds: Bounds,
    client: Client,
    /// Asks what is nobody's request.
    silent: reqwest::Client,
    url: String,
    log: EventLog,
}

impl Observer {
    /// An observer of the balancer at `addr`, in front of `backends`.
    ///
    /// # Errors
    /// There is no HTTP client to be had, or the target's formula is wrong.
    pub(crate) fn new(
        addr: SocketAddr,
        target: &Target,
        setup: &Setup,
        backends: &[Backend],
        log: &EventLog,
    ) -> Result<Self> {
        let server = |server: &super::setup::Server| {
            let backend = backends.iter().find(|backend| backend.addr() == server.address)?;
            Some(Server {
                address: server.address,
                name: backend.name().into(),
                weight: server.weight,
                expected: server.weight > 0 && is_well(backend, log),
            })
        };
        let mut client = Client::new("observer", addr, log);
        // Each request is one to be balanced, however that is done.
        client.fresh(true);
        let (routing, in_turn) = (target.routing(), ["round_robin", "least_connections"]);
        let silent = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        Ok(Observer {
            servers: setup.servers.iter().filter_map(server).collect(),
            in_turn: in_turn.contains(&&*setup.algorithm) && routing >= Routing::Window,
            routing,
            bounds: target.bounds(setup)?,
            client,
            silent: silent.timeout(PATIENCE).build()?,
            url: format!("http://{addr}/begin"),
            log: log.clone(),
        })
    }

    /// Waits, for a while, until every server gets its turn, and stops where the
    /// first one is next. What never comes to that is for scenarios to say.
    /// These requests are nobody's: errors before the beginning do not count.
    pub(crate) async fn begin(&mut self) -> Result<()> {
        let until = Instant::now() + BEGINNING;
        let _ =
            self.settle(None, None, Patience { until, enough_from: until, silent: true }).await?;
        Ok(())
    }

    /// How long a server's end or return may go unnoticed.
    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Waits until the balancer has noticed that `backend` is `down` or `up`,
    /// and stops where the rotation stood before, as far as it can be seen.
    /// Returns the first event that shows it.
    ///
    /// # Errors
    /// It does not notice; or the state is one that cannot be seen from outside.
    pub(crate) async fn sees(&mut self, backend: &Backend, state: &str) -> Result<Event> {
        let up = match state {
            "up" => true,
            "down" => false,
            _ => bail!(Unsupported(format!("whether a server is {state} cannot be seen"))),
        };
        let last = self.last_dealt();
        let server = self.servers.iter_mut().find(|server| server.address == backend.addr());
        server.context("no such server")?.expected = up;
        let bound = if up { self.bounds.back } else { self.bounds.out };
        let (began, whole) = (Instant::now(), PATIENCE.max(20 * bound));
        let enough_from = began + 3 * bound + Duration::from_secs(2);
        let patience = Patience { until: began + whole, enough_from, silent: false };
        if !up {
            // Requests that fail over look like a server that is left out.
            while Instant::now() < began + bound {
                self.settle(last.clone(), None, patience).await?;
            }
        }
        let returning = up.then(|| backend.name().into());
        match self.settle(last, returning, patience).await? {
            Settled::Yes(event) => Ok(event),
            Settled::No(answers) => {
                let name = backend.name();
                let happened = if up { "was well again" } else { "died or was sick" };
                let left: Vec<&str> = self.expected().map(|server| &*server.name).collect();
                bail!(
                    "{whole:?} after {name} {happened} requests should go to {} and nobody else; \
                     the last were answered by {answers} (- is an error)",
                    left.join(", ")
                )
            }
        }
    }

    /// Who got the last request that a server answered.
    fn last_dealt(&self) -> Option<Arc<str>> {
        let dealt = |event: Event| match event.kind {
            EventKind::Answered { backend, .. } => backend,
            _ => None,
        };
        self.log.events().into_iter().rev().find_map(dealt)
    }

    fn expected(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.expected)
    }

    /// Asks until the answers are as they should be over the expected servers,
    /// then on until the server behind `last` is next.
    async fn settle(
        &mut self,
        last: Option<Arc<str>>,
        returning: Answer,
        patience: Patience,
    ) -> Result<Settled> {
        let silently = patience.silent;
        let cycle = self.cycle(last);
        let window = 2 * cycle.len().max(2);
        let mut seen: VecDeque<(Answer, u64)> = VecDeque::new();
        let (mut good, mut returned) = (0, returning.is_none());
        let mut pace = interval(PACE);
        while Instant::now() < patience.until {
            if seen.len() == window {
                pace.tick().await;
            }
            let answer = self.ask(silently).await;
            let is_good = answer.as_ref().map_or(cycle.is_empty(), |name| cycle.contains(name));
            good = if is_good { good + 1 } else { 0 };
            returned |= answer == returning;
            if seen.len() == window {
                seen.pop_front();
            }
            seen.push_back((answer, self.log.len().saturating_sub(1)));
            let answers: Vec<Answer> = seen.iter().map(|(answer, _)| answer.clone()).collect();
            let in_turn = seen.len() == window && self.fits(&answers, &cycle);
            // Whoever deals unfairly may still have noticed.
            let enough = returned && good >= 4 * window && Instant::now() >= patience.enough_from;
            if !in_turn && !enough {
                continue;
            }
            // A server has returned with its first answer. That one is out is
            // sure with the last of the others'.
            let returned = seen.iter().find(|(answer, _)| answer.is_some() && *answer == returning);
            let shown = returned.or(seen.back()).map_or(0, |(_, seq)| *seq);
            self.align(&cycle, answers, silently).await;
            let shown = self.log.events_from(shown).into_iter().next();
            return Ok(Settled::Yes(shown.context("nothing was logged")?));
        }
        let answers = seen.iter().map(|(answer, _)| answer.as_deref().unwrap_or("-"));
        Ok(Settled::No(answers.collect::<Vec<_>>().join(" ")))
    }

    /// One request: who answered it well.
    async fn ask(&mut self, silently: bool) -> Answer {
        if silently {
            let answer = self.silent.get(&self.url).send().await.ok()?;
            let name = answer.headers().get("x-backend")?.to_str().ok()?;
            return (answer.status() == 200).then(|| name.into());
        }
        match self.client.get("/").await {
            Ok(reply) if reply.status == 200 => reply.backend.map(Into::into),
            _ => None,
        }
    }

    /// Whether twice a period of answers shows what is to be seen.
    fn fits(&self, answers: &[Answer], cycle: &[Arc<str>]) -> bool {
        if cycle.is_empty() {
            return answers.iter().all(Option::is_none);
        }
        let (first, second) = answers.split_at(answers.len() / 2);
        let count = |half: &[Answer], name: &Arc<str>| {
            half.iter().filter(|answer| answer.as_ref() == Some(name)).count()
        };
        let wanted = |name: &Arc<str>| cycle.iter().filter(|other| *other == name).count();
        match self.in_turn && cycle.len() > 1 {
            // The same round twice, each with everybody's share.
            true => {
                let same = first == second || self.routing < Routing::Cyclic;
                same && cycle.iter().all(|name| count(first, name) == wanted(name))
                    && cycle.iter().all(|name| count(second, name) == wanted(name))
            }
            // Nobody else, and no error.
            false => {
                answers.iter().flatten().count() == answers.len()
                    && answers.iter().flatten().all(|name| cycle.contains(name))
            }
        }
    }

    /// Asks on until the next round is `cycle`, if that is the order at all.
    async fn align(&mut self, cycle: &[Arc<str>], answers: Vec<Answer>, silently: bool) {
        let is_round =
            |round: &[Answer]| round.iter().map(Option::as_ref).eq(cycle.iter().map(Some));
        let mut answers = answers;
        for _ in 0..cycle.len() {
            if !self.in_turn || is_round(&answers[answers.len() - cycle.len()..]) {
                return;
            }
            answers.push(self.ask(silently).await);
        }
    }

    /// One round over the expected servers as smooth weighted round robin deals
    /// it, beginning behind `last`.
    fn cycle(&self, last: Option<Arc<str>>) -> Vec<Arc<str>> {
        let servers: Vec<&Server> = self.expected().collect();
        let common = servers.iter().fold(0, |divisor, server| gcd(divisor, server.weight)).max(1);
        let weight = |server: &Server| i64::from(server.weight / common);
        let total: i64 = servers.iter().map(|server| weight(server)).sum();
        let mut current = vec![0_i64; servers.len()];
        let mut cycle = Vec::new();
        for _ in 0..total.min(1_000) {
            for (value, server) in current.iter_mut().zip(&servers) {
                *value += weight(server);
            }
            // The first of the greatest.
            let Some(next) = (0..current.len()).rev().max_by_key(|index| current[*index]) else {
                break;
            };
            current[next] -= total;
            cycle.push(servers[next].name.clone());
        }
        let place = |name: &Arc<str>| self.servers.iter().position(|server| server.name == *name);
        let even = servers.iter().all(|server| weight(server) == 1);
        if let Some(last) = last.as_ref().and_then(place).filter(|_| even) {
            let begin = cycle.iter().position(|name| place(name) > Some(last)).unwrap_or(0);
            cycle.rotate_left(begin);
        }
        cycle
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Whether a backend answers, and passes its probes.
fn is_well(backend: &Backend, log: &EventLog) -> bool {
    let listens = |event: Event| match event.kind {
        EventKind::Killed { backend: name } | EventKind::Stopped { backend: name } => {
            (*name == *backend.name()).then_some(false)
        }
        EventKind::Revived { backend: name } => (*name == *backend.name()).then_some(true),
        _ => None,
    };
    let listens = log.events().into_iter().rev().find_map(listens).unwrap_or(true);
    listens && backend.health() == Health::Status(200)
}

/// Who answered a request well; none if it was an error.
type Answer = Option<Arc<str>>;

/// What came of waiting.
enum Settled {
    /// It is as it should be; the event that shows it first.
    Yes(Event),
    /// It did not come to that; the last answers.
    No(String),
}

/// How long to ask.
#[derive(Clone, Copy)]
struct Patience {
    until: Instant,
    /// From here on it is enough that nobody else answers, and nobody fails, in
    /// whatever order.
    enough_from: Instant,
    /// The requests are nobody's.
    silent: bool,
}
