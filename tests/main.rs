//! Tests of the balancer from outside, in the one test binary that owns `lb`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, helpers included"
)]

mod admin;
mod browser;
mod choices;
mod cli;
mod config;
mod descriptors;
mod exposition;
mod kills;
mod listeners;
mod logs;
mod metrics;
mod names;
mod packaging;
mod probes;
mod programs;
mod rotation;
mod scale;
mod states;
mod status;
mod transcripts;
mod weights;
