//! Configuration files from outside: which one is read, `lb check`, `lb init`.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    thread,
};

use assert_cmd::Command;
use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use tempfile::TempDir;

use crate::programs::{Running, be, lb_command};

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Runs `lb` in `folder`: its exit code, standard output and error.
fn run(folder: &Path, flags: &[&str], input: &str) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lb"));
    let output = command.current_dir(folder).args(flags).write_stdin(input).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Starts `lb` in `folder`; with the port it listens on.
fn start(folder: &Path, flags: &[&str]) -> (Running, u16) {
    let mut command = lb_command();
    command.current_dir(folder).args(flags).arg("--no-api");
    let running = Running::start(command);
    let port = running.port_after("ready proxy=");
    (running, port)
}

/// A sample backend and its port.
fn backend() -> (Running, String) {
    let mut command = be();
    command.arg("0");
    let running = Running::start(command);
    let port = running.port_after("listening on ").to_string();
    (running, port)
}

/// One GET on a connection of its own; the whole answer as text.
fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const USUAL: [&str; 10] = [
    "lb.yaml",
    "lb.yml",
    "lb.json",
    "servers.yaml",
    "servers.yml",
    "servers.json",
    "config.yaml",
    "config.yml",
    "config.json",
    "server_db.json",
];

#[test]
fn a_bare_lb_reads_the_first_of_the_usual_files_and_says_which() {
    let (_backend, port) = backend();
    let folder = folder(&[]);
    let text = format!("{{\"listen\": 0, \"servers\": [\"127.0.0.1:{port}\"]}}");
    // From the last to the first: each is preferred to those that are there.
    for name in USUAL.iter().rev() {
        fs::write(folder.path().join(name), &text).unwrap();
        let (running, lb_port) = start(folder.path(), &[]);
        running.line(&format!("the configuration is that of {name}"));
        assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"), "{name}");
    }
}

#[test]
fn servers_on_the_command_line_need_no_file() {
    let (_backend, port) = backend();
    let folder = folder(&[("lb.yaml", "nonsense")]);
    let (running, lb_port) = start(folder.path(), &["--port", "0", "--backend", &port]);
    assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"));
    assert!(!running.printed().contains("the configuration is that of"));
}

#[test]
fn without_any_file_lb_starts_empty_and_says_how_to_add_a_server() {
    let folder = folder(&[("other.yaml", "nonsense")]);
    let (running, port) = start(folder.path(), &["0"]);
    assert!(get(port).starts_with("HTTP/1.1 503 "));
    running.line("add one with --backend HOST:PORT, in lb.yaml (lb init writes one)");
}

#[test]
fn flags_win_over_the_file() {
    let (_backend, port) = backend();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "listen: '{}'\nalgorithm: random\nservers: [127.0.0.1:1]\nworkers: 1\n",
        taken.local_addr().unwrap()
    );
    let folder = folder(&[("other.yaml", &text)]);
    let flags = ["listen", "--config", "other.yaml", "--port", "0", "--backend", &port];
    let (running, lb_port) = start(folder.path(), &flags);
    assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"));
    // The address is still that of the file.
    running.line("ready proxy=127.0.0.1:");
    running.line("the configuration is that of other.yaml");
}

#[test]
fn a_bad_file_is_told_and_nothing_started() {
    let folder = folder(&[("lb.yaml", "listen: x\nservers: [a]\n")]);
    for flags in [&[][..], &["--port", "0"], &["--config", "lb.yaml"], &["listen"]] {
        let (code, stdout, stderr) = run(folder.path(), flags, "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{flags:?}");
        let expected = "\
error: lb.yaml:1: listen: \"x\" is not a place to listen; expected 8000, 0.0.0.0:8000 or [::1]:8000
error: lb.yaml:2: servers[0]: \"a\" has no port; expected http://host:port
";
        assert_eq!(stderr, expected, "{flags:?}");
    }
    let (code, _, stderr) = run(folder.path(), &["--config", "lb.toml"], "");
    assert_eq!((code, stderr.as_str()), (1, "error: lb.toml: there is no such file\n"));
}

#[test]
fn a_pipe_is_read_once_and_never_again() {
    let (_backend, server) = backend();
    let folder = folder(&[]);
    let pipe = folder.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let writer = pipe.clone();
    let writes = thread::spawn(move || fs::write(writer, format!("servers: [{server}]\n")));
    let (running, port) = start(folder.path(), &["--config", "pipe", "--port", "0"]);
    writes.join().unwrap().unwrap();
    running.signal(Signal::HUP);
    running.line("everything stays as it was: it cannot be read: it is no regular file");
    assert!(get(port).starts_with("HTTP/1.1 200"));
}

#[test]
fn check_is_silent_on_one_output_and_says_the_rest_on_the_other() {
    let good = "servers: [a:1, b:1]\nlisten: 8000\n";
    let folder = folder(&[("lb.yaml", good), ("bad.yaml", "servers: [a]\nlisten: x\n")]);
    let check = |flags: &[&str], input| run(folder.path(), &[&["check"], flags].concat(), input);
    let summary = "is good: 2 servers, listens on port 8000\n";
    assert_eq!(check(&["lb.yaml"], ""), (0, format!("lb.yaml {summary}"), String::new()));
    assert_eq!(check(&[], ""), (0, format!("lb.yaml {summary}"), String::new()));
    assert_eq!(check(&["-"], good), (0, format!("standard input {summary}"), String::new()));
    let one = "listen: '[::1]:0'\nservers: [1]";
    let summary = "standard input is good: 1 server, listens on [::1]:0\n";
    assert_eq!(check(&["-"], one), (0, summary.into(), String::new()));
    let told = "\
bad.yaml:1: servers[0]: \"a\" has no port; expected http://host:port
bad.yaml:2: listen: \"x\" is not a place to listen; expected 8000, 0.0.0.0:8000 or [::1]:8000
";
    assert_eq!(check(&["bad.yaml"], ""), (1, String::new(), told.into()));
    assert_eq!(check(&["--frobnicate"], "").0, 2);
    assert_eq!(check(&["lb.yaml", "--schema"], "").0, 2);
}

#[test]
fn what_cannot_be_checked_is_one_sentence() {
    let folder = folder(&[]);
    let check = |file: &str| {
        let (code, stdout, stderr) = run(folder.path(), &["check", file], "");
        assert_eq!((code, stdout.as_str()), (1, ""), "{file}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        stderr
    };
    assert_eq!(check("lb.yaml"), "lb.yaml: there is no such file\n");
    assert_eq!(check("."), ".: is a directory; expected a file\n");
    let told = "/dev/zero: is larger than 8 MiB, too large for a configuration\n";
    assert_eq!(check("/dev/zero"), told);
    assert!(check("-").starts_with("standard input: is empty; expected servers:"));
    // The parent of a file that is no folder: neither missing nor a directory.
    assert!(check("/dev/null/lb.yaml").starts_with("/dev/null/lb.yaml: cannot be read: "));
    let (code, _, stderr) = run(folder.path(), &["check"], "");
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: there is no lb.yaml, servers.yaml or config.yaml here"));
}

#[test]
fn the_schema_is_json() {
    let folder = folder(&[]);
    let (code, stdout, stderr) = run(folder.path(), &["check", "--schema"], "");
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert_eq!(stdout, include_str!("../docs/lb.schema.json"));
}

#[test]
fn init_writes_a_file_that_is_good_and_overwrites_none() {
    let folder = folder(&[("mine.yaml", "mine")]);
    let init = |flags: &[&str]| run(folder.path(), &[&["init"], flags].concat(), "");
    let (code, stdout, stderr) = init(&[]);
    let said = "wrote lb.yaml: name your servers there, then run lb --config lb.yaml\n";
    assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, said, ""));
    let (code, printed, _) = init(&["-"]);
    assert_eq!(code, 0);
    assert_eq!(fs::read_to_string(folder.path().join("lb.yaml")).unwrap(), printed);
    assert_eq!(run(folder.path(), &["check"], "").0, 0);
    for name in ["lb.yaml", "mine.yaml"] {
        let (code, stdout, stderr) = init(&[name]);
        let told = format!("error: {name} exists already and stays as it is; name another file\n");
        assert_eq!((code, stdout.as_str(), stderr), (1, "", told));
    }
    assert_eq!(fs::read_to_string(folder.path().join("mine.yaml")).unwrap(), "mine");
    let (code, _, stderr) = init(&["nowhere/lb.yaml"]);
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: cannot create nowhere/lb.yaml: No such file"), "{stderr}");
}

#[test]
fn output_that_nobody_takes_is_an_error_without_a_panic() {
    for flags in [&["init", "-"][..], &["check", "--schema"]] {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut command = lb_command();
        let child = command.args(flags).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{flags:?}");
        assert_eq!(told, "error: No space left on device (os error 28)\n", "{flags:?}");
    }
}

#[test]
fn another_port_is_probed_and_traffic_goes_to_the_servers_own() {
    let (server, port) = backend();
    let (prober, health_port) = backend();
    for host in ["127.0.0.1", "localhost"] {
        let text = format!(
            "listen: 0\nhealth: {{path: /probe, period: 100ms}}\nservers:\n- url: {host}:{port}\n  \
             health_check_port: {health_port}\n"
        );
        let folder = folder(&[("lb.yaml", &text)]);
        server.forget();
        prober.forget();
        let (lb, lb_port) = start(folder.path(), &[]);
        assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"), "{host}");
        prober.line("GET /probe ");
        prober.line(&format!("host: {host}:{health_port}"));
        server.line("GET /x ");
        assert!(!server.printed().contains("/probe"), "{}", server.printed());
        assert!(!prober.printed().contains("/x"), "{}", prober.printed());
        lb.signal(Signal::TERM);
        assert!(lb.ended().0.success());
    }
}

#[test]
fn a_server_is_down_when_its_other_port_is_though_it_answers() {
    let (_server, port) = backend();
    let (mut prober, health_port) = backend();
    let text = format!(
        "listen: 0\nhealth: {{path: /probe, period: 100ms}}\nservers:\n- url: localhost:{port}\n  \
         health_check_port: {health_port}\n"
    );
    let folder = folder(&[("lb.yaml", &text)]);
    let (lb, lb_port) = start(folder.path(), &[]);
    assert!(get(lb_port).starts_with("HTTP/1.1 200 OK"));
    prober.kill();
    lb.line("from=up to=down");
    assert!(get(lb_port).starts_with("HTTP/1.1 503 "));
}
