-- What keeps the version that an upload will become, as JSON.
ALTER TABLE uploads ADD COLUMN lock_state TEXT;
