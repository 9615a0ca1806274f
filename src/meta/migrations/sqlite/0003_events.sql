-- The outbox of events: one row an event and target, deleted once the target has it. Nothing wrote to the table
-- before.
DROP TABLE events;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    bucket_id INTEGER NOT NULL,
    payload TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX events_target ON events (target, id);
CREATE INDEX events_created ON events (created);

-- How delivery to a target goes: who may deliver until when, when the next attempt is due, and what became of
-- the events so far.
CREATE TABLE event_targets (
    name TEXT PRIMARY KEY,
    node_id INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    next_run INTEGER NOT NULL,
    delivered INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    given_up INTEGER NOT NULL,
    last_error TEXT
) STRICT;
