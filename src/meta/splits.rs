//! Contents that get other blobs for their bytes: shorter ones, where theirs is too long for where it is to lie, and new
//! ones, where the bytes in theirs are lost and were sent again.

use super::catalog::CONTENTS;
use super::contents::{self, NewContent, NewRun};
use super::session::{Session, params};
use super::{findings, rehoming, releases};
use crate::model::content::Extent;
use crate::model::fault::Fault;
use crate::model::ids::{BlobId, ContentId, SenderId};

/// Most extents of one content.
const EXTENTS_MAX: usize = 50_000;

/// What became of a content that was to be split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// It is made of the shorter ones. Whether anything but what it was a part of refers to it.
    Done {
        /// Otherwise the caller releases it.
        referenced: bool,
    },
    /// Nothing refers to it any more, or it lies elsewhere.
    Gone,
    /// What it is a part of would have more extents than there may be.
    TooMany,
}

/// The contents that lie in a blob and that something refers to.
pub async fn contents_of(session: &mut Session, blob: BlobId) -> Result<Vec<ContentId>, Fault> {
    let all = session
        .query(
            "SELECT id FROM contents WHERE blob_id = $1 ORDER BY id LIMIT 1000",
            params![blob.0],
            |row| row.int(0).map(ContentId),
        )
        .await?;
    let mut used = Vec::with_capacity(all.len());
    for content in all {
        if releases::is_referenced(session, content).await? {
            used.push(content);
        }
    }
    Ok(used)
}

/// Makes `new.id`, a content in `blob`, a composite of `runs`, which are inserted, and lets what it is a part of refer to
/// those instead: so nothing lies deeper than before but what refers to it directly, as it does to a body that came
/// where blobs are short. The bytes it had become those of `old`, a content that nothing refers to: whoever is reading
/// them goes on, and the release that the caller writes lets the collector take them when nobody is any more.
pub async fn split(
    session: &mut Session,
    new: &NewContent<'_>,
    blob: BlobId,
    old: ContentId,
    runs: &[NewRun<'_>],
) -> Result<Split, Fault> {
    let id = new.id;
    if !contents::lock_alone(session, id).await? || !releases::is_referenced(session, id).await? {
        return Ok(Split::Gone);
    }
    let lies_in = session
        .query_one(
            "SELECT blob_id FROM contents WHERE id = $1",
            params![id.0],
            |row| row.opt_int(0),
        )
        .await?;
    if lies_in.flatten() != Some(blob.0) {
        return Ok(Split::Gone);
    }
    let Some(rewritten) = those_over(session, id, runs).await? else {
        return Ok(Split::TooMany);
    };
    session.changed(&CONTENTS, params![old.0]);
    session
        .execute(
            "INSERT INTO contents (id, space_id, length, kind, depth, created, blob_id, blob_offset, stored_length)
             SELECT $1, space_id, stored_length, 'stored', 0, $2, blob_id, blob_offset, stored_length
             FROM contents WHERE id = $3",
            params![old.0, new.now, id.0],
        )
        .await?;
    lay_over(session, new, runs, rewritten).await?;
    let referenced = releases::is_referenced(session, id).await?;
    Ok(Split::Done { referenced })
}

/// Makes a content that has no extents a composite of `runs`, which are inserted, and gives those above it theirs.
async fn lay_over(
    session: &mut Session,
    new: &NewContent<'_>,
    runs: &[NewRun<'_>],
    above: Vec<(ContentId, Extents)>,
) -> Result<(), Fault> {
    session.changed(&CONTENTS, params![new.id.0]);
    session
        .execute(
            "UPDATE contents SET kind = 'composite', depth = 1, blob_id = NULL, blob_offset = NULL,
                    stored_length = NULL, coding = NULL, key_wrapped = NULL, key_id = NULL
             WHERE id = $1",
            params![new.id.0],
        )
        .await?;
    contents::insert_runs(session, new, runs).await?;
    for (composite, extents) in above {
        releases::take_extents(session, composite).await?;
        for (ordinal, (extent, sender)) in extents.iter().enumerate() {
            contents::insert_extent(session, composite, ordinal, extent, *sender).await?;
        }
    }
    Ok(())
}

/// What became of a content whose bytes were lost and came again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renewed {
    /// It is made of the new ones. What it was made of before, each once, is the caller's to release.
    Done(Vec<ContentId>),
    /// Somebody else was first: its bytes are there.
    Well,
    /// What it is a part of would have more extents than there may be.
    TooMany,
}

/// Lets `new.id`, a content that is lost, lie in `runs`, which are inserted, as one does that is split into them: it
/// keeps its id and its digests, so all that refers to it, and what it is a part of, has its bytes again. Its old blob
/// is condemned, and what was found of that forgotten, unless another content lies in it too.
pub async fn renew(
    session: &mut Session,
    new: &NewContent<'_>,
    runs: &[NewRun<'_>],
) -> Result<Renewed, Fault> {
    let id = new.id;
    if !contents::lock_alone(session, id).await? {
        return Err(contents::collected_meanwhile(session, "renew content"));
    }
    // The lock makes of two that send the bytes one the first. A scrub that finds a good copy meanwhile changes
    // nothing: the new bytes are as good.
    if !findings::is_lost(session, id).await? {
        return Ok(Renewed::Well);
    }
    let Some(blob) = rehoming::blob_of(session, id).await? else {
        let given_up = releases::take_extents(session, id).await?;
        lay_over(session, new, runs, Vec::new()).await?;
        return Ok(Renewed::Done(given_up));
    };
    let Some(above) = those_over(session, id, runs).await? else {
        return Ok(Renewed::TooMany);
    };
    lay_over(session, new, runs, above).await?;
    // It takes the blob's lock after the content's, as the collector does.
    if findings::condemn_unused(session, blob, new.now).await? {
        findings::clear_all(session, blob).await?;
    }
    Ok(Renewed::Done(Vec::new()))
}

type Extents = Vec<(Extent, Option<SenderId>)>;

/// The composites that a content is part of, each with its extents as they are over `runs`; `None` when they would be
/// too many.
async fn those_over(
    session: &mut Session,
    id: ContentId,
    runs: &[NewRun<'_>],
) -> Result<Option<Vec<(ContentId, Extents)>>, Fault> {
    let over = session
        .query(
            "SELECT DISTINCT content_id FROM extents WHERE child_id = $1 ORDER BY content_id",
            params![id.0],
            |row| row.int(0).map(ContentId),
        )
        .await?;
    let mut rewritten = Vec::with_capacity(over.len());
    for composite in over {
        // Another of its parts may be split at the same time.
        contents::lock_alone(session, composite).await?;
        let mut extents = Vec::new();
        for (extent, sender) in rehoming::extents(session, composite).await? {
            if extent.child == id {
                extents.extend(over_runs(&extent, runs).map(|extent| (extent, sender)));
            } else {
                extents.push((extent, sender));
            }
        }
        if extents.len() > EXTENTS_MAX {
            return Ok(None);
        }
        rewritten.push((composite, extents));
    }
    Ok(Some(rewritten))
}

/// An extent of a content as extents of the runs that the content is cut into.
fn over_runs<'a>(extent: &'a Extent, runs: &'a [NewRun<'_>]) -> impl Iterator<Item = Extent> + 'a {
    let wanted = extent.child_offset..extent.child_offset + extent.length;
    let mut begin = 0;
    runs.iter().filter_map(move |run| {
        let (from, to) = (
            begin.max(wanted.start),
            (begin + run.length).min(wanted.end),
        );
        let piece = (from < to).then(|| Extent {
            start: extent.start + (from - wanted.start),
            length: to - from,
            child: run.content,
            child_offset: from - begin,
        });
        begin += run.length;
        piece
    })
}
