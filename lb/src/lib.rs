//! An HTTP load balancer.
//!
//! Its one promise: a client never sees an error while one healthy server
//! exists, and no request that is not idempotent is executed twice.
//!
//! A stranger's walk: [`balance`] decides, [`proxy`] carries a request,
//! [`upstream`] connects to servers, [`health`] probes them, [`serve`] and
//! [`server`] put it together. `main.rs` only starts it.

pub mod balance;
pub mod config;
pub mod inherit;
pub mod net;
mod sync;

pub mod error;
mod framing;
pub mod headers;

pub mod cluster;
pub mod dealing;
pub mod stats;
pub mod upstream;

pub mod care;
pub mod control;
pub mod health;
pub mod proxy;
pub mod reload;

pub mod feed;
pub mod metrics;
pub mod output;

pub mod admin;

pub mod accept;
pub mod access_log;
pub mod allocator;
pub mod cli;
pub mod client;
pub mod documents;
pub mod logs;
pub mod serve;
pub mod server;
pub mod service;
pub mod worker;
