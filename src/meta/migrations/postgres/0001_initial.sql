-- The whole schema of version 1 on PostgreSQL, the same as that of SQLite at its newest step: keys are BYTEA, so that
-- they compare as bytes.
-- The whole schema of version 1 on SQLite. Types are BIGINT, INT and bytes; text only for names of ours and
-- JSON; times are milliseconds since 1970 UTC. Keys are BYTEA, so that they compare as bytes.

CREATE TABLE tenants (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    owner_id TEXT NOT NULL UNIQUE,               -- the canonical user id S3 answers with
    created BIGINT NOT NULL
);

CREATE TABLE access_keys (
    id BIGINT PRIMARY KEY,                      -- the sender of possession; never given twice
    access_key TEXT NOT NULL UNIQUE,
    tenant_id BIGINT NOT NULL REFERENCES tenants(id),
    secret_sealed BYTEA NOT NULL,
    policy TEXT,                                 -- JSON; NULL allows all of the tenant
    parent BIGINT REFERENCES access_keys(id),   -- of a temporary key
    expires_at BIGINT,
    state TEXT NOT NULL CHECK (state IN ('active', 'disabled', 'deleted')),
    created BIGINT NOT NULL,
    role TEXT,                                   -- of a temporary key: what was assumed
    session TEXT
);
CREATE INDEX access_keys_tenant ON access_keys(tenant_id);

CREATE TABLE backends (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    service TEXT NOT NULL,
    node TEXT,                                  -- the name of the node on whose disk it lies; NULL: every node reaches it
    moved_to BIGINT REFERENCES backends(id)     -- where its blobs go since it was moved away from
);

CREATE TABLE placements (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    rev BIGINT NOT NULL,
    copies_required BIGINT NOT NULL
);

CREATE TABLE placement_backends (
    placement_id BIGINT NOT NULL REFERENCES placements(id),
    ordinal BIGINT NOT NULL,
    backend_id BIGINT NOT NULL REFERENCES backends(id),
    PRIMARY KEY (placement_id, ordinal)
);

CREATE TABLE spaces (
    id BIGINT PRIMARY KEY,
    realm_id BIGINT NOT NULL REFERENCES tenants(id),
    placement_id BIGINT NOT NULL REFERENCES placements(id),
    encrypted BIGINT NOT NULL,
    UNIQUE (realm_id, placement_id, encrypted)
);

CREATE TABLE buckets (
    id BIGINT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    tenant_id BIGINT NOT NULL REFERENCES tenants(id),
    space_id BIGINT NOT NULL REFERENCES spaces(id),
    dedup TEXT NOT NULL CHECK (dedup IN ('off', 'object', 'chunk')),
    versioning TEXT NOT NULL CHECK (versioning IN ('never', 'enabled', 'suspended')),
    object_lock BIGINT NOT NULL,
    rev BIGINT NOT NULL,
    region TEXT NOT NULL,
    settings TEXT,                               -- JSON
    created BIGINT NOT NULL
);
CREATE INDEX buckets_tenant ON buckets(tenant_id, name);

CREATE TABLE blobs (
    id BIGINT PRIMARY KEY,
    size BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'deleting')),
    since BIGINT NOT NULL,
    owned BIGINT NOT NULL                       -- 0: what another system wrote of it is not ours to delete
);
CREATE INDEX blobs_deleting ON blobs(since) WHERE state = 'deleting';

CREATE TABLE copies (
    blob_id BIGINT NOT NULL REFERENCES blobs(id),
    backend_id BIGINT NOT NULL REFERENCES backends(id),
    name BYTEA NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('live', 'missing', 'deleting')),
    since BIGINT NOT NULL,                      -- when it got this state
    PRIMARY KEY (blob_id, backend_id)
);
CREATE INDEX copies_backend ON copies(backend_id, blob_id);
CREATE INDEX copies_unsettled ON copies(state, since) WHERE state <> 'live';

-- One row a move, kept when it has ended. Of a backend, the ids are backends'; of a bucket, placements'.
CREATE TABLE moves (
    id BIGINT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('backend', 'bucket')),
    source_id BIGINT NOT NULL,
    target_id BIGINT NOT NULL,
    bucket_id BIGINT,
    bucket_name TEXT,
    state TEXT NOT NULL CHECK (state IN ('copying', 'emptying', 'done', 'ended')),
    switched BIGINT NOT NULL,                   -- from then on nothing new is planned at the source
    rate BIGINT,                                -- bytes per second; NULL is without a limit
    total BIGINT NOT NULL,                      -- of blobs or versions, when it began
    total_bytes BIGINT NOT NULL,
    moved BIGINT NOT NULL,
    moved_bytes BIGINT NOT NULL,
    failed BIGINT NOT NULL,                     -- in the last pass
    reason TEXT,                                -- of the last failure
    remains BIGINT,                             -- objects left at the source when it ended
    ended BIGINT
);

-- One immutable byte sequence. sha256 is NULL for contents that are never found by digest: composites,
-- dedup off, customer keys, imported. The inline bytes are the last column, so that a row's head is read
-- without them.
CREATE TABLE contents (
    id BIGINT PRIMARY KEY,
    space_id BIGINT NOT NULL REFERENCES spaces(id),
    sha256 BYTEA,
    length BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('inline', 'stored', 'composite')),
    depth BIGINT NOT NULL CHECK (depth BETWEEN 0 AND 2),
    md5 BYTEA,
    crc32 BIGINT,
    crc32c BIGINT,
    crc64nvme BIGINT,
    sha1 BYTEA,
    created BIGINT NOT NULL,
    blob_id BIGINT REFERENCES blobs(id),
    blob_offset BIGINT,
    stored_length BIGINT,
    coding TEXT,                                 -- JSON: codec, cipher, frame; NULL is the bytes as they are
    key_wrapped BYTEA,
    key_id BIGINT,
    bytes BYTEA,
    UNIQUE (space_id, sha256, length)
);
CREATE INDEX contents_blob ON contents(blob_id) WHERE blob_id IS NOT NULL;
CREATE INDEX contents_md5 ON contents(space_id, md5) WHERE md5 IS NOT NULL AND kind <> 'inline';

CREATE TABLE extents (
    content_id BIGINT NOT NULL REFERENCES contents(id),
    ordinal BIGINT NOT NULL,
    start BIGINT NOT NULL,
    length BIGINT NOT NULL,
    child_id BIGINT NOT NULL REFERENCES contents(id),
    child_offset BIGINT NOT NULL,
    sender BIGINT,
    PRIMARY KEY (content_id, ordinal)
);
CREATE INDEX extents_child ON extents(child_id, sender);

-- The current version of every key that has any version; its row is the key's lock.
CREATE TABLE objects (
    bucket_id BIGINT NOT NULL REFERENCES buckets(id),
    key BYTEA NOT NULL,
    uid BIGINT NOT NULL,
    ord BIGINT NOT NULL,                        -- the order of a key's versions: never the uid, never a clock
    kind TEXT NOT NULL CHECK (kind IN ('object', 'marker')),
    is_null BIGINT NOT NULL,
    null_ord BIGINT,                            -- where the null version stands
    content_id BIGINT REFERENCES contents(id),
    sender BIGINT,
    size BIGINT NOT NULL,
    etag BYTEA,
    parts BIGINT,
    mtime BIGINT NOT NULL,
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode TEXT,
    retain_until BIGINT,
    legal_hold BIGINT,
    PRIMARY KEY (bucket_id, key)
);
CREATE UNIQUE INDEX objects_uid ON objects(uid);
CREATE INDEX objects_content ON objects(content_id, sender);

CREATE TABLE versions (
    bucket_id BIGINT NOT NULL REFERENCES buckets(id),
    key BYTEA NOT NULL,
    uid BIGINT NOT NULL,
    ord BIGINT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('object', 'marker')),
    is_null BIGINT NOT NULL,
    content_id BIGINT REFERENCES contents(id),
    sender BIGINT,
    size BIGINT NOT NULL,
    etag BYTEA,
    parts BIGINT,
    mtime BIGINT NOT NULL,
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode TEXT,
    retain_until BIGINT,
    legal_hold BIGINT,
    PRIMARY KEY (bucket_id, key, ord)
);
CREATE UNIQUE INDEX versions_uid ON versions(uid);
CREATE INDEX versions_content ON versions(content_id, sender);

CREATE TABLE uploads (
    uid BIGINT PRIMARY KEY,
    bucket_id BIGINT NOT NULL REFERENCES buckets(id),
    key BYTEA NOT NULL,
    initiated BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('open', 'completed', 'aborted')),
    headers TEXT,
    tags TEXT,
    acl TEXT,
    checksum_algorithm TEXT,
    checksum_kind TEXT,
    sse TEXT,
    list_digest BYTEA,                            -- SHA-256 of the completed part list, to answer a repeat
    result_uid BIGINT,
    result TEXT,                                 -- JSON: the first answer
    ended_at BIGINT,
    lock_state TEXT                              -- JSON
);
CREATE INDEX uploads_bucket ON uploads(bucket_id, key, uid);
CREATE INDEX uploads_ended ON uploads(ended_at) WHERE ended_at IS NOT NULL;

CREATE TABLE upload_parts (
    upload_uid BIGINT NOT NULL REFERENCES uploads(uid),
    number BIGINT NOT NULL,
    content_id BIGINT NOT NULL REFERENCES contents(id),
    sender BIGINT,
    size BIGINT NOT NULL,
    md5 BYTEA NOT NULL,
    checksum TEXT,
    mtime BIGINT NOT NULL,
    PRIMARY KEY (upload_uid, number)
);
CREATE INDEX upload_parts_content ON upload_parts(content_id, sender);

-- The parts of a completed version, for partNumber and GetObjectAttributes; survives a merge.
CREATE TABLE version_parts (
    uid BIGINT NOT NULL,
    number BIGINT NOT NULL,
    size BIGINT NOT NULL,
    checksum TEXT,
    PRIMARY KEY (uid, number)
);

-- A reference to content_id was given up at this time. Append only; the collector alone takes rows away.
CREATE TABLE released (
    id BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL,
    at BIGINT NOT NULL
);
CREATE INDEX released_at ON released(at);
CREATE INDEX released_content ON released(content_id, at);

CREATE TABLE fences (
    node_id BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL
);

CREATE TABLE nodes (
    id BIGINT PRIMARY KEY,
    address TEXT,
    lease_until BIGINT NOT NULL,
    oldest_read BIGINT NOT NULL,                -- no read open here began before this
    oldest_write BIGINT NOT NULL,               -- no blob not yet named by a row was begun here before this
    placement_rev BIGINT NOT NULL,
    name TEXT NOT NULL DEFAULT '',
    beaten BIGINT NOT NULL DEFAULT 0            -- when it was last heard of, by the database's clock
);

CREATE TABLE workers (
    id BIGINT PRIMARY KEY CHECK (id BETWEEN 0 AND 1023),
    node_id BIGINT NOT NULL,
    reserved_until BIGINT NOT NULL
);

CREATE TABLE usage (
    bucket_id BIGINT NOT NULL,
    worker_id BIGINT NOT NULL,
    objects BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (bucket_id, worker_id)
);

-- Work that is done later, and what became of it.
CREATE TABLE jobs (
    id BIGINT PRIMARY KEY,
    type TEXT NOT NULL,
    work_key TEXT,                              -- what it is about, when such work waits or runs only once
    live_key TEXT,                              -- the same until the job ends
    payload TEXT NOT NULL,                      -- JSON
    period BIGINT,                              -- of a schedule, which runs again and again
    state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    due BIGINT,                                 -- waiting: its turn; running: the end of the lease; else NULL
    run BIGINT NOT NULL,                        -- claims so far; the number of a claim is its lease
    node_id BIGINT,
    attempt BIGINT NOT NULL,
    again BIGINT NOT NULL,                      -- asked for while it ran
    cancelling BIGINT NOT NULL,
    checkpoint TEXT,                            -- JSON: where the next run goes on
    done BIGINT NOT NULL,
    total BIGINT,
    report TEXT,                                -- JSON: what came of it
    reason TEXT,                                -- why the last attempt failed
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT
);
CREATE UNIQUE INDEX jobs_live ON jobs(type, live_key);
CREATE INDEX jobs_due ON jobs(type, due);
CREATE INDEX jobs_ended ON jobs(ended);

-- Types of jobs that do not run until they are resumed.
CREATE TABLE job_pauses (
    type TEXT PRIMARY KEY,
    since BIGINT NOT NULL
);

-- The outbox of manifests: which groups of rows a transaction changed.
CREATE TABLE changes (
    id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
    entries BYTEA NOT NULL
);

-- The one row of the writer of manifests: whether changes are recorded, the last number given, the newest manifest
-- that counts, and who may write until when.
CREATE TABLE manifest_writer (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    recording BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    tip BIGINT,                                  -- NULL: the next one is a snapshot
    holder BIGINT,
    lease_until BIGINT NOT NULL
);

-- Every object that a manifest consists of, or may, from before it is written until after it is deleted.
CREATE TABLE manifest_parts (
    seq BIGINT NOT NULL,
    part BIGINT NOT NULL,
    backend TEXT NOT NULL,
    name BYTEA NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('writing', 'snapshot', 'segment')),
    size BIGINT NOT NULL,
    PRIMARY KEY (seq, part)
);

-- The one row of a database that was rebuilt: from which manifests, whether that has ended, and until when the
-- sweep spares what no row names.
CREATE TABLE recovery (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    source TEXT NOT NULL,
    began BIGINT NOT NULL,
    ended BIGINT,
    spare_until BIGINT NOT NULL
);

-- Keys that wrap the data keys of contents: one of each tenant's own ('tenant', without a name), and those of
-- its KMS. contents.key_id is the version that wrapped contents.key_wrapped, NULL with a customer's key.
-- spaces.encrypted is 0 for contents as they are, 1 for the tenant's own key, else the id of a KMS key.
CREATE TABLE wrap_keys (
    id BIGINT PRIMARY KEY,
    tenant_id BIGINT NOT NULL REFERENCES tenants(id),
    kind TEXT NOT NULL CHECK (kind IN ('tenant', 'kms')),
    name TEXT NOT NULL,                          -- the key id that clients see; '' for the tenant's own
    alias TEXT,
    description TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('enabled', 'disabled')),
    version BIGINT NOT NULL,                    -- the version that wraps now
    created BIGINT NOT NULL,
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, alias)
);

-- Old versions stay: a body that was under way, or a restored database, may need one.
CREATE TABLE wrap_key_versions (
    id BIGINT PRIMARY KEY,
    key_id BIGINT NOT NULL REFERENCES wrap_keys(id),
    version BIGINT NOT NULL,
    sealed BYTEA NOT NULL,                        -- by the master key
    created BIGINT NOT NULL,
    UNIQUE (key_id, version)
);

CREATE INDEX contents_key ON contents(key_id) WHERE key_id IS NOT NULL;
-- The outbox of events: one row an event and target, deleted once the target has it.
CREATE TABLE events (
    id BIGINT PRIMARY KEY,
    target TEXT NOT NULL,
    bucket_id BIGINT NOT NULL,
    payload TEXT NOT NULL,
    created BIGINT NOT NULL
);
CREATE INDEX events_target ON events (target, id);
CREATE INDEX events_created ON events (created);

-- How delivery to a target goes: what became of the events so far.
CREATE TABLE event_targets (
    name TEXT PRIMARY KEY,
    delivered BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    given_up BIGINT NOT NULL,
    last_error TEXT
);
CREATE INDEX access_keys_expires ON access_keys(expires_at) WHERE expires_at IS NOT NULL;

-- The one row of an install as a whole: what only its master key opens, so that a process with another is refused.
CREATE TABLE install (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    master_check BYTEA NOT NULL
);

-- A copy from another database that has not ended: what it wrote so far must not be served. The token is that of the
-- copy that may go on; one that is started again takes its place.
CREATE TABLE unfinished_copy (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    token TEXT NOT NULL,
    began BIGINT NOT NULL
);

-- Keys that sign links of the native API, sealed by the master key. The newest one signs; older ones verify until the
-- last link that they signed has expired.
CREATE TABLE link_keys (
    id BIGINT PRIMARY KEY,
    sealed BYTEA NOT NULL,
    created BIGINT NOT NULL
);

-- Live copies that were found not to be as they should, until they are mended, found to be well, or gone. A row is about
-- the copy of that name: with another name, or none, it says nothing any more.
CREATE TABLE findings (
    blob_id BIGINT NOT NULL,
    backend_id BIGINT NOT NULL,
    name BYTEA NOT NULL,
    problem TEXT NOT NULL CHECK (problem IN ('missing', 'wrong-length', 'corrupt', 'differing')),
    found BIGINT NOT NULL,
    PRIMARY KEY (blob_id, backend_id)
);

-- What was adopted from an existing osproxy: for good, so that what was deleted since is not adopted again, nor an object
-- whose deletion is under way.
CREATE TABLE adopted_uids (
    uid BIGINT PRIMARY KEY,
    at BIGINT NOT NULL
);

CREATE TABLE adopted_objects (
    backend_id BIGINT NOT NULL REFERENCES backends(id),
    name BYTEA NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (backend_id, name)
);
