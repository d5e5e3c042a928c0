//! What a balancer under test is to do, in words that balancers share.
//!
//! Scenarios say it in the flags of `lb`; a target's template says the same in
//! its own language. What it has no word for is a capability that it lacks.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use serde::Serialize;

/// The task of one balancer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Setup {
    /// The servers, in order.
    pub(crate) servers: Vec<Server>,
    /// How requests are dealt, by `lb`'s name of it.
    pub(crate) algorithm: String,
    /// How the servers are probed.
    pub(crate) health: Health,
    /// What it must be able to do.
    pub(crate) needs: BTreeSet<String>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Server {
    /// `s1`, `s2`, ...
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its address without the port.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// `http://ADDRESS`.
    pub(crate) url: String,
    /// Its share.
    pub(crate) weight: u32,
}

/// How servers are probed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Health {
    /// What probes ask for.
    pub(crate) path: String,
    /// From one probe to the next, in milliseconds.
    pub(crate) period_ms: u64,
    /// The same in seconds.
    pub(crate) period: f64,
    /// The same in whole seconds, at least one.
    pub(crate) period_s: u64,
    /// How long a probe may take, in milliseconds.
    pub(crate) timeout_ms: u64,
    /// Passed probes that bring a server back.
    pub(crate) rise: u32,
    /// Failed probes that take a server out.
    pub(crate) fall: u32,
}

impl Setup {
    /// What `flags` of `lb` say about `servers`.
    ///
    /// # Errors
    /// A value that `lb` would not take either.
    pub(crate) fn parse(servers: &[SocketAddr], flags: &[&str], path: &str) -> Result<Setup> {
        let servers = servers.iter().map(|address| (*address, 1));
        let mut setup = Setup {
            servers: Vec::new(),
            algorithm: "round_robin".into(),
            health: Health::new(path),
            needs: BTreeSet::new(),
        };
        servers.for_each(|(address, weight)| setup.add(address, weight));
        let mut words = flags.iter().copied();
        while let Some(word) = words.next() {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, value),
                None => (word, words.next().unwrap_or_default()),
            };
            setup
                .heed(flag.trim_start_matches("--"), value)
                .with_context(|| format!("{flag} {value}"))?;
        }
        Ok(setup)
    }

    fn heed(&mut self, flag: &str, value: &str) -> Result<()> {
        let health = &mut self.health;
        match flag {
            "backend" => {
                let (address, weight) = value.split_once(",weight=").unwrap_or((value, "1"));
                let (address, weight) = (address.parse()?, weight.parse()?);
                self.add(address, weight);
                return Ok(());
            }
            "health-period" => health.set_period(humantime(value)?),
            "health-timeout" => health.timeout_ms = millis(humantime(value)?),
            "rise" => health.rise = value.parse()?,
            "fall" => health.fall = value.parse()?,
            "algorithm" => self.algorithm = value.to_owned(),
            _ => {}
        }
        let need = match flag {
            // How many threads it takes is its own affair.
            "health-period" | "workers" => return Ok(()),
            "algorithm" if value == "round_robin" => return Ok(()),
            "algorithm" => value.split(['=', ':']).next().unwrap_or(value),
            "rise" | "fall" => "rise_fall",
            _ => flag,
        };
        self.needs.insert(need.replace('-', "_"));
        Ok(())
    }

    fn add(&mut self, address: SocketAddr, weight: u32) {
        if weight != 1 {
            self.needs.insert("weights".into());
        }
        if weight == 0 {
            self.needs.insert("weight_0".into());
        }
        self.servers.push(Server {
            name: format!("s{}", self.servers.len() + 1),
            address,
            host: address.ip().to_string(),
            port: address.port(),
            url: format!("http://{address}"),
            weight,
        });
    }
}

impl Health {
    pub(super) fn new(path: &str) -> Health {
        let mut health = Health {
            path: path.to_owned(),
            period_ms: 0,
            period: 0.0,
            period_s: 0,
            timeout_ms: 2_000,
            rise: 1,
            fall: 1,
        };
        health.set_period(Duration::from_secs(10));
        health
    }

    /// A probe may take as long as the period at most.
    pub(crate) fn set_period(&mut self, period: Duration) {
        self.period_ms = millis(period);
        self.period = period.as_secs_f64();
        self.period_s = period.as_secs_f64().ceil() as u64;
        self.timeout_ms = self.timeout_ms.min(self.period_ms);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn humantime(text: &str) -> Result<Duration> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => Ok(humantime::parse_duration(text)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(flags: &[&str]) -> Setup {
        Setup::parse(&["127.0.0.1:1".parse().unwrap()], flags, "/health").unwrap()
    }

    #[test]
    fn the_words_of_lb_are_understood() {
        let setup = setup(&[
            "--health-period",
            "300ms",
            "--fall=3",
            "--backend=127.0.0.1:2,weight=4",
            "--max-body",
            "1k",
            "--algorithm",
            "hash:header=X",
        ]);
        let weights: Vec<u32> = setup.servers.iter().map(|server| server.weight).collect();
        assert_eq!(weights, [1, 4]);
        assert_eq!((setup.health.period_ms, setup.health.period_s), (300, 1));
        assert_eq!((setup.health.fall, setup.health.timeout_ms), (3, 300));
        let needs: Vec<&str> = setup.needs.iter().map(String::as_str).collect();
        assert_eq!(needs, ["hash", "max_body", "rise_fall", "weights"]);
    }

    #[test]
    fn plain_tasks_need_nothing() {
        assert!(setup(&["--health-period", "2"]).needs.is_empty());
        assert_eq!(setup(&["--health-period", "2"]).health.period_ms, 2_000);
    }
}
