-- The whole schema of version 1 on MySQL and MariaDB, the same as that of SQLite at its newest step. Names are
-- compared as bytes. Statements can be repeated: MySQL ends a transaction at each of them.

CREATE TABLE IF NOT EXISTS tenants (
    id BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    owner_id VARCHAR(255) NOT NULL UNIQUE,
    created BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS access_keys (
    id BIGINT PRIMARY KEY,
    access_key VARCHAR(255) NOT NULL UNIQUE,
    tenant_id BIGINT NOT NULL,
    secret_sealed BLOB NOT NULL,
    policy MEDIUMTEXT,
    parent BIGINT,
    expires_at BIGINT,
    state VARCHAR(16) NOT NULL,
    created BIGINT NOT NULL,
    role TEXT,
    session TEXT,
    KEY access_keys_tenant (tenant_id),
    KEY access_keys_expires (expires_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants(id),
    FOREIGN KEY (parent) REFERENCES access_keys(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS backends (
    id BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    service VARCHAR(255) NOT NULL,
    node VARCHAR(80),
    moved_to BIGINT,
    FOREIGN KEY (moved_to) REFERENCES backends(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS placements (
    id BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    rev BIGINT NOT NULL,
    copies_required BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS placement_backends (
    placement_id BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    backend_id BIGINT NOT NULL,
    PRIMARY KEY (placement_id, ordinal),
    FOREIGN KEY (placement_id) REFERENCES placements(id),
    FOREIGN KEY (backend_id) REFERENCES backends(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS spaces (
    id BIGINT PRIMARY KEY,
    realm_id BIGINT NOT NULL,
    placement_id BIGINT NOT NULL,
    encrypted BIGINT NOT NULL,
    UNIQUE (realm_id, placement_id, encrypted),
    FOREIGN KEY (realm_id) REFERENCES tenants(id),
    FOREIGN KEY (placement_id) REFERENCES placements(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS buckets (
    id BIGINT PRIMARY KEY,
    name VARCHAR(255) NOT NULL UNIQUE,
    tenant_id BIGINT NOT NULL,
    space_id BIGINT NOT NULL,
    dedup VARCHAR(16) NOT NULL,
    versioning VARCHAR(16) NOT NULL,
    object_lock BIGINT NOT NULL,
    rev BIGINT NOT NULL,
    region VARCHAR(255) NOT NULL,
    settings MEDIUMTEXT,
    created BIGINT NOT NULL,
    KEY buckets_tenant (tenant_id, name),
    FOREIGN KEY (tenant_id) REFERENCES tenants(id),
    FOREIGN KEY (space_id) REFERENCES spaces(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS blobs (
    id BIGINT PRIMARY KEY,
    size BIGINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    since BIGINT NOT NULL,
    owned BIGINT NOT NULL,
    KEY blobs_deleting (state, since)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS copies (
    blob_id BIGINT NOT NULL,
    backend_id BIGINT NOT NULL,
    name VARBINARY(1024) NOT NULL,
    state VARCHAR(16) NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (blob_id, backend_id),
    KEY copies_backend (backend_id, blob_id),
    KEY copies_unsettled (state, since),
    FOREIGN KEY (blob_id) REFERENCES blobs(id),
    FOREIGN KEY (backend_id) REFERENCES backends(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS moves (
    id BIGINT PRIMARY KEY,
    kind VARCHAR(16) NOT NULL,
    source_id BIGINT NOT NULL,
    target_id BIGINT NOT NULL,
    bucket_id BIGINT,
    bucket_name VARCHAR(255),
    state VARCHAR(16) NOT NULL,
    switched BIGINT NOT NULL,
    rate BIGINT,
    total BIGINT NOT NULL,
    total_bytes BIGINT NOT NULL,
    moved BIGINT NOT NULL,
    moved_bytes BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    reason TEXT,
    remains BIGINT,
    ended BIGINT
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS contents (
    id BIGINT PRIMARY KEY,
    space_id BIGINT NOT NULL,
    sha256 VARBINARY(32),
    length BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    depth BIGINT NOT NULL,
    md5 VARBINARY(16),
    crc32 BIGINT,
    crc32c BIGINT,
    crc64nvme BIGINT,
    sha1 VARBINARY(20),
    created BIGINT NOT NULL,
    blob_id BIGINT,
    blob_offset BIGINT,
    stored_length BIGINT,
    coding TEXT,
    key_wrapped VARBINARY(1024),
    key_id BIGINT,
    bytes MEDIUMBLOB,
    UNIQUE (space_id, sha256, length),
    KEY contents_blob (blob_id),
    KEY contents_md5 (space_id, md5),
    KEY contents_key (key_id),
    FOREIGN KEY (space_id) REFERENCES spaces(id),
    FOREIGN KEY (blob_id) REFERENCES blobs(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS extents (
    content_id BIGINT NOT NULL,
    ordinal BIGINT NOT NULL,
    start BIGINT NOT NULL,
    length BIGINT NOT NULL,
    child_id BIGINT NOT NULL,
    child_offset BIGINT NOT NULL,
    sender BIGINT,
    PRIMARY KEY (content_id, ordinal),
    KEY extents_child (child_id, sender),
    FOREIGN KEY (content_id) REFERENCES contents(id),
    FOREIGN KEY (child_id) REFERENCES contents(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS objects (
    bucket_id BIGINT NOT NULL,
    `key` VARBINARY(1024) NOT NULL,
    uid BIGINT NOT NULL,
    ord BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    is_null BIGINT NOT NULL,
    null_ord BIGINT,
    content_id BIGINT,
    sender BIGINT,
    size BIGINT NOT NULL,
    etag VARBINARY(16),
    parts BIGINT,
    mtime BIGINT NOT NULL,
    headers MEDIUMTEXT,
    tags MEDIUMTEXT,
    acl MEDIUMTEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode VARCHAR(16),
    retain_until BIGINT,
    legal_hold BIGINT,
    PRIMARY KEY (bucket_id, `key`),
    UNIQUE KEY objects_uid (uid),
    KEY objects_content (content_id, sender),
    FOREIGN KEY (bucket_id) REFERENCES buckets(id),
    FOREIGN KEY (content_id) REFERENCES contents(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS versions (
    bucket_id BIGINT NOT NULL,
    `key` VARBINARY(1024) NOT NULL,
    uid BIGINT NOT NULL,
    ord BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    is_null BIGINT NOT NULL,
    content_id BIGINT,
    sender BIGINT,
    size BIGINT NOT NULL,
    etag VARBINARY(16),
    parts BIGINT,
    mtime BIGINT NOT NULL,
    headers MEDIUMTEXT,
    tags MEDIUMTEXT,
    acl MEDIUMTEXT,
    checksum TEXT,
    sse TEXT,
    lock_mode VARCHAR(16),
    retain_until BIGINT,
    legal_hold BIGINT,
    PRIMARY KEY (bucket_id, `key`, ord),
    UNIQUE KEY versions_uid (uid),
    KEY versions_content (content_id, sender),
    FOREIGN KEY (bucket_id) REFERENCES buckets(id),
    FOREIGN KEY (content_id) REFERENCES contents(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS uploads (
    uid BIGINT PRIMARY KEY,
    bucket_id BIGINT NOT NULL,
    `key` VARBINARY(1024) NOT NULL,
    initiated BIGINT NOT NULL,
    state VARCHAR(16) NOT NULL,
    headers MEDIUMTEXT,
    tags MEDIUMTEXT,
    acl MEDIUMTEXT,
    checksum_algorithm VARCHAR(32),
    checksum_kind VARCHAR(32),
    sse TEXT,
    list_digest VARBINARY(32),
    result_uid BIGINT,
    result TEXT,
    ended_at BIGINT,
    lock_state TEXT,
    KEY uploads_bucket (bucket_id, `key`, uid),
    KEY uploads_ended (ended_at),
    FOREIGN KEY (bucket_id) REFERENCES buckets(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS upload_parts (
    upload_uid BIGINT NOT NULL,
    number BIGINT NOT NULL,
    content_id BIGINT NOT NULL,
    sender BIGINT,
    size BIGINT NOT NULL,
    md5 VARBINARY(16) NOT NULL,
    checksum TEXT,
    mtime BIGINT NOT NULL,
    PRIMARY KEY (upload_uid, number),
    KEY upload_parts_content (content_id, sender),
    FOREIGN KEY (upload_uid) REFERENCES uploads(uid),
    FOREIGN KEY (content_id) REFERENCES contents(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS version_parts (
    uid BIGINT NOT NULL,
    number BIGINT NOT NULL,
    size BIGINT NOT NULL,
    checksum TEXT,
    PRIMARY KEY (uid, number)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS released (
    id BIGINT PRIMARY KEY,
    content_id BIGINT NOT NULL,
    at BIGINT NOT NULL,
    KEY released_at (at),
    KEY released_content (content_id, at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS fences (
    node_id BIGINT PRIMARY KEY,
    epoch BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS nodes (
    id BIGINT PRIMARY KEY,
    address TEXT,
    lease_until BIGINT NOT NULL,
    oldest_read BIGINT NOT NULL,
    oldest_write BIGINT NOT NULL,
    placement_rev BIGINT NOT NULL,
    name VARCHAR(80) NOT NULL DEFAULT '',
    beaten BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS workers (
    id BIGINT PRIMARY KEY,
    node_id BIGINT NOT NULL,
    reserved_until BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS `usage` (
    bucket_id BIGINT NOT NULL,
    worker_id BIGINT NOT NULL,
    objects BIGINT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (bucket_id, worker_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Work that is done later, and what became of it.
CREATE TABLE IF NOT EXISTS jobs (
    id BIGINT PRIMARY KEY,
    type VARCHAR(64) NOT NULL,
    work_key VARCHAR(255),                      -- what it is about, when such work waits or runs only once
    live_key VARCHAR(255),                      -- the same until the job ends
    payload MEDIUMTEXT NOT NULL,                -- JSON
    period BIGINT,                              -- of a schedule, which runs again and again
    state VARCHAR(16) NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    due BIGINT,                                 -- waiting: its turn; running: the end of the lease; else NULL
    run BIGINT NOT NULL,                        -- claims so far; the number of a claim is its lease
    node_id BIGINT,
    attempt BIGINT NOT NULL,
    again BIGINT NOT NULL,                      -- asked for while it ran
    cancelling BIGINT NOT NULL,
    checkpoint MEDIUMTEXT,                      -- JSON: where the next run goes on
    done BIGINT NOT NULL,
    total BIGINT,
    report MEDIUMTEXT,                          -- JSON: what came of it
    reason TEXT,                                -- why the last attempt failed
    created BIGINT NOT NULL,
    started BIGINT,
    ended BIGINT,
    UNIQUE KEY jobs_live (type, live_key),
    KEY jobs_due (type, due),
    KEY jobs_ended (ended)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Types of jobs that do not run until they are resumed.
CREATE TABLE IF NOT EXISTS job_pauses (
    type VARCHAR(64) PRIMARY KEY,
    since BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS events (
    id BIGINT PRIMARY KEY,
    target VARCHAR(255) NOT NULL,
    bucket_id BIGINT NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    created BIGINT NOT NULL,
    KEY events_target (target, id),
    KEY events_created (created)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS event_targets (
    name VARCHAR(255) PRIMARY KEY,
    delivered BIGINT NOT NULL,
    failed BIGINT NOT NULL,
    given_up BIGINT NOT NULL,
    last_error TEXT
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The outbox of manifests: which groups of rows a transaction changed.
CREATE TABLE IF NOT EXISTS changes (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    entries MEDIUMBLOB NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The one row of the writer of manifests: whether changes are recorded, the last number given, the newest manifest
-- that counts (NULL: the next one is a snapshot), and who may write until when.
CREATE TABLE IF NOT EXISTS manifest_writer (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    recording BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    tip BIGINT,
    holder BIGINT,
    lease_until BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Every object that a manifest consists of, or may, from before it is written until after it is deleted.
CREATE TABLE IF NOT EXISTS manifest_parts (
    seq BIGINT NOT NULL,
    part BIGINT NOT NULL,
    backend VARCHAR(255) NOT NULL,
    name VARBINARY(1024) NOT NULL,
    state VARCHAR(16) NOT NULL CHECK (state IN ('writing', 'snapshot', 'segment')),
    size BIGINT NOT NULL,
    PRIMARY KEY (seq, part)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The one row of a database that was rebuilt: from which manifests, whether that has ended, and until when the
-- sweep spares what no row names.
CREATE TABLE IF NOT EXISTS recovery (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    source MEDIUMTEXT NOT NULL,
    began BIGINT NOT NULL,
    ended BIGINT,
    spare_until BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS wrap_keys (
    id BIGINT PRIMARY KEY,
    tenant_id BIGINT NOT NULL,
    kind VARCHAR(16) NOT NULL,
    name VARCHAR(255) NOT NULL,
    alias VARCHAR(255),
    description TEXT NOT NULL,
    state VARCHAR(16) NOT NULL,
    version BIGINT NOT NULL,
    created BIGINT NOT NULL,
    UNIQUE (tenant_id, name),
    UNIQUE (tenant_id, alias),
    FOREIGN KEY (tenant_id) REFERENCES tenants(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS wrap_key_versions (
    id BIGINT PRIMARY KEY,
    key_id BIGINT NOT NULL,
    version BIGINT NOT NULL,
    sealed VARBINARY(1024) NOT NULL,
    created BIGINT NOT NULL,
    UNIQUE (key_id, version),
    FOREIGN KEY (key_id) REFERENCES wrap_keys(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- The one row of an install as a whole: what only its master key opens, so that a process with another is refused.
CREATE TABLE IF NOT EXISTS install (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    master_check VARBINARY(255) NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

CREATE TABLE IF NOT EXISTS unfinished_copy (
    id BIGINT PRIMARY KEY,
    token VARCHAR(64) NOT NULL,
    began BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

-- Keys that sign links of the native API, sealed by the master key. The newest one signs; older ones verify until the
-- last link that they signed has expired.
CREATE TABLE IF NOT EXISTS link_keys (
    id BIGINT NOT NULL PRIMARY KEY,
    sealed VARBINARY(255) NOT NULL,
    created BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

-- Live copies that were found not to be as they should, until they are mended, found to be well, or gone. A row is about
-- the copy of that name: with another name, or none, it says nothing any more.
CREATE TABLE IF NOT EXISTS findings (
    blob_id BIGINT NOT NULL,
    backend_id BIGINT NOT NULL,
    name VARBINARY(1024) NOT NULL,
    problem VARCHAR(16) NOT NULL,
    found BIGINT NOT NULL,
    PRIMARY KEY (blob_id, backend_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin;

CREATE TABLE IF NOT EXISTS adopted_uids (
    uid BIGINT NOT NULL PRIMARY KEY,
    at BIGINT NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;

CREATE TABLE IF NOT EXISTS adopted_objects (
    backend_id BIGINT NOT NULL,
    name VARBINARY(1024) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (backend_id, name),
    FOREIGN KEY (backend_id) REFERENCES backends(id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC;
