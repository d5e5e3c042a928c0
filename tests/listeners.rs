//! Listening sockets that `lb` inherits, and what it tells a service manager.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::Command,
};

use command_fds::{CommandFdExt, FdMapping};
use rustix::process::Signal;

use crate::{
    cli::{backend, get, get_from},
    programs::{Running, WATCHDOG, lb},
};

/// Gives `command` these descriptors, from 3 on.
fn pass(command: &mut Command, descriptors: Vec<OwnedFd>) {
    let mapping = |(parent_fd, child_fd)| FdMapping { parent_fd, child_fd };
    command.fd_mappings(descriptors.into_iter().zip(3..).map(mapping).collect()).unwrap();
}

/// `lb` as a service manager starts it: with its own number in `LISTEN_PID`.
fn activated(count: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg("LISTEN_PID=$$ exec \"$0\" \"$@\"").arg(env!("CARGO_BIN_EXE_lb"));
    command.env_remove("RUST_LOG").env("LISTEN_FDS", count);
    command
}

fn listener(address: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn a_listener_is_taken_by_its_descriptor() {
    let (_backend, port) = backend();
    let (socket, address) = listener("127.0.0.1:0");
    let mut command = lb();
    command.args(["--bind", "fd:3", "--backend", &port]);
    pass(&mut command, vec![socket.into()]);
    let running = Running::start(command);
    assert_eq!(running.port_after("ready proxy="), address.port());
    assert!(get(address.port()).starts_with("HTTP/1.1 200 OK"));
    running.signal(Signal::TERM);
    assert!(running.ended().0.success());
}

#[test]
fn all_sockets_of_the_service_manager_are_taken() {
    let (_backend, port) = backend();
    let ((v4, on_v4), (v6, on_v6)) = (listener("127.0.0.1:0"), listener("[::1]:0"));
    let mut command = activated("2");
    command.args(["--backend", &port]);
    pass(&mut command, vec![v4.into(), v6.into()]);
    let running = Running::start(command);
    assert!(running.line("ready proxy=").contains(&on_v4.to_string()));
    for address in [on_v4, on_v6] {
        assert!(get_from(address, "/").starts_with("HTTP/1.1 200 OK"), "{address}");
    }
}

#[test]
fn a_port_or_another_process_leaves_the_sockets_alone() {
    let (socket, address) = listener("127.0.0.1:0");
    let mut command = activated("1");
    command.args(["--port", "0"]);
    pass(&mut command, vec![socket.try_clone().unwrap().into()]);
    assert_ne!(Running::start(command).port_after("ready proxy="), address.port());
    // A child of the process that was meant.
    let mut command = lb();
    command.env("LISTEN_FDS", "1").env("LISTEN_PID", "1").arg("0");
    pass(&mut command, vec![socket.into()]);
    assert_ne!(Running::start(command).port_after("ready proxy="), address.port());
}

#[test]
fn an_ipv4_address_may_be_spelt_as_one_of_ipv6() {
    let (_backend, port) = backend();
    let mut command = lb();
    command.args(["--bind", "::ffff:127.0.0.1", "--port", "0", "--backend", &port]);
    let running = Running::start(command);
    assert!(running.line("ready proxy=").contains("proxy=127.0.0.1:"));
    assert!(get(running.port_after("ready proxy=")).starts_with("HTTP/1.1 200 OK"));
}

#[track_caller]
fn check(command: Command, code: i32, sentence: &str) {
    let (status, printed) = Running::start(command).ended();
    assert_eq!(status.code(), Some(code), "{printed}");
    assert!(printed.starts_with("error: ") && printed.contains(sentence), "{printed}");
}

#[test]
fn what_is_no_listener_is_a_sentence() {
    let (socket, address) = listener("127.0.0.1:0");
    let connection = TcpStream::connect(address).unwrap();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let unfit: [(OwnedFd, &str); 3] = [
        (connection.into(), "does not listen"),
        (datagrams.into(), "is a socket, but not of TCP"),
        (file.into(), "is not a socket; expected a listening TCP socket"),
    ];
    for (descriptor, sentence) in unfit {
        let mut command = lb();
        command.args(["--bind", "fd:3"]);
        pass(&mut command, vec![descriptor]);
        check(command, 1, &format!("cannot listen on fd:3: the descriptor {sentence}"));
    }
    let mut command = lb();
    command.args(["--bind", "fd:700"]);
    check(command, 1, "cannot listen on fd:700: the descriptor is not open");
    let mut command = activated("two");
    pass(&mut command, vec![socket.into()]);
    check(command, 2, "the sockets of LISTEN_FDS cannot be taken: invalid LISTEN_FDS");
    check(activated("50"), 2, "give --port or --bind to do without");
}

#[test]
fn the_service_manager_is_told_of_the_beginning_and_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let told = || {
        let mut text = [0; 100];
        let read = manager.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..read]).into_owned()
    };
    let mut command = lb();
    command.arg("0").env("NOTIFY_SOCKET", &path);
    let running = Running::start(command);
    assert_eq!(told(), "READY=1\n");
    running.line("ready proxy=");
    running.signal(Signal::TERM);
    assert_eq!(told(), "STOPPING=1\n");
    assert!(running.ended().0.success());
}

#[test]
fn a_service_manager_that_is_gone_stops_nothing() {
    let mut command = lb();
    command.arg("0").env("NOTIFY_SOCKET", "/nonexistent/notify");
    let running = Running::start(command);
    running.line("the service manager cannot be told READY=1");
    assert!(get(running.port_after("ready proxy=")).starts_with("HTTP/1.1 503"));
}
