-- Copies to be written or deleted are found without a look at the others of their backend.
ALTER TABLE copies ADD INDEX copies_unfinished (state, backend_id, blob_id);
