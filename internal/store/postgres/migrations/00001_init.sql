-- Times are bigint microseconds since 1970 UTC. An absent moment is NULL, an absent text ''. Texts
-- compare byte by byte, as they do in the embedded store.

-- +goose Up

-- The one row of what the store knows of itself. Who changes the configuration holds its lock.
CREATE TABLE store_state (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    installation text    NOT NULL,
    config_rev   bigint  NOT NULL DEFAULT 0,
    removed_rev  bigint  NOT NULL DEFAULT 0 -- removals up to this revision are forgotten
);

-- What a node's transactions hold the lock of, from their first statement to their end, and count.
CREATE TABLE nodes (
    id        text   COLLATE "C" PRIMARY KEY,
    epoch     bigint NOT NULL,
    commits   bigint NOT NULL DEFAULT 0,
    audit_seq bigint NOT NULL DEFAULT 0,
    audit_mac bytea  NOT NULL DEFAULT '',
    pinged_at bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

-- Signs of life, apart from the row above, so that a long transaction does not silence its node.
CREATE TABLE beats (
    node  text   COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    at    bigint NOT NULL,
    rev   bigint NOT NULL -- of the configuration that the node goes by
) WITH (fillfactor = 50);

CREATE TABLE meta (
    key   text  COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE objects (
    tenant     text   COLLATE "C" NOT NULL,
    kind       text   COLLATE "C" NOT NULL,
    id         text   COLLATE "C" NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    doc        text   NOT NULL,
    version    bigint NOT NULL,
    rev        bigint NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
CREATE UNIQUE INDEX objects_key ON objects (tenant, kind, key);
CREATE INDEX objects_rev        ON objects (rev) WHERE kind <> 'token';

-- Objects that other nodes may still hold in memory.
CREATE TABLE removed_objects (
    tenant     text   COLLATE "C" NOT NULL,
    kind       text   COLLATE "C" NOT NULL,
    id         text   COLLATE "C" NOT NULL,
    rev        bigint NOT NULL,
    removed_at bigint NOT NULL,
    PRIMARY KEY (tenant, kind, id)
);
CREATE INDEX removed_objects_rev ON removed_objects (rev);

CREATE TABLE leases (
    id                 text    COLLATE "C" PRIMARY KEY,
    tenant             text    COLLATE "C" NOT NULL,
    engine_id          text    COLLATE "C" NOT NULL,
    engine             text    COLLATE "C" NOT NULL,
    role               text    COLLATE "C" NOT NULL,
    identity           text    COLLATE "C" NOT NULL,
    token_id           text    COLLATE "C" NOT NULL,
    tied               boolean NOT NULL,
    status             text    COLLATE "C" NOT NULL,
    unconfirmed        boolean NOT NULL,
    renewable          boolean NOT NULL,
    username           text    COLLATE "C" NOT NULL,
    source_id          text    NOT NULL,
    recipe             text    NOT NULL,
    metadata           text    NOT NULL,
    issued_at          bigint  NOT NULL,
    expires_at         bigint  NOT NULL,
    max_expires_at     bigint  NOT NULL,
    renewed_at         bigint,
    revoked_at         bigint,
    pending_expires_at bigint,
    pending_deadline   bigint,
    due_at             bigint,
    deadline           bigint  NOT NULL,
    late_looks         bigint  NOT NULL,
    fence_seq          bigint  NOT NULL,
    node               text    COLLATE "C" NOT NULL,
    epoch              bigint  NOT NULL,
    revocation         text    NOT NULL,
    claim_node         text    COLLATE "C" NOT NULL,
    claim_epoch        bigint  NOT NULL,
    claim_no           bigint  NOT NULL,
    claim_until        bigint,
    version            bigint  NOT NULL,
    overdue_at         bigint, -- the earlier of expires_at and the revocation's request; NULL when dead
    residue            boolean NOT NULL
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX leases_username ON leases (username);
CREATE INDEX leases_due      ON leases (engine_id, due_at)     WHERE due_at IS NOT NULL;
CREATE INDEX leases_claimed  ON leases (engine_id)             WHERE due_at IS NOT NULL AND claim_until IS NOT NULL;
CREATE INDEX leases_overdue  ON leases (engine_id, overdue_at) WHERE overdue_at IS NOT NULL;
CREATE INDEX leases_live     ON leases (engine_id, id)         WHERE status <> 'revoked';
CREATE INDEX leases_identity ON leases (identity, id);
CREATE INDEX leases_holder   ON leases (identity, id)          WHERE status <> 'revoked';
CREATE INDEX leases_token    ON leases (token_id, id)          WHERE status <> 'revoked' AND token_id <> '';
CREATE INDEX leases_ended    ON leases (revoked_at)            WHERE status = 'revoked' AND due_at IS NULL AND NOT residue;
CREATE INDEX leases_residue  ON leases (engine_id, id)         WHERE residue;

-- Each node moves its own rows, so that no two wait for each other; a count is their sum.
CREATE TABLE lease_counts (
    engine_id text   COLLATE "C" NOT NULL,
    role      text   COLLATE "C" NOT NULL,
    status    text   COLLATE "C" NOT NULL,
    node      text   COLLATE "C" NOT NULL,
    n         bigint NOT NULL,
    PRIMARY KEY (engine_id, role, status, node)
) WITH (fillfactor = 50);

CREATE TABLE fences (
    tenant        text    COLLATE "C" NOT NULL,
    seq           bigint  NOT NULL,
    engine_id     text    COLLATE "C" NOT NULL,
    role          text    COLLATE "C" NOT NULL,
    identity      text    COLLATE "C" NOT NULL,
    token_id      text    COLLATE "C" NOT NULL,
    tied_only     boolean NOT NULL,
    issued_before bigint,
    reason        text    NOT NULL,
    requested_by  text    NOT NULL,
    at            bigint  NOT NULL,
    audit_id      text    NOT NULL,
    matched       bigint  NOT NULL,
    closed        boolean NOT NULL,
    PRIMARY KEY (tenant, seq)
);
CREATE INDEX fences_open ON fences (tenant, seq) WHERE NOT closed;

CREATE TABLE secrets (
    tenant            text   COLLATE "C" NOT NULL,
    path              text   COLLATE "C" NOT NULL,
    type              text   NOT NULL,
    version           bigint NOT NULL,
    versions          bigint NOT NULL,
    doc               text   NOT NULL,
    created_at        bigint NOT NULL,
    updated_at        bigint NOT NULL,
    expires_at        bigint,
    deleted_at        bigint,
    recoverable_until bigint,
    writes            bigint NOT NULL, -- grows from the moment of its making: a write that follows a read compares it
    PRIMARY KEY (tenant, path)
);

CREATE TABLE secret_versions (
    tenant      text   COLLATE "C" NOT NULL,
    path        text   COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    sealed      bytea  NOT NULL,
    created_at  bigint NOT NULL,
    created_by  text   NOT NULL,
    grace_until bigint,
    PRIMARY KEY (tenant, path, version)
);

-- The chains of all nodes. pos numbers the entries of all for lists; columns beside raw only serve
-- to find an entry.
CREATE TABLE audit (
    node          text    COLLATE "C" NOT NULL,
    seq           bigint  NOT NULL,
    pos           bigint  GENERATED ALWAYS AS IDENTITY,
    tenant        text    COLLATE "C" NOT NULL,
    at            bigint  NOT NULL,
    action        text    COLLATE "C" NOT NULL,
    identity_id   text    COLLATE "C" NOT NULL,
    identity_type text    COLLATE "C" NOT NULL,
    path          text    COLLATE "C" NOT NULL,
    success       boolean NOT NULL,
    source_ip     text    COLLATE "C" NOT NULL,
    request_id    text    COLLATE "C" NOT NULL,
    raw           text    NOT NULL,
    mac           bytea   NOT NULL,
    PRIMARY KEY (node, seq)
);
CREATE UNIQUE INDEX audit_pos ON audit (pos);
CREATE INDEX audit_at         ON audit (at, pos);
CREATE INDEX audit_identity   ON audit (identity_id, at, pos);
CREATE INDEX audit_path       ON audit (path, at, pos);

-- Where the kept part of each chain begins: the last trimmed entry.
CREATE TABLE chains (
    node     text   COLLATE "C" PRIMARY KEY,
    base_seq bigint NOT NULL DEFAULT 0,
    base_mac bytea  NOT NULL DEFAULT ''
);
