//! The status page, as people see it: in headless Chromium.

mod looks;
mod stream;

use std::process::Command;

use serde_json::Value;
use testbed::{backend::Backend, log::EventLog};
use tokio::runtime::Runtime;

use crate::{
    browser::{self, Browser},
    cli::get,
    programs::{Running, lb_command},
};

/// A balancer with an admin API in front of three servers of this process.
struct World {
    runtime: Runtime,
    servers: Vec<Backend>,
    lb: Running,
    proxy: u16,
    admin: u16,
}

/// `lb` in front of `servers`, whose health it looks at often.
fn command(servers: &[Backend], admin: u16) -> Command {
    let mut command = lb_command();
    command.args(["--port", "0", "--health-path", "/health", "--health-period", "200ms"]);
    command.arg("--api-port").arg(admin.to_string());
    for server in servers {
        command.arg("--backend").arg(server.url());
    }
    command
}

impl World {
    fn start(token: Option<&str>) -> World {
        let runtime = Runtime::new().unwrap();
        let log = EventLog::new();
        let start = |name| runtime.block_on(Backend::builder(name).start(&log)).unwrap();
        let servers: Vec<_> = ["A", "B", "C"].map(start).into();
        let mut command = command(&servers, 0);
        command.envs(token.map(|token| ("LB_API_TOKEN", token)));
        let lb = Running::start(command);
        let (proxy, admin) = (lb.port_after("ready proxy="), lb.port_after(" admin="));
        World { runtime, servers, lb, proxy, admin }
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.admin)
    }

    fn browse(&self, width: u32) -> Browser {
        Browser::open(&self.url(), width, 900)
    }

    /// Sends so many requests, and says who answered: `AABA`.
    fn ask(&self, count: usize) -> String {
        let name = |answer: String| {
            let (_, rest) = answer.split_once("x-backend: ").expect("a server's answer");
            rest.chars().next().unwrap()
        };
        (0..count).map(|_| name(get(self.proxy).replace("X-Backend", "x-backend"))).collect()
    }

    /// Calls the API as a command does.
    #[track_caller]
    fn run(&self, words: &[&str]) {
        let mut command = lb_command();
        command.args(words).arg("--api-port").arg(self.admin.to_string());
        assert!(command.status().unwrap().success(), "{words:?}");
    }
}

/// The row of the server at `place`, as an expression.
fn row(place: usize) -> String {
    format!("document.querySelectorAll('#servers tr')[{place}]")
}

/// What is observed of it and wanted, as an expression.
fn is(place: usize, observed: &str, wanted: &str) -> String {
    let row = row(place);
    format!("{row}.dataset.observed === '{observed}' && {row}.dataset.wanted === '{wanted}'")
}

const LIVE: &str = "document.body.dataset.link === 'live'";

fn all_up() -> String {
    let up = |place| is(place, "up", "enabled");
    format!("{LIVE} && {} && {} && {}", up(0), up(1), up(2))
}

/// `red`, `green` or neither, of the word that says what is observed.
fn hue(browser: &mut Browser, place: usize) -> &'static str {
    let word = format!("{}.querySelector('.observed .word')", row(place));
    let colour = browser.eval(&format!("getComputedStyle({word}).color"));
    let parts: Vec<i32> = colour
        .as_str()
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect();
    match parts[..] {
        [r, g, _] if r > g + 40 => "red",
        [r, g, _] if g > r + 40 => "green",
        _ => "neither",
    }
}

fn text(browser: &mut Browser, selector: &str) -> String {
    let text = browser.eval(&format!("document.querySelector('{selector}').innerText"));
    text.as_str().unwrap().into()
}

/// Nothing was complained of, and nobody else was asked.
#[track_caller]
fn check_quiet(world: &World, browser: &Browser) {
    let ours = world.url();
    for request in browser.events_of("Network.requestWillBeSent") {
        let url = request["request"]["url"].as_str().unwrap();
        assert!(url.starts_with(&ours) || url.starts_with("data:"), "asked {url}");
    }
    for complaint in ["Log.entryAdded", "Runtime.exceptionThrown", "Page.javascriptDialogOpening"] {
        assert!(browser.events_of(complaint).is_empty(), "{:?}", browser.events_of(complaint));
    }
    let errors = |said: &&&Value| said["type"] == "error" || said["type"] == "warning";
    let said = browser.events_of("Runtime.consoleAPICalled");
    assert_eq!(said.iter().filter(errors).count(), 0, "{said:?}");
}

#[test]
fn a_killed_server_turns_red_and_a_revived_one_green() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(None);
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    browser.eval("window.sameDocument = true");
    assert_eq!([0, 1, 2].map(|place| hue(&mut browser, place)), ["green"; 3]);
    world.runtime.block_on(world.servers[1].kill());
    browser.until(&is(1, "down", "enabled"));
    assert_eq!([0, 1, 2].map(|place| hue(&mut browser, place)), ["green", "red", "green"]);
    assert_eq!(text(&mut browser, "#eligible"), "2 of 3");
    browser.until("document.querySelector('#changes .down')?.innerText.includes('down')");
    world.runtime.block_on(world.servers[1].revive()).unwrap();
    browser.until(&is(1, "up", "enabled"));
    assert_eq!(hue(&mut browser, 1), "green");
    assert_eq!(text(&mut browser, "#eligible"), "3 of 3");
    assert_eq!(browser.eval("window.sameDocument"), true);
    check_quiet(&world, &browser);
}

#[test]
fn requests_are_seen_where_they_go() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(None);
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    assert_eq!(world.ask(9), "ABCABCABC");
    let lanes = "document.getElementById('lanes').ariaLabel";
    let name = |place: usize| world.servers[place].addr();
    let told = format!("3 to {}, 3 to {}, 3 to {}", name(0), name(1), name(2));
    browser.until(&format!("{lanes}.includes('{told}; 0 failed')"));
    for place in 0..3 {
        let rate =
            format!("{}.querySelector('[data-label=\"Requests / s\"]').innerText", row(place));
        browser.until(&format!("parseFloat({rate}.replace(/^.*\\n/, '')) > 0"));
    }
    check_quiet(&world, &browser);
}

#[test]
fn a_button_drains_and_another_enables_by_keyboard() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(None);
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    let press = |browser: &mut Browser, verb: &str| {
        let button = format!("[...{}.querySelectorAll('button')]", row(0));
        browser.eval(&format!("{button}.find((b) => b.innerText === '{verb}').focus()"));
        browser.press_enter();
    };
    press(&mut browser, "drain");
    browser.until(&is(0, "up", "draining"));
    assert_eq!(world.ask(6), "BCBCBC");
    press(&mut browser, "enable");
    browser.until(&is(0, "up", "enabled"));
    let mut asked: Vec<_> = world.ask(6).chars().collect();
    asked.sort_unstable();
    assert_eq!(asked, ['A', 'A', 'B', 'B', 'C', 'C']);
    check_quiet(&world, &browser);
}

#[test]
fn a_lost_connection_is_shown_and_made_again() {
    if !browser::is_here() {
        return;
    }
    let mut world = World::start(None);
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    world.lb.kill();
    browser.until("document.body.dataset.link === 'lost'");
    assert!(text(&mut browser, "#alarm").starts_with("No connection to lb"));
    assert_eq!([0, 1, 2].map(|place| hue(&mut browser, place)), ["neither"; 3]);
    let before = format!(
        "getComputedStyle({}.querySelector('.observed .word'), '::before').content",
        row(0)
    );
    assert_eq!(browser.eval(&before), "\"was \"");
    world.lb = Running::start(command(&world.servers, world.admin));
    browser.until(&all_up());
    assert_eq!(hue(&mut browser, 0), "green");
    assert_eq!(browser.eval("document.getElementById('alarm').hidden"), true);
}

#[test]
fn the_token_is_asked_for_and_stays_out_of_urls() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(Some("open-sesame"));
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    let form = |browser: &mut Browser, token: &str| {
        browser.until("!document.getElementById('token').hidden");
        browser.eval(&format!("document.getElementById('secret').value = '{token}'"));
        browser.eval("document.getElementById('secret').focus()");
        browser.press_enter();
    };
    browser.eval(&format!("{}.querySelector('button').click()", row(2)));
    form(&mut browser, "wrong");
    browser.until("document.getElementById('alarm').innerText === 'the token is wrong'");
    form(&mut browser, "open-sesame");
    browser.until(&is(2, "up", "draining"));
    assert_eq!(browser.eval("Object.keys(localStorage).length"), 0);
    for request in browser.events_of("Network.requestWillBeSent") {
        assert!(!request["request"]["url"].to_string().contains("sesame"), "{request}");
    }
}

#[test]
fn names_are_text() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(None);
    let name = "<b>A</b><script>alert(1)</script>";
    let url = world.servers[0].url();
    world.run(&["update-server", "--url", &url, "--name", name]);
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    browser.until("document.querySelectorAll('#changes li').length > 0");
    assert_eq!(text(&mut browser, "#servers .name"), name);
    assert!(text(&mut browser, "#changes").contains("<b>A</b>"));
    // As if lb let any name pass, and any error.
    let worse = "<img src=x onerror=alert(2)>";
    let servers = format!(
        "state.servers.map((s) => ({{ ...s, name: '{worse}', detail: '{worse}', url: '{worse}' }}))"
    );
    // In one go, before lb says otherwise.
    let shown = browser.eval(&format!(
        "(() => {{
            showState({{ ...state, servers: {servers} }});
            const markup = document.querySelectorAll('img, b:not(.legend b)').length;
            return [document.querySelector('#servers .name').innerText, markup];
        }})()"
    ));
    assert_eq!(shown, serde_json::json!([worse, 0]));
    assert_eq!(browser.eval("document.querySelectorAll('script').length"), 1);
    check_quiet(&world, &browser);
}

#[test]
fn pages_of_others_open_no_stream() {
    if !browser::is_here() {
        return;
    }
    let world = World::start(None);
    // A page of one of the servers: the same host, and another port.
    let mut browser = Browser::open(&format!("http://127.0.0.1:{}/", world.proxy), 800, 600);
    let stream = format!("{}live", world.url());
    for way in [
        format!("fetch('{stream}', {{ mode: 'no-cors' }}).then(done)"),
        format!(
            "document.body.append(Object.assign(document.createElement('iframe'),
                {{ onload: done, src: '{stream}' }}))"
        ),
    ] {
        browser.eval(&format!("new Promise((met) => {{ const done = () => met(0); {way}; }})"));
    }
    let answers = browser.events_of("Network.responseReceived").into_iter();
    let answers =
        answers.map(|answer| &answer["response"]).filter(|answer| answer["url"] == stream);
    let statuses: Vec<_> = answers.map(|answer| answer["status"].clone()).collect();
    assert_eq!(statuses, [403, 403]);
}
