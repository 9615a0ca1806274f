-- Mirrors and moves. A backend that was moved away from says where its blobs go; a copy, since when it is in its
-- state: one that is missing waits to be written, one that is deleting beside a live blob was moved away from.
ALTER TABLE backends ADD COLUMN moved_to INTEGER REFERENCES backends(id);
ALTER TABLE copies ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
CREATE INDEX copies_unsettled ON copies(state, since) WHERE state <> 'live';

-- One row a move, kept when it has ended. Of a backend, the ids are backends'; of a bucket, placements'.
CREATE TABLE moves (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('backend', 'bucket')),
    source_id INTEGER NOT NULL,
    target_id INTEGER NOT NULL,
    bucket_id INTEGER,
    bucket_name TEXT,
    state TEXT NOT NULL CHECK (state IN ('copying', 'emptying', 'done', 'ended')),
    switched INTEGER NOT NULL,                   -- from then on nothing new is planned at the source
    rate INTEGER,                                -- bytes per second; NULL is without a limit
    total INTEGER NOT NULL,                      -- of blobs or versions, when it began
    total_bytes INTEGER NOT NULL,
    moved INTEGER NOT NULL,
    moved_bytes INTEGER NOT NULL,
    failed INTEGER NOT NULL,                     -- in the last pass
    reason TEXT,                                 -- of the last failure
    remains INTEGER,                             -- objects left at the source when it ended
    ended INTEGER
) STRICT;
