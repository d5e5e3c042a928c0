//! The commands that look at a running `lb` and change it.
//!
//! What was typed for a server goes to the admin API as it is: the balancer
//! judges it, so that a mistake gets the same sentence here and there.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Result;
use clap::{Args, Subcommand};
use hyper::Method;
use serde_json::{Map, Number, Value, json};

use super::ask::Contact;
use crate::output::Escaped;

/// A command for a running `lb`.
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Add a server to a running lb.
    AddServer(Box<ServerArgs>),
    /// Change a server of a running lb; what is not named stays as it is.
    UpdateServer(Box<ServerArgs>),
    /// Remove a server from a running lb; it finishes what it has.
    DeleteServer(UrlArgs),
    /// Let a server finish what it has, and give it nothing new.
    DrainServer(UrlArgs),
    /// Give a server requests again, once it is healthy.
    EnableServer(UrlArgs),
    /// Give a server nothing until it is enabled.
    DisableServer(UrlArgs),
    /// Show the servers of a running lb.
    ListServers(ListArgs),
}

/// A server and what is said of it.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// The server: http://host:port.
    #[arg(long, allow_hyphen_values = true)]
    url: String,
    /// Its name in logs and metrics [default: host:port].
    #[arg(long, allow_hyphen_values = true)]
    name: Option<String>,
    /// Its share of the requests; with 0 it is probed and gets none [default: 1].
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    weight: Option<String>,
    /// From one probe to the next: 10s, 200ms or plain seconds.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    health_check_period: Option<String>,
    /// How long a probe may take; at most the period is used.
    #[arg(long, allow_hyphen_values = true, value_name = "TIME")]
    health_check_timeout: Option<String>,
    /// The port that is probed [default: the server's own].
    #[arg(long, allow_hyphen_values = true, value_name = "PORT")]
    health_check_port: Option<String>,
    /// The path that probes ask for.
    #[arg(long, allow_hyphen_values = true, value_name = "PATH")]
    health_check_path: Option<String>,
    /// The statuses that count as healthy: 200, 200-399 or 200,204.
    #[arg(long, allow_hyphen_values = true, value_name = "CODES")]
    health_check_expect: Option<String>,
    /// Passed probes in a row that bring it back.
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    rise: Option<String>,
    /// Failed probes in a row that take it out.
    #[arg(long, allow_hyphen_values = true, value_name = "N")]
    fall: Option<String>,
    /// What is wanted of it: enabled, draining or disabled.
    #[arg(long, allow_hyphen_values = true)]
    state: Option<String>,
    #[command(flatten)]
    contact: Contact,
}

/// Which server.
#[derive(Debug, Args)]
pub struct UrlArgs {
    /// The server: http://host:port.
    #[arg(long, allow_hyphen_values = true)]
    url: String,
    #[command(flatten)]
    contact: Contact,
}

/// How servers are shown.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// As JSON, with everything that is known of them.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    contact: Contact,
}

impl AdminCommand {
    /// Does it. Prints nothing but the list of servers.
    ///
    /// # Errors
    /// The balancer refuses, or cannot be asked.
    pub async fn run(self) -> Result<()> {
        match self {
            AdminCommand::AddServer(args) => args.send("/add").await,
            AdminCommand::UpdateServer(args) => args.send("/update").await,
            AdminCommand::DeleteServer(args) => args.send("/delete").await,
            AdminCommand::DrainServer(args) => args.send("/drain").await,
            AdminCommand::EnableServer(args) => args.send("/enable").await,
            AdminCommand::DisableServer(args) => args.send("/disable").await,
            AdminCommand::ListServers(args) => args.run().await,
        }
    }
}

impl ServerArgs {
    async fn send(self, path: &str) -> Result<()> {
        self.contact.ask(Method::POST, path, &self.body()).await.map(drop)
    }

    fn body(&self) -> Value {
        let texts = [
            ("name", &self.name),
            ("health_check_path", &self.health_check_path),
            ("health_check_expect", &self.health_check_expect),
            ("state", &self.state),
        ];
        let numbers = [
            ("weight", &self.weight),
            ("health_check_period", &self.health_check_period),
            ("health_check_timeout", &self.health_check_timeout),
            ("health_check_port", &self.health_check_port),
            ("rise", &self.rise),
            ("fall", &self.fall),
        ];
        let mut body = Map::from_iter([("url".into(), self.url.as_str().into())]);
        for (field, value) in texts {
            body.extend(value.iter().map(|text| (field.into(), text.as_str().into())));
        }
        for (field, value) in numbers {
            body.extend(value.iter().map(|text| (field.into(), number_or_text(text))));
        }
        body.into()
    }
}

/// A number where one was typed.
fn number_or_text(text: &str) -> Value {
    text.parse::<Number>().map_or_else(|_| text.into(), Value::Number)
}

impl UrlArgs {
    async fn send(self, path: &str) -> Result<()> {
        let body = json!({ "url": self.url });
        self.contact.ask(Method::POST, path, &body).await.map(drop)
    }
}

impl ListArgs {
    async fn run(self) -> Result<()> {
        let servers = self.contact.ask(Method::GET, "/servers", &Value::Null).await?;
        let text = if self.json { format!("{servers:#}\n") } else { table(&servers) };
        match io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => Ok(written?),
        }
    }
}

/// The columns of the list: a heading and the field that it shows.
const COLUMNS: [(&str, &str); 9] = [
    ("NAME", "name"),
    ("URL", "url"),
    ("WEIGHT", "weight"),
    ("WANTED", "wanted"),
    ("OBSERVED", "observed"),
    ("IN FLIGHT", "in_flight"),
    ("SINCE", "since"),
    ("CAUSE", "cause"),
    ("DETAIL", "detail"),
];

/// The servers, a line each, in aligned columns.
fn table(servers: &Value) -> String {
    let servers = servers.as_array().map(Vec::as_slice).unwrap_or_default();
    let cell = |server: &Value, field| match &server[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => Escaped(text).to_string(),
        other => other.to_string(),
    };
    let mut lines = vec![COLUMNS.map(|(heading, _)| heading.to_owned())];
    lines.extend(servers.iter().map(|server| COLUMNS.map(|(_, field)| cell(server, field))));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            // Writing to memory cannot fail.
            let _ = write!(row, "{cell:width$}  ");
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let servers = json!([
            {"name": "größer", "url": "http://a:1", "weight": 10, "wanted": "enabled",
             "observed": "up", "in_flight": 0, "since": "2026", "cause": "probe passed", "detail": "200"},
            {"name": "b", "url": "http://b:22", "weight": 1, "wanted": "draining",
             "observed": "checking", "in_flight": 3, "since": null, "cause": null, "detail": null},
        ]);
        let expected = "\
NAME    URL          WEIGHT  WANTED    OBSERVED  IN FLIGHT  SINCE  CAUSE         DETAIL
größer  http://a:1   10      enabled   up        0          2026   probe passed  200
b       http://b:22  1       draining  checking  3          -      -             -
";
        assert_eq!(table(&servers), expected);
    }

    #[test]
    fn numbers_are_sent_as_numbers() {
        assert_eq!(number_or_text("-1"), json!(-1));
        assert_eq!(number_or_text("1.5"), json!(1.5));
        assert_eq!(number_or_text("two"), json!("two"));
        assert_eq!(number_or_text("10s"), json!("10s"));
    }
}
