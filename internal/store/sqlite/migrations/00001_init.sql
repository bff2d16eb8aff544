-- Times are INTEGER microseconds since 1970 UTC. An absent moment is NULL, an absent text ''.

-- +goose Up

-- The one row of what the store knows of itself. The audit base is the last trimmed entry.
CREATE TABLE store_state (
    one            INTEGER PRIMARY KEY CHECK (one = 1),
    installation   TEXT    NOT NULL,
    node           TEXT    NOT NULL,
    epoch          INTEGER NOT NULL DEFAULT 0,
    config_rev     INTEGER NOT NULL DEFAULT 0,
    audit_base_seq INTEGER NOT NULL DEFAULT 0,
    audit_base_mac BLOB    NOT NULL DEFAULT x'',
    pinged_at      INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value BLOB NOT NULL
) STRICT;

CREATE TABLE objects (
    tenant     TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    doc        TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    rev        INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (tenant, kind, id)
) STRICT;
CREATE UNIQUE INDEX objects_key ON objects (tenant, kind, key);

CREATE TABLE leases (
    id                 TEXT    NOT NULL UNIQUE,
    tenant             TEXT    NOT NULL,
    engine_id          TEXT    NOT NULL,
    engine             TEXT    NOT NULL,
    role               TEXT    NOT NULL,
    identity           TEXT    NOT NULL,
    token_id           TEXT    NOT NULL,
    tied               INTEGER NOT NULL,
    status             TEXT    NOT NULL,
    unconfirmed        INTEGER NOT NULL,
    renewable          INTEGER NOT NULL,
    username           TEXT    NOT NULL,
    source_id          TEXT    NOT NULL,
    recipe             TEXT    NOT NULL,
    metadata           TEXT    NOT NULL,
    issued_at          INTEGER NOT NULL,
    expires_at         INTEGER NOT NULL,
    max_expires_at     INTEGER NOT NULL,
    renewed_at         INTEGER,
    revoked_at         INTEGER,
    pending_expires_at INTEGER,
    pending_deadline   INTEGER,
    due_at             INTEGER,
    deadline           INTEGER NOT NULL,
    late_looks         INTEGER NOT NULL,
    fence_seq          INTEGER NOT NULL,
    node               TEXT    NOT NULL,
    epoch              INTEGER NOT NULL,
    revocation         TEXT    NOT NULL,
    claim_node         TEXT    NOT NULL,
    claim_epoch        INTEGER NOT NULL,
    claim_no           INTEGER NOT NULL,
    claim_until        INTEGER,
    version            INTEGER NOT NULL,
    overdue_at         INTEGER, -- the earlier of expires_at and the revocation's request; NULL when dead
    residue            INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX leases_username ON leases (username);
CREATE INDEX leases_due      ON leases (engine_id, due_at)     WHERE due_at IS NOT NULL;
CREATE INDEX leases_overdue  ON leases (engine_id, overdue_at) WHERE overdue_at IS NOT NULL;
CREATE INDEX leases_live     ON leases (engine_id, id, role)   WHERE status <> 'revoked';
CREATE INDEX leases_identity ON leases (identity, id);
CREATE INDEX leases_holder   ON leases (identity, id)          WHERE status <> 'revoked';
CREATE INDEX leases_token    ON leases (token_id, id)          WHERE status <> 'revoked' AND token_id <> '';
CREATE INDEX leases_ended    ON leases (revoked_at)            WHERE status = 'revoked' AND due_at IS NULL AND residue = 0;
CREATE INDEX leases_residue  ON leases (engine_id, id)         WHERE residue = 1;

CREATE TABLE lease_counts (
    engine_id TEXT    NOT NULL,
    role      TEXT    NOT NULL,
    status    TEXT    NOT NULL,
    n         INTEGER NOT NULL,
    PRIMARY KEY (engine_id, role, status)
) STRICT, WITHOUT ROWID;

CREATE TABLE fences (
    tenant        TEXT    NOT NULL,
    seq           INTEGER NOT NULL,
    engine_id     TEXT    NOT NULL,
    role          TEXT    NOT NULL,
    identity      TEXT    NOT NULL,
    token_id      TEXT    NOT NULL,
    tied_only     INTEGER NOT NULL,
    issued_before INTEGER,
    reason        TEXT    NOT NULL,
    requested_by  TEXT    NOT NULL,
    at            INTEGER NOT NULL,
    audit_id      TEXT    NOT NULL,
    matched       INTEGER NOT NULL,
    closed        INTEGER NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT;
CREATE INDEX fences_open ON fences (tenant, seq) WHERE closed = 0;

CREATE TABLE secrets (
    tenant            TEXT    NOT NULL,
    path              TEXT    NOT NULL,
    type              TEXT    NOT NULL,
    version           INTEGER NOT NULL,
    versions          INTEGER NOT NULL,
    doc               TEXT    NOT NULL,
    created_at        INTEGER NOT NULL,
    updated_at        INTEGER NOT NULL,
    expires_at        INTEGER,
    deleted_at        INTEGER,
    recoverable_until INTEGER,
    PRIMARY KEY (tenant, path)
) STRICT;

CREATE TABLE secret_versions (
    tenant      TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    sealed      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL,
    created_by  TEXT    NOT NULL,
    grace_until INTEGER,
    PRIMARY KEY (tenant, path, version)
) STRICT;

-- The chain of this node, which is the only one. Columns beside raw only serve to find an entry.
CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,
    tenant      TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    action      TEXT    NOT NULL,
    identity_id TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    success     INTEGER NOT NULL,
    raw         TEXT    NOT NULL,
    mac         BLOB    NOT NULL
) STRICT;
CREATE INDEX audit_at       ON audit (at);
CREATE INDEX audit_identity ON audit (identity_id, at);
CREATE INDEX audit_path     ON audit (path, at);
