//! Transcript 15: a browser on the balancer's own port.

use std::fs;

use rustix::process::Signal;

use super::{Python, balance, have, pages, three};
use crate::{
    browser::{self, Browser},
    programs::Running,
};

const PAGE: &str = "target=\"/\"";
const ICON: &str = "target=\"/favicon.ico\"";

fn have_all() -> bool {
    have(&["python3", "curl"]) && browser::is_here()
}

/// The letters of the pages that a browser shows, first and after each reload.
/// It reloads past its cache: a page that is older than the one before would be
/// a 304 for it, and it would show the one before.
fn browse(lb: &Running, port: u16, count: usize) -> (String, Browser) {
    let mut browser = Browser::open(&format!("http://127.0.0.1:{port}/"), 800, 600);
    browser.until("document.body.innerText.startsWith('page')");
    let mut shown = String::new();
    for load in 1..=count {
        if load > 1 {
            browser.reload();
        }
        lb.lines(PAGE, load);
        let text = browser.eval("document.body.innerText.trim()");
        shown.push_str(text.as_str().unwrap().strip_prefix("page ").unwrap());
    }
    (shown, browser)
}

/// The name of the server that a line of the access log names.
fn name(servers: &[Python], line: &str) -> Option<&'static str> {
    let of = |server: &&Python| line.contains(&format!(" server=localhost:{} ", server.port));
    servers.iter().find(of).map(|server| server.name)
}

#[test]
fn transcript_15_each_reload_shows_the_next_page() {
    if !have_all() {
        return;
    }
    let servers = three();
    for server in &servers {
        // An icon that it need not ask for: that would take a turn.
        let page = format!("<link rel=icon href='data:,'>page {}", server.name);
        fs::write(server.folder.path().join("index.html"), page).unwrap();
    }
    let (lb, port) = balance(&servers, &[]);
    assert_eq!(browse(&lb, port, 7).0, "ABCABCA");
}

/// The browser asks for the icon by itself, when it likes, also while the next
/// page is under way, and may think better of it, even before there is a server.
/// So which server a page comes from is not known before; but no server gets more
/// than its third of all requests, to the request.
#[test]
fn transcript_15_a_missing_icon_puts_nobody_out() {
    if !have_all() {
        return;
    }
    let servers = three();
    let (lb, port) = balance(&servers, &[]);
    let (shown, browser) = browse(&lb, port, 7);
    lb.line(&format!("{ICON} status=404"));
    drop(browser);
    let next = pages(port, 6);
    assert!(servers.iter().all(|server| next.contains(server.name)), "{next}");

    lb.signal(Signal::TERM);
    let (_, printed) = lb.ended();
    assert!(!printed.contains(" from=up "), "a server was put out:\n{printed}");
    let lines: Vec<&str> = printed.lines().filter(|line| line.contains(" client=")).collect();
    for line in lines.iter().filter(|line| line.contains(ICON)) {
        let answered = line.contains(" status=404 ") && name(&servers, line).is_some();
        assert!(answered || line.contains(" end=client_gone"), "{line}");
        assert!(!line.contains(" reason="), "{line}");
    }
    let loaded = lines.iter().filter(|line| line.contains(PAGE));
    let loaded: String = loaded.filter_map(|line| name(&servers, line)).take(7).collect();
    assert_eq!(shown, loaded);
    for (place, server) in servers.iter().enumerate() {
        let dealt = lines.iter().filter(|line| name(&servers, line) == Some(server.name)).count();
        let share = (lines.len() + 2 - place) / 3;
        assert!(dealt <= share, "{dealt} of {share} to {}:\n{printed}", server.name);
    }
}
