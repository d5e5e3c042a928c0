//! What each mistake is told as.

use super::{load, mistakes};

#[test]
fn the_sentence_of_the_contract() {
    let text = "listen: 8000\nservers:\n  - http://a:1\n  - url: b:1\n\n  -\n    url: 10.0.0.5\n";
    mistakes(text, &["7: servers[2].url: \"10.0.0.5\" has no port; expected http://host:port"]);
}

#[test]
fn a_mistake_is_told_in_one_line_whatever_the_value_has_in_it() {
    mistakes(
        "servers:\n  - \"a\\nb://c\"\n",
        &["2: servers[0]: \"a\\nb://c\" has the scheme a\\nb; expected http://host:port"],
    );
}

#[test]
fn every_mistake_is_told_at_once() {
    let text = "\
listen: 70000
algorithm: fastest
health:
  perid: 3
  path: x
servers:
  - 10.0.0.5
  - {url: http://a:1, weight: -1, name: a b}
  - {url: 'http://A:1/', wieght: 2}
";
    mistakes(
        text,
        &[
            "1: listen: 70000 is not a place to listen; expected 8000, 0.0.0.0:8000 or [::1]:8000",
            "2: algorithm: \"fastest\" is an unknown algorithm; expected round_robin, \
             least_connections, two_choices, random, hash, hash:header=NAME or hash:cookie=NAME",
            "4: health.perid: is an unknown key; did you mean period?",
            "5: health.path: \"x\" must begin with /; expected a path such as /health",
            "7: servers[0]: \"10.0.0.5\" has no port; expected http://host:port",
            "8: servers[1].weight: -1 is not a weight; expected a number from 0 to 4294967295",
            "8: servers[1].name: \"a b\" has the character ' '; expected 1 to 64 letters, digits \
             and signs",
            "9: servers[2].wieght: is an unknown key; did you mean weight?",
            "9: servers[2].url: \"http://A:1/\" is there twice, first in line 8; expected each \
             server once",
        ],
    );
}

/// A value of one key, and what is told of it.
const VALUES: &[(&str, &str)] = &[
    ("listen: -1", "-1 is not a place to listen; expected 8000, 0.0.0.0:8000 or [::1]:8000"),
    ("listen: {port: 1}", "is a mapping; expected 8000 or 0.0.0.0:8000"),
    ("listen:", "has no value; expected 8000 or 0.0.0.0:8000"),
    ("when_all_down: panic", "\"panic\" is not known; expected refuse or try_anyway"),
    ("retry_status: 5xx", "\"5xx\" is no set of status codes; expected 200, 200-399 or 200,204"),
    (
        "retry_status: 504-502",
        "\"504-502\" has the empty range 504-502; expected the smaller code first",
    ),
    ("fresh_posts: yes", "\"yes\" is not a boolean; expected true or false"),
    ("debug: 1", "1 is not a boolean; expected true or false"),
    ("max_body: 1T", "\"1T\" is not a size; expected bytes, or 64k, 10M, 1G"),
    ("max_connections: 0", "0 is not a count; expected 1 or more"),
    ("max_connections: 1.5", "1.5 is not a count; expected 1 or more"),
    ("workers: 1025", "1025 is not a number of threads; expected 1 to 1024"),
    ("trusted_proxies: ::1", "\"::1\" is not a list; expected [...], or lines that begin with -"),
    (
        "health: 10s",
        "\"10s\" is not a mapping; expected path, period, timeout, expect, rise or fall",
    ),
    (
        "timeouts: []",
        "a list is not a mapping; expected connect, head, idle, response, body, deadline or drain",
    ),
    ("servers: 8080", "8080 is not a list; expected [...], or lines that begin with -"),
    ("healht: {}", "is an unknown key; did you mean health?"),
    ("when-all-down: refuse", "is an unknown key; did you mean when_all_down?"),
    ("algoritm: random", "is an unknown key; did you mean algorithm?"),
    (
        "zzz: 1",
        "is an unknown key; expected listen, algorithm, when_all_down, retry_status, fresh_posts, \
         max_body, max_connections, trusted_proxies, workers, debug, api, logs, health, timeouts, \
         servers, Servers or server_list",
    ),
];

#[test]
fn a_bad_value_is_told_with_its_key() {
    for (text, told) in VALUES {
        let key = text.split(':').next().unwrap();
        mistakes(text, &[&format!("1: {key}: {told}")]);
    }
}

#[test]
fn a_bad_value_of_the_api_or_the_logs_is_told_with_its_path() {
    mistakes(
        "api:\n  port: on\n  bind: localhost\n  socket: ''\n  hosts: [http://a]\n",
        &[
            "2: api.port: \"on\" is not a port; expected 1 to 65535, 0 for any free one, or off",
            "3: api.bind: \"localhost\" is not an address; expected 127.0.0.1 or ::1",
            "4: api.socket: \"\" is empty; expected a path",
            "5: api.hosts[0]: \"http://a\" is not the name of a host; expected one without scheme \
             and port",
        ],
    );
    mistakes(
        "logs: {format: xml, level: loud}",
        &[
            "1: logs.format: \"xml\" is not known; expected text or json",
            "1: logs.level: \"loud\" is not a level; expected off, error, warn, info, debug or trace",
        ],
    );
}

#[test]
fn a_bad_value_in_a_mapping_is_told_with_its_path() {
    let time = "is not a duration; expected 10s, 200ms or plain seconds";
    for key in ["connect", "head", "idle", "response", "body", "deadline", "drain"] {
        let told = format!("1: timeouts.{key}: \"soon\" {time}");
        mistakes(format!("timeouts: {{{key}: soon}}"), &[&told]);
    }
    mistakes(
        "health:\n  period: 0\n  timeout: 2d\n  expect: [200, 2xx]\n  rise: 0\n  fall: +1\n",
        &[
            "2: health.period: 0 must be longer than zero; expected 10s, 200ms or plain seconds",
            "3: health.timeout: \"2d\" must be at most one day; expected 10s, 200ms or plain seconds",
            "4: health.expect[1]: \"2xx\" is no set of status codes; expected 200, 200-399 or \
             200,204",
            "5: health.rise: 0 is not a number of probes; expected 1 or more",
            "6: health.fall: +1 is not a number of probes; expected 1 or more",
        ],
    );
    mistakes(
        "trusted_proxies: [10.0.0.0/8, 10.0.0.0/33]",
        &[
            "1: trusted_proxies[1]: \"10.0.0.0/33\" is not a network; expected 10.0.0.0/8, fd00::/8 \
           or an address",
        ],
    );
}

/// What is written of a server, the path behind it, and what is told of it.
const SERVERS: &[(&str, &str, &str)] = &[
    ("a", "", "\"a\" has no port; expected http://host:port"),
    ("99999", "", "99999 is not a port; expected 1 to 65535"),
    ("http://a:99999", "", "\"http://a:99999\" has port 99999; expected 1 to 65535"),
    ("https://a", "", "\"https://a\" has the scheme https; expected http://host:port"),
    ("http://a/b", "", "\"http://a/b\" has the path /b; expected http://host:port"),
    ("http://a@b:1", "", "\"http://a@b:1\" has a user name; expected http://host:port"),
    (
        "'http://a,b:80'",
        "",
        "\"http://a,b:80\" has no valid host; expected 1 to 253 letters, digits, dots, hyphens and \
         underscores, or an address",
    ),
    ("\"::1\"", "", "\"::1\" needs brackets and a port; expected [::1]:8080"),
    ("\"\"", "", "\"\" is not a host and a port; expected http://host:port"),
    ("[a]", "", "is a list; expected http://host:port"),
    ("", "", "has no value; expected http://host:port"),
    ("{}", "", "has no url; expected url: http://host:port"),
    ("{weight: 1}", "", "has no url; expected url: http://host:port"),
    ("{host: a}", "", "has host and no port; expected port: 8080"),
    ("{port: 1}", "", "has port and no host; expected host: 10.0.0.5"),
    ("{url: a:1, port: 1}", "", "has url and host or port; expected url alone"),
    ("{url: a:1, name: a, id: b}", "", "has name and id; expected one of them"),
    (
        "{host: 'http://a', port: 1}",
        ".host",
        "\"http://a\" is not a host; expected a name or an address, and its port in port",
    ),
    (
        "{host: 'a=b', port: 1}",
        ".host",
        "\"a=b\" is not a host; expected a name or an address, and its port in port",
    ),
    ("{host: a, port: 0}", ".port", "0 is not a port; expected 1 to 65535"),
    ("{url: }", ".url", "has no value; expected http://host:port"),
    ("{url: a:1, name: ''}", ".name", "\"\" is empty; expected 1 to 64 letters, digits and signs"),
    (
        "{url: a:1, name: \"a\\nb\"}",
        ".name",
        "\"a\\nb\" has the character '\\n'; expected 1 to 64 letters, digits and signs",
    ),
    (
        "{url: a:1, weight: 4294967296}",
        ".weight",
        "4294967296 is not a weight; expected a number from 0 to 4294967295",
    ),
    ("{url: a:1, weight: [1]}", ".weight", "is a list; expected 1"),
    (
        "{url: a:1, health_check_period: -1}",
        ".health_check_period",
        "-1 is not a duration; expected 10s, 200ms or plain seconds",
    ),
    (
        "{url: a:1, health_check_path: a}",
        ".health_check_path",
        "\"a\" must begin with /; expected a path such as /health",
    ),
    (
        "{url: a:1, health_check_port: 0}",
        ".health_check_port",
        "0 is not a port; expected 1 to 65535",
    ),
    (
        "{url: a:1, health_check_timeout: x}",
        ".health_check_timeout",
        "\"x\" is not a duration; expected 10s, 200ms or plain seconds",
    ),
    (
        "{url: a:1, health_check_expect: 99}",
        ".health_check_expect",
        "99 is no set of status codes; expected 200, 200-399 or 200,204",
    ),
    ("{url: a:1, rise: x}", ".rise", "\"x\" is not a number of probes; expected 1 or more"),
    ("{url: a:1, fall: 0}", ".fall", "0 is not a number of probes; expected 1 or more"),
    (
        "{url: a:1, state: off}",
        ".state",
        "\"off\" is not a state; expected enabled, draining or disabled",
    ),
    (
        "{url: a:1, health_check_prot: 1}",
        ".health_check_prot",
        "is an unknown key; did you mean health_check_port?",
    ),
];

#[test]
fn a_bad_server_is_told_with_its_place_in_every_shape() {
    for (server, path, told) in SERVERS {
        for (shape, before) in
            [("- ", ""), ("servers:\n- ", "servers"), ("Servers:\n- ", "Servers")]
        {
            let line = shape.lines().count();
            let told = format!("{line}: {before}[0]{path}: {told}");
            mistakes(format!("{shape}{server}"), &[&told]);
        }
    }
}

#[test]
fn mistakes_are_told_from_the_top_to_the_bottom() {
    mistakes(
        "- weight: -1\n  rise: 0\n- a:1\n",
        &[
            "1: [0].weight: -1 is not a weight; expected a number from 0 to 4294967295",
            "1: [0]: has no url; expected url: http://host:port",
            "2: [0].rise: 0 is not a number of probes; expected 1 or more",
        ],
    );
}

#[test]
fn servers_and_names_are_there_once() {
    for (first, second, key) in [
        ("http://a:80", "{url: 'HTTP://A/'}", "[1].url: \"HTTP://A/\""),
        ("8080", "localhost:8080", "[1]: \"localhost:8080\""),
        ("'http://[::1]:80'", "{host: '0:0::1', port: 80}", "[1].host: \"0:0::1\""),
        ("{name: x, url: a:1}", "{id: x, url: a:2}", "[1].id: \"x\""),
    ] {
        let told = format!("2: {key} is there twice, first in line 1; expected each server once");
        mistakes(format!("- {first}\n- {second}\n"), &[&told]);
    }
    mistakes(
        "debug: true\n\ndebug: true\n",
        &["3: debug: is there twice, first in line 1; expected once"],
    );
    mistakes("servers: []\nServers: []\n", &["1: has servers and Servers; expected one of them"]);
}

#[test]
fn what_is_no_configuration_at_all() {
    let empty = " is empty; expected servers: and their URLs (lb init writes an example)";
    for text in ["", "\n", "# nothing\n", "---\n", "null", "\u{feff}"] {
        mistakes(text, &[empty]);
    }
    for key in ["servers", "Servers", "server_list"] {
        let told = format!("2: {key}: is empty; expected a list, [] for none");
        mistakes(format!("debug: true\n{key}:\n"), &[&told]);
    }
    mistakes("a: [1", &["1:4: not valid YAML or JSON: unclosed bracket '['"]);
    mistakes("servers: [8080]\n---\n", &["2:1: a second document begins; expected one"]);
    mistakes("listen: !port 1", &["1:15: the tag !port is not supported"]);
    mistakes("servers: &a [*a]", &["1:14: the alias stands for what it is a part of"]);
    mistakes(b"listen: 1\n#\xe4", &["2: not UTF-8; save the file in that encoding"]);
    mistakes(b"\xff\xfel\0i\0", &["1: not UTF-8; save the file in that encoding"]);
    mistakes(
        "[a]: 1",
        &["1: a key is not a word; expected listen, algorithm, when_all_down, \
        retry_status, fresh_posts, max_body, max_connections, trusted_proxies, workers, debug, \
        api, logs, health, timeouts, servers, Servers or server_list"],
    );
    for (text, told) in [("servers:\n\t- 8080", "2:2: "), ("a: b: c", "1:5: "), ("a: *b", "1:4: ")]
    {
        let got = load(text).unwrap_err();
        assert!(got.starts_with(&format!("lb.yaml:{told}not valid YAML")), "{got}");
    }
}

#[test]
fn hostile_files_are_one_sentence() {
    let large = vec![b'#'; 9 << 20];
    mistakes(large, &[" is larger than 8 MiB, too large for a configuration"]);
    let deep = load("[".repeat(100_000)).unwrap_err();
    assert_eq!(deep, "lb.yaml:1:256: not valid YAML or JSON: recursion limit exceeded");
    let many = load("- a\n".repeat(600_000)).unwrap_err();
    assert!(many.ends_with("there are more than 500000 values, aliases replaced"), "{many}");
    // Ten to the power of twelve.
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    let told = load(bomb).unwrap_err();
    assert!(told.ends_with("there are more than 500000 values, aliases replaced"), "{told}");
    let told = load("- a\n".repeat(1_500)).unwrap_err();
    assert_eq!(told.lines().count(), 1_001);
    assert!(told.ends_with("\nlb.yaml: 500 more mistakes"));
}
