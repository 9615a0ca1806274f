//! Bytes out: a range of a content, over its row, its blobs or its extents.
//!
//! Before a read fails it asks SQL once more where the bytes lie, and tries every copy from the offset it
//! has reached. What still cannot be read is a fault in the stream, never padding and never a short end.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ContentStore;
use super::open::Token;
use crate::blob::{self, BlobName};
use crate::meta::contents::{self, CopyRow, Location};
use crate::model::content::slice;
use crate::model::fault::{Fault, Kind};
use crate::model::ids::ContentId;

/// Most levels of extents below a content; deeper ones would be a loop in the rows.
const DEPTH_MAX: usize = 2;

/// One range of a content while it is read.
pub struct Reader {
    store: Arc<ContentStore>,
    /// What is left to read, the next piece last.
    pieces: Vec<Piece>,
    /// Keeps the collector from what this reads.
    _open: Option<Token>,
}

struct Piece {
    content: ContentId,
    /// What is left of the content to read.
    range: Range<u64>,
    depth: usize,
    state: PieceState,
}

enum PieceState {
    /// SQL has not been asked yet.
    Unknown,
    Located(Location),
    /// The copies not tried yet, and where the content begins in them.
    Copies {
        offset: u64,
        left: Vec<CopyRow>,
        asked_again: bool,
        reading: Option<blob::Reader>,
    },
}

impl Reader {
    pub(super) fn new(
        store: Arc<ContentStore>,
        content: ContentId,
        location: Location,
        range: Range<u64>,
    ) -> Self {
        let open = match location {
            Location::Inline(_) => None,
            Location::Stored { .. } | Location::Composite => Some(store.open.read()),
        };
        let mut pieces = Vec::with_capacity(1);
        if range.start < range.end {
            pieces.push(Piece {
                content,
                range,
                depth: 0,
                state: PieceState::Located(location),
            });
        }
        Self {
            store,
            pieces,
            _open: open,
        }
    }

    /// The next bytes of the range; `None` after all of it, or after a fault.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while let Some(piece) = self.pieces.last_mut() {
            match piece.step(&self.store).await {
                Ok(Step::Bytes(bytes)) => {
                    piece.range.start += bytes.len() as u64;
                    if piece.range.start >= piece.range.end {
                        self.pieces.pop();
                    }
                    return Some(Ok(bytes));
                }
                Ok(Step::Into(children)) => {
                    self.pieces.pop();
                    self.pieces.extend(children.into_iter().rev());
                }
                Ok(Step::Again) => {}
                Err(fault) => {
                    self.pieces.clear();
                    return Some(Err(fault));
                }
            }
        }
        None
    }

    /// Whether all of the range has been read.
    pub fn is_done(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Makes sure that the first bytes can be read, so that a failure can still be answered as one.
    /// Returns them, if there are any.
    pub async fn first(&mut self) -> Result<Option<Bytes>, Fault> {
        self.next().await.transpose()
    }
}

enum Step {
    Bytes(Bytes),
    Into(Vec<Piece>),
    Again,
}

impl Piece {
    async fn step(&mut self, store: &Arc<ContentStore>) -> Result<Step, Fault> {
        match &mut self.state {
            PieceState::Unknown => {
                let location = locate(store, self.content).await?;
                self.state = PieceState::Located(location);
                Ok(Step::Again)
            }
            PieceState::Located(_) => self.enter(store).await,
            PieceState::Copies { .. } => self.read(store).await,
        }
    }

    async fn enter(&mut self, store: &Arc<ContentStore>) -> Result<Step, Fault> {
        let PieceState::Located(location) = std::mem::replace(&mut self.state, PieceState::Unknown)
        else {
            return Ok(Step::Again);
        };
        match location {
            Location::Inline(bytes) => {
                let range = self.range.start as usize..self.range.end as usize;
                if range.end > bytes.len() {
                    return Err(self.corrupt("inline bytes are too short"));
                }
                Ok(Step::Bytes(bytes.slice(range)))
            }
            Location::Stored { offset, copies } => {
                self.state = PieceState::Copies {
                    offset,
                    left: copies,
                    asked_again: false,
                    reading: None,
                };
                Ok(Step::Again)
            }
            Location::Composite => Ok(Step::Into(self.children(store).await?)),
        }
    }

    async fn children(&self, store: &Arc<ContentStore>) -> Result<Vec<Piece>, Fault> {
        if self.depth >= DEPTH_MAX {
            return Err(self.corrupt("extents too deep"));
        }
        let (content, range) = (self.content, self.range.clone());
        let extents = store
            .meta
            .read("find extents", move |session| {
                Box::pin(async move {
                    contents::extents(session, content, range.start, range.end).await
                })
            })
            .await?;
        let slices = slice(&extents, &self.range);
        let covered: u64 = slices
            .iter()
            .map(|slice| slice.range.end - slice.range.start)
            .sum();
        if covered != self.range.end - self.range.start {
            return Err(self.corrupt("extents do not cover the range"));
        }
        Ok(slices
            .into_iter()
            .map(|slice| Piece {
                content: slice.child,
                range: slice.range,
                depth: self.depth + 1,
                state: PieceState::Unknown,
            })
            .collect())
    }

    async fn read(&mut self, store: &Arc<ContentStore>) -> Result<Step, Fault> {
        let corrupt = self.corrupt("no copy is left");
        let PieceState::Copies {
            offset,
            left,
            asked_again,
            reading,
        } = &mut self.state
        else {
            return Ok(Step::Again);
        };
        if reading.is_none() {
            if left.is_empty() {
                return Err(corrupt);
            }
            let copy = left.remove(0);
            let range = *offset + self.range.start..*offset + self.range.end;
            match open_copy(store, &copy, range).await {
                Ok(reader) => *reading = Some(reader),
                Err(fault) if left.is_empty() && *asked_again => return Err(fault),
                Err(fault) => tracing::debug!(%fault, "try another copy"),
            }
        }
        if let Some(reader) = reading {
            match reader.next().await {
                Some(Ok(bytes)) => return Ok(Step::Bytes(bytes)),
                Some(Err(fault)) if left.is_empty() && *asked_again => return Err(fault),
                Some(Err(fault)) => {
                    tracing::debug!(%fault, "try another copy");
                    *reading = None;
                }
                None => return Err(corrupt),
            }
        }
        if reading.is_none() && left.is_empty() && !*asked_again {
            // The content may have moved since SQL was read.
            match locate(store, self.content).await? {
                Location::Stored { offset, copies } => {
                    self.state = PieceState::Copies {
                        offset,
                        left: copies,
                        asked_again: true,
                        reading: None,
                    };
                }
                location => self.state = PieceState::Located(location),
            }
        }
        Ok(Step::Again)
    }

    fn corrupt(&self, what: &'static str) -> Fault {
        Fault::new(Kind::Corrupt, "read content")
            .context(format_args!("content {}", self.content))
            .context(what)
    }
}

async fn open_copy(
    store: &ContentStore,
    copy: &CopyRow,
    range: Range<u64>,
) -> Result<blob::Reader, Fault> {
    let name = BlobName::parse(&copy.name).ok_or_else(|| {
        Fault::new(Kind::Corrupt, "read blob").context(format_args!("name {}", copy.name))
    })?;
    store
        .blobs
        .read(store.backend_name(copy.backend)?, &name, range)
        .await
}

async fn locate(store: &ContentStore, content: ContentId) -> Result<Location, Fault> {
    let found: Option<(Location, u64)> = store
        .meta
        .read("find location", move |session| {
            Box::pin(contents::find_location(session, content))
        })
        .await?;
    found.map(|(location, _)| location).ok_or_else(|| {
        Fault::new(Kind::Corrupt, "read content")
            .context(format_args!("content {content} has no row"))
    })
}
