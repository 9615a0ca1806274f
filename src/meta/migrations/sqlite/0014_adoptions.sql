-- What was adopted from an existing osproxy: for good, so that what was deleted since is not adopted again, nor an object
-- whose deletion is under way.
CREATE TABLE adopted_uids (
    uid INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE adopted_objects (
    backend_id INTEGER NOT NULL REFERENCES backends(id),
    name BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (backend_id, name)
) STRICT, WITHOUT ROWID;
