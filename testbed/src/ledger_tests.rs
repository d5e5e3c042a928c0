//! Histories that the ledger must accept, and known-bad ones it must reject.

use std::time::Duration;

use fastrand::Rng;

use super::*;

/// A history from `s`ent, `r`eceived, `x`ecuted, `a`nswered, `f`ailed steps:
/// `s1 POST`, `r1 A POST`, `x1 A body`, `a1 A 200 1 body`, `f1`.
fn history(steps: &[&str]) -> Vec<Event> {
    let event = |(seq, step): (usize, &&str)| Event {
        seq: seq as u64,
        at: Duration::from_millis(seq as u64),
        kind: kind(&step.split(' ').collect::<Vec<_>>()),
    };
    steps.iter().enumerate().map(event).collect()
}

fn kind(words: &[&str]) -> EventKind {
    let nonce: u64 = words[0][1..].parse().unwrap();
    let body = |i: usize| BodyDigest::of(words.get(i).copied().unwrap_or_default().as_bytes());
    match &words[0][..1] {
        "s" => EventKind::Sent {
            client: "c".into(),
            nonce,
            method: words[1].into(),
            target: "/".into(),
            body: body(2),
            head: Arc::from(&b""[..]),
        },
        "r" => EventKind::Received {
            backend: words[1].into(),
            connection: 1,
            nonce: Some(nonce),
            method: words[2].into(),
            target: "/".into(),
            head: Arc::from(&b""[..]),
        },
        "x" => EventKind::Executed {
            backend: words[1].into(),
            connection: 1,
            nonce: Some(nonce),
            method: "GET".into(),
            body: body(2),
        },
        "a" => EventKind::Answered {
            client: "c".into(),
            nonce,
            status: words[2].parse().unwrap(),
            backend: (words[1] != "-").then(|| words[1].into()),
            echo: words[3].parse().ok(),
            received: Some(body(4)),
            promised: Some(body(5)),
            body: body(6),
            head: Arc::from(&b""[..]),
        },
        _ => EventKind::Failed {
            client: "c".into(),
            nonce,
            status: None,
            error: "eof".into(),
            head: Arc::from(&b""[..]),
        },
    }
}

#[track_caller]
fn rejects(steps: &[&str], why: &str) {
    let violations = check(&history(steps)).unwrap_err().to_string();
    assert!(violations.contains(why), "{violations}\nexpected: {why}");
}

#[test]
fn a_good_history_adds_up() {
    let steps = [
        "s1 GET",
        "r1 A GET",
        "r1 B GET",
        "x1 B",
        "a1 B 200 1", // retried
        "s2 POST body",
        "r2 A POST",
        "x2 A body",
        "a2 A 200 2 body", //
        "s3 POST body",
        "r3 A POST",
        "f3",
        "s4 GET",
        "a4 - 503 -",
        "s5 GET",
    ];
    let expected = Summary {
        requests: 5,
        answered: 3,
        failed: 1,
        open: 1,
        reached: 3,
        arrivals: 4,
        retries: 1,
        client_errors: 2,
    };
    assert_eq!(check(&history(&steps)), Ok(expected));
}

#[test]
fn a_post_that_arrives_twice_is_rejected() {
    rejects(&["s1 POST", "r1 A POST", "r1 B POST", "x1 B", "a1 B 200 1"], "POST arrived 2 times");
    rejects(&["s1 PATCH", "r1 A PATCH", "r1 A PATCH", "f1"], "arrived 2 times");
}

#[test]
fn an_answer_to_another_request_is_rejected() {
    rejects(&["s1 GET", "r1 A GET", "x1 A", "a1 A 200 2"], "got the answer to nonce 2");
    rejects(&["s1 GET", "a1 A 404 2"], "got the answer to nonce 2");
    rejects(&["s1 GET", "r1 A GET", "x1 A", "a1 A 200 -"], "without X-Nonce");
}

#[test]
fn a_wrong_body_is_rejected_both_ways() {
    rejects(&["s1 PUT body", "r1 A PUT", "x1 A bod", "a1 A 200 1 bod"], "body sent 4:");
    rejects(&["s1 PUT body", "r1 A PUT", "x1 A body", "a1 A 200 1 bod"], "says it was 3:");
    rejects(&["s1 PUT b", "r1 A PUT", "x1 A b", "a1 A 200 1 b hello hell"], "answer's body 4:");
    rejects(&["s1 HEAD", "r1 A HEAD", "x1 A", "a1 A 200 1  hello hello"], "answer's body 5:");
}

#[test]
fn an_answer_without_an_execution_is_rejected() {
    rejects(&["s1 GET", "r1 A GET", "a1 A 200 1"], "did not execute it");
    rejects(&["s1 GET", "r1 A GET", "x1 A", "a1 B 200 1"], "did not execute it");
}

#[test]
fn what_nobody_sent_or_was_settled_twice_is_rejected() {
    rejects(&["r1 A GET"], "no client sent it");
    rejects(&["s1 GET", "f1", "f1"], "2 outcomes");
    rejects(&["s1 GET", "f1", "s1 GET"], "sent twice");
    rejects(&["s1 GET", "r1 A POST", "f1"], "sent as GET, got by A as POST");
}

/// The rules again, each by looking at all pairs of steps.
fn brute_force(steps: &[String]) -> bool {
    let steps: Vec<Vec<&str>> = steps.iter().map(|step| step.split(' ').collect()).collect();
    let word = |step: &[&str], i: usize| step.get(i).copied().unwrap_or_default().to_owned();
    let alike = |kinds: &str, step: &[&str]| -> Vec<Vec<&str>> {
        let same =
            |other: &&Vec<&str>| kinds.contains(&other[0][..1]) && other[0][1..] == step[0][1..];
        steps.iter().filter(same).cloned().collect()
    };
    steps.iter().all(|step| {
        let sent = alike("s", step);
        let [sent] = &sent[..] else { return false };
        let (method, body) = (word(sent, 1), word(sent, 2));
        let nonce = &step[0][1..];
        match &step[0][..1] {
            "s" => true,
            "r" => {
                let twice = ["GET", "HEAD", "PUT"].contains(&&method[..]);
                word(step, 2) == method && (twice || alike("r", step).len() == 1)
            }
            "x" => word(step, 2) == body,
            "f" => alike("af", step).len() == 1,
            _ => {
                let (backend, status, echo) = (word(step, 1), word(step, 2), word(step, 3));
                let ours = backend == "-" || !status.starts_with('2');
                let at = alike("x", step);
                let executed = at.iter().any(|x| x[1] == backend && word(x, 2) == word(step, 4));
                let empty = method == "HEAD" || status == "204";
                let whole = if empty { String::new() } else { word(step, 5) };
                alike("af", step).len() == 1
                    && (echo == "-" || echo == nonce)
                    && (ours || echo == nonce && executed && word(step, 6) == whole)
            }
        }
    })
}

/// Requests that went well or came to nothing, in some order, and tampered with.
fn tampered(random: &mut Rng) -> Vec<String> {
    let mut steps = Vec::new();
    for nonce in 1..=random.usize(1..4) {
        let method = random.choice(["GET", "POST", "HEAD", "PUT"]).unwrap();
        let body = random.choice(["", "p", "q"]).unwrap();
        steps.push(format!("s{nonce} {method} {body}"));
        let tries = if method == "POST" { 1 } else { random.usize(1..3) };
        let servers = &["B", "A"][2 - tries..];
        steps.extend(servers.iter().map(|server| format!("r{nonce} {server} {method}")));
        steps.push(format!("x{nonce} A {body}"));
        let status = random.choice(["200", "204", "404", "503"]).unwrap();
        let whole = if method == "HEAD" || status == "204" { "" } else { "hi" };
        steps.push(match random.u8(..4) {
            0 => format!("f{nonce}"),
            1 => format!("a{nonce} - 503 - {body} hi {whole}"),
            _ => format!("a{nonce} A {status} {nonce} {body} hi {whole}"),
        });
    }
    for _ in 0..random.usize(..3) {
        let (one, other) = (random.usize(..steps.len()), random.usize(..steps.len()));
        let replaced = |step: &str, from: &str, to: &str| step.replacen(from, to, 1);
        match random.u8(..7) {
            0 if steps.len() > 1 => drop(steps.remove(one)),
            1 => steps.push(steps[one].clone()),
            2 => steps.swap(one, other),
            3 => steps[one] = replaced(&steps[one], "A", "B"),
            4 => steps[one] = replaced(&steps[one], "1", "2"),
            5 => steps[one] = replaced(&steps[one], "p", "q"),
            _ => steps[one] = replaced(&steps[one], "GET", "POST"),
        }
    }
    steps
}

#[test]
fn agrees_with_brute_force() {
    let mut verdicts = [0, 0];
    for seed in 0..50_000 {
        let steps = tampered(&mut Rng::with_seed(seed));
        let words: Vec<&str> = steps.iter().map(String::as_str).collect();
        let verdict = check(&history(&words));
        assert_eq!(verdict.is_ok(), brute_force(&steps), "{steps:#?}\n{verdict:?}");
        verdicts[usize::from(verdict.is_ok())] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 10_000), "{verdicts:?}");
}
