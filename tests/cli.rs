//! The command line: every flag, and every mistake with its sentence.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
};

use assert_cmd::Command;
use rustix::process::Signal;

use crate::programs::{Running, WATCHDOG, be, lb, lb_command};

/// Runs `lb` with flags that are wrong; returns its exit code and what it says.
fn refused(flags: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_lb")).args(flags).output().unwrap();
    assert!(output.stdout.is_empty(), "{flags:?} printed to standard output");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
pub(crate) fn check(flags: &[&str], code: i32, sentence: &str) {
    let (got, text) = refused(flags);
    assert_eq!(got, code, "{flags:?}: {text}");
    assert!(text.starts_with("error: "), "{flags:?}: {text}");
    assert!(text.contains(sentence), "{flags:?}: got {text:?}, expected {sentence:?}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn mistakes_are_usage_errors_that_name_the_value() {
    check(&["--backend", "nonsense"], 2, "has no port; expected http://host:port");
    check(&["--backend", "127.0.0.1:99999"], 2, "has port 99999; expected 1 to 65535");
    check(&["--backend", "https://a:1"], 2, "has the scheme https");
    check(&["--backend", "http://a:1/x"], 2, "has the path /x");
    check(&["--backend", "::1"], 2, "needs brackets");
    check(&["--backend", "8080", "--backend", "localhost:8080"], 2, "listed twice");
    check(&["--port", "70000"], 2, "--port");
    check(&["--port", "x"], 2, "--port");
    check(&["nowhere"], 2, "nowhere");
    check(&["8000", "--port", "8001"], 2, "cannot be used with");
    check(&["--bind", "localhost"], 2, "--bind");
    check(&["--bind", "fd:x"], 2, "not the number of a descriptor; expected fd:3");
    check(&["--bind", "fd:3", "--bind", "fd:3"], 2, "--bind fd:3 is given twice");
    check(&["--bind", "::1", "--bind", "127.0.0.1"], 2, "one address, or descriptors alone");
    check(&["--bind", "fd:3", "--bind", "::1"], 2, "one address, or descriptors alone");
    check(&["--bind", "fd:3", "--port", "0"], 2, "a port cannot be chosen with --bind fd:N");
    check(&["completions", "tcsh"], 2, "[possible values: bash, elvish, fish, powershell, zsh]");
    check(&["completions"], 2, "<SHELL>");
    check(&["man", "lb"], 2, "lb");
    check(&["--health-period", "0"], 2, "longer than zero");
    check(&["--health-period", "soon"], 2, "not a duration");
    check(&["--health-timeout", "-1s"], 2, "--health-timeout");
    check(&["--health-path", "health"], 2, "must begin with /");
    check(&["--health-expect", "2xx"], 2, "is no set of status codes");
    check(&["--health-expect", "399-200"], 2, "has the empty range 399-200");
    check(&["--rise", "0"], 2, "--rise");
    check(&["--fall", "-1"], 2, "--fall");
    check(&["--workers", "0"], 2, "--workers");
    check(&["--when-all-down", "panic"], 2, "try_anyway");
    check(&["--retry-status", "5xx"], 2, "is no set of status codes");
    check(
        &["--backend", "8080,weight=x"],
        2,
        "has the weight \"x\"; expected a number from 0 to 4294967295",
    );
    check(&["--backend", "8080,weight=4294967296"], 2, "expected a number from 0 to 4294967295");
    check(&["--backend", "8080,weight=1,weight=1"], 2, "has its weight twice");
    check(
        &["--backend", "8080,height=1"],
        2,
        "has the unknown option \"height=1\"; expected weight=N",
    );
    check(&["--backend", "8080,weight=2", "--backend", "localhost:8080"], 2, "listed twice");
    check(
        &["--algorithm", "fastest"],
        2,
        "is an unknown algorithm; expected round_robin, least_con",
    );
    check(&["--algorithm", "random:header=a"], 2, "has a key, which random does not take");
    check(&["--algorithm", "hash:path"], 2, "expected hash, hash:header=NAME or hash:cookie=NAME");
    check(
        &["--algorithm", "hash:header=a b"],
        2,
        "hashes the header \"a b\"; expected the name of a header",
    );
    check(
        &["--algorithm", "hash:cookie="],
        2,
        "hashes the cookie \"\"; expected the name of a cookie",
    );
    check(&["--head-timeout", "0"], 2, "longer than zero");
    check(&["--deadline", "soon"], 2, "not a duration");
    check(&["--max-body", "1T"], 2, "not a size");
    check(&["--max-body", "-1"], 2, "not a size");
    check(&["--max-connections", "0"], 2, "not a count");
    check(&["--trusted-proxy", "localhost"], 2, "not a network");
    check(&["--trusted-proxy", "10.0.0.0/33"], 2, "not a network");
    check(&["--frobnicate"], 2, "--frobnicate");
}

#[test]
fn every_algorithm_and_a_weight_are_taken() {
    let (_backend, port) = backend();
    let server = format!("{port},weight=4294967295");
    for algorithm in [
        "round_robin",
        "least_connections",
        "two_choices",
        "random",
        "hash",
        "hash:header=X-User",
        "hash:cookie=sid",
    ] {
        let (_lb, lb_port) =
            balance(&["--port", "0", "--backend", &server, "--algorithm", algorithm]);
        assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"), "{algorithm}");
    }
}

#[test]
fn a_taken_port_is_a_sentence_that_names_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let flags = ["--bind", "127.0.0.1", "--port", &port];
    check(&flags, 1, &format!("port {port} is taken; choose another with --port"));
}

#[test]
fn an_address_of_another_machine_is_a_sentence() {
    check(&["--bind", "192.0.2.1", "--port", "0"], 1, "this machine does not have that address");
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (flag, text) in [("--help", "--health-period"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = Command::new(env!("CARGO_BIN_EXE_lb")).arg(flag).assert().success();
        let output = output.get_output();
        assert!(String::from_utf8_lossy(&output.stdout).contains(text));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn completions_and_the_manual_go_to_standard_output() {
    for (arguments, text) in [
        (&["completions", "bash"][..], "--access-log"),
        (&["completions", "zsh"], "#compdef lb"),
        (&["completions", "fish"], "complete -c lb"),
        (&["man"], ".SH SIGNALS"),
        (&["man"], "\\-\\-health\\-period"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_lb")).args(arguments).assert().success();
        let output = output.get_output();
        assert!(String::from_utf8_lossy(&output.stdout).contains(text), "{arguments:?}");
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_document_that_cannot_be_printed_is_a_sentence() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = lb_command();
    let output = command.arg("man").stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: cannot write to standard output: "), "{said}");
}

/// One GET on a connection of its own; the whole answer as text.
pub(crate) fn get(port: u16) -> String {
    get_target(port, "/x")
}

/// One GET of `target`.
pub(crate) fn get_target(port: u16, target: &str) -> String {
    get_from((Ipv4Addr::LOCALHOST, port).into(), target)
}

/// One GET of `target` at `address`.
pub(crate) fn get_from(address: SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    let head = format!("GET {target} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// A sample backend and its port.
pub(crate) fn backend() -> (Running, String) {
    let mut command = be();
    command.args(["0", "--health-path", "/health"]);
    let running = Running::start(command);
    let port = running.port_after("listening on ").to_string();
    (running, port)
}

/// Starts `lb` on any free port with these flags.
pub(crate) fn balance(flags: &[&str]) -> (Running, u16) {
    let mut command = lb_command();
    command.args(flags).arg("--no-api");
    let running = Running::start(command);
    let port = running.port_after("ready proxy=");
    (running, port)
}

#[test]
fn every_flag_is_taken_with_and_without_listen() {
    let (_backend, port) = backend();
    let flags = [
        "--port",
        "0",
        "--bind",
        "127.0.0.1",
        "--backend",
        &port,
        "--health-path",
        "/health?deep=1",
        "--health-period",
        "500ms",
        "--health-timeout",
        "0.4",
        "--health-expect",
        "200-299,304",
        "--rise",
        "2",
        "--fall",
        "3",
        "--when-all-down",
        "try_anyway",
        "--workers",
        "2",
        "--retry-status",
        "502-504",
        "--connect-timeout",
        "1",
        "--head-timeout",
        "5s",
        "--idle-timeout",
        "1m",
        "--response-timeout",
        "30s",
        "--body-timeout",
        "30s",
        "--deadline",
        "20s",
        "--drain-timeout",
        "5s",
        "--max-body",
        "10M",
        "--max-connections",
        "100",
        "--trusted-proxy",
        "10.0.0.0/8",
        "--trusted-proxy",
        "::1",
        "--log-format",
        "json",
        "--access-log",
        "-",
        "--log-level",
        "debug",
        "--fresh-posts",
        "--debug",
    ];
    for command in [&[][..], &["listen"]] {
        let (running, lb_port) = balance(&[command, &flags].concat());
        assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"));
        running.signal(Signal::TERM);
        assert!(running.ended().0.success());
    }
}

#[test]
fn a_port_alone_is_enough() {
    let (running, port) = balance(&["0"]);
    assert!(get(port).starts_with("HTTP/1.1 503 "));
    running.line("no server is configured");
    running.line("add one with --backend");
}

#[test]
fn servers_are_taken_as_url_authority_or_port() {
    let (_a, port) = backend();
    for server in [
        format!("http://127.0.0.1:{port}/"),
        format!("127.0.0.1:{port}"),
        port.clone(),
        format!("HTTP://LocalHost:{port}"),
    ] {
        let (_lb, lb_port) = balance(&["--port", "0", "--backend", &server]);
        assert!(get(lb_port).contains("Hello From Backend Server"), "{server}");
    }
}

#[test]
fn ipv6_clients_and_servers() {
    let mut command = be();
    command.args(["0", "--bind", "::1"]);
    let backend = Running::start(command);
    let port = backend.port_after("listening on ");
    for server in [format!("http://[::1]:{port}"), format!("localhost:{port}")] {
        let (_lb, lb_port) = balance(&["--port", "0", "--bind", "::1", "--backend", &server]);
        let mut stream = TcpStream::connect(("::1", lb_port)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("Hello From Backend Server"), "{server}: {answer}");
    }
}

#[test]
fn without_bind_both_ip_versions_are_served() {
    let (running, port) = balance(&["0"]);
    assert!(running.line("ready proxy=").contains("0.0.0.0:"));
    for address in ["127.0.0.1", "::1"] {
        assert!(TcpStream::connect((address, port)).is_ok(), "{address}");
    }
}

#[test]
fn ctrl_c_and_sigterm_end_it_with_exit_code_0() {
    for signal in [Signal::INT, Signal::TERM] {
        let (running, _) = balance(&["0"]);
        running.signal(signal);
        let (status, printed) = running.ended();
        assert!(status.success(), "{signal:?}: {status}\n{printed}");
    }
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (backend, port) = backend();
    let (running, lb_port) =
        balance(&["--port", "0", "--backend", &port, "--health-path", "/health"]);
    // A request that never ends keeps the first signal waiting.
    let mut stream = TcpStream::connect(("127.0.0.1", lb_port)).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    backend.line("Received request from");
    running.signal(Signal::TERM);
    running.line("stopping");
    running.signal(Signal::TERM);
    assert_eq!(running.ended().0.code(), Some(143));
}

/// Starts `lb` with one server and these outputs; returns it and its port.
fn balance_with(stdout: Stdio, stderr: Stdio, backend: &str) -> (Child, u16) {
    // With the outputs taken, its port must be known beforehand.
    let port = portpicker::pick_unused_port().unwrap();
    let mut command = lb();
    command.args(["--port", &port.to_string(), "--backend", backend, "--health-period", "200ms"]);
    let child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    // The one event that can be seen from outside is that it listens, so this
    // asks again and again, with a pause to let it come so far.
    let began = std::time::Duration::from_millis(20);
    let listening = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    assert!((0..500).any(|_| listening() || {
        std::thread::park_timeout(began);
        false
    }));
    (child, port)
}

#[track_caller]
fn expect_end_within(mut child: Child, limit: std::time::Duration) {
    let (sender, ended) = std::sync::mpsc::channel();
    let pid = rustix::process::Pid::from_child(&child);
    std::thread::spawn(move || sender.send(child.wait()));
    let status = ended.recv_timeout(limit);
    if status.is_err() {
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    assert!(status.expect("it did not end").unwrap().success());
}

#[test]
fn outputs_that_are_full_or_stuck_or_gone_stop_nothing() {
    let (backend, port) = backend();
    let full = || Stdio::from(std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    // Pipes whose reader never reads, and one whose reader is gone.
    let (stuck_out, stuck_err) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    let outputs =
        [(full(), full()), (gone(), gone()), (Stdio::from(stuck_out.1), Stdio::from(stuck_err.1))];
    for (stdout, stderr) in outputs {
        let (child, lb_port) = balance_with(stdout, stderr, &port);
        // More than a pipe holds.
        for _ in 0..1_000 {
            assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"));
        }
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
            .unwrap();
        expect_end_within(child, WATCHDOG);
    }
    drop(backend);
}
