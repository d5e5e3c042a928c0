//! The bounds of health checking, in virtual time: out at most
//! `fall × period + timeout` after a server starts failing, back at most
//! `rise × period + timeout` after it recovers, and neither before the
//! threshold's worth of probes; and when each of many servers is asked.

use std::{
    future::pending,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    os::fd::RawFd,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use lb::{
    balance::{ServerId, Thresholds},
    care,
    cluster::LiveCluster,
    config::{HealthCheck, Server, Settings},
    health::Prober,
    net::Net,
    upstream::Upstream,
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    time::{Instant, sleep},
};

/// How the server meets a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// The connect is refused.
    Refuses,
    /// The connect is never answered.
    Silent,
    /// It accepts, and never answers.
    Hangs,
    /// It answers with this status, this long after the request.
    Answers(u16, Duration),
}

/// What the resolver does with any name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resolver {
    /// It says nothing.
    Hangs,
    /// It fails, after so long.
    Fails(Duration),
    /// It names this address, after so long.
    Finds([u8; 4], Duration),
}

/// A network with one server, whose mood can be changed, at all addresses but
/// those where nobody is; and with a resolver.
#[derive(Clone)]
pub(crate) struct OneServer {
    mood: Arc<Mutex<Mood>>,
    nobody_at: Arc<Mutex<Option<IpAddr>>>,
    /// Who was connected to, and when.
    asked: Arc<Mutex<Vec<(SocketAddr, Instant)>>>,
    pub(crate) resolver: Arc<Mutex<Resolver>>,
    /// Lookups that have begun, and that have ended.
    lookups: Arc<Mutex<(usize, usize)>>,
}

impl OneServer {
    pub(crate) fn new(mood: Mood) -> Self {
        OneServer {
            mood: Arc::new(Mutex::new(mood)),
            nobody_at: Arc::default(),
            asked: Arc::default(),
            resolver: Arc::new(Mutex::new(Resolver::Hangs)),
            lookups: Arc::default(),
        }
    }

    /// Nobody is at this address any more.
    pub(crate) fn leaves(&self, ip: [u8; 4]) {
        *self.nobody_at.lock().unwrap() = Some(ip.into());
    }

    /// Lookups so far, and how many of them are under way.
    pub(crate) fn lookups(&self) -> (usize, usize) {
        let (begun, ended) = *self.lookups.lock().unwrap();
        (begun, begun - ended)
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    /// When the server at this port was asked.
    fn asked(&self, port: u16) -> Vec<Instant> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|(addr, _)| addr.port() == port).map(|(_, at)| *at).collect()
    }
}

impl Net for OneServer {
    type Stream = DuplexStream;
    type Listener = ();
    type Accepted = ();

    fn listen(&self, _: SocketAddr) -> io::Result<()> {
        unreachable!("probes do not listen")
    }

    fn inherit(&self, _: RawFd) -> io::Result<()> {
        unreachable!("probes do not listen")
    }

    fn local_addr(&self, (): &()) -> io::Result<SocketAddr> {
        unreachable!("probes do not listen")
    }

    async fn accept(&self, (): &()) -> io::Result<((), SocketAddr)> {
        unreachable!("probes do not accept")
    }

    fn adopt(&self, (): ()) -> io::Result<DuplexStream> {
        unreachable!("probes do not accept")
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<DuplexStream> {
        self.asked.lock().unwrap().push((addr, Instant::now()));
        if *self.nobody_at.lock().unwrap() == Some(addr.ip()) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mood = *self.mood.lock().unwrap();
        let (ours, mut theirs) = duplex(4096);
        match mood {
            Mood::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            Mood::Silent => pending().await,
            Mood::Hangs => drop(tokio::task::spawn_local(async move {
                let _ = theirs.read_to_end(&mut Vec::new()).await;
            })),
            Mood::Answers(status, delay) => drop(tokio::task::spawn_local(async move {
                let _ = theirs.read(&mut [0; 4096]).await;
                sleep(delay).await;
                let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                let _ = theirs.write_all(head.as_bytes()).await;
            })),
        }
        Ok(ours)
    }

    fn reset_on_close(&self, _: &DuplexStream) {}

    fn has_news(&self, _: &DuplexStream) -> bool {
        false
    }

    fn is_quiet(&self, _: &DuplexStream) -> bool {
        true
    }

    async fn resolve(&self, _: &str, port: u16) -> io::Result<Rc<[SocketAddr]>> {
        self.lookups.lock().unwrap().0 += 1;
        let resolver = *self.resolver.lock().unwrap();
        let found = match resolver {
            Resolver::Hangs => pending().await,
            Resolver::Fails(delay) => {
                sleep(delay).await;
                Err(io::ErrorKind::NotFound.into())
            }
            Resolver::Finds(ip, delay) => {
                sleep(delay).await;
                Ok(Rc::from([SocketAddr::from((ip, port))]))
            }
        };
        self.lookups.lock().unwrap().1 += 1;
        found
    }
}

pub(crate) const PERIOD: Duration = Duration::from_millis(1000);
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);

#[derive(Clone, Debug)]
struct Case {
    rise: u32,
    fall: u32,
    /// The share of the spread, in percent.
    phase: u8,
    broken: Mood,
    /// How long a healthy answer takes, in milliseconds.
    answer: u64,
    /// When it recovers, and when it breaks again after it was back.
    recovers: Duration,
    breaks: Duration,
}

fn case() -> impl Strategy<Value = Case> {
    let slow = Mood::Answers(200, TIMEOUT + Duration::from_millis(1));
    let broken = prop_oneof![
        Just(Mood::Refuses),
        Just(Mood::Silent),
        Just(Mood::Hangs),
        Just(slow),
        (0u64..300).prop_map(|millis| Mood::Answers(500, Duration::from_millis(millis))),
    ];
    let moment = || (0u64..3_500_000).prop_map(Duration::from_micros);
    (1u32..4, 1u32..4, 0u8..=100, broken, 0u64..300, moment(), moment()).prop_map(
        |(rise, fall, phase, broken, answer, recovers, breaks)| {
            // After the first probe, which alone decides about a new server.
            let recovers = recovers + TIMEOUT + Duration::from_millis(2);
            Case { rise, fall, phase, broken, answer, recovers, breaks }
        },
    )
}

/// When the server is dealt to, or is not any more.
pub(crate) async fn until(
    cluster: &LiveCluster,
    (id, upstream): &(ServerId, Arc<Upstream>),
    up: bool,
) {
    loop {
        let changed = upstream.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if cluster.deals(*id) == up {
            return;
        }
        changed.await;
    }
}

async fn play(case: Case) -> (Duration, Duration) {
    let net = OneServer::new(case.broken);
    let nonzero = |n| NonZeroU32::new(n).unwrap();
    let thresholds = Thresholds { rise: nonzero(case.rise), fall: nonzero(case.fall) };
    let health =
        HealthCheck { period: PERIOD, timeout: TIMEOUT, thresholds, ..HealthCheck::default() };
    let authority = "127.0.0.1:1".parse().unwrap();
    let server = Server { name: "one".into(), authority, weight: 1, health, wanted: None };
    let cluster = Arc::new(LiveCluster::new());
    let one = cluster.arrange(&[server], &Settings::default(), None).joined.remove(0);
    let prober = Prober {
        net: net.clone(),
        cluster: cluster.clone(),
        id: one.0,
        upstream: one.1.clone(),
        phase: f64::from(case.phase) / 100.0,
    };
    tokio::task::spawn_local(prober.run());
    sleep(case.recovers).await;
    assert!(!cluster.deals(one.0), "dealt to while broken");
    net.set(Mood::Answers(200, Duration::from_millis(case.answer)));
    let recovered = Instant::now();
    until(&cluster, &one, true).await;
    let back = recovered.elapsed();
    sleep(case.breaks).await;
    assert!(cluster.deals(one.0), "out while healthy");
    net.set(case.broken);
    let broke = Instant::now();
    until(&cluster, &one, false).await;
    (back, broke.elapsed())
}

pub(crate) fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build_local(LocalOptions::default());
    runtime.unwrap().block_on(future)
}

/// Tokio's timers count in milliseconds and round up.
pub(crate) const TICK: Duration = Duration::from_millis(2);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn out_and_back_within_the_stated_bounds(case in case()) {
        let (rise, fall) = (case.rise, case.fall);
        // A connect that nobody answered may be answered after all.
        let begun_before = if case.broken == Mood::Silent { TIMEOUT } else { Duration::ZERO };
        let (back, out) = in_virtual_time(play(case));
        prop_assert!(back + TICK + begun_before >= PERIOD * (rise - 1), "back after {back:?}");
        prop_assert!(back <= PERIOD * rise + TIMEOUT + TICK, "back after {back:?}");
        prop_assert!(out + TICK >= PERIOD * (fall - 1), "out after {out:?}");
        prop_assert!(out <= PERIOD * fall + TIMEOUT + TICK, "out after {out:?}");
    }
}

fn server(port: u16) -> Server {
    let health = HealthCheck { period: PERIOD, timeout: TIMEOUT, ..HealthCheck::default() };
    let authority = format!("127.0.0.1:{port}").parse().unwrap();
    Server { name: port.to_string(), authority, weight: 1, health, wanted: None }
}

/// A balancer's cluster without servers, which is taken care of.
struct Cared {
    cluster: Arc<LiveCluster>,
    care: mpsc::UnboundedSender<care::Charge>,
}

impl Cared {
    fn start(net: &OneServer) -> Self {
        let cluster = Arc::new(LiveCluster::new());
        let (care, charges) = mpsc::unbounded_channel();
        tokio::task::spawn_local(care::run(net.clone(), cluster.clone(), charges));
        Cared { cluster, care }
    }

    fn arrange(&self, servers: &[Server]) {
        let arranged = self.cluster.arrange(servers, &Settings::default(), None);
        self.care.send((arranged, Duration::ZERO)).unwrap();
    }
}

#[test]
fn many_servers_are_asked_at_once_then_spread_then_each_in_its_period() {
    in_virtual_time(async {
        let net = OneServer::new(Mood::Answers(200, Duration::ZERO));
        let ports = 1..=20;
        let began = Instant::now();
        let cared = Cared::start(&net);
        cared.arrange(&ports.clone().map(server).collect::<Vec<_>>());
        sleep(PERIOD * 5).await;
        let mut seconds = Vec::new();
        for port in ports {
            let asked: Vec<Duration> =
                net.asked(port).into_iter().map(|at| at.duration_since(began)).collect();
            assert!(asked[0] <= TICK, "{port}: {asked:?}");
            assert!(asked[1] + TICK >= PERIOD.mul_f64(0.9), "{port}: {asked:?}");
            assert!(asked[1] <= PERIOD + TICK, "{port}: {asked:?}");
            for pair in asked[1..].windows(2) {
                assert!((pair[1] - pair[0]).abs_diff(PERIOD) <= TICK, "{port}: {asked:?}");
            }
            seconds.push(asked[1]);
        }
        seconds.sort();
        assert!(seconds[19] - seconds[0] >= PERIOD.mul_f64(0.08), "{seconds:?}");
        let gap = seconds.windows(2).map(|pair| pair[1] - pair[0]).max();
        assert!(gap <= Some(PERIOD.mul_f64(0.015)), "{seconds:?}");
    });
}

#[test]
fn a_change_of_the_period_counts_at_once_and_a_removed_server_is_asked_no_more() {
    in_virtual_time(async {
        let net = OneServer::new(Mood::Answers(200, Duration::ZERO));
        let cared = Cared::start(&net);
        cared.arrange(&[server(1), server(2)]);
        sleep(PERIOD / 2).await;
        let mut often = server(1);
        often.health.period = PERIOD / 10;
        cared.arrange(&[often.clone(), server(2)]);
        let changed = Instant::now();
        sleep(PERIOD / 2).await;
        let after: Vec<Duration> =
            net.asked(1).into_iter().skip(1).map(|at| at.duration_since(changed)).collect();
        assert!(after[0] <= TICK && (5..=6).contains(&after.len()), "{after:?}");
        cared.arrange(&[server(2)]);
        let asked = (net.asked(1).len(), net.asked(2).len());
        sleep(PERIOD * 3).await;
        assert_eq!(net.asked(1).len(), asked.0);
        assert!(net.asked(2).len() >= asked.1 + 2);
    });
}
