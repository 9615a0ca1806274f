//! Access control lists: who was granted what on a bucket or an object.

use serde::{Deserialize, Serialize};

/// A tenant as S3's documents name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The canonical user id.
    pub id: String,
    /// The display name.
    pub name: String,
}

/// What a grant allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// All of the others.
    FullControl,
    /// List a bucket's keys; read an object.
    Read,
    /// Create, overwrite and delete objects of a bucket.
    Write,
    /// Read the list.
    ReadAcp,
    /// Replace the list.
    WriteAcp,
}

/// Who was granted something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Grantee {
    /// One tenant.
    Tenant(Owner),
    /// Everybody, signed in or not.
    AllUsers,
    /// Everybody with an access key.
    AuthenticatedUsers,
    /// Who delivers access logs.
    LogDelivery,
}

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who.
    pub grantee: Grantee,
    /// What.
    pub permission: Permission,
}

/// A list, with the tenant that owns what it is about. Where no list is stored, the bucket's tenant owns and
/// nobody else was granted anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Who owns the bucket or object.
    pub owner: Owner,
    /// In the order in which they were given.
    pub grants: Vec<Grant>,
}
