//! Tests of the balancer from outside, in the one test binary that owns `lb`.

mod cli;
mod programs;
mod rotation;
mod scale;
mod transcripts;
