//! What Prometheus gets.

use lb::metrics::Format;

use super::{Api, ask_with, backend, start};
use crate::exposition::Scrape;

#[track_caller]
fn scrape(api: &Api, accept: &str, format: Format) -> Scrape {
    let fields = format!("Host: localhost\r\n{accept}Connection: close\r\n");
    let (status, head, body) = ask_with(api.port, &fields, "GET /metrics", "");
    assert_eq!(status, 200, "{body}");
    assert!(head.contains(&format!("content-type: {}", format.content_type())), "{head}");
    Scrape::read(&body, format)
}

#[test]
fn scrapes_have_the_format_that_is_asked_for_and_the_traffic_of_all_workers() {
    let (_server, url) = backend("A");
    let api = start(&["--workers", "2", "--backend", &url]);
    for _ in 0..4 {
        let fields = "Host: localhost\r\nConnection: close\r\n";
        assert_eq!(ask_with(api.proxy, fields, "GET /", "").0, 200);
        // The line of a request comes right after it is counted.
        api.lb.line(" method=GET");
        api.lb.forget();
    }
    let address = url.trim_start_matches("http://");
    let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    for (accept, format) in [(open, Format::OpenMetrics), ("", Format::Plain)] {
        let scrape = scrape(&api, accept, format);
        let requests = format!("lb_requests_total{{code=\"2xx\",server=\"{address}\"}}");
        assert_eq!(scrape.get(&requests), 4.0);
        assert_eq!(scrape.get("lb_client_connections_accepted_total"), 4.0);
        assert_eq!(scrape.get("lb_workers"), 2.0);
    }
}
