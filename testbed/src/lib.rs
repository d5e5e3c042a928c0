//! HTTP backends that can be killed, revived and broken, and the means to
//! judge what stands in front of them.
//!
//! Start reading at [`backend::Backend`] (the servers), [`client::Client`]
//! (who asks), [`log::EventLog`] (what happened, and the only way to wait) and
//! [`ledger::check`] (was it right). Everything speaks on raw sockets, so that
//! every wrong byte and every reset is under control.
//!
//! This crate owns no load balancer and depends on none: what is under test is
//! an address. `tests/proxy.rs` judges a small proxy with it, from start to end.
//!
//! ```
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use testbed::{backend::Backend, client::Client, fault::Fault, log::EventLog};
//!
//! let log = EventLog::new();
//! let a = Backend::builder("A").start(&log).await?;
//! let mut client = Client::new("c1", a.addr(), &log);
//! assert_eq!(client.get("/").await?.backend(), "A");
//!
//! a.arm(Fault::Status(503), 1);
//! assert_eq!(client.get("/").await?.status, 503);
//!
//! a.kill().await; // from here on connects are refused
//! a.revive().await?; // on the same port
//! testbed::ledger::check(&log.events())?;
//! # Ok(())
//! # }
//! ```

pub mod log;

pub mod event;

pub mod backend;

pub mod fault;

pub mod client;

pub mod ledger;

pub mod rotation;

pub mod history;

pub mod fairness;

pub mod statistics;

pub mod process;

pub mod body;

pub mod http1;

pub mod keeper;

pub mod net;

mod sync;
