-- What waits is found without a look at what does not: copies to be written or deleted, open uploads by their age, and
-- jobs by their state. SQLite uses the first one for statements that say `state <> 'live'` themselves.
CREATE INDEX copies_unfinished ON copies(state, backend_id, blob_id) WHERE state <> 'live';
CREATE INDEX uploads_open ON uploads(initiated) WHERE state = 'open';
CREATE INDEX jobs_state ON jobs(state, id);
