//! Configuration files: what good ones say, and that the schema knows it.

mod drawn;
mod mistakes;

use serde_json::{Value, json};

use super::*;

/// The configuration of `text`, or the lines that tell its mistakes.
fn load(text: impl AsRef<[u8]>) -> Result<Config, String> {
    parse(text.as_ref(), "lb.yaml").map_err(|problems| problems.to_string())
}

#[track_caller]
fn good(text: impl AsRef<[u8]>) -> Config {
    load(text).unwrap()
}

/// `text` has these mistakes, told in these lines without the file's name.
#[track_caller]
fn mistakes(text: impl AsRef<[u8]>, expected: &[&str]) {
    let told = load(text).map(|config| format!("nothing, but took it as {config:?}"));
    let told = told.unwrap_or_else(|told| told);
    let expected: Vec<_> = expected.iter().map(|line| format!("lb.yaml:{line}")).collect();
    assert_eq!(told, expected.join("\n"));
}

/// The servers as `name=authority*weight`.
fn servers(config: &Config) -> String {
    let one = |server: &Server| format!("{}={}*{}", server.name, server.authority, server.weight);
    config.servers.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_four_shapes() {
    let ours = good(
        "listen: 0.0.0.0:8000\nservers:\n- http://a:1\n- {url: b:2, name: two, weight: 3}\n- 8080\n",
    );
    assert_eq!(servers(&ours), "a:1=a:1*1 two=b:2*3 localhost:8080=localhost:8080*1");
    assert_eq!((ours.bind, ours.port), (Some([0, 0, 0, 0].into()), 8000));

    let list = good("- {name: one, url: 'http://a:1', weight: 2, health_check_period: 5}\n");
    assert_eq!(servers(&list), "one=a:1*2");
    assert_eq!((list.port, list.servers[0].health.period.as_secs()), (80, 5));

    let hosts =
        good("Servers:\n  - host: 127.0.0.1\n    port: 8080\n  - host: ::1\n    port: '8081'\n");
    assert_eq!(servers(&hosts), "127.0.0.1:8080=127.0.0.1:8080*1 [::1]:8081=[::1]:8081*1");
    assert_eq!(hosts.port, 80);

    let text = r#"{"server_list": [{"id": 1, "host": "a", "port": "5001"},
                                   {"id": "two", "host": "b", "port": 5002}]}"#;
    let old = good(text);
    assert_eq!(servers(&old), "1=a:5001*1 two=b:5002*1");
    assert_eq!(old.port, 5432);
    let check = &old.servers[0].health;
    assert_eq!((check.path.as_str(), check.period.as_secs()), ("/health", 15));
    let other = good(text.replacen('{', r#"{"listen": 1, "health": {"path": "/x"}, "#, 1));
    let check = &other.servers[0].health;
    assert_eq!((other.port, check.path.as_str(), check.period.as_secs()), (1, "/x", 15));
}

#[test]
fn a_server_says_otherwise_than_health() {
    let config = good(
        "health: {path: /a, period: 20, timeout: 1500ms, expect: 200-299, rise: 2, fall: 3}
servers:
- a:1
- url: b:1
  health_check_path: /b
  health_check_period: 1
  health_check_port: 81
  health_check_expect: [204, 301]
  rise: 4
  fall: 5
  state: draining
",
    );
    let [a, b] = &config.servers[..] else { panic!("{config:?}") };
    assert_eq!((&a.health, a.wanted), (&config.health, None));
    assert_eq!(a.health.path, "/a");
    assert_eq!((a.health.period.as_millis(), a.health.timeout.as_millis()), (20_000, 1_500));
    assert_eq!((a.health.expect.to_string().as_str(), a.health.port), ("200-299", None));
    assert_eq!((a.health.thresholds.rise.get(), a.health.thresholds.fall.get()), (2, 3));
    assert_eq!(b.health.path, "/b");
    // No probe takes longer than the period.
    assert_eq!((b.health.period.as_millis(), b.health.timeout.as_millis()), (1_000, 1_000));
    assert_eq!((b.health.expect.to_string().as_str(), b.health.port), ("204,301", Some(81)));
    assert_eq!((b.health.thresholds.rise.get(), b.health.thresholds.fall.get()), (4, 5));
    assert_eq!(b.wanted, Some(crate::balance::Wanted::Draining));
}

#[test]
fn what_yaml_and_json_have_is_understood() {
    for text in [
        "\u{feff}servers: [a:1]",
        "servers:\r\n- a:1\r\n",
        "%YAML 1.2\n---\nservers: ['a:1'] # the only one\n...\n",
        "servers: [&a \"a:1\"]",
        "{\n\t\"$schema\": \"lb.schema.json\",\n\t\"servers\":[\"a:1\"]}",
        "{\"servers\": [{\"url\": \"http:\\/\\/a:1\", \"name\": \"\\u0061:1\"}]}",
        "servers: [!!str a:1]\nhealth:\ntimeouts: ~\ntrusted_proxies: null\n",
    ] {
        assert_eq!(servers(&good(text)), "a:1=a:1*1", "{text}");
    }
    let long: Vec<_> =
        (1..1_000).map(|port| json!({ "url": format!("http://a:{port}") })).collect();
    assert_eq!(good(json!({ "servers": long }).to_string()).servers.len(), 999);
    let shared = "- {url: a:1, health_check_expect: &ok [200, 204]}
- {url: a:2, health_check_expect: *ok}";
    assert_eq!(good(shared).servers[1].health.expect.to_string(), "200,204");
}

#[test]
fn the_schema_for_editors_is_up_to_date() {
    let kept = include_str!("../../../docs/lb.schema.json");
    assert!(kept == schema(), "renew it: lb check --schema > docs/lb.schema.json");
}

/// The keys of the mapping that the schema calls `name`.
fn keys_in_schema(name: &str) -> Vec<String> {
    let schema: Value = serde_json::from_str(&schema()).unwrap();
    let properties = &schema["definitions"][name]["properties"];
    properties.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_schema_knows_what_the_reader_knows() {
    let (file, server) = (keys_in_schema("File"), keys_in_schema("Server"));
    assert!(file.contains(&"Servers".into()) && server.contains(&"health_check_port".into()));
    // An unknown key is told with the known ones.
    let told = load("zzz: 1").unwrap_err().replace(" or ", ", ");
    assert!(told.ends_with(&format!("expected {}", file.join(", "))), "{told}");
    let told = load("- {url: a:1, zzz: 1}").unwrap_err().replace(" or ", ", ");
    assert!(told.ends_with(&format!("expected {}", server.join(", "))), "{told}");
}
