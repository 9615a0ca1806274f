//! Data keys, and the keys that customers keep to themselves.

use std::fmt;
use std::sync::Arc;

use aes_gcm::{Aes256Gcm, KeyInit};
use md5::{Digest, Md5};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::seal::{self, KEY_BYTES, fill};
use crate::model::fault::Fault;
use crate::model::ids::ContentId;

/// The key that encrypts one content. Wiped from memory when dropped.
pub struct DataKey(Zeroizing<[u8; KEY_BYTES]>);

impl DataKey {
    /// A random key.
    pub fn draw() -> Result<Self, Fault> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill(key.as_mut())?;
        Ok(Self(key))
    }

    /// The cipher under this key.
    pub fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&*self.0).into())
    }

    /// Wraps the key under `cipher`, bound to `bound`.
    pub(super) fn wrap(&self, cipher: &Aes256Gcm, bound: &[u8]) -> Result<Vec<u8>, Fault> {
        seal::seal(cipher, bound, self.0.as_ref())
    }

    pub(super) fn unwrap(cipher: &Aes256Gcm, bound: &[u8], wrapped: &[u8]) -> Option<Self> {
        let opened = seal::open(cipher, bound, wrapped)?;
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if opened.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(&opened);
        Some(Self(key))
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// A key that a client sends with every request (SSE-C). It is never stored; wiped from memory when the last
/// clone is dropped.
#[derive(Clone)]
pub struct CustomerKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

impl CustomerKey {
    /// A key of exactly [`KEY_BYTES`] bytes.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if bytes.len() != KEY_BYTES {
            return None;
        }
        key.copy_from_slice(bytes);
        Some(Self(Arc::new(key)))
    }

    /// The MD5 of the key, by which clients and versions name it.
    pub fn md5(&self) -> [u8; 16] {
        Md5::digest(**self.0).into()
    }

    /// Wraps the data key of a content.
    pub fn wrap(&self, key: &DataKey, content: ContentId) -> Result<Vec<u8>, Fault> {
        key.wrap(&self.cipher(), &bound_to(content))
    }

    /// The data key of a content; `None` when another key wrapped it, or it is damaged.
    pub fn unwrap(&self, wrapped: &[u8], content: ContentId) -> Option<DataKey> {
        DataKey::unwrap(&self.cipher(), &bound_to(content), wrapped)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new((&**self.0).into())
    }
}

fn bound_to(content: ContentId) -> Vec<u8> {
    [&b"customer data key"[..], &content.0.to_be_bytes()].concat()
}

impl PartialEq for CustomerKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&**other.0).into()
    }
}

impl Eq for CustomerKey {}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(***)")
    }
}
