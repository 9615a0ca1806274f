//! The vocabulary of osproxy: nouns and pure rules, with no I/O and no knowledge of any protocol or store.
//!
//! A [`bucket`] belongs to a tenant and maps keys to versions. A version ([`object`]) is one immutable
//! state of a key and refers to one content. A [`content`] is one immutable byte sequence, known inside a
//! space by SHA-256 and length; its bytes lie in its SQL row, in a blob at a backend, or in other contents
//! as extents. [`digest`] computes what a body is known by, [`ids`] numbers everything, [`names`] holds
//! what a client may call things, [`file`] what the
//! native API makes of the name of a file, [`job`] is work to be done later, [`progress`]
//! how far long work is, [`fault`] says what went wrong in a store.

pub mod acl;
pub mod bucket;
pub mod clock;
pub mod content;
pub mod cors;
pub mod digest;
pub mod fault;
pub mod file;
pub mod finding;
pub mod ids;
pub mod job;
pub mod lifecycle;
pub mod logging;
pub mod names;
pub mod notification;
pub mod object;
pub mod progress;
pub mod url;
pub mod website;
