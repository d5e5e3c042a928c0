//! What a newcomer types at a running balancer: commands and curl.

use std::process::Command;

use super::{Api, backend, command, error_of, servers, silent, start};
use crate::transcripts::have;

/// The names of the backends that answer `count` curls, one after the other.
#[track_caller]
fn dealt(api: &Api, count: usize) -> String {
    let url = format!("http://localhost:{}/", api.proxy);
    let curl = |_| {
        let output = Command::new("curl").args(["-sSi", "--fail", &url]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
        let name = text.split_once("x-backend: ").expect("a backend's answer").1;
        name.chars().next().unwrap()
    };
    (0..count).map(curl).collect()
}

#[test]
fn transcript_9_two_weights() {
    if !have(&["curl"]) {
        return;
    }
    let ((_a, first), (_b, second)) = (backend("a"), backend("b"));
    let second = format!("{second},weight=2");
    let flags = ["--backend", &first, "--backend", &second, "--health-period", "5", "--debug"];
    let api = start(&flags);
    assert_eq!(dealt(&api, 6), "babbab");
    let list = servers(api.port);
    assert_eq!((&list[0]["weight"], &list[1]["weight"]), (&1.into(), &2.into()));
    assert_eq!(list[1]["health_check_period"], 5);
    api.lb.line("Response from server: HTTP/1.1 200 OK");
}

#[test]
fn transcript_10_commands() {
    if !have(&["curl"]) {
        return;
    }
    let ((_a, first), (_c, third)) = (backend("a"), backend("c"));
    let api = start(&["--backend", &first]);
    let port = api.port.to_string();
    let run = |words: &[&str]| command(&[words, &["--api-port", &port]].concat());
    let add = ["add-server", "--url", &third, "--name", "server3"];
    silent(&run(&add));
    let text = error_of(&run(&add));
    assert_eq!(text, format!("error: server {third} already exists\n"));
    api.lb.line("server=server3 from=checking to=up");
    assert_eq!(dealt(&api, 4), "acac");
    let update = ["--weight", "5", "--health-check-period", "2"];
    silent(&run(&[&["update-server", "--url", &third], &update[..]].concat()));
    let twelve = dealt(&api, 12);
    assert_eq!(twelve.matches('c').count(), 10, "{twelve}");
    let list = run(&["list-servers"]);
    let table = String::from_utf8(list.stdout).unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert!(list.status.success() && lines.len() == 3, "{table}");
    let (heading, server) = (lines[0], lines[2]);
    assert!(server.starts_with("server3 ") && server.contains(&third), "{table}");
    assert_eq!(heading.find("WEIGHT"), server.find("5       "), "{table}");
    let json = run(&["list-servers", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json[1]["health_check_period"], 2);
    let unknown =
        error_of(&run(&[&["update-server", "--url", "127.0.0.1:1"], &update[..]].concat()));
    assert_eq!(unknown, "error: server http://127.0.0.1:1 does not exist\n");
    silent(&run(&["delete-server", "--url", &third]));
    assert_eq!(dealt(&api, 3), "aaa");
    let gone = error_of(&run(&["delete-server", "--url", &third]));
    assert_eq!(gone, format!("error: server {third} does not exist\n"));
    assert_eq!(dealt(&api, 3), "aaa");
}

/// `curl -i -X POST`, with the status and the body of the answer.
fn curl(api: &Api, path: &str, body: &str) -> (u16, String) {
    let url = format!("127.0.0.1:{}{path}", api.port);
    let output =
        Command::new("curl").args(["-sSi", "-X", "POST", &url, "-d", body]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    (head[9..12].parse().unwrap(), body.to_owned())
}

#[test]
fn transcript_11_curl() {
    if !have(&["curl"]) {
        return;
    }
    let ((_a, first), (_c, third)) = (backend("a"), backend("c"));
    let api = start(&["--backend", &first]);
    let body = |more: &str| format!("{{\"url\":\"{third}\"{more}}}");
    let full = ",\"name\":\"server3\",\"weight\":1,\"health_check_period\":10";
    let (status, text) = curl(&api, "/add", &body(full));
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\"name\":\"server3\""), "{text}");
    api.lb.line("server=server3 from=checking to=up");
    assert_eq!(dealt(&api, 4), "acac");
    let before = servers(api.port);
    for (path, wrong, code, sentence) in [
        ("/add", body(full), 409, "already exists"),
        ("/add", "{\"url\"".into(), 400, "the body is not JSON"),
        ("/add", "{\"name\":\"x\"}".into(), 422, "url is missing; expected http://host:port"),
        ("/update", body(",\"weight\":-1"), 422, "weight -1: not a number from 0 to 4294967295"),
        ("/update", body(",\"weight\":4294967296"), 422, "weight 4294967296: not a number"),
        ("/update", body(",\"weight\":-1,\"rise\":0"), 422, "\"errors\":[{"),
        ("/delete", "http://127.0.0.1:1".into(), 404, "does not exist"),
    ] {
        let (status, text) = curl(&api, path, &wrong);
        assert_eq!(status, code, "{wrong}: {text}");
        assert!(text.contains(sentence), "{wrong}: {text}");
    }
    assert_eq!(servers(api.port), before);
    assert_eq!(curl(&api, "/update", &body(",\"weight\":2")).0, 200);
    let six = dealt(&api, 6);
    assert_eq!(six.matches('c').count(), 4, "{six}");
    let (status, text) = curl(&api, "/delete", &third);
    assert_eq!((status, text), (200, format!("{{\"deleted\":\"{third}\"}}\n")));
    assert_eq!(dealt(&api, 2), "aa");
}

#[test]
fn transcript_13_a_probe_each_second_and_none_after_the_end() {
    let ((a, first), (c, third)) = (backend("a"), backend("c"));
    let api = start(&["--backend", &first, "--backend", &third]);
    let port = api.port.to_string();
    let probe = "GET / HTTP/1.1";
    c.lines(probe, 1);
    // The other one's probes tell the time.
    for url in [&first, &third] {
        let period = ["--health-check-period", "1", "--api-port", &port];
        silent(&command(&[&["update-server", "--url", url], &period[..]].concat()));
    }
    a.forget();
    c.forget();
    c.lines(probe, 3);
    let meanwhile = a.printed().matches(probe).count();
    assert!((2..=5).contains(&meanwhile), "{meanwhile} probes of the one while three of the other");
    silent(&command(&["delete-server", "--url", &third, "--api-port", &port]));
    api.lb.line("drained");
    a.forget();
    c.forget();
    a.lines(probe, 3);
    assert!(!c.printed().contains(probe), "{}", c.printed());
}
