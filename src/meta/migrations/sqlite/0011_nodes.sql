-- What nodes are called and when they were last heard of; backends that lie on one node's own disk.
ALTER TABLE nodes ADD COLUMN name TEXT NOT NULL DEFAULT '';
ALTER TABLE nodes ADD COLUMN beaten INTEGER NOT NULL DEFAULT 0;
ALTER TABLE backends DROP COLUMN node_id;
ALTER TABLE backends ADD COLUMN node TEXT;          -- the name of the node on whose disk it lies; NULL: every node reaches it
