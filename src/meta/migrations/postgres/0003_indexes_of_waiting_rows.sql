-- What waits is found without a look at what does not: copies to be written or deleted, open uploads by their age, and
-- jobs by their state.
CREATE INDEX copies_unfinished ON copies(state, backend_id, blob_id) WHERE state <> 'live';
CREATE INDEX uploads_open ON uploads(initiated, uid) WHERE state = 'open';
CREATE INDEX jobs_state ON jobs(state, id);
