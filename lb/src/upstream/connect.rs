//! One governed connect.

use std::{
    collections::VecDeque, future::Future, io, net::SocketAddr, pin::Pin, task::Poll,
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::{Upstream, Wire, governor::Permit, pool::IDLE_LIMIT};
use crate::net::{Net, is_local, lacks_descriptors};

/// Why there is no connection.
#[derive(Debug)]
pub enum ConnectError {
    /// Refused or unreachable at every address.
    Refused(io::Error),
    /// This machine could not even try: out of descriptors, ports or memory.
    Local(io::Error),
    /// No answer in time; `evidence` says whether that speaks against the server.
    TimedOut {
        /// False if another connect to the server succeeded meanwhile.
        evidence: bool,
    },
}

/// A connection to a server.
#[derive(Debug)]
pub struct Connection<S> {
    /// What is sent and read on it.
    pub wire: Wire<S>,
    /// The epoch of the server's health when it was opened.
    pub epoch: u64,
    /// Whether it was opened for a request that takes no other: then it takes
    /// the place of an idle one, or they would pile up.
    pub extra: bool,
    /// When it was last in use.
    pub used: Instant,
    /// How long it may be idle.
    pub idle_limit: Duration,
    /// How long the server's silence is borne. Kept for the life of the
    /// connection: putting a timer off is far cheaper than making one.
    pub timer: Pin<Box<Sleep>>,
}

/// Connects to `upstream` within `limit`.
///
/// # Errors
/// No address of the server took the connection.
pub async fn connect<N: Net>(
    net: &N,
    upstream: &Upstream,
    permit: Permit<'_>,
    limit: Duration,
    epoch: u64,
) -> Result<Box<Connection<N::Stream>>, ConnectError> {
    let addresses = upstream.addresses.load_full();
    let stream = match connect_any(net, &addresses, permit.patience(), limit).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            return Err(ConnectError::TimedOut { evidence: permit.timed_out() });
        }
        Err(error) if is_local(&error) => return Err(ConnectError::Local(error)),
        Err(error) => return Err(ConnectError::Refused(error)),
    };
    permit.succeeded();
    let now = Instant::now();
    let timer = Box::pin(sleep_until(now));
    let wire = Wire::new(stream);
    Ok(Box::new(Connection { wire, epoch, extra: false, used: now, idle_limit: IDLE_LIMIT, timer }))
}

/// Connects to one of `addresses` within `limit`. When one fails the next is
/// tried; when nobody answers for `patience` the next, or the same anew, is
/// tried beside it (RFC 8305 §5), and then with twice the patience. So an
/// address that is silent does not hide another, and a SYN that was lost on a
/// full backlog is not waited for until the kernel repeats it after a second.
/// One connect to each address is under way at most.
///
/// # Errors
/// What the server said, if it said anything; `TimedOut` if an address did not
/// answer in time; else why this machine could not ask.
pub async fn connect_any<N: Net>(
    net: &N,
    addresses: &[SocketAddr],
    patience: Duration,
    limit: Duration,
) -> io::Result<N::Stream> {
    let connected = timeout(limit, race(|address| net.connect(address), addresses, patience)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn race<S, F: Future<Output = io::Result<S>>>(
    connect: impl Fn(SocketAddr) -> F,
    addresses: &[SocketAddr],
    mut patience: Duration,
) -> io::Result<S> {
    let mut failure: Option<io::Error> = None;
    // The addresses that have not failed, and the connect under way to each.
    let mut open: VecDeque<&SocketAddr> = addresses.iter().collect();
    let mut under_way: Vec<(&SocketAddr, Pin<Box<_>>)> = Vec::new();
    while let Some(address) = open.pop_front() {
        // A new SYN takes the place of one that was lost.
        under_way.retain(|(other, _)| *other != address);
        under_way.push((address, Box::pin(connect(*address))));
        open.push_back(address);
        match timeout(patience, first_ended(&mut under_way)).await {
            Ok((_, Ok(stream))) => return Ok(stream),
            Ok((address, Err(error))) => {
                open.retain(|other| *other != address);
                failure = Some(more_telling(failure, error));
            }
            Err(_) => patience *= 2,
        }
    }
    Err(failure
        .unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address")))
}

/// The first of the connects under way to end, taken out.
async fn first_ended<'a, S, F: Future<Output = io::Result<S>>>(
    under_way: &mut Vec<(&'a SocketAddr, Pin<Box<F>>)>,
) -> (&'a SocketAddr, io::Result<S>) {
    std::future::poll_fn(|cx| {
        for index in 0..under_way.len() {
            if let Poll::Ready(ended) = under_way[index].1.as_mut().poll(cx) {
                return Poll::Ready((under_way.swap_remove(index).0, ended));
            }
        }
        Poll::Pending
    })
    .await
}

/// A server's refusal says more than that this machine could not ask (`::1`
/// where there is no IPv6); nothing is said by all of them where descriptors lack.
fn more_telling(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if lacks_descriptors(&before) => before,
        Some(before) if is_local(&error) && !lacks_descriptors(&error) => before,
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use rustix::io::Errno;

    use super::*;

    /// What happens to the connects to one port, one after the other.
    #[derive(Clone, Copy)]
    enum Port {
        Refuses,
        NoAddress,
        Silent,
        Answers,
        /// The first is silent, the second answers.
        LosesSyn,
    }

    /// A network whose ports are numbered from 0; counts connects and those
    /// under way.
    #[derive(Clone)]
    struct Script(Rc<RefCell<(Vec<Port>, Vec<usize>)>>);

    impl Script {
        async fn play(ports: &[Port]) -> (String, Vec<usize>) {
            let connects = vec![0; ports.len()];
            let script = Script(Rc::new(RefCell::new((ports.to_vec(), connects))));
            let addresses: Vec<SocketAddr> =
                (0..ports.len()).map(|port| ([127, 0, 0, 1], port as u16).into()).collect();
            let script_of = script.clone();
            let connect = |address: SocketAddr| {
                let script = script_of.clone();
                async move { script.connect(usize::from(address.port())).await }
            };
            let limit = Duration::from_secs(2);
            let raced = race(&connect, &addresses, Duration::from_millis(50));
            let got = match timeout(limit, raced).await {
                Ok(Ok(())) => "connected".into(),
                Ok(Err(error)) => format!("{:?}", error.kind()),
                Err(_) => "TimedOut".into(),
            };
            let counts = script.0.borrow().1.clone();
            (got, counts)
        }

        async fn connect(&self, port: usize) -> io::Result<()> {
            let (kind, nth) = {
                let mut state = self.0.borrow_mut();
                state.1[port] += 1;
                (state.0[port], state.1[port])
            };
            match kind {
                Port::Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                Port::NoAddress => Err(Errno::ADDRNOTAVAIL.into()),
                Port::Silent => std::future::pending().await,
                Port::Answers => Ok(()),
                Port::LosesSyn if nth == 1 => std::future::pending().await,
                Port::LosesSyn => Ok(()),
            }
        }
    }

    #[track_caller]
    fn check(ports: &[Port], expected: &str, connects: &[usize]) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (got, counts) = runtime.block_on(Script::play(ports));
        assert_eq!(got, expected);
        assert_eq!(counts, connects);
    }

    #[test]
    fn a_refusal_without_ipv6_is_a_refusal() {
        check(&[Port::Refuses, Port::NoAddress], "ConnectionRefused", &[1, 1]);
        check(&[Port::NoAddress, Port::Refuses], "ConnectionRefused", &[1, 1]);
        check(&[Port::NoAddress], "AddrNotAvailable", &[1]);
    }

    #[test]
    fn a_silent_address_hides_no_other() {
        check(&[Port::Silent, Port::Answers], "connected", &[1, 1]);
        check(&[Port::Refuses, Port::Answers], "connected", &[1, 1]);
    }

    #[test]
    fn a_lost_syn_is_sent_anew_with_doubled_patience() {
        check(&[Port::LosesSyn], "connected", &[2]);
        // At 0, 50, 150, 350, 750 and 1550 ms.
        check(&[Port::Silent], "TimedOut", &[6]);
    }

    #[test]
    fn a_silent_address_beside_one_that_refuses_times_out() {
        check(&[Port::Refuses, Port::Silent], "TimedOut", &[1, 6]);
    }
}
