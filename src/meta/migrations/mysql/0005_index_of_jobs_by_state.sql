-- Jobs are listed by their state.
ALTER TABLE jobs ADD INDEX jobs_state (state, id);
