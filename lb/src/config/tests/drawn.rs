//! Files drawn at random: good ones, and bytes that are none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{good, load};
use crate::config::{Config, HealthCheck, Server, Settings, Timeouts};

/// What a file may say, as JSON.
fn file() -> impl Strategy<Value = Value> {
    let codes = prop_oneof![
        (100..600_u16).prop_map(|code| json!(code)),
        (100..300_u16, 300..600_u16).prop_map(|(low, high)| json!(format!("{low}-{high}"))),
        proptest::collection::vec(100..600_u16, 1..3).prop_map(|codes| json!(codes)),
    ];
    let time = prop_oneof![
        (1..86_400_u32).prop_map(|seconds| json!(seconds)),
        (1..1_000_000_u32).prop_map(|millis| json!(format!("{millis}ms"))),
    ];
    let server = (any::<u32>(), time.clone(), codes.clone(), 1..100_u32, any::<bool>(), 0..3_usize);
    let server = server.prop_map(|(weight, time, codes, rise, port, state)| {
        let mut server = json!({
            "weight": weight, "health_check_period": time, "health_check_timeout": time,
            "health_check_expect": codes, "rise": rise, "fall": rise, "health_check_path": "/a?b=c",
            "state": (["enabled", "draining", "disabled"][state]),
        });
        if port {
            server["health_check_port"] = json!(8081);
        }
        server
    });
    let servers = proptest::collection::vec(server, 0..5).prop_map(|servers| {
        let named = servers.into_iter().enumerate().map(|(index, mut server)| {
            server["url"] = json!(format!("http://host{index}:80"));
            server["name"] = json!(format!("server-{index}"));
            server
        });
        Value::Array(named.collect())
    });
    let numbers = (any::<u16>(), 1..1_025_u16, 1..u32::MAX, any::<u32>(), any::<bool>());
    (servers, time, codes, numbers).prop_map(|(servers, time, codes, numbers)| {
        let (port, workers, max_connections, max_body, yes) = numbers;
        json!({
            "listen": port, "workers": workers, "max_connections": max_connections,
            "max_body": max_body, "debug": yes, "fresh_posts": yes, "retry_status": codes,
            "algorithm": "hash:cookie=sid", "when_all_down": "try_anyway",
            "trusted_proxies": ["10.0.0.0/8", "::1/128"],
            "health": { "path": "/h", "period": time, "timeout": time, "expect": codes,
                        "rise": 2, "fall": 3 },
            "timeouts": { "connect": time, "head": time, "idle": time, "response": time,
                          "body": time, "deadline": time, "drain": time },
            "servers": servers,
        })
    })
}

/// The file that says what `config` is.
fn render(config: &Config) -> Value {
    let millis = |time: std::time::Duration| json!(format!("{}ms", time.as_millis()));
    let Settings { dealing, when_all_down, retry_status, fresh_posts, .. } = &config.settings;
    assert_eq!(*dealing, "hash:cookie=sid".parse().unwrap());
    assert_eq!(*when_all_down, crate::balance::WhenAllDown::TryAnyway);
    let server = |server: &Server| {
        let HealthCheck { port, path, period, timeout, expect, thresholds } = &server.health;
        let mut rendered = json!({
            "url": server.authority.to_string(), "name": server.name, "weight": server.weight,
            "health_check_path": path.as_str(), "health_check_period": millis(*period),
            "health_check_timeout": millis(*timeout), "health_check_expect": expect.to_string(),
            "rise": thresholds.rise, "fall": thresholds.fall,
            "state": server.wanted.unwrap().to_string(),
        });
        if let Some(port) = port {
            rendered["health_check_port"] = json!(port);
        }
        rendered
    };
    let HealthCheck { port: _, path, period, timeout, expect, thresholds } = &config.health;
    let Timeouts { connect, response_head, request_head, client_idle, body, deadline, drain } =
        config.settings.timeouts;
    json!({
        "listen": config.port, "workers": config.workers,
        "max_connections": config.max_connections, "max_body": config.settings.max_body,
        "debug": config.settings.debug, "fresh_posts": fresh_posts,
        "retry_status": retry_status.to_string(), "algorithm": "hash:cookie=sid",
        "when_all_down": "try_anyway",
        "trusted_proxies": config.settings.trusted_proxies.iter().map(ToString::to_string)
            .collect::<Vec<_>>(),
        "health": { "path": path.as_str(), "period": millis(*period), "timeout": millis(*timeout),
                    "expect": expect.to_string(), "rise": thresholds.rise,
                    "fall": thresholds.fall },
        "timeouts": { "connect": millis(connect), "response": millis(response_head),
                      "head": millis(request_head), "idle": millis(client_idle),
                      "body": millis(body), "deadline": millis(deadline.unwrap()),
                      "drain": millis(drain) },
        "servers": config.servers.iter().map(server).collect::<Vec<_>>(),
    })
}

/// Block style, as people write it.
fn yaml(value: &Value, indent: usize) -> String {
    let lines = |lines: Vec<String>| format!("\n{}", lines.join("\n"));
    let space = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            lines(map.iter().map(|(k, v)| format!("{space}{k}: {}", yaml(v, indent + 2))).collect())
        }
        Value::Array(list) if !list.is_empty() => {
            lines(list.iter().map(|v| format!("{space}- {}", yaml(v, indent + 2))).collect())
        }
        Value::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}

proptest! {
    #[test]
    fn what_is_rendered_and_loaded_is_the_same(said in file()) {
        let first = good(said.to_string());
        let rendered = render(&first);
        for text in [rendered.to_string(), format!("{rendered:#}"), yaml(&rendered, 0)] {
            let again = good(&text);
            prop_assert_eq!(format!("{:?}", first), format!("{:?}", again), "{}", text);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = load(bytes);
    }

    #[test]
    fn no_near_yaml_panics(parts in proptest::collection::vec(
        proptest::sample::select(vec![
            "servers", "Servers", "server_list", "health", "listen", "url", "host", "port", ": ",
            "- ", "\n", "  ", "[", "]", "{", "}", ",", "&a ", "*a", "'", "\"", "#", "|", ">", "!!",
            "?", "---", "8080", "http://a:1", "10s", "~", "\t", "\u{feff}", "\u{e9}", "%YAML", "<<",
        ]), 0..60)) {
        let _ = load(parts.concat());
    }

    #[test]
    fn a_mistake_never_takes_more_than_its_line(name in ".{0,100}", key in ".{1,80}") {
        let text = json!([{ "url": "a:1", "name": name, key: 1 }]).to_string();
        if let Err(told) = load(text) {
            prop_assert!(told.lines().all(|line| line.starts_with("lb.yaml:1:")), "{told}");
        }
    }
}
