//! Headless Chromium, driven over a pair of pipes by its DevTools protocol.
//!
//! Without a library: those there are compile the whole protocol as generated
//! code, of which these tests would use a dozen calls.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const WATCHDOG: Duration = Duration::from_secs(30);

/// What a shell does to give Chromium descriptors 3 and 4.
const PIPES: &str = "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>&2";

const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];

/// The event of a page that is there with all that belongs to it.
const LOADED: &str = "Page.loadEventFired";
/// The texts whose contrast to what is behind them is under 4.5 (WCAG 2.2,
/// 1.4.3), and what it is.
pub(crate) const FAINT_TEXTS: &str = "(() => {
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
        .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
        .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
    const behind = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parts(getComputedStyle(at).backgroundColor);
            if (colour.length === 3 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const faint = [];
    for (let text; (text = texts.nextNode());) {
        const node = text.parentElement;
        if (!text.data.trim() || node.tagName === 'SCRIPT' || !node.checkVisibility()) continue;
        const [a, b] = [parts(getComputedStyle(node).color), behind(node)].map(light);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint.push(`${text.data.trim()}: ${contrast.toFixed(2)}`);
    }
    return faint;
})()";

/// Whether there is a browser. Without one a test is skipped aloud, except in
/// CI, where it must be.
pub(crate) fn is_here() -> bool {
    let mut command = Command::new("chromium");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    let here = command.status().is_ok_and(|status| status.success());
    assert!(here || env::var_os("CI").is_none(), "CI lacks chromium");
    if !here {
        eprintln!("skipped: chromium not found");
    }
    here
}

/// A browser with one page; killed when dropped.
pub(crate) struct Browser {
    child: Child,
    pipe: ChildStdin,
    messages: Receiver<Value>,
    session: Value,
    calls: u64,
    /// What has happened in it: requests, console, dialogs.
    pub(crate) events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Opens a page of this size.
    pub(crate) fn open(url: &str, width: u32, height: u32) -> Browser {
        let profile = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", PIPES, "chromium"]).args(FLAGS);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (pipe, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            for text in BufReader::new(output).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&text).unwrap();
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, events) = (Value::Null, Vec::new());
        let mut browser =
            Browser { child, pipe, messages, session, calls: 0, events, _profile: profile };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        browser.session = browser.call("Target.attachToTarget", attach)["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser.resize(width, height);
        browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    /// One call of the protocol, and its result.
    #[track_caller]
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut call = json!({ "id": self.calls, "method": method, "params": params });
        if self.session.is_string() {
            call["sessionId"] = self.session.clone();
        }
        let mut text = call.to_string().into_bytes();
        text.push(0);
        self.pipe.write_all(&text).unwrap();
        loop {
            let message = self.messages.recv_timeout(WATCHDOG);
            let mut message = message.unwrap_or_else(|error| panic!("{call}: {error}"));
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{call}: {message}");
                return message["result"].take();
            }
            self.events.push(message);
        }
    }

    /// What an expression, or the promise that it is, comes to.
    #[track_caller]
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let mut result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Waits until an expression is true. It is looked at whenever the page
    /// changes.
    #[track_caller]
    pub(crate) fn until(&mut self, expression: &str) {
        let limit = WATCHDOG.as_millis() * 2 / 3;
        let promise = format!(
            "new Promise((done) => {{
                const met = () => {{ try {{ return {expression}; }} catch {{ return false; }} }};
                if (met()) return done('');
                const watch = new MutationObserver(() => {{
                    if (met()) {{ watch.disconnect(); done(''); }}
                }});
                const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
                watch.observe(document, all);
                setTimeout(() => done(document.body.innerText), {limit});
            }})"
        );
        let shown = self.eval(&promise);
        assert_eq!(shown, "", "waited for {expression}");
    }

    /// Asks for the page again, past its cache, and waits until it is loaded.
    #[track_caller]
    pub(crate) fn reload(&mut self) {
        let before = self.events_of(LOADED).len();
        self.call("Page.reload", json!({ "ignoreCache": true }));
        while self.events_of(LOADED).len() == before {
            let message = self.messages.recv_timeout(WATCHDOG);
            self.events.push(message.expect("the page to be loaded"));
        }
    }

    /// Makes the window as large as this.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
    }

    /// Prefers `light` or `dark`.
    pub(crate) fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Presses a key at what has the focus.
    pub(crate) fn press_enter(&mut self) {
        for kind in ["keyDown", "keyUp"] {
            let key = json!({
                "type": kind, "key": "Enter", "code": "Enter", "text": "\r",
                "windowsVirtualKeyCode": 13,
            });
            self.call("Input.dispatchKeyEvent", key);
        }
    }

    /// What of its events has this name.
    pub(crate) fn events_of(&self, method: &str) -> Vec<&Value> {
        let events = self.events.iter().filter(|event| event["method"] == method);
        events.map(|event| &event["params"]).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it ends its children too.
        let _ = self.pipe.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        while self.messages.recv_timeout(WATCHDOG).is_ok() {}
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
