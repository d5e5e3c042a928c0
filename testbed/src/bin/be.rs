//! `be`: the sample backend, a process to put behind a balancer.
//!
//! Owns its command line and what it prints; the serving is
//! [`testbed::backend`]'s. It says what it gets, answers with a hello, and goes
//! on until it is killed. Started by hand, and by scenarios that kill it.

use std::collections::HashMap;
use std::future::pending;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Mutex;

use testbed::backend::Backend;
use testbed::log::{Event, EventKind, EventLog};
use testbed::net::{Exclusive, Loopback};

const USAGE: &str = "usage: be PORT [--name NAME] [--bind ADDR] [--health-path PATH] \
                     [--reuse-port] [--events]";

/// What every request is answered.
const HELLO: &str = "Hello From Backend Server\n";

/// What was typed, understood.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    bind: SocketAddr,
    name: Option<String>,
    health_path: String,
    reuse_port: bool,
    events: bool,
}

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        return say(USAGE);
    }
    let options = match Options::parse(args) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("be: {error}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    let bind = options.bind;
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("be: cannot listen on {bind}: {error}");
            ExitCode::from(1)
        }
    }
}

fn say(text: &str) -> ExitCode {
    match print(&format!("{text}\n")) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(1),
    }
}

fn run(options: Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

/// Serves until killed.
async fn serve(options: Options) -> io::Result<()> {
    let log = match options.events {
        true => EventLog::forwarding(print_event),
        false => {
            let printer = Mutex::new(Printer::default());
            EventLog::forwarding(move |event| {
                let mut printer = printer.lock().unwrap_or_else(|e| e.into_inner());
                printer.take(event);
            })
        }
    };
    let name = options.name.as_deref().unwrap_or("be");
    let builder =
        Backend::builder(name).bind(options.bind).health_path(&options.health_path).body(HELLO);
    let backend = match options.reuse_port {
        true => builder.start_on(Loopback, &log).await?,
        false => builder.start_on(Exclusive, &log).await?,
    };
    print(&format!("listening on {}\n", backend.addr()))?;
    pending().await
}

impl Options {
    fn parse(args: Vec<String>) -> Result<Self, String> {
        let (mut port, mut ip) = (None, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let mut options = Self {
            bind: SocketAddr::new(ip, 0),
            name: None,
            health_path: "/health".to_owned(),
            reuse_port: false,
            events: false,
        };
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match &*arg {
                "--name" => options.name = Some(value()?),
                "--health-path" => options.health_path = value()?,
                "--bind" => ip = address(&value()?)?,
                "--reuse-port" => options.reuse_port = true,
                "--events" => options.events = true,
                _ if port.is_none() && !arg.starts_with('-') => port = Some(number(&arg)?),
                _ => return Err(format!("unexpected argument {arg:?}")),
            }
        }
        let port = port.ok_or("no port given")?;
        options.bind = SocketAddr::new(ip, port);
        Ok(options)
    }
}

fn number(text: &str) -> Result<u16, String> {
    let bad = |_| format!("port: got {text:?}, expected a number from 0 to 65535");
    text.parse().map_err(bad)
}

fn address(text: &str) -> Result<IpAddr, String> {
    let bad = |_| format!("--bind: got {text:?}, expected an IP address");
    text.parse().map_err(bad)
}

/// Shows requests to a human, as they come.
#[derive(Default)]
struct Printer {
    /// Who is at the other end of each open connection.
    peers: HashMap<u64, IpAddr>,
}

impl Printer {
    fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Accepted { connection, peer, .. } => {
                self.peers.insert(*connection, peer.ip());
            }
            EventKind::Closed { connection, .. } => {
                self.peers.remove(connection);
            }
            EventKind::Received { connection, head, .. } => {
                let peer = self.peers.get(connection);
                let peer = peer.map_or_else(String::new, IpAddr::to_string);
                let head = String::from_utf8_lossy(head).replace("\r\n", "\n");
                show(&format!("Received request from {peer}\n{head}"));
            }
            EventKind::Replied { .. } => show("Replied with a hello message\n"),
            _ => {}
        }
    }
}

/// Tells a parent process what happened, before the answer is written.
fn print_event(event: &Event) {
    match &event.kind {
        EventKind::Executed { nonce, method, body, .. } => {
            let nonce = nonce.map_or_else(|| "-".to_owned(), |nonce| nonce.to_string());
            show(&format!("received nonce={nonce} method={method} body={body}\n"));
        }
        EventKind::Probed { .. } => show("probed\n"),
        _ => {}
    }
}

/// Prints for whoever reads: with nobody left, serving goes on.
fn show(text: &str) {
    let _ = print(text);
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &str) {
        let args = line.split_whitespace().map(str::to_owned).collect();
        assert_eq!(Options::parse(args).unwrap_err(), expected);
    }

    #[test]
    fn mistakes_are_named() {
        check("", "no port given");
        check("x", r#"port: got "x", expected a number from 0 to 65535"#);
        check("80 81", r#"unexpected argument "81""#);
        check("80 --nam A", r#"unexpected argument "--nam""#);
        check("80 --name", "--name needs a value");
        check("80 --bind x", r#"--bind: got "x", expected an IP address"#);
    }
}
