//! A client of the admin API: one request, one answer.

use std::{fmt, io, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    admin::Token,
    config::{Authority, DEFAULT_API_PORT, Invalid},
    output::Escaped,
    upstream::known_addresses,
};

/// For the whole answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: usize = 64 * 1024 * 1024;

/// Where the admin API is, and the token for it.
#[derive(Debug, Args)]
pub(super) struct Contact {
    /// The port of lb's admin API on this machine.
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_API_PORT, value_parser = clap::value_parser!(u16).range(1..))]
    api_port: u16,
    /// Where lb's admin API is, if not on this machine's loopback: host:port,
    /// or unix:PATH.
    #[arg(long, value_name = "ADDR", conflicts_with = "api_port")]
    api: Option<Address>,
    /// A file with the token for it; without this flag, the token in the
    /// environment's LB_API_TOKEN, if there is one.
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
enum Address {
    Tcp(Authority),
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(authority) => authority.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Contact {
    /// Asks the admin API and returns what it says.
    ///
    /// # Errors
    /// It refuses, or nothing answers, or what answers is something else.
    pub(super) async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let token = Token::find(self.api_token_file.as_deref())?;
        let address = self.address();
        let host = match &address {
            Address::Tcp(authority) => authority.to_string(),
            Address::Unix(_) => "localhost".into(),
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.to_authorization());
        }
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = request.body(Full::from(body))?;
        let answer = timeout(PATIENCE, send(&address, request));
        let (status, text) =
            answer.await.map_err(|_| anyhow!("no answer from {address} within {PATIENCE:?}"))??;
        judge(&address, status, &text)
    }

    fn address(&self) -> Address {
        let host = "127.0.0.1".into();
        let local = || Address::Tcp(Authority { host, port: self.api_port });
        self.api.clone().unwrap_or_else(local)
    }
}

async fn send(address: &Address, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
    let silent = |error: io::Error| {
        anyhow!(
            "nothing answers at {address}: {error}; is lb running, with its admin API there? --api-port or --api says where it is"
        )
    };
    let answer = match address {
        Address::Tcp(authority) => {
            exchange(connect(authority).await.map_err(silent)?, request).await
        }
        Address::Unix(path) => {
            exchange(UnixStream::connect(path).await.map_err(silent)?, request).await
        }
    };
    answer.with_context(|| format!("no answer of an admin API from {address}"))
}

/// Connects; `localhost` is both of its addresses, whatever the resolver says.
async fn connect(authority: &Authority) -> io::Result<TcpStream> {
    let known = known_addresses(authority);
    if known.is_empty() {
        return TcpStream::connect((authority.host.as_str(), authority.port)).await;
    }
    TcpStream::connect(&known[..]).await
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach the request.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body =
        Limited::new(body, ANSWER_LIMIT).collect().await.map_err(anyhow::Error::from_boxed)?;
    Ok((head.status, body.to_bytes()))
}

/// What an answer means. Only JSON as the admin API has it counts as one.
fn judge(address: &Address, status: StatusCode, text: &[u8]) -> Result<Value> {
    let answer: Value = serde_json::from_slice(text).unwrap_or_default();
    let sentence = |answer: &Value| answer.get("error").and_then(Value::as_str).map(str::to_owned);
    if status.is_success() && (answer.is_object() || answer.is_array()) {
        return Ok(answer);
    }
    let several = answer.get("errors").and_then(Value::as_array);
    let sentences: Vec<String> = match several {
        Some(errors) => errors.iter().filter_map(sentence).collect(),
        None => sentence(&answer).into_iter().collect(),
    };
    if status.is_success() || sentences.is_empty() {
        bail!(
            "{address} answered {status}, and not as lb's admin API does; is something else listening there? --api-port or --api says where lb is"
        );
    }
    bail!("{}", Escaped(&sentences.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, text: &str, expected: &str) {
        let address = "127.0.0.1:8000".parse().unwrap();
        let judged = judge(&address, StatusCode::from_u16(status).unwrap(), text.as_bytes());
        let got = judged.map_or_else(|error| error.to_string(), |answer| answer.to_string());
        assert!(got.contains(expected), "got {got:?}, expected {expected:?}");
    }

    #[test]
    fn answers() {
        check(200, "{\"url\":\"x\"}", "{\"url\":\"x\"}");
        check(200, "[]", "[]");
        check(200, "<html>", "127.0.0.1:8000 answered 200 OK, and not as lb's");
        check(404, "not found", "127.0.0.1:8000 answered 404 Not Found, and not as lb's");
        check(404, "{\"message\":\"no\"}", "and not as lb's");
        check(409, "{\"error\":\"server x already exists\"}", "server x already exists");
        check(409, "{\"error\":\"a\\nerror: b\\u001b[2J\"}", "a\\u{a}error: b\\u{1b}[2J");
        check(422, "{\"error\":\"a\",\"errors\":[{\"error\":\"a\"},{\"error\":\"b\"}]}", "a; b");
    }
}
