//! The keys that protect what is stored: the master key, and what it seals.

pub mod files;
mod master;

pub use master::{MasterKey, MasterKeyError, Secret, fill};
