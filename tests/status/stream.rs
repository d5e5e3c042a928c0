//! What the status page is made from, without a browser.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::Value;

use super::World;
use crate::{
    cli::get_target,
    programs::{Running, WATCHDOG, lb_command},
};

/// Asks for `target`; the answer's head, and what follows.
fn ask(world: &World, target: &str) -> (String, BufReader<TcpStream>) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.admin)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(answer.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head.to_lowercase(), answer)
}

/// How many lines may be of other events: one of three lines comes each second.
const PATIENCE: usize = 100;

/// The data of the next event of this name.
fn next(events: &mut impl BufRead, name: &str) -> Value {
    let mut line = String::new();
    for _ in 0..PATIENCE {
        line.clear();
        assert!(events.read_line(&mut line).unwrap() > 0, "the stream has ended");
        if line.trim_end() == format!("event: {name}") {
            line.clear();
            events.read_line(&mut line).unwrap();
            return serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap();
        }
    }
    panic!("no {name} comes");
}

#[test]
fn the_page_may_do_nothing_but_show() {
    let world = World::start(None);
    let (head, mut answer) = ask(&world, "/");
    let mut page = String::new();
    answer.read_to_string(&mut page).unwrap();
    for field in ["x-frame-options: deny", "cache-control: no-store", "default-src 'none'"] {
        assert!(head.contains(field), "{field} is not in {head}");
    }
    let nonce = head.split_once("script-src 'nonce-").unwrap().1.split('\'').next().unwrap();
    assert!(page.contains(&format!("<script nonce=\"{nonce}\">")), "{head}");
    assert!(!head.contains("unsafe") && !page.contains("{nonce}"), "{head}");
}

#[test]
fn the_stream_says_who_answered_and_not_what_was_asked_for() {
    let world = World::start(None);
    let (head, mut events) = ask(&world, "/live");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    let state = next(&mut events, "state");
    let servers = state["servers"].as_array().unwrap();
    assert_eq!(servers.len(), 3);
    assert!(get_target(world.proxy, "/private?secret=1").starts_with("HTTP/1.1 200"));
    let seen = next(&mut events, "requests");
    let request = &seen["requests"][0];
    assert_eq!(request["server"], servers[0]["id"]);
    assert_eq!((&request["status"], &request["safe"]), (&200.into(), &true.into()));
    let mut fields: Vec<_> = request.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["error", "failed", "safe", "server", "status", "took"]);
}

#[test]
fn a_failed_attempt_is_seen_at_its_server() {
    let world = World::start(None);
    let (_, mut events) = ask(&world, "/live");
    let state = next(&mut events, "state");
    let id = |place: usize| state["servers"][place]["id"].clone();
    world.servers[0].arm(testbed::fault::Fault::CloseAfterRequest, 1);
    assert_eq!(world.ask(1), "B");
    let seen = next(&mut events, "requests");
    assert_eq!(seen["requests"][0]["server"], id(1), "{seen}");
    assert_eq!(seen["requests"][0]["failed"][0][0], id(0), "{seen}");
}

#[test]
fn those_who_watch_leave_room_for_others() {
    let world = World::start(None);
    let watching: Vec<_> = (0..16).map(|_| ask(&world, "/live")).collect();
    for (head, _) in &watching {
        assert!(head.starts_with("http/1.1 200"), "{head}");
    }
    assert!(ask(&world, "/live").0.starts_with("http/1.1 503"));
    assert!(ask(&world, "/servers").0.starts_with("http/1.1 200"));
}

#[test]
fn the_page_needs_no_token_and_what_it_shows_does() {
    let mut world = World::start(Some("open-sesame"));
    let mut command = lb_command();
    command.args(["--port", "0", "--api-port", "0", "--api-bind", "0.0.0.0"]);
    command.env("LB_API_TOKEN", "open-sesame");
    world.lb = Running::start(command);
    world.admin = world.lb.port_after(" admin=");
    assert!(ask(&world, "/").0.starts_with("http/1.1 200"));
    for target in ["/live", "/changes", "/servers"] {
        assert!(ask(&world, target).0.starts_with("http/1.1 401"), "{target}");
    }
}
