//! The metrics of a balancer that runs in the test's own thread: every number
//! after known traffic, in both formats, and what the dashboard asks for.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use clap::Parser;
use lb::{
    accept::Workers,
    access_log::{self, AccessLog},
    care,
    cli::{Cli, Task},
    config::{Authority, Config},
    control::Control,
    error::Reason,
    metrics::{Format, Metrics},
    net::{Net, Tcp},
    output::{Output, Stream},
    serve,
    worker::{Shared, Worker},
};
use testbed::{
    backend::Backend,
    client::{Client, Request},
    fault::Fault,
    log::EventLog,
};
use tokio::{
    runtime::{Builder, LocalOptions},
    sync::mpsc,
    task::{spawn_local, yield_now},
    time::timeout,
};

use crate::{exposition::Scrape, programs::WATCHDOG};

/// A balancer with one worker.
struct Balancer {
    control: Arc<Control>,
    metrics: Metrics,
    address: SocketAddr,
}

fn config(args: &[String]) -> Config {
    let args = args.iter().map(String::as_str);
    let typed =
        ["lb", "--health-path", "/health", "--health-period", "60s"].into_iter().chain(args);
    match Cli::try_parse_from(typed).unwrap().into_task().unwrap() {
        Task::Listen(loader) => loader.load().unwrap(),
        _ => unreachable!("only a command is one"),
    }
}

/// Runs `body` where local tasks can be spawned.
fn run(body: impl Future<Output = ()>) {
    let local = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    local.unwrap().block_on(body);
}

impl Balancer {
    /// Starts it, and waits for the first probes.
    async fn start(args: &[String]) -> Balancer {
        let (care, charges) = mpsc::unbounded_channel();
        let control = Arc::new(Control::new(config(args), care));
        let shared = Arc::new(Shared::new(&control, 1));
        // What is closed prints nothing between the lines of the test.
        let stdout = Output::start(Stream::Stdout).unwrap();
        stdout.close().await;
        let log = Arc::new(AccessLog::new(stdout.clone(), Some(stdout), access_log::Format::Text));
        let metrics = Metrics::new(control.clone(), shared.clone(), log.clone());
        spawn_local(care::run(Tcp, control.cluster.clone(), charges));
        let load = shared.loads[0].clone();
        let (sender, handovers) = mpsc::unbounded_channel();
        let workers = Workers::new(vec![(sender, load.clone())], shared.clone(), None, 1000);
        spawn_local(serve::run(Worker::new(Tcp, shared, load, log), handovers));
        let listener = Tcp.listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = Tcp.local_addr(&listener).unwrap();
        spawn_local(async move { workers.accept_all(&Tcp, &listener).await });
        timeout(WATCHDOG, control.cluster.checked()).await.unwrap();
        Balancer { control, metrics, address }
    }

    #[track_caller]
    fn scrape(&self) -> Scrape {
        Scrape::read(&self.metrics.encode(Format::OpenMetrics), Format::OpenMetrics)
    }

    /// The first scrape that is `ready`: a client may have the last byte of an
    /// answer before the request is counted.
    async fn scrape_when(&self, ready: impl Fn(&Scrape) -> bool) -> Scrape {
        let last = RefCell::new(Vec::new());
        let asking = async {
            loop {
                let scrape = self.scrape();
                if ready(&scrape) {
                    return scrape;
                }
                last.replace(scrape.with(""));
                yield_now().await;
            }
        };
        let scrape = timeout(WATCHDOG, asking).await;
        scrape.unwrap_or_else(|_| panic!("not in\n{}", last.borrow().join("\n")))
    }

    /// A scrape when no client is connected any more.
    async fn scrape_at_rest(&self) -> Scrape {
        self.scrape_when(|scrape| scrape.get("lb_client_connections") == 0.0).await
    }
}

fn backends_of(servers: &[&Backend]) -> Vec<String> {
    servers.iter().map(|server| format!("--backend={}", server.addr())).collect()
}

/// Asserts what each metric is; `S` stands for the server.
#[track_caller]
fn check(scrape: &Scrape, server: SocketAddr, expected: &[(&str, f64)]) {
    for (metric, value) in expected {
        let metric = metric.replace("=S", &format!("=\"{server}\""));
        assert_eq!(scrape.get(&metric), *value, "{metric}");
    }
}

#[test]
fn both_formats_say_the_same() {
    run(async {
        let args = ["--backend=10.0.0.1:1,weight=3".into(), "--backend=[::1]:1".into()];
        let (care, _charges) = mpsc::unbounded_channel();
        let mut config = config(&args);
        config.servers[0].name = "a \"quoted\"\nname\\".into();
        let control = Arc::new(Control::new(config, care));
        let shared = Arc::new(Shared::new(&control, 2));
        let stdout = Output::start(Stream::Stdout).unwrap();
        let log = Arc::new(AccessLog::new(stdout.clone(), Some(stdout), access_log::Format::Text));
        let metrics = Metrics::new(control, shared, log);
        let read = |format| Scrape::read(&metrics.encode(format), format);
        let (open, plain) = (read(Format::OpenMetrics), read(Format::Plain));
        assert_eq!(open.names(), plain.names());
        assert_eq!(open.with("lb_"), plain.with("lb_"));
        let name = r#"lb_server_info{name="a \"quoted\"\nname\\",server="10.0.0.1:1"}"#;
        assert_eq!(open.get(name), 1.0);
        assert_eq!(open.get(r#"lb_server_weight{server="10.0.0.1:1"}"#), 3.0);
        assert_eq!(open.get(r#"lb_server_state{server="[::1]:1",state="checking"}"#), 1.0);
        assert_eq!(open.get(r#"lb_server_wanted{server="[::1]:1",state="enabled"}"#), 1.0);
        assert_eq!(open.get("lb_config_last_reload_successful"), 1.0);
        for reason in Reason::ALL {
            let error = format!("lb_errors_total{{reason=\"{}\"}}", reason.code());
            assert_eq!(open.get(&error), 0.0);
        }
        for process in ["resident_memory_bytes", "open_fds", "threads"] {
            assert!(open.get(&format!("process_{process}")) > 0.0, "{process}");
        }
        assert!(open.get("process_cpu_seconds_total") >= 0.0);
        let start = open.get("process_start_time_seconds");
        let loaded = open.get("lb_config_last_reload_success_timestamp_seconds");
        assert!(start <= loaded + 1.0 && loaded < start + 3600.0, "{start} {loaded}");
    });
}

#[test]
fn a_balancer_without_servers_has_its_metrics() {
    run(async {
        let balancer = Balancer::start(&[]).await;
        let mut client = Client::new("c", balancer.address, &EventLog::new());
        assert_eq!(client.get("/").await.unwrap().status, 503);
        drop(client);
        let scrape = balancer.scrape_at_rest().await;
        assert_eq!(scrape.get(r#"lb_errors_total{reason="no_server"}"#), 1.0);
        assert_eq!(scrape.get(r#"lb_requests_total{code="5xx",server="none"}"#), 1.0);
        assert_eq!(scrape.get(r#"lb_request_duration_seconds_count{server="none"}"#), 1.0);
        assert_eq!(scrape.get("lb_access_log_lines_dropped_total"), 1.0);
        assert!(scrape.with("lb_server_").is_empty());
        let plain = Scrape::read(&balancer.metrics.encode(Format::Plain), Format::Plain);
        assert_eq!(plain.families["lb_server_up"], "gauge");
    });
}

#[test]
fn traffic_is_counted_to_the_last_byte() {
    run(async {
        let log = EventLog::new();
        let body = vec![b'x'; 1000];
        let server = Backend::builder("A").health_path("/health").body(body).start(&log).await;
        let server = server.unwrap();
        let balancer = Balancer::start(&backends_of(&[&server])).await;
        let mut client = Client::new("c", balancer.address, &log);
        for _ in 0..3 {
            assert_eq!(client.get("/").await.unwrap().status, 200);
        }
        server.arm(Fault::Status(404), 1);
        assert_eq!(client.get("/").await.unwrap().status, 404);
        let post = Request::new("POST", "/").body(vec![b'y'; 70_000]);
        assert_eq!(client.send(post).await.unwrap().status, 200);
        assert_eq!(client.send(Request::new("TRACE", "/")).await.unwrap().status, 405);
        client.close();
        let scrape = balancer.scrape_at_rest().await;
        check(
            &scrape,
            server.addr(),
            &[
                (r#"lb_requests_total{code="2xx",server=S}"#, 4.0),
                (r#"lb_requests_total{code="4xx",server=S}"#, 1.0),
                (r#"lb_requests_total{code="5xx",server=S}"#, 0.0),
                (r#"lb_requests_total{code="4xx",server="none"}"#, 1.0),
                (r#"lb_client_requests_total{code="2xx"}"#, 4.0),
                (r#"lb_client_requests_total{code="4xx"}"#, 2.0),
                (r#"lb_request_duration_seconds_count{server=S}"#, 5.0),
                (r#"lb_time_to_first_byte_seconds_count{server=S}"#, 5.0),
                (r#"lb_attempts_total{outcome="ok",server=S}"#, 5.0),
                (r#"lb_errors_total{reason="method_not_allowed"}"#, 1.0),
                ("lb_request_body_bytes_total", 70_000.0),
                (r#"lb_response_body_bytes_total{server=S}"#, 5_000.0),
                // An upload takes a connection of its own.
                (r#"lb_pool_connections_opened_total{server=S}"#, 2.0),
                (r#"lb_pool_connections_reused_total{server=S}"#, 3.0),
                (r#"lb_pool_idle_connections{server=S}"#, 1.0),
                (r#"lb_requests_in_flight{server=S}"#, 0.0),
                ("lb_client_requests_in_flight", 0.0),
                ("lb_client_connections_accepted_total", 1.0),
                (r#"lb_server_transitions_total{server=S,to="up"}"#, 1.0),
                (r#"lb_server_up{server=S}"#, 1.0),
                (r#"lb_server_eligible{server=S}"#, 1.0),
            ],
        );
        let head = scrape
            .get(&format!("lb_time_to_first_byte_seconds_sum{{server=\"{}\"}}", server.addr()));
        let took =
            scrape.get(&format!("lb_request_duration_seconds_sum{{server=\"{}\"}}", server.addr()));
        assert!(0.0 < head && head <= took, "{head} {took}");
    });
}

#[test]
fn failed_attempts_have_the_words_of_the_log() {
    run(async {
        let log = EventLog::new();
        let a = Backend::builder("A").health_path("/health").start(&log).await.unwrap();
        let b = Backend::builder("B").health_path("/health").start(&log).await.unwrap();
        let mut args = backends_of(&[&a, &b]);
        args.push("--retry-status=503".into());
        let balancer = Balancer::start(&args).await;
        let mut client = Client::new("c", balancer.address, &log);
        // A, then B instead: A's connection is closed, B's answer passed on.
        a.arm(Fault::CloseAfterRequest, 1);
        assert_eq!(client.get("/").await.unwrap().backend(), "B");
        // B's turn; both say 503, and one of these is better than nothing.
        a.arm(Fault::Status(503), 1);
        b.arm(Fault::Status(503), 1);
        assert_eq!(client.get("/").await.unwrap().status, 503);
        // A's turn, and it breaks off.
        a.arm(Fault::Truncate { after: 10 }, 1);
        client.get("/").await.unwrap_err();
        // B's turn, and the client goes away.
        b.arm(Fault::Hang, 1);
        let hung = client.start(Request::new("GET", "/")).await.unwrap();
        let in_flight = format!("lb_requests_in_flight{{server=\"{}\"}}", b.addr());
        balancer.scrape_when(|scrape| scrape.get(&in_flight) == 1.0).await;
        drop(hung);
        balancer.scrape_at_rest().await;
        // A's turn, and it is dead.
        a.kill().await;
        assert_eq!(client.get("/").await.unwrap().backend(), "B");
        client.close();
        let suspect = format!("lb_server_transitions_total{{server=\"{}\",to=\"down\"}}", a.addr());
        balancer.scrape_when(|scrape| scrape.get(&suspect) == 1.0).await;
        let scrape = balancer.scrape_at_rest().await;
        check(
            &scrape,
            a.addr(),
            &[
                (r#"lb_attempts_total{outcome="ok",server=S}"#, 1.0),
                (r#"lb_attempts_total{outcome="closed",server=S}"#, 1.0),
                (r#"lb_attempts_total{outcome="status",server=S}"#, 1.0),
                (r#"lb_attempts_total{outcome="refused",server=S}"#, 1.0),
                (r#"lb_requests_total{code="2xx",server=S}"#, 1.0),
                (r#"lb_requests_incomplete_total{end="server_broke_off",server=S}"#, 1.0),
                (r#"lb_server_transitions_total{server=S,to="suspect"}"#, 1.0),
                (r#"lb_server_state{server=S,state="down"}"#, 1.0),
                (r#"lb_server_state{server=S,state="up"}"#, 0.0),
                (r#"lb_server_up{server=S}"#, 0.0),
                (r#"lb_server_eligible{server=S}"#, 0.0),
            ],
        );
        check(
            &scrape,
            b.addr(),
            &[
                (r#"lb_attempts_total{outcome="ok",server=S}"#, 2.0),
                (r#"lb_attempts_total{outcome="status",server=S}"#, 1.0),
                (r#"lb_requests_total{code="2xx",server=S}"#, 2.0),
                (r#"lb_requests_total{code="4xx",server=S}"#, 1.0),
                (r#"lb_requests_incomplete_total{end="client_gone",server=S}"#, 1.0),
                (r#"lb_client_requests_total{code="2xx"}"#, 3.0),
                (r#"lb_client_requests_total{code="5xx"}"#, 1.0),
            ],
        );
        let statuses = scrape.with("lb_requests_total{code=\"5xx\"");
        let of_servers = statuses.iter().filter(|metric| metric.ends_with(" 1")).count();
        assert_eq!(of_servers, 1, "the 503 that was passed on is its server's: {statuses:?}");
    });
}

#[test]
fn a_removed_server_takes_its_metrics_with_it() {
    run(async {
        let log = EventLog::new();
        let server = Backend::builder("A").health_path("/health").start(&log).await.unwrap();
        let balancer = Balancer::start(&backends_of(&[&server])).await;
        let mut client = Client::new("c", balancer.address, &log);
        client.fresh(true);
        for _ in 0..5 {
            assert_eq!(client.get("/").await.unwrap().status, 200);
        }
        let scrape = balancer.scrape_at_rest().await;
        check(&scrape, server.addr(), &[(r#"lb_pool_idle_connections{server=S}"#, 1.0)]);
        let configured = config(&backends_of(&[&server])).servers.remove(0);
        let authority: Authority = configured.authority.clone();
        balancer.control.delete(&authority, "test").unwrap();
        let scrape = balancer.scrape();
        assert!(scrape.with(&server.addr().to_string()).is_empty());
        assert_eq!(scrape.get(r#"lb_client_requests_total{code="2xx"}"#), 5.0);
        // Anew, while the sweeper may not have seen that it was gone.
        balancer.control.add(configured, "test").unwrap();
        timeout(WATCHDOG, balancer.control.cluster.checked()).await.unwrap();
        assert_eq!(client.get("/").await.unwrap().status, 200);
        let scrape = balancer.scrape_at_rest().await;
        check(
            &scrape,
            server.addr(),
            &[
                (r#"lb_requests_total{code="2xx",server=S}"#, 1.0),
                (r#"lb_client_requests_total{code="2xx"}"#, 6.0),
            ],
        );
    });
}

#[test]
fn what_became_of_new_configurations_is_told() {
    run(async {
        let balancer = Balancer::start(&[]).await;
        let reloads = |successes: f64, failures: f64, last: f64| {
            let scrape = balancer.scrape();
            assert_eq!(scrape.get(r#"lb_config_reloads_total{result="success"}"#), successes);
            assert_eq!(scrape.get(r#"lb_config_reloads_total{result="failure"}"#), failures);
            assert_eq!(scrape.get("lb_config_last_reload_successful"), last);
        };
        reloads(0.0, 0.0, 1.0);
        balancer.control.reloads.failed();
        reloads(0.0, 1.0, 0.0);
        balancer.control.replace(config(&[]), "test");
        reloads(1.0, 1.0, 1.0);
    });
}

/// The names of metrics in a query: words that begin as ours do.
fn metrics_in(query: &str) -> Vec<&str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("lb_") || word.starts_with("process_")).collect()
}

/// All texts of `key` in a JSON document.
fn texts_of<'j>(json: &'j serde_json::Value, key: &str, found: &mut Vec<&'j str>) {
    match json {
        serde_json::Value::Object(object) => {
            found.extend(object.get(key).and_then(|value| value.as_str()));
            object.values().for_each(|value| texts_of(value, key, found));
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| texts_of(value, key, found));
        }
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is() {
    run(async {
        let balancer = Balancer::start(&["--backend=127.0.0.1:1".into()]).await;
        let scrape = balancer.scrape();
        let dashboard: serde_json::Value =
            serde_json::from_str(include_str!("../docs/grafana.json")).unwrap();
        let mut queries = Vec::new();
        texts_of(&dashboard, "expr", &mut queries);
        texts_of(&dashboard, "query", &mut queries);
        let mut asked = 0;
        for query in queries {
            for metric in metrics_in(query) {
                assert!(scrape.names().contains(metric), "{metric} of {query}");
                asked += 1;
            }
        }
        assert!(asked > 20);
        assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
        let mut ids: Vec<u64> = dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|p| p["id"].as_u64().unwrap())
            .collect();
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "two panels have the same id");
    });
}
