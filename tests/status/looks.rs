//! How the status page looks: narrow, light and dark, with many servers.

use std::{fs, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{Browser, World, all_up, browser, check_quiet};
use crate::{
    browser::FAINT_TEXTS,
    programs::{Running, lb_command},
};

/// How much wider the page is than its window, or the table than the page, in
/// pixels.
const EXCESS: &str = "Math.max(
    document.documentElement.scrollWidth - document.documentElement.clientWidth,
    document.querySelector('table').offsetWidth - document.querySelector('main').clientWidth,
    0)";

/// A world in which everything is shown at once: a long name, a dead server, a
/// draining one, failed attempts, many servers.
fn busy_world(extra: usize) -> World {
    let world = World::start(None);
    let long = "checkout-service-eu-central-1-canary-with-a-long-name";
    world.run(&["update-server", "--url", &world.servers[0].url(), "--name", long]);
    world.run(&["drain-server", "--url", &world.servers[2].url()]);
    for port in 1..=extra {
        world.run(&["add-server", "--url", &format!("http://127.0.0.1:{port}"), "--weight", "7"]);
    }
    world.runtime.block_on(world.servers[1].kill());
    world
}

fn settle(browser: &mut Browser) {
    browser.until("document.querySelector('.row.down') && document.querySelector('.draining')");
}

#[test]
fn it_is_legible_and_fits_at_any_width() {
    if !browser::is_here() {
        return;
    }
    let world = busy_world(20);
    let mut browser = world.browse(360);
    settle(&mut browser);
    world.ask(3);
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        for width in [360, 700, 1000, 1200] {
            browser.resize(width, 900);
            assert_eq!(browser.eval(EXCESS), 0, "at {width} px");
            assert_eq!(browser.eval(FAINT_TEXTS), json!([]), "{scheme} at {width} px");
        }
    }
    check_quiet(&world, &browser);
}

#[test]
fn what_is_stale_is_legible_too() {
    if !browser::is_here() {
        return;
    }
    let mut world = busy_world(0);
    let mut browser = world.browse(360);
    settle(&mut browser);
    world.lb.kill();
    browser.until("document.body.dataset.link === 'lost'");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        assert_eq!(browser.eval(FAINT_TEXTS), json!([]), "{scheme}");
        assert_eq!(browser.eval(EXCESS), 0);
    }
}

#[test]
fn two_thousand_servers_are_shown_and_the_first_have_lanes() {
    if !browser::is_here() {
        return;
    }
    let mut command = lb_command();
    command.args(["--port", "0", "--api-port", "0", "--health-period", "60s"]);
    for number in 0..2000 {
        command.arg(format!("--backend=127.0.{}.{}:1", number / 200, number % 200 + 1));
    }
    let lb = Running::start(command);
    let url = format!("http://127.0.0.1:{}/", lb.port_after(" admin="));
    let mut browser = Browser::open(&url, 1200, 900);
    browser.until("document.querySelectorAll('#servers .row.down').length === 2000");
    let lanes = "Lanes for the first 15 of 2000 servers.";
    browser.until(&format!("document.getElementById('shown').innerText.includes('{lanes}')"));
    browser.eval("document.querySelector('#find input').focus()");
    browser.call("Input.insertText", json!({ "text": "127.0.9.200:" }));
    browser.until("document.querySelectorAll('#servers .row:not([hidden])').length === 1");
    // It still keeps up.
    browser.eval("window.before = state.now");
    browser.until("state.now !== before && document.body.dataset.link === 'live'");
}

/// Takes the picture of the README and others like it.
#[test]
#[ignore = "writes docs/status.png: cargo test -p lb --test it picture -- --ignored"]
fn picture() {
    let world = World::start(None);
    let names = ["checkout-a", "checkout-b", "checkout-c"];
    for (server, name) in world.servers.iter().zip(names) {
        world.run(&["update-server", "--url", &server.url(), "--name", name]);
    }
    let mut browser = world.browse(1200);
    browser.until(&all_up());
    world.ask(24);
    world.runtime.block_on(world.servers[1].kill());
    world.ask(2);
    browser.until(&super::is(1, "down", "enabled"));
    world.ask(16);
    world.runtime.block_on(world.servers[1].revive()).unwrap();
    browser.until(&all_up());
    world.ask(18);
    world.runtime.block_on(world.servers[1].kill());
    browser.until(&super::is(1, "down", "enabled"));
    world.run(&["drain-server", "--url", &world.servers[2].url()]);
    browser.until(&super::is(2, "up", "draining"));
    world.ask(12);
    browser.until("cells.length && !queue.length && offset === 0");
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/status.png");
    let others = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, scheme, file) in [
        (1200, "light", docs),
        (1200, "dark", others.join("wide-dark.png")),
        (360, "light", others.join("narrow-light.png")),
        (360, "dark", others.join("narrow-dark.png")),
    ] {
        browser.prefer(scheme);
        browser.resize(width, 900);
        // As high as the page is, and drawn.
        browser.eval(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))",
        );
        let height = browser.eval("document.documentElement.scrollHeight").as_u64().unwrap();
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let params = json!({ "format": "png", "clip": clip, "captureBeyondViewport": true });
        let picture = browser.call("Page.captureScreenshot", params);
        let picture = BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        assert!(picture.len() < 200_000, "{} bytes", picture.len());
        fs::write(&file, picture).unwrap();
        println!("{}", file.display());
    }
}
