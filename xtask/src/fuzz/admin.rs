//! Requests of the admin API.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, body::Bytes, header, service::Service as _};
use hyper_util::service::TowerToHyperService;
use lb::{
    access_log::{AccessLog, Format},
    admin, config,
    control::Control,
    metrics::Metrics,
    output::Output,
    worker::Shared,
};
use serde_json::Value;
use tokio::{runtime::Builder, sync::mpsc};

/// What is configured before.
const CONFIG: &[u8] = b"servers: [http://10.0.0.1:80, {url: 'http://10.0.0.2:80', name: b}]";

/// Requests, each a line with method and target and then its body, with an
/// empty line between two of them: none fails within `lb`, each is answered in
/// JSON where anything is said, and what is refused has changed nothing.
pub(super) fn check(bytes: &[u8]) -> Result<()> {
    statuses(bytes).map(drop)
}

/// The statuses of the answers.
fn statuses(bytes: &[u8]) -> Result<Vec<StatusCode>> {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
    runtime.block_on(async {
        let mut statuses = Vec::new();
        let config = config::parse(CONFIG, "lb.yaml")?;
        let (care, _charges) = mpsc::unbounded_channel();
        let control = Arc::new(Control::new(config, care));
        let shared = Arc::new(Shared::new(&control, 1));
        let log = Arc::new(AccessLog::new(Output::in_memory(), None, Format::Text));
        let metrics = Metrics::new(control.clone(), shared, log);
        let api = TowerToHyperService::new(admin::in_process(control.clone(), metrics));
        for (head, body) in requests(bytes) {
            let Some(request) = request(head, body) else { continue };
            let method = request.method().clone();
            let before = servers(&control);
            let answer = api.call(request).await?;
            let status = answer.status();
            statuses.push(status);
            let what = || String::from_utf8_lossy(head).into_owned();
            let refuses = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
            ensure!(status.is_success() || refuses, "{}: {status}", what());
            if method.is_safe() || refuses {
                ensure!(before == servers(&control), "{}: {status}, and changed", what());
            }
            let json = answer.headers().get(header::CONTENT_TYPE);
            if method != Method::HEAD && json.is_some_and(|kind| kind == "application/json") {
                let body = answer.into_body().collect().await?.to_bytes();
                let said: Value = serde_json::from_slice(&body).with_context(what)?;
                let told = said.get("error").is_some_and(Value::is_string);
                ensure!(told || !status.is_client_error(), "{}: no error in {said}", what());
            }
        }
        Ok(statuses)
    })
}

/// All that can be changed of the servers.
fn servers(control: &Control) -> Vec<String> {
    let told = |server: lb::cluster::Status| {
        let upstream = &server.upstream;
        let check = upstream.check.load();
        let (name, wanted, weight) = (upstream.name.load(), server.wanted, server.weight);
        format!("{name} {} {check:?} {wanted:?} {weight}", upstream.authority)
    };
    control.cluster.status().into_iter().map(told).collect()
}

/// First lines, and what follows them.
fn requests(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let all = rest?;
        let end = all.windows(2).position(|two| two == b"\n\n");
        rest = end.map(|end| &all[end + 2..]);
        let one = &all[..end.unwrap_or(all.len())];
        let line = one.iter().position(|byte| *byte == b'\n').unwrap_or(one.len());
        Some((&one[..line], one.get(line + 1..).unwrap_or_default()))
    })
}

fn request(line: &[u8], body: &[u8]) -> Option<Request<Full<Bytes>>> {
    let (method, target) = str::from_utf8(line).ok()?.split_once(' ')?;
    let body = Full::new(Bytes::copy_from_slice(body));
    Request::builder().method(method).uri(target).header(header::HOST, "localhost").body(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::workspace;

    #[test]
    fn the_seeds_reach_what_changes_something_and_what_refuses() {
        for (seed, refuses) in [("add_and_change", false), ("mistakes", true)] {
            let file = workspace().join("fuzz/corpus/admin").join(seed);
            let statuses = statuses(&std::fs::read(file).unwrap()).unwrap();
            assert_eq!(statuses.len(), 6, "{seed}: {statuses:?}");
            assert!(statuses.iter().all(|s| s.is_client_error() == refuses), "{statuses:?}");
        }
    }
}
