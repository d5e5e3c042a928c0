//! The logs: their formats, where they go, and files that are renamed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};
use serde_json::Value;

use crate::{
    cli::{backend, balance, check, get, get_target},
    programs::{Running, lb},
};

/// The lines of requests in `text`, as JSON.
fn parse(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn end(running: Running) -> String {
    running.signal(Signal::TERM);
    let (status, printed) = running.ended();
    assert!(status.success(), "{printed}");
    printed
}

#[test]
fn json_has_a_line_for_each_request() {
    let (_backend, port) = backend();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let flags = ["--port", "0", "--backend", &port, "--log-format", "json", "--access-log"];
    let (running, lb_port) = balance(&[&flags[..], &[path.to_str().unwrap()]].concat());
    assert!(get_target(lb_port, "/a\"b\\?c=ü").starts_with("HTTP/1.1 200"));
    assert!(get(lb_port).starts_with("HTTP/1.1 200"));
    let printed = end(running);
    assert!(!printed.contains("total_ms"), "{printed}");
    let lines = parse(&fs::read_to_string(&path).unwrap());
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[0]["target"], "/a\"b\\?c=ü");
    for line in &lines {
        assert_eq!((&line["status"], &line["method"]), (&200.into(), &"GET".into()));
        assert!(line["total_ms"].as_f64().unwrap() > 0.0, "{line}");
        assert!(line["server"].as_str().unwrap().ends_with(&port), "{line}");
    }
}

#[test]
fn json_has_the_attempts_that_failed() {
    let nobody = portpicker::pick_unused_port().unwrap();
    let server = format!("127.0.0.1:{nobody}");
    let flags = ["--port", "0", "--backend", &server, "--when-all-down", "try_anyway"];
    let (running, port) = balance(&[&flags[..], &["--log-format", "json"]].concat());
    assert!(get(port).starts_with("HTTP/1.1 502"));
    let line: Value = serde_json::from_str(&running.line("{\"time\":")).unwrap();
    let attempt = &line["failed"][0];
    assert_eq!((&attempt["server"], &attempt["outcome"]), (&server.into(), &"refused".into()));
    assert!(attempt["at_ms"].as_f64() <= line["total_ms"].as_f64(), "{line}");
}

#[test]
fn json_goes_to_standard_output_beside_the_ready_line() {
    let (running, port) = balance(&["--port", "0", "--log-format", "json"]);
    assert!(get(port).starts_with("HTTP/1.1 503"));
    let line: Value = serde_json::from_str(&running.line("{\"time\":")).unwrap();
    assert_eq!((&line["status"], &line["reason"]), (&503.into(), &"no_server".into()));
}

#[test]
fn off_leaves_the_ready_line_and_the_debug_blocks() {
    let (running, port) = balance(&["--port", "0", "--access-log", "off", "--debug"]);
    assert!(get(port).starts_with("HTTP/1.1 503"));
    let printed = end(running);
    assert!(printed.contains("Received request from 127.0.0.1"), "{printed}");
    assert!(!printed.contains("total_ms="), "{printed}");
}

#[test]
fn a_file_that_cannot_be_opened_is_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing/access.log");
    for path in [folder.path(), &missing] {
        let path = path.to_str().unwrap();
        check(
            &["--port", "0", "--access-log", path],
            1,
            &format!("cannot open the access log {path}"),
        );
    }
    check(&["--access-log", ""], 2, "expected a file, - or off");
    check(&["--log-format", "xml"], 2, "[possible values: text, json]");
    check(&["--log-level", "loud"], 2, "[possible values: off, error, warn, info, debug, trace]");
}

/// The numbers that requests had in their targets.
fn numbers(path: &Path) -> Vec<String> {
    let number = |line: Value| line["target"].as_str().unwrap()["/".len()..].to_owned();
    parse(&fs::read_to_string(path).unwrap()).into_iter().map(number).collect()
}

#[test]
fn a_renamed_file_is_opened_anew_under_load_and_no_line_is_lost() {
    let (_backend, port) = backend();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = file("access.log");
    let flags = ["--port", "0", "--log-format", "json", "--backend", &port, "--access-log"];
    let (running, lb_port) = balance(&[&flags[..], &[path.to_str().unwrap()]].concat());
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let over = over.clone();
            thread::spawn(move || {
                let one = |number: &i32| {
                    let target = format!("/{client}-{number}");
                    assert!(get_target(lb_port, &target).starts_with("HTTP/1.1 200"));
                };
                (0..).take_while(|_| !over.load(Ordering::Relaxed)).inspect(one).count()
            })
        })
        .collect();
    for round in 0..10 {
        get_target(lb_port, &format!("/before-{round}"));
        running.forget();
        fs::rename(&path, file(&format!("old-{round}"))).unwrap();
        get_target(lb_port, &format!("/between-{round}"));
        running.signal(Signal::USR1);
        running.line("opened anew");
        get_target(lb_port, &format!("/behind-{round}"));
    }
    over.store(true, Ordering::Relaxed);
    let requests: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
    end(running);
    let mut all = numbers(&path);
    assert!(all.contains(&"behind-9".into()), "{all:?}");
    for round in 0..10 {
        let old = numbers(&file(&format!("old-{round}")));
        let here = |what: &str, round: i32| old.contains(&format!("{what}-{round}"));
        assert!(here("before", round) && here("between", round), "{old:?}");
        assert!(!here("behind", round) && (round == 0 || here("behind", round - 1)), "{old:?}");
        all.extend(old);
    }
    let written = all.len();
    all.sort();
    all.dedup();
    assert_eq!((all.len(), written), (requests + 30, requests + 30), "lost or doubled");
}

#[test]
fn where_it_cannot_be_opened_anew_the_old_file_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let old = folder.path().join("old.log");
    let (running, port) = balance(&["--port", "0", "--access-log", path.to_str().unwrap()]);
    fs::rename(&path, &old).unwrap();
    fs::create_dir(&path).unwrap();
    running.signal(Signal::USR1);
    running.line("the old file is kept");
    get(port);
    end(running);
    assert!(fs::read_to_string(&old).unwrap().contains("total_ms="));
}

#[test]
fn a_full_disk_is_said_once_and_what_it_cost_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let (running, port) = balance(&["--port", "0", "--access-log", path.to_str().unwrap()]);
    get(port);
    running.line("cannot write to");
    (0..4).for_each(|_| drop(get(port)));
    fs::remove_file(&path).unwrap();
    running.signal(Signal::USR1);
    running.line("opened anew");
    get(port);
    assert!(running.line("again: ").contains("again: 5 lines dropped"));
    let printed = end(running);
    assert_eq!(printed.matches("No space left").count(), 1, "{printed}");
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn a_file_that_may_grow_no_more_is_as_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let program = lb();
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 1; exec \"$@\"", "sh"]).arg(program.get_program());
    limited.args(program.get_args()).args(["--port", "0", "--access-log"]).arg(&path);
    limited.env_remove("RUST_LOG").stderr(Stdio::piped());
    let running = Running::start(limited);
    let port = running.port_after("ready proxy=");
    // A block is 512 bytes or 1024, and a line is more than a hundred.
    (0..20).for_each(|_| drop(get(port)));
    running.line("cannot write to");
    assert!(get(port).starts_with("HTTP/1.1 503"));
    end(running);
}

#[test]
fn a_log_is_not_for_everybody_and_a_pipe_without_a_reader_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let (running, _) = balance(&["--port", "0", "--access-log", path.to_str().unwrap()]);
    end(running);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    let pipe = folder.path().join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let flags = ["--port", "0", "--access-log", pipe.to_str().unwrap()];
    let output = lb().args(flags).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("pipe: No such device"), "{said}");
}

#[test]
fn no_client_gives_orders_to_the_terminal_of_who_looks_at_debug() {
    let (running, port) = balance(&["--port", "0", "--debug"]);
    get_target(port, "/\u{9b}31m\u{2028}");
    running.line("GET /\\u{9b}31m\\u{2028} HTTP/1.1");
    assert!(!end(running).contains(['\u{9b}', '\u{2028}']));
}

#[test]
fn sigusr1_without_a_file_changes_nothing() {
    let (running, port) = balance(&["0"]);
    running.signal(Signal::USR1);
    get(port);
    running.line("total_ms=");
    end(running);
}

/// Starts a balancer without servers under `RUST_LOG`, and ends it.
fn stderr_of(flags: &[&str], rust_log: Option<&str>) -> String {
    let mut command: Command = lb();
    command.args(["--port", "0", "--access-log", "off"]).args(flags);
    if let Some(value) = rust_log {
        command.env("RUST_LOG", value);
    }
    command.stderr(Stdio::piped());
    let running = Running::start(command);
    running.port_after("ready proxy=");
    end(running)
}

#[test]
fn the_level_is_chosen_by_flag_and_rust_log_wins() {
    let [warning, information] = ["no server is configured", "stopping:"];
    for (flags, rust_log, has) in [
        (&[][..], None, [true, true]),
        (&["--log-level", "warn"], None, [true, false]),
        (&["--log-level", "off"], None, [false, false]),
        (&["--log-level", "off"], Some("warn"), [true, false]),
        (&["--log-level", "debug"], Some("off"), [false, false]),
        (&["--log-level", "error"], Some(""), [false, false]),
    ] {
        let printed = stderr_of(flags, rust_log);
        let got = [warning, information].map(|text| printed.contains(text));
        assert_eq!(got, has, "{flags:?} {rust_log:?}: {printed}");
    }
}

#[test]
fn a_wrong_rust_log_is_said() {
    let printed = stderr_of(&["--log-level", "off"], Some("lb=loud"));
    assert!(printed.contains("RUST_LOG=\"lb=loud\" is ignored"), "{printed}");
    let printed = stderr_of(&[], Some("wran"));
    assert!(printed.contains("\"wran\" is no level"), "{printed}");
}
