//! What is left after a crash, a lost race or a failing store: no lost object, nothing torn, nothing mixed.
//!
//! A crash is simulated by forgetting the writes that are open, so that nothing cleans up, and opening the same
//! directory again. The real kill of a real process under load is in the client suites.

#![allow(clippy::unwrap_used, missing_docs)] // a test ends by a panic

mod collect;
mod copy;
mod crash;
mod delivery;
mod install;
mod jobs;
mod manifests;
mod merge;
mod moves;
mod moves_ended;
mod owners;
mod races;
mod renewal;
mod schema;
mod scrub;
mod steps;
mod versions;
