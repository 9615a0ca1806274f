//! Bytes out: a range of a content, over its row, its blobs or its extents.
//!
//! Before a read fails it asks SQL once more where the bytes lie, and tries every copy from the offset it
//! has reached. What still cannot be read is a fault in the stream, never padding and never a short end. That
//! goes for encrypted bytes that do not open as well: a range is read as the frames it lies in.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::ContentStore;
use super::elsewhere::CopyReader;
use super::frames::{Opener, Opening};
use super::open::Token;
use super::sealing::opening;
use crate::keys::CustomerKey;
use crate::meta::contents::{self, CopyRow, Location, Place};
use crate::model::content::{DEPTH_MAX, slice};
use crate::model::fault::{Fault, Kind};
use crate::model::ids::ContentId;

/// One range of a content while it is read.
pub struct Reader {
    store: Arc<ContentStore>,
    /// What is left to read, the next piece last.
    pieces: Vec<Piece>,
    /// The key the reader's client sent along.
    customer: Option<CustomerKey>,
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
        opening: Option<Opening>,
        reading: Option<Reading>,
    },
}

impl Reader {
    pub(super) fn new(
        store: Arc<ContentStore>,
        content: ContentId,
        location: Location,
        range: Range<u64>,
    ) -> Self {
        let open = match location.place {
            Place::Inline(_) => None,
            Place::Stored { .. } | Place::Composite => Some(store.open.read()),
        };
        Self::of(store, content, PieceState::Located(location), range, open)
    }

    /// A reader that asks SQL where the bytes lie when it begins.
    pub(super) fn unlocated(
        store: Arc<ContentStore>,
        content: ContentId,
        range: Range<u64>,
    ) -> Self {
        let open = Some(store.open.read());
        Self::of(store, content, PieceState::Unknown, range, open)
    }

    fn of(
        store: Arc<ContentStore>,
        content: ContentId,
        state: PieceState,
        range: Range<u64>,
        open: Option<Token>,
    ) -> Self {
        let mut pieces = Vec::with_capacity(1);
        if range.start < range.end {
            pieces.push(Piece {
                content,
                range,
                depth: 0,
                state,
            });
        }
        Self {
            store,
            pieces,
            customer: None,
            _open: open,
        }
    }

    /// Reads with a key that the client sent, for a content that only its holder can read.
    #[must_use]
    pub fn with_customer_key(mut self, key: Option<CustomerKey>) -> Self {
        self.customer = key;
        self
    }

    /// The next bytes of the range; `None` after all of it, or after a fault.
    pub async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        while let Some(piece) = self.pieces.last_mut() {
            match piece.step(&self.store, self.customer.as_ref()).await {
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
    async fn step(
        &mut self,
        store: &Arc<ContentStore>,
        customer: Option<&CustomerKey>,
    ) -> Result<Step, Fault> {
        match &mut self.state {
            PieceState::Unknown => {
                let location = locate(store, self.content).await?;
                self.state = PieceState::Located(location);
                Ok(Step::Again)
            }
            PieceState::Located(_) => self.enter(store, customer).await,
            PieceState::Copies { .. } => self.read(store).await,
        }
    }

    async fn enter(
        &mut self,
        store: &Arc<ContentStore>,
        customer: Option<&CustomerKey>,
    ) -> Result<Step, Fault> {
        let PieceState::Located(location) = std::mem::replace(&mut self.state, PieceState::Unknown)
        else {
            return Ok(Step::Again);
        };
        if self.range.end > location.length {
            return Err(self.corrupt("it is too short"));
        }
        let opening = opening(&store.keys, customer, self.content, &location).await?;
        match location.place {
            Place::Inline(bytes) => Ok(Step::Bytes(self.inline(&bytes, opening)?)),
            Place::Stored { offset, mut copies } => {
                store.health.sort(&mut copies, |copy| copy.backend);
                store.nearest_first(&mut copies).await?;
                self.state = PieceState::Copies {
                    offset,
                    left: copies,
                    asked_again: false,
                    opening,
                    reading: None,
                };
                Ok(Step::Again)
            }
            Place::Composite => Ok(Step::Into(self.children(store).await?)),
        }
    }

    /// The range of bytes that lie in the row, or the begin of it.
    fn inline(&self, bytes: &Bytes, opening: Option<Opening>) -> Result<Bytes, Fault> {
        let short = || self.corrupt("inline bytes are too short");
        let of_row = |range: Range<u64>| {
            let range = range.start as usize..range.end as usize;
            (range.end <= bytes.len()).then(|| bytes.slice(range))
        };
        let Some(opening) = opening else {
            return of_row(self.range.clone()).ok_or_else(short);
        };
        let (mut opener, stored) = opening.begin(self.range.clone());
        opener.push(&of_row(stored).ok_or_else(short)?);
        let opened = opener
            .next()
            .map_err(|fault| fault.context(format_args!("content {}", self.content)))?;
        opened.ok_or_else(short)
    }

    async fn children(&self, store: &Arc<ContentStore>) -> Result<Vec<Piece>, Fault> {
        // One level more than rows have: what was a leaf when its parent was read may have been split since.
        if self.depth > DEPTH_MAX {
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
            opening,
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
            let range = self.range.clone();
            match Reading::open(store, &copy, *offset, range, opening.as_ref()).await {
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
                    store.health.note(reader.backend, Some(fault.kind()));
                    *reading = None;
                }
                None => return Err(corrupt),
            }
        }
        if reading.is_none() && left.is_empty() && !*asked_again {
            // The content may have moved since SQL was read.
            match locate(store, self.content).await? {
                Location {
                    place: Place::Stored { offset, mut copies },
                    ..
                } => {
                    store.health.sort(&mut copies, |copy| copy.backend);
                    // The data key stays; only what wraps it may have changed.
                    self.state = PieceState::Copies {
                        offset,
                        left: copies,
                        asked_again: true,
                        opening: opening.take(),
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

/// One copy of a content while a range of it is read.
struct Reading {
    backend: i64,
    blob: CopyReader,
    opener: Option<Opener>,
}

impl Reading {
    async fn open(
        store: &ContentStore,
        copy: &CopyRow,
        offset: u64,
        range: Range<u64>,
        opening: Option<&Opening>,
    ) -> Result<Self, Fault> {
        let (opener, stored) = match opening {
            None => (None, range),
            Some(opening) => {
                let (opener, stored) = opening.begin(range);
                (Some(opener), stored)
            }
        };
        let range = offset + stored.start..offset + stored.end;
        let blob = store.read_copy(copy, range).await;
        store
            .health
            .note(copy.backend, blob.as_ref().err().map(Fault::kind));
        Ok(Self {
            backend: copy.backend,
            blob: blob?,
            opener,
        })
    }

    /// The next bytes of the range; `None` when the copy has no more.
    async fn next(&mut self) -> Option<Result<Bytes, Fault>> {
        let Some(opener) = &mut self.opener else {
            return self.blob.next().await;
        };
        loop {
            match opener.next() {
                Ok(Some(bytes)) => return Some(Ok(bytes)),
                Ok(None) => {}
                Err(fault) => return Some(Err(fault)),
            }
            match self.blob.next().await? {
                Ok(bytes) => opener.push(&bytes),
                Err(fault) => return Some(Err(fault)),
            }
        }
    }
}

async fn locate(store: &ContentStore, content: ContentId) -> Result<Location, Fault> {
    let found = store
        .meta
        .read("find location", move |session| {
            Box::pin(contents::find_location(session, content))
        })
        .await?;
    found.ok_or_else(|| {
        Fault::new(Kind::Corrupt, "read content")
            .context(format_args!("content {content} has no row"))
    })
}
