-- Keys that wrap the data keys of contents: one of each tenant's own ('tenant', without a name), and those of
-- its KMS. contents.key_id is the version that wrapped contents.key_wrapped, NULL with a customer's key.
-- spaces.encrypted is 0 for contents as they are, 1 for the tenant's own key, else the id of a KMS key.
CREATE TABLE wrap_keys (
    id INTEGER PRIMARY KEY,
    tenant_id INTEGER NOT NULL REFERENCES tenants(id),
    kind TEXT NOT NULL CHECK (kind IN ('tenant', 'kms')),
    name TEXT NOT NULL,                          -- the key id that clients see; '' for the tenant's own
    alias TEXT,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('enabled', 'disabled')),
    version INTEGER NOT NULL,                    -- the version that wraps now
    created INTEGER NOT NULL,
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, alias)
) STRICT;

-- Old versions stay: a body that was under way, or a restored database, may need one.
CREATE TABLE wrap_key_versions (
    id INTEGER PRIMARY KEY,
    key_id INTEGER NOT NULL REFERENCES wrap_keys(id),
    version INTEGER NOT NULL,
    sealed BLOB NOT NULL,                        -- by the master key
    created INTEGER NOT NULL,
    UNIQUE (key_id, version)
) STRICT;

CREATE INDEX contents_key ON contents(key_id) WHERE key_id IS NOT NULL;
