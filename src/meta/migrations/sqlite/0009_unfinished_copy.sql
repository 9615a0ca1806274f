-- A copy from another database that has not ended: what it wrote so far must not be served. The token is that of the
-- copy that may go on; one that is started again takes its place.
CREATE TABLE unfinished_copy (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    token TEXT NOT NULL,
    began INTEGER NOT NULL
) STRICT;
