-- The backends that a node has, so that nothing is moved to where one of them cannot write: a JSON list of names. Nodes
-- of the version before do not write it.
ALTER TABLE nodes ADD COLUMN backends TEXT NOT NULL DEFAULT ('[]');
