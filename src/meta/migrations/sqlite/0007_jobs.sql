-- Work that is done later, and what became of it. Nothing wrote to the table before.
DROP TABLE jobs;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    work_key TEXT,                              -- what it is about, when such work waits or runs only once
    live_key TEXT,                              -- the same until the job ends
    payload TEXT NOT NULL,                      -- JSON
    period INTEGER,                             -- of a schedule, which runs again and again
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    due INTEGER,                                -- waiting: its turn; running: the end of the lease; else NULL
    run INTEGER NOT NULL,                       -- claims so far; the number of a claim is its lease
    node_id INTEGER,
    attempt INTEGER NOT NULL,
    again INTEGER NOT NULL,                     -- asked for while it ran
    cancelling INTEGER NOT NULL,
    checkpoint TEXT,                            -- JSON: where the next run goes on
    done INTEGER NOT NULL,
    total INTEGER,
    report TEXT,                                -- JSON: what came of it
    reason TEXT,                                -- why the last attempt failed
    created INTEGER NOT NULL,
    started INTEGER,
    ended INTEGER
) STRICT;
CREATE UNIQUE INDEX jobs_live ON jobs(type, live_key);
CREATE INDEX jobs_due ON jobs(type, due);
CREATE INDEX jobs_ended ON jobs(ended);

-- Types of jobs that do not run until they are resumed.
CREATE TABLE job_pauses (
    type TEXT PRIMARY KEY,
    since INTEGER NOT NULL
) STRICT;
