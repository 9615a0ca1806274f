-- Live copies that were found not to be as they should, until they are mended, found to be well, or gone. A row is about
-- the copy of that name: with another name, or none, it says nothing any more.
CREATE TABLE findings (
    blob_id INTEGER NOT NULL,
    backend_id INTEGER NOT NULL,
    name BLOB NOT NULL,
    problem TEXT NOT NULL CHECK (problem IN ('missing', 'wrong-length', 'corrupt', 'differing')),
    found INTEGER NOT NULL,
    PRIMARY KEY (blob_id, backend_id)
) STRICT, WITHOUT ROWID;
