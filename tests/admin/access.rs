//! Where the admin API is, and who may ask it for what.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
};

use rustix::process::Signal;

use super::{ADD, ask_with, command, error_of, servers, silent, start, talk};
use crate::programs::{Running, WATCHDOG, lb_command};

/// A file with a token, as its owner would keep it.
fn token_file(folder: &Path, token: &str) -> String {
    let file = folder.join("token");
    fs::write(&file, token).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

#[test]
fn names_and_pages_of_others_are_refused() {
    let api = start(&["--api-host", "LB.example"]);
    let status = |fields: &str| ask_with(api.port, fields, "POST /add", "{").0;
    for good in [
        "Host: 127.0.0.1\r\n",
        "Host: lb.example:80\r\n",
        "Host: localhost\r\nOrigin: http://localhost\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n",
    ] {
        assert_eq!(status(good), 400, "{good}");
    }
    for bad in [
        "Host: evil.example\r\n",
        "Host: localhost\r\nOrigin: http://evil.example\r\n",
        "Host: localhost\r\nOrigin: null\r\n",
        "Host: localhost\r\nSec-Fetch-Site: same-site\r\n",
    ] {
        assert_eq!(status(bad), 403, "{bad}");
    }
    let link = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n";
    assert_eq!(ask_with(api.port, link, "GET /", "").0, 200);
    assert_eq!(ask_with(api.port, link, "GET /live", "").0, 403);
    assert_eq!(servers(api.port).as_array().unwrap().len(), 0);
}

#[test]
fn a_token_is_asked_for_in_constant_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), "s3cret\n");
    let api = start(&["--api-token-file", &file]);
    let post = |fields: &str| {
        ask_with(api.port, &format!("Host: localhost\r\n{fields}"), "POST /add", ADD)
    };
    for wrong in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic s3cret\r\n"] {
        let (status, head, body) = post(wrong);
        assert_eq!(status, 401, "{wrong}{body}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body.contains("\"field\":\"Authorization\"") && !body.contains("s3cret"), "{body}");
    }
    let (_, _, metrics) = ask_with(api.port, "Host: localhost\r\n", "GET /metrics", "");
    for (reason, count) in [("no_token", 1), ("wrong_token", 2), ("host", 0), ("page", 0)] {
        let counted = format!("lb_admin_refusals_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&counted), "{metrics}");
    }
    // On loopback whoever is there may look.
    assert_eq!(servers(api.port).as_array().unwrap().len(), 0);
    assert_eq!(post("Authorization: bearer s3cret\r\n").0, 200);
    let port = api.port.to_string();
    let delete = ["delete-server", "--url", "127.0.0.1:1", "--api-port", &port];
    assert!(error_of(&command(&delete)).contains("a token is required"));
    silent(&command(&[&delete[..], &["--api-token-file", &file]].concat()));
    let mut add = lb_command();
    add.args(["add-server", "--url", "127.0.0.1:1", "--api-port", &port])
        .env("LB_API_TOKEN", "s3cret");
    silent(&add.output().unwrap());
    assert!(
        !api.lb.printed().contains("s3cret") && !api.lb.printed().contains("is open to others")
    );
}

#[test]
fn no_token_is_in_anything_that_lb_says() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), "s3cret\n");
    let api = start(&["--api-token-file", &file, "--log-level", "trace", "--debug"]);
    for token in ["s3cret", "gu3ss", "s3cret\u{e9}"] {
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
        ask_with(api.port, &fields, "POST /add", ADD);
        for page in ["/", "/servers", "/changes", "/health", "/metrics", "/openapi.json"] {
            let (status, head, body) = ask_with(api.port, &fields, &format!("GET {page}"), "");
            assert!(!head.contains("s3cret") && !body.contains("s3cret"), "{page}: {status}");
        }
    }
    api.lb.signal(Signal::TERM);
    let printed = api.lb.ended().1;
    assert!(printed.contains("cause=\"admin API\""), "{printed}");
    assert!(!printed.contains("s3cret") && !printed.contains("gu3ss"), "{printed}");
}

#[test]
fn off_loopback_nothing_is_shown_without_the_token() {
    let mut lb = lb_command();
    lb.args(["--port", "0", "--api-port", "0", "--api-bind", "0.0.0.0"])
        .env("LB_API_TOKEN", "s3cret");
    let running = Running::start(lb);
    let port = running.port_after(" admin=");
    let get = |fields: &str, path: &str| {
        ask_with(port, &format!("Host: localhost\r\n{fields}"), &format!("GET {path}"), "").0
    };
    assert_eq!(get("", "/servers"), 401);
    assert_eq!(get("", "/openapi.json"), 401);
    assert_eq!(get("Authorization: Bearer s3cret\r\n", "/servers"), 200);
    // Other balancers and orchestrators ask for this, and it says no more than they see.
    assert_eq!(get("", "/health"), 503);
}

/// An address of this machine that others use, if it has any: the one that it
/// would send from. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[test]
fn a_socket_of_both_families_is_asked_by_the_addresses_of_both() {
    let both = TcpListener::bind("[::]:0")
        .and_then(|socket| TcpStream::connect(("127.0.0.1", socket.local_addr()?.port())));
    if both.is_err() {
        eprintln!("skipped: no socket takes IPv6 and IPv4");
        return;
    }
    let mut lb = lb_command();
    lb.args(["--port", "0", "--api-port", "0", "--api-bind", "::"]).env("LB_API_TOKEN", "s3cret");
    let running = Running::start(lb);
    let port = running.port_after(" admin=");
    let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    for address in loopback.into_iter().chain(own_address()) {
        let host = SocketAddr::new(address, port);
        let stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        let fields = format!("Host: {host}\r\nAuthorization: Bearer s3cret\r\n");
        let answer = talk(stream, &format!("GET /servers HTTP/1.1\r\n{fields}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{host}: {answer}");
    }
}

#[test]
fn off_loopback_lb_does_not_start_without_a_token() {
    for address in ["0.0.0.0", "::", "192.0.2.1"] {
        let output = command(&["--port", "0", "--api-port", "0", "--api-bind", address]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("needs a token; give one with --api-token-file"), "{text}");
    }
}

#[test]
fn token_files_that_are_wrong_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |file: &str| {
        error_of(&command(&["--port", "0", "--api-port", "0", "--api-token-file", file]))
    };
    assert!(refused("/nowhere/token").contains("cannot read the token file /nowhere/token"));
    assert!(refused(&token_file(folder.path(), "\n")).contains("the token is empty"));
    assert!(refused(&token_file(folder.path(), "a b")).contains("not visible ASCII"));
    let file = token_file(folder.path(), "s3cret");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let api = start(&["--api-token-file", &file]);
    api.lb.line("is open to others (mode 644); chmod 600");
}

#[test]
fn a_token_that_is_replaced_counts_at_once_and_the_one_before_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), "first\n");
    let api = start(&["--api-token-file", &file]);
    let post = |token: &str| {
        let fields = format!("Host: localhost\r\nAuthorization: Bearer {token}\r\n");
        ask_with(api.port, &fields, "POST /add", "{").0
    };
    assert_eq!((post("first"), post("second")), (400, 401));
    token_file(folder.path(), "second\n");
    assert_eq!((post("first"), post("second")), (401, 400));
    api.lb.line("has changed: what it says counts");
    fs::remove_file(&file).unwrap();
    assert_eq!((post("first"), post("second")), (401, 400));
    api.lb.line("the token before still counts");
    assert!(!api.lb.printed().contains("second"));
}

#[test]
fn a_taken_default_port_is_a_warning_and_one_that_was_asked_for_an_error() {
    // If somebody else has it, it is taken all the same.
    let _held = TcpListener::bind("127.0.0.1:8000");
    let mut lb = lb_command();
    lb.arg("0");
    let running = Running::start(lb);
    running.line(
        "no admin API: cannot listen on 127.0.0.1:8000 for the admin API: port 8000 is taken",
    );
    assert!(!running.line("ready proxy=").contains("admin="));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let output = command(&["--port", "0", "--api-port", &port]);
    let text = error_of(&output);
    assert!(
        text.contains(&format!("port {port} is taken; choose another with --api-port")),
        "{text}"
    );
    // Whoever has a token for it would show it to whoever has its port.
    let folder = tempfile::tempdir().unwrap();
    let file = token_file(folder.path(), "s3cret");
    let output = command(&["--port", "0", "--api-token-file", &file]);
    assert!(error_of(&output).contains("port 8000 is taken"));
}

#[test]
fn off_means_none() {
    for flags in [&["--api-port", "off"][..], &["--no-api"]] {
        let mut lb = lb_command();
        lb.arg("0").args(flags);
        assert!(!Running::start(lb).line("ready proxy=").contains("admin="), "{flags:?}");
    }
    for (flags, sentence) in [
        (&["--api-port", "of"][..], "not a port; expected 1 to 65535"),
        (&["--api-port", "65536"], "not a port; expected 1 to 65535"),
        (&["--api-port", "off", "--api-bind", "127.0.0.1"], "--api-bind needs a port"),
        (&["--no-api", "--api-port", "1"], "cannot be used with"),
        (&["--api-bind", "localhost"], "--api-bind"),
        (&["--api-host", "http://a"], "not the name of a host"),
    ] {
        let output = command(&[&["--port", "0"], flags].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flags:?}: {text}");
        assert!(text.contains(sentence), "{flags:?}: {text}");
    }
}

#[test]
fn a_unix_socket_is_its_owners_alone_and_goes_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.sock");
    let (text, contact) = (path.to_str().unwrap(), format!("unix:{}", path.display()));
    let flags = ["0", "--api-port", "off", "--api-socket", text];
    // A socket that nobody listens on any more makes way.
    drop(UnixListener::bind(&path).unwrap());
    let mut lb = lb_command();
    lb.args(flags);
    let running = Running::start(lb);
    assert!(running.line("ready proxy=").ends_with(&format!(" admin={contact}")));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    silent(&command(&["add-server", "--url", "127.0.0.1:1", "--api", &contact]));
    let list = command(&["list-servers", "--api", &contact]);
    assert!(String::from_utf8(list.stdout).unwrap().contains("http://127.0.0.1:1 "));
    assert!(
        talk(UnixStream::connect(&path).unwrap(), "GET /servers HTTP/1.1\r\n\r\n")
            .contains("200 OK")
    );
    // One that somebody listens on does not, nor does a file.
    assert!(error_of(&command(&flags)).contains("somebody listens there"));
    assert!(path.exists());
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let other = ["0", "--api-port", "off", "--api-socket", file.to_str().unwrap()];
    assert!(error_of(&command(&other)).contains("no socket"));
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    running.signal(Signal::TERM);
    assert!(running.ended().0.success());
    assert!(!path.exists());
    assert!(error_of(&command(&["list-servers", "--api", &contact])).contains(&contact));
}

#[test]
fn the_end_of_an_old_process_leaves_a_newer_ones_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lb.sock");
    let start = || {
        let mut lb = lb_command();
        lb.args(["0", "--api-port", "off", "--api-socket", path.to_str().unwrap()]);
        let running = Running::start(lb);
        running.line("ready proxy=");
        running
    };
    let old = start();
    fs::remove_file(&path).unwrap();
    let new = start();
    old.signal(Signal::TERM);
    assert!(old.ended().0.success());
    let answer = talk(UnixStream::connect(&path).unwrap(), "GET /servers HTTP/1.1\r\n\r\n");
    assert!(answer.contains("200 OK"), "{answer}");
    new.signal(Signal::TERM);
    assert!(new.ended().0.success());
    assert!(!path.exists());
}
