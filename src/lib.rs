//! osproxy: an S3 gateway that stores every distinct content once, on any storage vendor.
//!
//! ```text
//!  layer
//!   6  entry      main   cli   config   app                       start, wire, stop
//!
//!   5  listener   http                                            accept, limit, drain
//!                   |
//!        +----------+-----------------+
//!        v          v                 v
//!   4  s3         native            admin                         one protocol each
//!        |          |                 |
//!        |          |                 v
//!   3    |          |   import      tasks                         work outside of requests
//!        v          |      |          |
//!   2  namespace  <-+------+----------+                           buckets, keys, versions, uploads, listing
//!        |                            |
//!        v                            v
//!      content              auth  <---+        cluster            UID -> content -> extents -> blobs; who may
//!        |  |   |             |                |                  do what; this node among the others
//!        |  |   +--> keys <---+    manifest    |                  what secrets and data keys are wrapped by;
//!        v  v         |       |    |   |   |   |                  the namespace, kept at a backend
//!   1  meta blob    (meta)  (meta) | (keys)| (meta)               rows in SQL; bytes at backends
//!                                (meta)  (blob)
//!
//!   0  model   telemetry                                          nouns and pure rules; logs and metrics
//! ```
//!
//! Blobs on another node's own disk are read through that node: `content` says that a copy lies elsewhere, `cluster`
//! asks the peer, and the peer's `admin` answers from its `content`; `app` puts the three together.
//!
//! Imports point down. Work is ordered downwards and run from above; decisions are taken below and acted on
//! above; configuration and ids travel down as values, handed out by `app`, the only module that knows all the
//! pieces. `compat-tests/architecture.rs` checks who may name whom.

// A test that meets what it does not expect has failed; saying so is what `unwrap` is for.
#![cfg_attr(test, allow(clippy::unwrap_used))]

// 6, entry
pub mod app;
pub mod cli;
pub mod config;

// 5, listener
pub mod http;

// 4, facades
pub mod admin;
pub mod native;
pub mod rest;
pub mod s3;

// 3, runners
pub mod import;
pub mod tasks;

// 2, domain
pub mod auth;
pub mod cluster;
pub mod content;
pub mod keys;
pub mod manifest;
pub mod namespace;

// 1, stores
pub mod blob;
pub mod meta;

// 0, ground
pub mod model;
pub mod telemetry;
