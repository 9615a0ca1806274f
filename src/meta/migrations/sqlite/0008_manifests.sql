-- The outbox of manifests: which groups of rows a transaction changed, see meta/catalog.rs. Nothing wrote to the
-- table before. AUTOINCREMENT: a number is never given twice, so that a row is deleted only by who read it.
DROP TABLE changes;

CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    entries BLOB NOT NULL
) STRICT;

-- The one row of the writer of manifests: whether changes are recorded, the last number given, the newest manifest
-- that counts, and who may write until when.
CREATE TABLE manifest_writer (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    recording INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    tip INTEGER,                                 -- NULL: the next one is a snapshot
    holder INTEGER,
    lease_until INTEGER NOT NULL
) STRICT;

-- Every object that a manifest consists of, or may, from before it is written until after it is deleted.
CREATE TABLE manifest_parts (
    seq INTEGER NOT NULL,
    part INTEGER NOT NULL,
    backend TEXT NOT NULL,
    name BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'snapshot', 'segment')),
    size INTEGER NOT NULL,
    PRIMARY KEY (seq, part)
) STRICT, WITHOUT ROWID;

-- The one row of a database that was rebuilt: from which manifests, whether that has ended, and until when the
-- sweep spares what no row names.
CREATE TABLE recovery (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    began INTEGER NOT NULL,
    ended INTEGER,
    spare_until INTEGER NOT NULL
) STRICT;
