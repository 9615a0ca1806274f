//! The keys that protect what is stored.
//!
//! ```text
//!   master key, from a file or the environment
//!     |  seals
//!     +--> secrets of access keys, keys of links                      (auth)
//!     +--> versions of wrapping keys, in SQL
//!            |  wrap                    a tenant's own key, or one of its KMS
//!            +--> data keys, in the rows of contents                  (content)
//!   a customer's key, never stored
//!     +--> data keys of contents that only its holder can read
//! ```
//!
//! - A data key is random, of one content, and encrypts its bytes. What wraps it can be changed without
//!   touching the bytes: [`Keys::rotate`] makes a new version, and contents are wrapped anew one by one.
//! - Every sealed value is bound to what it belongs to (tenant, key, version, content), so that none can be
//!   moved to another row.
//! - A key that is disabled wraps and unwraps nothing, on every node within [`REMEMBERED_FOR`].
//! - Keys are wiped from memory when they are dropped, and print as `***`.

mod data;
pub mod files;
mod manage;
mod master;
mod seal;
mod store;
#[cfg(test)]
mod tests;

pub use data::{CustomerKey, DataKey};
pub use manage::{KeyStatus, KmsKey, NewKmsKey};
pub use master::{MasterKey, MasterKeyError, Secret};
pub use seal::{KEY_BYTES, fill};
pub use store::{KeyError, Keys, REMEMBERED_FOR, Wrapped};
