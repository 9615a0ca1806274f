-- The whole schema of version 1 on SQLite. Types are BIGINT, INT and bytes; text only for names of ours and
-- JSON; times are milliseconds since 1970 UTC. Keys are BLOB, so that they compare as bytes.

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner_id TEXT NOT NULL UNIQUE,               -- the canonical user id S3 answers with
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE access_keys (
    id INTEGER PRIMARY KEY,                      -- the sender of possession; never given twice
    access_key TEXT NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants(id),
    secret_sealed BLOB NOT NULL,
    policy TEXT,                                 -- JSON; NULL allows all of the tenant
    parent INTEGER REFERENCES access_keys(id),   -- of a temporary key
    expires_at INTEGER,
    state TEXT NOT NULL CHECK (state IN ('active', 'disabled', 'deleted')),
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX access_keys_tenant ON access_keys(tenant_id);

CREATE TABLE backends (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    node_id INTEGER                              -- NULL: every node reaches it
) STRICT;

CREATE TABLE placements (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    rev INTEGER NOT NULL,
    copies_required INTEGER NOT NULL
) STRICT;

CREATE TABLE placement_backends (
    placement_id INTEGER NOT NULL REFERENCES placements(id),
    ordinal INTEGER NOT NULL,
    backend_id INTEGER NOT NULL REFERENCES backends(id),
    PRIMARY KEY (placement_id, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE spaces (
    id INTEGER PRIMARY KEY,
    realm_id INTEGER NOT NULL REFERENCES tenants(id),
    placement_id INTEGER NOT NULL REFERENCES placements(id),
    encrypted INTEGER NOT NULL,
    UNIQUE (realm_id, placement_id, encrypted)
) STRICT;

CREATE TABLE buckets (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants(id),
    space_id INTEGER NOT NULL REFERENCES spaces(id),
    dedup TEXT NOT NULL CHECK (dedup IN ('off', 'object', 'chunk')),
    versioning TEXT NOT NULL CHECK (versioning IN ('never', 'enabled', 'suspended')),
    object_lock INTEGER NOT NULL,
    rev INTEGER NOT NULL,
    region TEXT NOT NULL,
    settings TEXT,                               -- JSON
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX buckets_tenant ON buckets(tenant_id, name);

CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'deleting')),
    since INTEGER NOT NULL,
    owned INTEGER NOT NULL                       -- 0: adopted in place from another system, never deleted
) STRICT;
CREATE INDEX blobs_deleting ON blobs(since) WHERE state = 'deleting';

CREATE TABLE copies (
    blob_id INTEGER NOT NULL REFERENCES blobs(id),
    backend_id INTEGER NOT NULL REFERENCES backends(id),
    name BLOB NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'missing', 'deleting')),
    PRIMARY KEY (blob_id, backend_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX copies_backend ON copies(backend_id, blob_id);

-- One immutable byte sequence. sha256 is NULL for contents that are never found by digest: composites,
-- dedup off, customer keys, imported. The inline bytes are the last column, so that a row's head is read
-- without them.
CREATE TABLE contents (
    id INTEGER PRIMARY KEY,
    space_id INTEGER NOT NULL REFERENCES spaces(id),
    sha256 BLOB,
    length INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('inline', 'stored', 'composite')),
    depth INTEGER NOT NULL CHECK (depth BETWEEN 0 AND 2),
    md5 BLOB,
    crc32 INTEGER,
    crc32c INTEGER,
    crc64nvme INTEGER,
    sha1 BLOB,
    created INTEGER NOT NULL,
    blob_id INTEGER REFERENCES blobs(id),
    blob_offset INTEGER,
    stored_length INTEGER,
    coding TEXT,                                 -- JSON: codec, cipher, frame; NULL is the bytes as they are
    key_wrapped BLOB,
    key_id INTEGER,
    bytes BLOB,
    UNIQUE (space_id, sha256, length)
) STRICT;
CREATE INDEX contents_blob ON contents(blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX contents_md5 ON contents(space_id, md5) WHERE md5 IS NOT NULL AND kind <> 'inline';

CREATE TABLE extents (
    content_id INTEGER NOT NULL REFERENCES contents(id),
    ordinal INTEGER NOT NULL,
    start INTEGER NOT NULL,
    length INTEGER NOT NULL,
    child_id INTEGER NOT NULL REFERENCES contents(id),
    child_offset INTEGER NOT NULL,
    sender INTEGER,
    PRIMARY KEY (content_id, ordinal)
) STRICT, WITHOUT ROWID;
CREATE INDEX extents_child ON extents(child_id, sender);

-- The current version of every key that has any version; its row is the key's lock.
CREATE TABLE objects (
    bucket_id INTEGER NOT NULL REFERENCES buckets(id),
    key BLOB NOT NULL,
    uid INTEGER NOT NULL,
    ord INTEGER NOT NULL,                        -- the order of a key's versions: never the uid, never a clock
    kind TEXT NOT NULL CHECK (kind IN ('object', 'marker')),
    is_null INTEGER NOT NULL,
    null_ord INTEGER,                            -- where the null version stands
    content_id INTEGER REFERENCES contents(id),
    sender INTEGER,
    size INTEGER NOT NULL,
    etag BLOB,
    parts INTEGER,
    mtime INTEGER NOT NULL,
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode TEXT,
    retain_until INTEGER,
    legal_hold INTEGER,
    PRIMARY KEY (bucket_id, key)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX objects_uid ON objects(uid);
CREATE INDEX objects_content ON objects(content_id, sender);

CREATE TABLE versions (
    bucket_id INTEGER NOT NULL REFERENCES buckets(id),
    key BLOB NOT NULL,
    uid INTEGER NOT NULL,
    ord INTEGER NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('object', 'marker')),
    is_null INTEGER NOT NULL,
    content_id INTEGER REFERENCES contents(id),
    sender INTEGER,
    size INTEGER NOT NULL,
    etag BLOB,
    parts INTEGER,
    mtime INTEGER NOT NULL,
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode TEXT,
    retain_until INTEGER,
    legal_hold INTEGER,
    PRIMARY KEY (bucket_id, key, ord)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX versions_uid ON versions(uid);
CREATE INDEX versions_content ON versions(content_id, sender);

CREATE TABLE uploads (
    uid INTEGER PRIMARY KEY,
    bucket_id INTEGER NOT NULL REFERENCES buckets(id),
    key BLOB NOT NULL,
    initiated INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'aborted')),
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum_algorithm TEXT,
    checksum_kind TEXT,
    sse TEXT,
    list_digest BLOB,                            -- SHA-256 of the completed part list, to answer a repeat
    result_uid INTEGER,
    result TEXT,                                 -- JSON: the first answer
    ended_at INTEGER
) STRICT;
CREATE INDEX uploads_bucket ON uploads(bucket_id, key, uid);
CREATE INDEX uploads_ended ON uploads(ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE upload_parts (
    upload_uid INTEGER NOT NULL REFERENCES uploads(uid),
    number INTEGER NOT NULL,
    content_id INTEGER NOT NULL REFERENCES contents(id),
    sender INTEGER,
    size INTEGER NOT NULL,
    md5 BLOB NOT NULL,
    checksum TEXT,
    mtime INTEGER NOT NULL,
    PRIMARY KEY (upload_uid, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX upload_parts_content ON upload_parts(content_id, sender);

-- The parts of a completed version, for partNumber and GetObjectAttributes; survives a merge.
CREATE TABLE version_parts (
    uid INTEGER NOT NULL,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    checksum TEXT,
    PRIMARY KEY (uid, number)
) STRICT, WITHOUT ROWID;

-- A reference to content_id was given up at this time. Append only; the collector alone takes rows away.
CREATE TABLE released (
    id INTEGER PRIMARY KEY,
    content_id INTEGER NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX released_at ON released(at);
CREATE INDEX released_content ON released(content_id, at);

CREATE TABLE fences (
    node_id INTEGER PRIMARY KEY,
    epoch INTEGER NOT NULL
) STRICT;

CREATE TABLE nodes (
    id INTEGER PRIMARY KEY,
    address TEXT,
    lease_until INTEGER NOT NULL,
    oldest_read INTEGER NOT NULL,                -- no read open here began before this
    oldest_write INTEGER NOT NULL,               -- no blob not yet named by a row was begun here before this
    placement_rev INTEGER NOT NULL
) STRICT;

CREATE TABLE workers (
    id INTEGER PRIMARY KEY CHECK (id BETWEEN 0 AND 1023),
    node_id INTEGER NOT NULL,
    reserved_until INTEGER NOT NULL
) STRICT;

CREATE TABLE usage (
    bucket_id INTEGER NOT NULL,
    worker_id INTEGER NOT NULL,
    objects INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (bucket_id, worker_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE jobs (
    id INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    attempt INTEGER NOT NULL,
    next_run INTEGER NOT NULL,
    lease_until INTEGER,
    node_id INTEGER,
    epoch INTEGER,
    reason TEXT,
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX jobs_due ON jobs(state, next_run);

-- The outbox of events, and the keys whose manifests are due.
CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    bucket_id INTEGER NOT NULL,
    payload TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

CREATE TABLE changes (
    id INTEGER PRIMARY KEY,
    bucket_id INTEGER NOT NULL,
    key BLOB NOT NULL
) STRICT;
