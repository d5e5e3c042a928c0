//! The fuzz targets' bodies under `cargo test`: with the corpora, and with
//! mutations of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, TestCaseError, TestRunner},
};

/// Bytes that mean something to somebody.
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "0",
    "1",
    "-1",
    "ffffffffffffffff",
    "18446744073709551616",
    "\u{e9}",
    "%0d%0a",
    "chunked",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "Host: b\r\n",
    "Connection: host\r\n",
    "Connection: content-length, te\r\n",
    "Expect: 100-continue\r\n",
    "HTTP/1.0",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "GET / HTTP/1.1\r\n",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "null",
    "true",
    "servers",
    "weight",
    "health",
    "period",
    "10s",
    "http://a:1",
    "- ",
    "  ",
    "&a ",
    "*a",
    "'",
    "=",
    "[[operations]]\n",
    "at_ms = 1\n",
    "do = \"kill\"\n",
    "\n\nPOST /add\n",
    "\n\nPOST /update\n{\"url\": \"http://10.0.0.1:80\"}",
    "\n\nPOST /delete\nhttp://10.0.0.2:80",
    "\n\nPOST /drain\n",
    "\"weight\": 3,",
    "\"health_check_period\": \"2s\",",
];

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Mutation {
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Replace(Index, u8),
    /// A part of it, once more at another place.
    Copy(Index, usize, Index),
}

impl Mutation {
    fn any() -> impl Strategy<Value = Mutation> {
        let word = select(WORDS).prop_map(|word| word.as_bytes().to_vec());
        prop_oneof![
            3 => (any::<Index>(), word).prop_map(|(at, word)| Mutation::Insert(at, word)),
            1 => (any::<Index>(), vec(any::<u8>(), 1..4)).prop_map(|(at, b)| Mutation::Insert(at, b)),
            2 => (any::<Index>(), 1_usize..20).prop_map(|(at, count)| Mutation::Remove(at, count)),
            2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Replace(at, byte)),
            1 => (any::<Index>(), 1_usize..60, any::<Index>())
                .prop_map(|(from, count, to)| Mutation::Copy(from, count, to)),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        let end = |from: usize, count: usize| (from + count).min(bytes.len());
        match self {
            Mutation::Insert(at, word) => {
                let at = place(at);
                drop(bytes.splice(at..at, word.iter().copied()));
            }
            Mutation::Remove(at, count) => {
                let at = place(at);
                drop(bytes.drain(at..end(at, *count)));
            }
            Mutation::Replace(at, byte) => {
                let at = place(at);
                bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte);
            }
            Mutation::Copy(from, count, to) => {
                let (from, to) = (place(from), place(to));
                let part = bytes[from..end(from, *count)].to_vec();
                drop(bytes.splice(to..to, part));
            }
        }
    }
}

/// What is kept of a target, with the files' names.
fn corpus(target: &str) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let file = entry?.path();
        files.push((file.clone(), fs::read(file)?));
    }
    files.sort();
    ensure!(files.len() >= 3, "{} is nearly empty", folder.display());
    Ok(files)
}

fn check(target: &str) -> Result<()> {
    let corpus = corpus(target)?;
    for (file, bytes) in &corpus {
        xtask::fuzz::check(target, bytes).with_context(|| file.display().to_string())?;
    }
    let seeds: Vec<Vec<u8>> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mutated = (select(seeds), vec(Mutation::any(), 1..6)).prop_map(|(mut bytes, mutations)| {
        mutations.iter().for_each(|mutation| mutation.apply(&mut bytes));
        bytes
    });
    // As many as PROPTEST_CASES says, 256 if it says nothing.
    let config = Config { failure_persistence: None, ..Config::default() };
    let judged = TestRunner::new(config).run(&mutated, |bytes| {
        let said = String::from_utf8_lossy(&bytes);
        let failed = |error| TestCaseError::fail(format!("{error:#}\n{said:?}\n{bytes:?}"));
        xtask::fuzz::check(target, &bytes).map_err(failed)
    });
    judged.map_err(|error| anyhow!("{error}"))
}

macro_rules! targets {
    ($($target:ident),*) => {
        $(#[test] fn $target() -> Result<()> { check(stringify!($target)) })*

        #[test]
        fn all_are_here() {
            let here = [$(stringify!($target)),*];
            assert!(xtask::fuzz::targets().eq(here), "expected {:?}", xtask::fuzz::targets().collect::<Vec<_>>());
        }
    };
}

targets!(admin, answer, chunks, config, plan, request, target);
