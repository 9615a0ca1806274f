-- Keys that sign links of the native API, sealed by the master key. The newest one signs; older ones verify until the
-- last link that they signed has expired.
CREATE TABLE link_keys (
    id INTEGER PRIMARY KEY,
    sealed BLOB NOT NULL,
    created INTEGER NOT NULL
) STRICT;
