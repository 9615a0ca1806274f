-- The one row of an install as a whole: what only its master key opens, so that a process with another is refused.
CREATE TABLE install (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    master_check BLOB NOT NULL
) STRICT;
