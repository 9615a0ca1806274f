//! Objects of another system that become blobs where they lie.
//!
//! Their bytes are read once, because a content is known by digests that were computed here, and never written. Several
//! objects that follow each other make one content, as the blobs of a long body do. Until a row names them nothing is
//! changed at the backend, whatever happens.

use std::sync::Arc;

use super::ContentStore;
use super::mirrored::{self, StoredBlob};
use super::receive::{Begun, Hashing, Incoming, Received};
use super::sealing::Seal;
use super::target::Segment;
use crate::blob::CopyName;
use crate::meta::contents::{CopyRow, NewBlob, Owner};
use crate::meta::{Session, adoptions, buckets, placements};
use crate::model::clock::Millis;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::{BlobId, ContentId, SpaceId};

/// An object at a backend, to be adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Foreign {
    /// The backend's configured name; of one that each node has, this node's own.
    pub backend: String,
    /// The object's path below the backend's root.
    pub path: String,
    /// Bytes that it must have.
    pub size: u64,
}

/// Objects that make one content together, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adoption {
    /// Where the content may be shared.
    pub space: SpaceId,
    /// Whether it may be shared at all.
    pub shared: bool,
    /// At least one.
    pub objects: Vec<Foreign>,
    /// Whose the objects are.
    pub owner: Owner,
}

/// A blob whose objects are another system's yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Which.
    pub blob: BlobId,
    /// The objects that it lies in, each by the name of its backend and the path below its root. Empty when all of it has
    /// been moved away.
    pub objects: Vec<(String, String)>,
}

/// Why objects were not adopted.
#[derive(Debug)]
pub enum AdoptError {
    /// The backend says that this one is not there.
    Missing(Foreign),
    /// It has another length.
    Size {
        /// Which.
        object: Foreign,
        /// Bytes that it has.
        found: u64,
    },
    /// Its path cannot be that of an adopted object.
    Path(Foreign),
    /// A store failed: nothing is known.
    Fault(Fault),
}

impl From<Fault> for AdoptError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl ContentStore {
    /// Reads objects to their end, in order, and makes them the bytes of one content, which no row names yet.
    pub async fn adopt(&self, adoption: &Adoption) -> Result<Received, AdoptError> {
        let incoming = Incoming {
            space: self.space_here(adoption.space).await?,
            shared: adoption.shared,
            seal: Seal::Plain,
            length: None,
            limit: u64::MAX,
            verified_sha256: None,
            sha1: false,
        };
        let mut hashing = Hashing::new(&incoming);
        let begun = Begun {
            id: ContentId(self.uids.next()?),
            open: self.open.write(),
            uids: Arc::clone(&self.uids),
        };
        let placement = self.placement_of(incoming.space).await?;
        let mut segments = Vec::with_capacity(adoption.objects.len());
        for object in &adoption.objects {
            let name =
                CopyName::adopt(&object.path).ok_or_else(|| AdoptError::Path(object.clone()))?;
            hashing = self.hash_object(object, &name, hashing).await?;
            let id = BlobId(self.uids.next()?);
            let backend = self.backend_called(&object.backend).await?;
            // Where the placement has mirrors they get their copies as they do after a failed write.
            let mirrors = placement.iter().copied();
            let is_placed = placement.contains(&backend);
            let missing = mirrors.filter(|it| is_placed && *it != backend);
            let blob = NewBlob {
                id,
                size: object.size,
                copies: vec![CopyRow {
                    backend,
                    name: name.as_str().to_owned(),
                }],
                missing: missing.map(|it| mirrored::copy_to_come(id, it)).collect(),
                owner: adoption.owner,
            };
            segments.push(Segment::adopted(
                ContentId(self.uids.next()?),
                StoredBlob::adopted(blob, self.blobs.clone()),
            ));
        }
        let digests = hashing.finish(&incoming)?;
        let id = match &segments[..] {
            [only] => only.content,
            _ => begun.id,
        };
        Ok(begun.end_stored(&incoming, digests, (id, segments)))
    }

    async fn hash_object(
        &self,
        object: &Foreign,
        name: &CopyName,
        mut hashing: Hashing,
    ) -> Result<Hashing, AdoptError> {
        let missing = |fault: Fault| match fault.kind() {
            Kind::NotFound => AdoptError::Missing(object.clone()),
            _ => AdoptError::Fault(fault),
        };
        let found = self
            .blobs
            .size(&object.backend, name)
            .await
            .map_err(missing)?;
        if found != object.size {
            let object = object.clone();
            return Err(AdoptError::Size { object, found });
        }
        let reading = self.blobs.read(&object.backend, name, 0..object.size);
        let mut reader = reading.await.map_err(missing)?;
        while let Some(bytes) = reader.next().await {
            let bytes = bytes.map_err(missing)?;
            hashing = hashing.take(bytes).await?;
        }
        Ok(hashing)
    }

    async fn placement_of(&self, space: SpaceId) -> Result<Vec<i64>, Fault> {
        let found = self.meta.read("find placement", move |session| {
            Box::pin(placements::of_space(session, space))
        });
        Ok(found.await?.backends)
    }

    /// The row of a backend by its name.
    async fn backend_called(&self, name: &str) -> Result<i64, Fault> {
        let rows: Result<Vec<(i64, String)>, Fault> = self
            .meta
            .read("list backends", |session| {
                Box::pin(buckets::backends(session))
            })
            .await;
        let found = rows?.into_iter().find(|(_, known)| known == name);
        found.map(|(id, _)| id).ok_or_else(|| {
            Fault::new(Kind::Config, "adopt object")
                .context(format_args!("no backend {name} is configured"))
        })
    }

    /// Blobs above `after` whose objects are another system's until they are handed over, in order, at most `limit`.
    pub async fn unsettled(&self, after: BlobId, limit: usize) -> Result<Vec<Unsettled>, Fault> {
        let found = self.meta.scan("find adopted objects", move |session| {
            Box::pin(async move {
                let backends = buckets::backends(session).await?;
                let blobs = adoptions::not_handed_over(session, after, limit).await?;
                Ok::<_, Fault>((backends, blobs))
            })
        });
        let (backends, blobs) = found.await?;
        let name_of = |id| backends.iter().find(|(known, _)| *known == id);
        let mut unsettled = Vec::with_capacity(blobs.len());
        for (blob, copies) in blobs {
            let mut objects = Vec::new();
            for copy in copies {
                let corrupt = || {
                    Fault::new(Kind::Corrupt, "find adopted objects")
                        .context(format_args!("blob {blob}"))
                };
                let name = CopyName::parse(&copy.name).ok_or_else(corrupt)?;
                if let Some(path) = name.adopted_path() {
                    let (_, backend) = name_of(copy.backend).ok_or_else(corrupt)?;
                    objects.push((backend.clone(), path.to_owned()));
                }
            }
            unsettled.push(Unsettled { blob, objects });
        }
        Ok(unsettled)
    }

    /// Notes in the transaction that linked `received` as `content` which objects became blobs by it. `false` when one
    /// of them was a blob before: its deletion may be under way, and the transaction must not be committed.
    pub async fn note_adopted(
        session: &mut Session,
        received: &Adopted,
        content: ContentId,
        now: Millis,
    ) -> Result<bool, Fault> {
        if content != received.id {
            return Ok(true);
        }
        for (backend, name) in received.copies.iter() {
            if adoptions::was_adopted(session, *backend, name).await? {
                return Ok(false);
            }
            adoptions::note_object(session, *backend, name, now).await?;
        }
        Ok(true)
    }
}

/// What a content is made of that was adopted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    id: ContentId,
    copies: Arc<[(i64, String)]>,
}

impl Received {
    /// What a content is made of that was adopted.
    pub fn adopted(&self) -> Adopted {
        let copies = self.segments().iter().flat_map(|segment| {
            let copies = segment.blob().copies.iter();
            copies.map(|copy| (copy.backend, copy.name.clone()))
        });
        Adopted {
            id: self.new_id,
            copies: copies.collect(),
        }
    }
}
