//! The admin API and its commands from outside: what is asked and answered.

mod access;
mod load;
mod scrapes;
mod transcripts;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
};

use serde_json::Value;

use crate::programs::{Running, WATCHDOG, be, lb_command};

/// A balancer with an admin API on a free port.
struct Api {
    lb: Running,
    proxy: u16,
    port: u16,
}

fn start(flags: &[&str]) -> Api {
    let mut command = lb_command();
    command.args(["--port", "0", "--api-port", "0"]).args(flags);
    let lb = Running::start(command);
    let (proxy, port) = (lb.port_after("ready proxy="), lb.port_after(" admin="));
    Api { lb, proxy, port }
}

/// Runs one of the program's commands.
fn command(words: &[&str]) -> Output {
    lb_command().args(words).output().unwrap()
}

/// What a failed command says; it must exit with 1 and print nothing else.
#[track_caller]
fn error_of(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("error: ") && output.stdout.is_empty(), "{text}");
    text
}

#[track_caller]
fn silent(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(output.stderr.is_empty() && output.stdout.is_empty(), "{text}");
}

/// Talks to the port: the whole answer, or what came before it broke off.
fn talk(mut stream: impl Read + Write, request: &str) -> String {
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(WATCHDOG)).unwrap();
    stream
}

/// One request with `fields`, each ended by CRLF; status, head and body.
fn ask_with(port: u16, fields: &str, what: &str, body: &str) -> (u16, String, String) {
    let length = body.len();
    let request = format!("{what} HTTP/1.1\r\n{fields}Content-Length: {length}\r\n\r\n{body}");
    let answer = talk(connect(port), &request);
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
}

fn ask(port: u16, what: &str, body: &str) -> (u16, String) {
    let (status, _, body) = ask_with(port, "Host: localhost\r\n", what, body);
    (status, body)
}

fn servers(port: u16) -> Value {
    let (status, body) = ask(port, "GET /servers", "");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// A sample backend and its URL.
fn backend(name: &str) -> (Running, String) {
    let mut command = be();
    command.args(["0", "--name", name]);
    let running = Running::start(command);
    let port = running.port_after("listening on ");
    (running, format!("http://127.0.0.1:{port}"))
}

const ADD: &str = "{\"url\":\"127.0.0.1:1\"}";

#[test]
fn the_description_has_every_route_and_holds_together() {
    let api = start(&[]);
    let (status, text) = ask(api.port, "GET /openapi.json", "");
    assert_eq!(status, 200);
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{text}");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut routes = Vec::new();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            routes.push(format!("{method} {path}"));
            operations.push(operation["operationId"].to_string());
            let responses = operation["responses"].as_object().unwrap();
            assert!(responses.contains_key("200"), "{method} {path}");
            assert!(responses.values().all(|r| r["description"].is_string()), "{method} {path}");
            assert_eq!(operation["requestBody"].is_object(), method == "post", "{method} {path}");
            // It is there, and takes the method. A stream has no end, but a head.
            let method = if method == "get" { "HEAD" } else { "POST" };
            let (status, body) = ask(api.port, &format!("{method} {path}"), "");
            assert!(status != 404 && status != 405, "{method} {path}: {status} {body}");
        }
    }
    let expected = [
        "get /",
        "post /add",
        "get /changes",
        "post /delete",
        "post /disable",
        "post /drain",
        "post /enable",
        "get /health",
        "get /live",
        "get /metrics",
        "get /openapi.json",
        "get /servers",
        "post /update",
    ];
    assert_eq!(routes, expected);
    operations.sort();
    operations.dedup();
    assert_eq!(operations.len(), routes.len(), "operations have names of their own");
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    let fields = &document["components"]["schemas"]["ServerBody"];
    assert_eq!(fields["required"], serde_json::json!(["url"]), "{fields}");
    assert_eq!(fields["properties"]["weight"]["maximum"], u64::from(u32::MAX), "{fields}");
}

#[test]
fn a_server_is_shown_with_what_is_wanted_and_observed_apart() {
    let (_backend, url) = backend("A");
    let api =
        start(&["--backend", &url, "--health-expect", "200-299,304", "--health-timeout", "1.5"]);
    let (status, _) = ask(api.port, "POST /drain", &url);
    assert_eq!(status, 200);
    let list = servers(api.port);
    let server = &list[0];
    let expected = [
        ("url", url.as_str().into()),
        ("name", url.trim_start_matches("http://").into()),
        ("weight", 1.into()),
        ("wanted", "draining".into()),
        ("observed", "up".into()),
        ("eligible", false.into()),
        ("in_flight", 0.into()),
        ("cause", "probe passed".into()),
        ("detail", "200".into()),
        ("health_check_period", 10.into()),
        ("health_check_timeout", 1.5.into()),
        ("health_check_port", serde_json::Value::Null),
        ("health_check_path", "/".into()),
        ("health_check_expect", "200-299,304".into()),
        ("rise", 1.into()),
        ("fall", 1.into()),
    ];
    for (field, value) in expected {
        let value: Value = value;
        assert_eq!(server[field], value, "{field}");
    }
    assert!(server["since"].as_str().unwrap().ends_with('Z'), "{server}");
    let (_, changes) = ask(api.port, "GET /changes", "");
    let changes: Value = serde_json::from_str(&changes).unwrap();
    let last = changes.as_array().unwrap().last().unwrap();
    assert_eq!((&last["to"], &last["cause"]), (&"draining".into(), &"admin API".into()), "{last}");
}

#[test]
fn defaults_of_an_added_server_and_what_an_update_leaves_alone() {
    let api = start(&["--health-period", "3s"]);
    let add = "{\"url\":\"HTTP://LocalHost:1/\",\"name\":null}";
    let (status, text) = ask(api.port, "POST /add", add);
    assert_eq!(status, 200, "{text}");
    let added: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&added["url"], &added["name"]),
        (&"http://localhost:1".into(), &"localhost:1".into())
    );
    assert_eq!(added["health_check_period"], 3);
    // Unless the first probe was faster than the answer.
    assert!(["checking", "down"].contains(&added["observed"].as_str().unwrap()), "{added}");
    let update = |fields: &str| {
        let body = format!("{{\"url\":\"localhost:1\",{fields}}}");
        let (status, text) = ask(api.port, "POST /update", &body);
        assert_eq!(status, 200, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let short = update("\"health_check_period\":\"500ms\",\"name\":\"x\",\"weight\":7,\"fall\":4");
    assert_eq!(
        (&short["health_check_period"], &short["health_check_timeout"]),
        (&0.5.into(), &0.5.into())
    );
    // The timeout was only cut to the period, so it grows again with it.
    let long = update("\"health_check_period\":20,\"health_check_path\":\"/h?a=1\"");
    assert_eq!(
        (&long["health_check_period"], &long["health_check_timeout"]),
        (&20.into(), &2.into())
    );
    assert_eq!(
        (&long["name"], &long["weight"], &long["fall"]),
        (&"x".into(), &7.into(), &4.into())
    );
    assert_eq!(long["health_check_path"], "/h?a=1");
}

#[test]
fn no_answer_is_kept_or_taken_for_something_else() {
    let api = start(&[]);
    for (what, fields, code) in [
        ("GET /", "Host: localhost", 200),
        ("GET /servers", "Host: localhost", 200),
        ("GET /changes", "Host: localhost", 200),
        ("GET /metrics", "Host: localhost", 200),
        ("GET /openapi.json", "Host: localhost", 200),
        ("HEAD /live", "Host: localhost", 200),
        ("GET /health", "Host: localhost", 503),
        ("GET /nowhere", "Host: localhost", 404),
        ("PUT /add", "Host: localhost", 405),
        ("POST /add", "Host: localhost", 400),
        ("GET /metrics", "Host: evil.example", 403),
    ] {
        let (status, head, _) = ask_with(api.port, &format!("{fields}\r\n"), what, "");
        assert_eq!(status, code, "{what}: {head}");
        for field in ["\r\ncache-control: no-store", "\r\nx-content-type-options: nosniff"] {
            assert_eq!(head.matches(field).count(), 1, "{what}: {head}");
        }
    }
}

#[test]
fn a_body_of_nothing_but_mistakes_gets_no_endless_answer() {
    let api = start(&[]);
    let fields: Vec<_> = (0..5_000).map(|number| format!("\"f{number}\":0")).collect();
    let body = format!("{{\"url\":\"a:1\",{}}}", fields.join(","));
    let (status, text) = ask(api.port, "POST /add", &body);
    assert_eq!(status, 422);
    assert!(text.len() < body.len(), "{} bytes for {}", text.len(), body.len());
    let answer: Value = serde_json::from_str(&text).unwrap();
    let told = answer["errors"].as_array().unwrap();
    assert_eq!((told.len(), &told[100]["error"]), (101, &"4900 more mistakes".into()));
    assert_eq!(servers(api.port).as_array().unwrap().len(), 0);
}

#[test]
fn a_host_that_is_none_forges_no_line_of_the_log() {
    let api = start(&[]);
    for url in ["http://a,status=200:80", "http://[::1]80:90", &format!("{}:1", "a".repeat(60_000))]
    {
        let (status, text) = ask(api.port, "POST /add", &format!("{{\"url\":\"{url}\"}}"));
        assert_eq!(status, 422, "{text}");
        assert!(text.contains(" host") && text.contains("\"field\":\"url\""), "{text}");
        assert_eq!(ask(api.port, "POST /delete", url).0, 422);
    }
    assert_eq!(servers(api.port).as_array().unwrap().len(), 0);
    assert!(!api.lb.printed().contains("status=200"), "{}", api.lb.printed());
    let name = "{\"url\":\"http://my_app:1\"}";
    assert_eq!(ask(api.port, "POST /add", name).0, 200);
}

#[test]
fn what_answers_commands_may_be_nobody_or_somebody_else() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let text = error_of(&command(&["list-servers", "--api-port", &nobody]));
    assert!(text.contains(&format!("nothing answers at 127.0.0.1:{nobody}: ")), "{text}");
    assert!(text.contains("--api-port or --api says where it is"), "{text}");
    let (_backend, url) = backend("A");
    for contact in [url.as_str(), url.trim_start_matches("http://")] {
        let text = error_of(&command(&["add-server", "--url", "127.0.0.1:1", "--api", contact]));
        assert!(
            text.contains("and not as lb's admin API does; is something else listening"),
            "{text}"
        );
    }
    // It accepts, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let text = error_of(&command(&["delete-server", "--url", "127.0.0.1:1", "--api-port", &port]));
    assert!(text.contains(&format!("no answer from 127.0.0.1:{port} within 10s")), "{text}");
}

#[test]
fn commands_find_an_api_on_ipv6_loopback() {
    let api = start(&["--api-bind", "::1"]);
    for host in ["localhost", "[::1]", "http://LocalHost"] {
        let contact = format!("{host}:{}", api.port);
        let output = command(&["list-servers", "--json", "--api", &contact]);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n", "{contact}");
    }
}

#[test]
fn commands_that_lack_something_are_usage_errors() {
    for words in [
        &["add-server"][..],
        &["delete-server", "--url"],
        &["list-servers", "--url", "a:1"],
        &["add-server", "--url", "a:1", "--hight", "1"],
        &["list-servers", "--api-port", "0"],
        &["list-servers", "--api-port", "1", "--api", "a:1"],
        &["list-servers", "--api", "a"],
    ] {
        let output = command(words);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {text}");
        assert!(text.starts_with("error: "), "{words:?}: {text}");
    }
}
