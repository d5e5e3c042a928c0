//! What a newcomer types, against servers and clients that nobody here wrote:
//! `python3 -m http.server` and curl.

mod browsing;
mod least;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use tempfile::TempDir;

use crate::programs::{Running, be, lb, lb_command};

/// Whether the programs that a transcript needs are here. Without them it is
/// skipped aloud, except in CI, where they must be.
pub(crate) fn have(programs: &[&str]) -> bool {
    let runs = |program: &&&str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let missing: Vec<_> = programs.iter().filter(|program| !runs(program)).collect();
    assert!(missing.is_empty() || std::env::var_os("CI").is_none(), "CI lacks {missing:?}");
    if !missing.is_empty() {
        eprintln!("skipped: {missing:?} not found");
    }
    missing.is_empty()
}

/// A `python3 -m http.server` whose page is its name.
struct Python {
    name: &'static str,
    folder: TempDir,
    port: u16,
    running: Running,
}

impl Python {
    fn start(name: &'static str) -> Python {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("index.html"), format!("page {name}\n")).unwrap();
        // A number outside the range from which the kernel takes the ports of
        // clients, so that the server can come back to it.
        let (port, running) = (0..20)
            .find_map(|_| {
                let port = portpicker::pick_unused_port()?;
                Some((port, serve(folder.path(), port)?))
            })
            .expect("no port that python can listen on");
        Python { name, folder, port, running }
    }

    fn kill(&mut self) {
        self.running.kill();
    }

    fn start_again(&mut self) {
        self.running = serve(self.folder.path(), self.port).expect("python cannot listen again");
    }
}

/// `None` if the port is taken.
fn serve(folder: &Path, port: u16) -> Option<Running> {
    let mut command = Command::new("python3");
    command.args(["-u", "-m", "http.server", &port.to_string(), "--directory"]).arg(folder);
    let running = Running::start(command);
    let line = running.line_with(&["Serving HTTP", "Error"]);
    line.contains("Serving HTTP").then_some(running)
}

fn three() -> [Python; 3] {
    ["A", "B", "C"].map(Python::start)
}

/// `lb` in front of `servers`; with the port it listens on.
fn balance(servers: &[Python], flags: &[&str]) -> (Running, u16) {
    let ports: Vec<_> = servers.iter().map(|server| server.port.to_string()).collect();
    balance_over(&ports, flags)
}

/// The same, with the servers as `--backend` takes them.
fn balance_over(servers: &[String], flags: &[&str]) -> (Running, u16) {
    let mut command = lb();
    command.args(["--port", "0"]).args(flags);
    for server in servers {
        command.args(["--backend", server]);
    }
    let running = Running::start(command);
    let port = running.port_after("ready proxy=");
    (running, port)
}

/// One curl, which must succeed: the page.
#[track_caller]
fn curl(port: u16) -> String {
    let url = format!("http://localhost:{port}/");
    let output =
        Command::new("curl").args(["-sS", "--fail", &url, "--output", "-"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "curl: {} {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The letters of the pages of `count` curls, one after the other.
#[track_caller]
fn pages(port: u16, count: usize) -> String {
    (0..count).map(|_| curl(port).trim().replace("page ", "")).collect()
}

/// How many pages came from each server, with `count` requests by curl, `parallel`
/// of them at once.
#[track_caller]
fn at_once(port: u16, count: usize, parallel: usize) -> BTreeMap<String, usize> {
    let folder = tempfile::tempdir().unwrap();
    let urls = folder.path().join("urls.txt");
    fs::write(&urls, format!("url = \"http://localhost:{port}/\"\n").repeat(count)).unwrap();
    let output = Command::new("curl")
        .args(["-sS", "--fail", "--no-progress-meter", "--parallel", "--parallel-immediate"])
        .args(["--parallel-max", &parallel.to_string(), "--config"])
        .arg(&urls)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = BTreeMap::new();
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        *counts.entry(line.to_owned()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn transcript_1_one_server() {
    if !have(&["curl"]) {
        return;
    }
    let mut command = be();
    command.arg("0");
    let backend = Running::start(command);
    let backend_port = backend.port_after("listening on ").to_string();
    let mut command = lb();
    command.args(["--port", "0", "--backend", &backend_port, "--debug"]);
    let lb = Running::start(command);
    let port = lb.port_after("ready proxy=");
    // The first probe is a request like any other.
    backend.line("Replied with a hello message");
    backend.forget();
    assert_eq!(curl(port), "Hello From Backend Server\n");
    backend.line("Replied with a hello message");
    let printed = backend.printed();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[..2], ["Received request from 127.0.0.1", "GET / HTTP/1.1"], "{printed}");
    assert!(printed.ends_with("\n\nReplied with a hello message"), "{printed}");
    lb.line("Response from server: HTTP/1.1 200 OK");
    let printed = lb.printed();
    assert!(printed.contains("Received request from 127.0.0.1\nGET / HTTP/1.1\n"), "{printed}");
    assert!(printed.contains("\nuser-agent: curl/"), "{printed}");
}

#[test]
fn transcripts_2_and_3_two_and_three_servers() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let servers = three();
    let (_lb, port) = balance(&servers[..2], &[]);
    assert_eq!(pages(port, 4), "ABAB");
    let (_lb, port) = balance(&servers, &[]);
    assert_eq!(pages(port, 6), "ABCABC");
}

#[test]
fn transcripts_4_and_5_kill_one_and_start_it_again() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let mut servers = three();
    let (lb, port) = balance(&servers, &["--health-period", "10s"]);
    assert_eq!(pages(port, 3), "ABC");
    servers[1].kill();
    // B's first request goes to C; then the other two take turns.
    assert_eq!(pages(port, 10), "ACCACACACA");
    servers[1].start_again();
    let name = format!("server=localhost:{} from=down to=up", servers[1].port);
    lb.line(&name);
    assert_eq!(pages(port, 6), "BCABCA");
}

#[test]
fn transcript_6_many_at_once() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let servers = three();
    let (lb, port) = balance(&servers, &["--health-period", "10s"]);
    let nine = at_once(port, 9, 3);
    assert_eq!(nine.values().copied().collect::<Vec<_>>(), [3, 3, 3], "{nine:?}");
    for count in [50, 150] {
        let pages = at_once(port, count, count);
        assert_eq!(pages.values().sum::<usize>(), count, "{pages:?}");
    }
    lb.signal(rustix::process::Signal::TERM);
    let (_, printed) = lb.ended();
    assert!(!printed.contains("from=up"), "a server was put out:\n{printed}");
    assert_eq!(servers.each_ref().map(|server| server.name), ["A", "B", "C"]);
}

/// `lb` in a folder with one file; with the port it listens on. It listens where
/// the file or the default says, or on any port where it may not.
fn in_folder(name: &str, text: &str, flags: &[&str]) -> (TempDir, Running, u16) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), text).unwrap();
    let start = |more: &[&str]| {
        let mut command = lb_command();
        command.current_dir(folder.path()).args(flags).args(more).args(["--api-port", "0"]);
        Running::start(command)
    };
    let mut lb = start(&[]);
    if lb.line_with(&["ready proxy=", "cannot listen on"]).contains("cannot listen on") {
        eprintln!("on another port: {}", lb.printed());
        lb = start(&["--port", "0"]);
    }
    let port = lb.port_after("ready proxy=");
    (folder, lb, port)
}

#[test]
fn transcript_7_a_bare_lb_reads_servers_yaml() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let servers = three();
    let mut text = String::from("Servers:\n");
    for server in &servers {
        text.push_str(&format!("  - host: 127.0.0.1\n    port: {}\n", server.port));
    }
    let (_folder, lb, port) = in_folder("servers.yaml", &text, &[]);
    lb.line("the configuration is that of servers.yaml");
    assert_eq!(pages(port, 6), "ABCABC");
}

#[test]
fn transcript_8_a_server_list_with_ports_as_strings() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let mut servers = three();
    let mut list = Vec::new();
    for server in &servers {
        fs::write(server.folder.path().join("health"), "good\n").unwrap();
        let (name, port) = (server.name, server.port);
        list.push(format!(r#"{{"id": "{name}", "host": "127.0.0.1", "port": "{port}"}}"#));
    }
    let text = format!(r#"{{"server_list": [{}]}}"#, list.join(",\n"));
    let (_folder, lb, port) = in_folder("server_db.json", &text, &[]);
    lb.line("the configuration is that of server_db.json");
    servers[0].running.line("GET /health ");
    assert_eq!(pages(port, 3), "ABC");
    // Each lasts until the next probe, 15 s at most.
    servers[1].kill();
    lb.line("server=B from=up to=down");
    assert_eq!(pages(port, 2), "AC");
    servers[1].start_again();
    lb.line("server=B from=down to=up");
    assert_eq!(pages(port, 3), "ABC");
}

#[test]
fn transcript_9_a_list_of_named_servers() {
    if !have(&["python3", "curl"]) {
        return;
    }
    let servers = three();
    let text = format!(
        "- name: server1\n  url: http://127.0.0.1:{}\n  weight: 1\n  health_check_period: 5\n\
         - name: server2\n  url: http://127.0.0.1:{}\n  weight: 2\n  health_check_period: 5\n",
        servers[0].port, servers[1].port
    );
    let flags = ["listen", "--config", "config.yaml", "--debug"];
    let (_folder, lb, port) = in_folder("config.yaml", &text, &flags);
    lb.line("server=server1 from=checking to=up");
    lb.line("server=server2 from=checking to=up");
    assert_eq!(pages(port, 6), "BABBAB");
    lb.line("Received request from 127.0.0.1");
    lb.line("Response from server: HTTP/1.0 200 OK");
}

/// A server that answers everything with `status`, or not at all.
fn answering(status: Option<u16>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // What is parked ends with the test's process.
            thread::spawn(move || {
                let head = BufReader::new(&stream).lines().map_while(Result::ok);
                head.take_while(|line| !line.is_empty()).for_each(drop);
                let Some(status) = status else { return thread::park() };
                let length = if status == 204 { "" } else { "Content-Length: 0\r\n" };
                let answer = format!("HTTP/1.1 {status} Some\r\n{length}Connection: close\r\n\r\n");
                let _ = (&stream).write_all(answer.as_bytes());
            });
        }
    });
    port
}

#[test]
fn transcript_12_what_is_healthy() {
    if !have(&["curl"]) {
        return;
    }
    let status = |port: u16| {
        let url = format!("http://localhost:{port}/");
        let mut command = Command::new("curl");
        let output = command.args(["-sS", "-w", "%{http_code}", "-o", "/dev/null", &url]).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    let answers = [204, 301, 399, 400, 404, 500].map(Some).into_iter().chain([None]);
    let answers: Vec<_> = answers.map(|status| (status, answering(status))).collect();
    for (flags, healthy) in [(&[][..], 0), (&["--health-expect", "200-399"], 3)] {
        let mut command = lb();
        command.args(["--port", "0", "--health-timeout", "1s"]).args(flags);
        for (_, port) in &answers {
            command.args(["--backend", &port.to_string()]);
        }
        let running = Running::start(command);
        let port = running.port_after("ready proxy=");
        for (index, (status, port)) in answers.iter().enumerate() {
            let to = if index < healthy { "up" } else { "down" };
            let line = running.line(&format!("server=localhost:{port} from=checking to={to}"));
            let detail = status.map_or("timed out".into(), |status| format!("detail=\"{status}\""));
            assert!(line.contains(&detail), "{line}");
        }
        let got: Vec<_> = (0..3).map(|_| status(port)).collect();
        assert_eq!(got, if healthy == 0 { ["503"; 3] } else { ["204", "301", "399"] });
    }
}
