//! x
pub mod namespace;
pub mod content;
pub mod blob;
pub mod meta;
pub mod telemetry;
pub mod model;
