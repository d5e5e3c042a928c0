//! `wrk` as a child: its script, and the line that the script prints.

use std::{fs, net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{
    backend::LARGE_PATH,
    child::{command, folder},
    workloads::{LARGE, Request},
};
use crate::programs::find;

/// What the script's line begins with.
const MARK: &str = "bench ";

/// The end of every script: all figures in one line.
const DONE: &str = r#"
done = function(summary, latency, requests)
  local e = summary.errors
  print(string.format("bench %d %d %d %d %d %d", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"#;

/// What clients saw in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Requests that were answered.
    pub(crate) requests: u64,
    /// How long the round took.
    pub(crate) took: Duration,
    /// Half of the answers took no longer.
    pub(crate) p50: Duration,
    /// 99 % of the answers took no longer.
    pub(crate) p99: Duration,
    /// 99.9 % of the answers took no longer.
    pub(crate) p999: Duration,
    /// Errors of sockets, answers too late, statuses of 400 and more.
    pub(crate) errors: u64,
}

/// The load generator.
pub(crate) struct Wrk {
    program: PathBuf,
    scripts: TempDir,
}

impl Wrk {
    /// Finds it.
    ///
    /// # Errors
    /// It is not installed.
    pub(crate) fn find() -> Result<Wrk> {
        let program = find("wrk").context("wrk is not installed; apt-get install wrk")?;
        Ok(Wrk { program, scripts: folder()? })
    }

    /// Loads `target` with `connections` connections for about `time`.
    ///
    /// # Errors
    /// It cannot connect at all, or does not work as expected.
    pub(crate) async fn run(
        &self,
        target: SocketAddr,
        request: Request,
        connections: u32,
        time: Duration,
    ) -> Result<Seen> {
        let file = self.scripts.path().join("script.lua");
        fs::write(&file, script(request))?;
        let mut wrk = command(&self.program);
        wrk.args(["-t1", "-c", &connections.to_string()]);
        wrk.args(["-d", &format!("{}s", time.as_secs()), "--latency", "-s"]).arg(&file);
        wrk.arg(format!("http://{target}{}", path(request)));
        wrk.stdin(Stdio::null()).stderr(Stdio::piped()).stdout(Stdio::piped());
        let output = wrk.process_group(0).kill_on_drop(true).output().await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "wrk: {}: {text}{errors}", output.status);
        parse(&text).with_context(|| format!("wrk printed {text:?}{errors}"))
    }
}

fn path(request: Request) -> &'static str {
    if request == Request::Download { LARGE_PATH } else { "/" }
}

fn script(request: Request) -> String {
    let head = match request {
        Request::Small | Request::Download => String::new(),
        Request::SmallAndClose => "wrk.headers[\"Connection\"] = \"close\"".into(),
        Request::Upload => {
            format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {LARGE})")
        }
    };
    head + DONE
}

/// The figures in the line that [`DONE`] prints.
fn parse(text: &str) -> Option<Seen> {
    let line = text.lines().find_map(|line| line.strip_prefix(MARK))?;
    let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    let [requests, took, p50, p99, p999, errors] = numbers?.try_into().ok()?;
    let us = Duration::from_micros;
    let [took, p50, p99, p999] = [took, p50, p99, p999].map(us);
    Some(Seen { requests, took, p50, p99, p999, errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_among_the_others() {
        let text = "Running 1s test @ http://a/\n  981 requests in 1.00s\n\
                    bench 981 1001960 3103 16046 17931 2\n";
        let seen = parse(text).unwrap();
        assert_eq!((seen.requests, seen.errors), (981, 2));
        assert_eq!(seen.took, Duration::from_micros(1_001_960));
        assert_eq!(seen.p999, Duration::from_micros(17_931));
    }

    #[test]
    fn other_output_has_no_figures() {
        assert_eq!(parse("unable to connect"), None);
        assert_eq!(parse("bench 1 2 3"), None);
        assert_eq!(parse("bench 1 2 3 4 5 x"), None);
    }

    #[test]
    fn scripts_say_what_is_sent() {
        assert!(script(Request::Upload).contains("1048576"));
        assert!(script(Request::SmallAndClose).contains("close"));
        assert!(script(Request::Small).ends_with(DONE));
    }
}
