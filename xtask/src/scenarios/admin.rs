//! The admin API and its commands.

use std::process::Output;

use anyhow::{Result, ensure};
use testbed::backend::Backend;
use tokio::process::Command;

use super::scenario;
use crate::e2e::{Scenario, World};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario!(
        55,
        "admin",
        api_mistakes,
        Events,
        "every mistake in a request is named with its field, and changes nothing"
    ),
    scenario!(
        55,
        "admin",
        command_mistakes,
        Events,
        "every mistake on the command line is a sentence and exit code 1, and changes nothing"
    ),
    scenario!(
        55,
        "admin",
        traffic_follows,
        Events,
        "added, weighted, drained, enabled, disabled, deleted: the next request shows it"
    ),
];

const API: [&str; 2] = ["--api-port", "0"];

/// What the balancer says of its servers.
async fn servers(w: &mut World) -> Result<String> {
    let (status, text) = w.lb()?.api("GET", "/servers", "").await?;
    ensure!(status == 200, "GET /servers: {status} {text}");
    Ok(text)
}

/// Posts `body`, and expects an error of this status with this text in it.
async fn expect_refusal(
    w: &mut World,
    path: &str,
    body: &str,
    status: u16,
    sentence: &str,
) -> Result<()> {
    let (got, text) = w.lb()?.api("POST", path, body).await?;
    let shown = &body[..body.len().min(200)];
    ensure!(got == status, "POST {path} {shown}: {got}, expected {status}: {text}");
    ensure!(text.contains(sentence), "POST {path} {shown}: {text:?} lacks {sentence:?}");
    ensure!(text.starts_with("{\"error\":\""), "POST {path} {shown}: {text:?}");
    Ok(())
}

/// The server at `url`, with `more` of it.
fn with(url: &str, more: &str) -> String {
    format!("{{\"url\":\"{url}\"{more}}}")
}

/// Posts every mistake in a server that there is to `path`: in its URL, and in
/// what is said of the one at `url`.
async fn expect_care(w: &mut World, path: &str, url: &str) -> Result<()> {
    expect_refusal(w, path, "{\"weight\":1}", 422, "\"field\":\"url\"").await?;
    for (url, sentence) in [
        (format!("{url}/app"), "has the path"),
        ("https://127.0.0.1:1".into(), "has the scheme https"),
        ("127.0.0.1".into(), "has no port"),
        ("127.0.0.1:65536".into(), "has port 65536"),
        ("http://me@127.0.0.1:1".into(), "has a user name"),
        (String::new(), "\"field\":\"url\""),
    ] {
        expect_refusal(w, path, &with(&url, ""), 422, sentence).await?;
    }
    for (value, field) in [
        ("-1", "weight"),
        ("4294967296", "weight"),
        ("1.5", "weight"),
        ("\"two\"", "weight"),
        ("0", "health_check_period"),
        ("-1", "health_check_period"),
        ("1e9", "health_check_period"),
        ("[1]", "health_check_period"),
        ("0", "health_check_timeout"),
        ("0", "health_check_port"),
        ("65536", "health_check_port"),
        ("\"health\"", "health_check_path"),
        ("\"2xx\"", "health_check_expect"),
        ("0", "rise"),
        ("1.5", "fall"),
        ("\"gone\"", "state"),
        ("\"\"", "name"),
        ("\"a\\nb\"", "name"),
        ("1", "wieght"),
    ] {
        let body = with(url, &format!(",\"{field}\":{value}"));
        expect_refusal(w, path, &body, 422, &format!("\"field\":\"{field}\"")).await?;
    }
    Ok(())
}

async fn api_mistakes(w: &mut World) -> Result<()> {
    let [a, b] = w.backends(["A", "B"]).await?;
    w.balance(&API).await?;
    let before = servers(w).await?;
    let (there, new) = (format!("http://{}", a.addr()), "http://127.0.0.1:1");
    for (path, body, status, sentence) in [
        ("/add", with(&there, ""), 409, "already exists"),
        ("/update", with(new, ""), 404, "does not exist"),
        ("/delete", new.to_owned(), 404, "does not exist"),
        ("/drain", format!("{new}\n"), 404, "does not exist"),
        ("/enable", format!("\"{new}\""), 404, "does not exist"),
        ("/disable", with(new, ""), 404, "does not exist"),
        ("/delete", String::new(), 422, "url is missing"),
        ("/delete", with(&there, ",\"force\":true"), 422, "unknown field"),
        ("/delete", format!("{there}/x"), 422, "has the path"),
        ("/delete", "\"open".into(), 400, "not JSON"),
        ("/add", "{\"url\":".into(), 400, "not JSON"),
        ("/add", "{\"url\":\"\u{1}\"}".into(), 400, "not JSON"),
        ("/add", String::new(), 400, "not JSON"),
        ("/add", "[1]".into(), 422, "expected an object"),
        ("/add", "x".repeat(65_537), 413, "longer than 65536 bytes"),
        ("/nowhere", String::new(), 404, "does not exist"),
        ("/servers", String::new(), 405, "takes no POST"),
    ] {
        expect_refusal(w, path, &body, status, sentence).await?;
    }
    // Both routes that take a whole server take the same care.
    for (path, url) in [("/add", new), ("/update", there.as_str())] {
        expect_care(w, path, url).await?;
    }
    // Reading is no changing, whatever is read.
    for path in ["/add", "/delete", "/drain"] {
        let (got, text) = w.lb()?.api("GET", path, &b.addr().to_string()).await?;
        ensure!(got == 405, "GET {path}: {got} {text}");
    }
    let after = servers(w).await?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABAB").await
}

/// Runs one of the program's commands.
async fn command(w: &mut World, words: &[&str]) -> Result<Output> {
    let program = w.programs.lb.clone();
    let api = w.lb()?.admin()?.to_string();
    let mut command = Command::new(program);
    command.args(words).args(["--api", &api]).env_remove("LB_API_TOKEN");
    Ok(command.output().await?)
}

async fn command_mistakes(w: &mut World) -> Result<()> {
    let [a] = w.backends(["A"]).await?;
    w.balance(&API).await?;
    let before = servers(w).await?;
    let (there, new) = (format!("http://{}", a.addr()), "http://127.0.0.1:1");
    let update = ["update-server", "--url", &there];
    let add = ["add-server", "--url", new];
    let mut cases = vec![
        (vec!["add-server", "--url", &there], format!("error: server {there} already exists")),
        (vec!["add-server", "--url", "nonsense"], "error: url: \"nonsense\" has no port".into()),
    ];
    for name in
        ["update-server", "delete-server", "drain-server", "enable-server", "disable-server"]
    {
        let sentence = format!("error: server {new} does not exist");
        cases.push((vec![name, "--url", new], sentence));
    }
    for words in [&update, &add] {
        for (flag, value, sentence) in [
            (
                "--weight",
                "-1",
                "weight: -1 is not a weight; expected a number from 0 to 4294967295",
            ),
            ("--weight", "4294967296", "weight: 4294967296 is not a weight"),
            ("--weight", "1.5", "weight: 1.5 is not a weight"),
            ("--weight", "two", "weight: \"two\" is not a number"),
            ("--health-check-period", "0", "health_check_period: 0 must be longer than zero"),
            ("--health-check-period", "-1", "health_check_period: -1 is not a duration"),
            ("--health-check-period", "2d", "health_check_period: \"2d\" must be at most one day"),
            ("--health-check-timeout", "soon", "health_check_timeout: \"soon\" is not a duration"),
            ("--health-check-port", "0", "health_check_port: 0 is not a port"),
            ("--health-check-path", "x", "health_check_path: \"x\" must begin with /"),
            ("--health-check-expect", "2xx", "health_check_expect: \"2xx\" is no set"),
            ("--rise", "0", "rise: 0 is not a count"),
            ("--fall", "many", "fall: \"many\" is not a number"),
            ("--state", "gone", "state: \"gone\" is not a state"),
            ("--name", "", "name: \"\" is empty"),
        ] {
            let words = [words.as_slice(), &[flag, value]].concat();
            cases.push((words, format!("error: {sentence}")));
        }
    }
    for (words, sentence) in cases {
        let output = command(w, &words).await?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{words:?}: {}: {text}", output.status);
        ensure!(text.starts_with(&sentence), "{words:?}: {text:?} lacks {sentence:?}");
        ensure!(text.lines().count() == 1 && output.stdout.is_empty(), "{words:?}: {text}");
    }
    let after = servers(w).await?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    Ok(())
}

async fn traffic_follows(w: &mut World) -> Result<()> {
    w.backends(["A", "B"]).await?;
    w.balance(&API).await?;
    let c = w.backend(Backend::builder("C")).await?;
    let url = format!("http://{}", c.addr());
    let mut client = w.client("c")?;
    w.expect_sequence(&mut client, "ABAB").await?;
    let mark = w.log.len();
    silently(w, &["add-server", "--url", &url, "--health-check-path", "/health"]).await?;
    w.lb()?.says(mark, &c, "up").await?;
    w.expect_sequence(&mut client, "CABCAB").await?;
    silently(w, &["update-server", "--url", &url, "--weight", "0"]).await?;
    w.expect_sequence(&mut client, "ABAB").await?;
    silently(w, &["update-server", "--url", &url, "--weight", "1"]).await?;
    w.expect_sequence(&mut client, "CABC").await?;
    for out in ["drain-server", "disable-server"] {
        silently(w, &[out, "--url", &url]).await?;
        w.expect_sequence(&mut client, "ABAB").await?;
        silently(w, &["enable-server", "--url", &url]).await?;
        w.expect_sequence(&mut client, "CABC").await?;
    }
    silently(w, &["delete-server", "--url", &url]).await?;
    w.expect_sequence(&mut client, "ABAB").await
}

/// Runs a command that must succeed and print nothing.
async fn silently(w: &mut World, words: &[&str]) -> Result<()> {
    let output = command(w, words).await?;
    ensure!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{words:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
