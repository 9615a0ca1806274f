//! Backends that are one of each node: which of them is this node's own, and how the others' are read.
//!
//! The row of such a backend names its node. This node writes, lists and deletes at its own alone; bytes at another's
//! are read through that node, by a function that whoever made the store gave it. What is decided here is only where a
//! copy lies; how a peer is reached is not this module's business.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::ContentStore;
use crate::blob::{self, CopyName};
use crate::meta::buckets::{self, BackendRow};
use crate::meta::contents::CopyRow;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::SpaceId;

/// Bytes of a blob on another node's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elsewhere {
    /// Which node.
    pub node: String,
    /// The backend's name in its row.
    pub backend: String,
    /// The blob's name there.
    pub blob: String,
    /// Its bytes, half-open.
    pub range: Range<u64>,
}

/// Reads from another node: exactly the range, or a fault in its place. [`Kind::Unavailable`] when the node does not
/// answer.
pub type ReadElsewhere = Arc<
    dyn Fn(Elsewhere) -> BoxFuture<'static, Result<BoxStream<'static, Result<Bytes, Fault>>, Fault>>
        + Send
        + Sync,
>;

/// This node among those that share the database.
#[derive(Clone)]
pub struct Here {
    /// What it is called.
    pub node: String,
    /// How the others' disks are read.
    pub elsewhere: ReadElsewhere,
}

/// A range of one copy while it is read.
pub struct CopyReader(From);

enum From {
    Here(blob::Reader),
    /// Never locked: it makes the reader one that threads may share.
    There(Mutex<BoxStream<'static, Result<Bytes, Fault>>>),
}

impl CopyReader {
    /// The next bytes of the range; `None` after exactly the whole range, or after a fault.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        match &mut self.0 {
            From::Here(reader) => reader.next().await,
            From::There(stream) => {
                let stream = stream.get_mut().unwrap_or_else(PoisonError::into_inner);
                stream.next().await
            }
        }
    }
}

impl ContentStore {
    /// Opens `range` of one copy of a blob, wherever that lies.
    pub(super) async fn read_copy(
        &self,
        copy: &CopyRow,
        range: Range<u64>,
    ) -> Result<CopyReader, Fault> {
        let name = CopyName::parse(&copy.name).ok_or_else(|| {
            Fault::new(Kind::Corrupt, "read blob").context(format_args!("name {}", copy.name))
        })?;
        let backend = self.backend(copy.backend).await?;
        let Some(node) = self.is_elsewhere(&backend) else {
            let reader = self.blobs.read(&backend.name, &name, range).await?;
            return Ok(CopyReader(From::Here(reader)));
        };
        let here = self.here.as_ref().ok_or_else(|| {
            Fault::new(Kind::Unavailable, "read blob")
                .context(format_args!("it lies on node {node}"))
        })?;
        let asked = Elsewhere {
            node: node.to_owned(),
            backend: backend.name.clone(),
            blob: copy.name.clone(),
            range,
        };
        let stream = (here.elsewhere)(asked).await?;
        Ok(CopyReader(From::There(Mutex::new(stream))))
    }

    /// Opens `range` of a blob at this node's own backend `backend`, for a peer. Any other backend is refused: a peer
    /// reaches that itself, or asks its node.
    pub async fn read_for_peer(
        &self,
        backend: &str,
        blob: &str,
        range: Range<u64>,
    ) -> Result<CopyReader, Fault> {
        let not_found = || {
            Fault::new(Kind::NotFound, "read for peer")
                .context(format_args!("backend {backend}"))
                .context(format_args!("blob {blob}"))
        };
        let node = self.here.as_ref().map(|here| here.node.as_str());
        let owner = backend.split_once('@').map(|(_, owner)| owner);
        if node.is_none() || owner != node {
            return Err(
                Fault::new(Kind::Unavailable, "read for peer").context("not this node's own")
            );
        }
        let name = CopyName::parse(blob).ok_or_else(not_found)?;
        let reader = self.blobs.read(backend, &name, range).await?;
        Ok(CopyReader(From::Here(reader)))
    }

    /// Puts the copies that need no other node first.
    pub(super) async fn nearest_first(&self, copies: &mut [CopyRow]) -> Result<(), Fault> {
        if copies.len() < 2 {
            return Ok(());
        }
        let mut far = Vec::new();
        for copy in copies.iter() {
            let backend = self.backend(copy.backend).await?;
            if self.is_elsewhere(&backend).is_some() {
                far.push(copy.backend);
            }
        }
        copies.sort_by_key(|copy| far.contains(&copy.backend));
        Ok(())
    }

    /// The space that contents of `space` are stored in on this node.
    pub(super) async fn space_here(&self, space: SpaceId) -> Result<SpaceId, Fault> {
        let Some(here) = &self.here else {
            return Ok(space);
        };
        if let Some(known) = self.spaces.get(&space) {
            return Ok(known);
        }
        let (node, new) = (here.node.clone(), SpaceId(self.uids.next()?));
        let found = self
            .meta
            .transact("find own space", move |session| {
                let node = node.clone();
                Box::pin(async move { buckets::space_on(session, new, space, &node).await })
            })
            .await
            .map_err(|fault: Fault| fault)?;
        self.spaces.insert(space, found);
        Ok(found)
    }

    /// A backend by its row's id. Rows never change; one that another node has recorded meanwhile is looked up.
    pub(super) async fn backend(&self, id: i64) -> Result<Arc<BackendRow>, Fault> {
        if let Some(known) = self.backends.get(&id) {
            return Ok(known);
        }
        let found = self
            .meta
            .read("find backend", move |session| {
                Box::pin(buckets::find_backend(session, id))
            })
            .await
            .map_err(|fault: Fault| fault)?;
        let found = Arc::new(found.ok_or_else(|| {
            Fault::new(Kind::Corrupt, "find backend").context(format_args!("backend row {id}"))
        })?);
        self.backends.insert(id, Arc::clone(&found));
        Ok(found)
    }

    /// The node on whose disk a backend lies, unless that is this one.
    pub(super) fn is_elsewhere<'b>(&self, backend: &'b BackendRow) -> Option<&'b str> {
        let own = self.here.as_ref().map(|here| here.node.as_str());
        backend.node.as_deref().filter(|node| Some(*node) != own)
    }
}
