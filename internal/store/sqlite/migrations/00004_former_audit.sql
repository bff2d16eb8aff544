-- +goose Up

-- The chains of the nodes that had written to the store which this one was restored from, but for
-- one whose chain this node goes on with. They grow no more. Their entries come before this node's:
-- an entry of its own has the number last_pos + seq in lists, of the highest last_pos there is.
CREATE TABLE former_chains (
    node     TEXT    NOT NULL PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    base_seq INTEGER NOT NULL,
    base_mac BLOB    NOT NULL,
    last_pos INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE former_audit (
    pos         INTEGER PRIMARY KEY,
    node        TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    tenant      TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    action      TEXT    NOT NULL,
    identity_id TEXT    NOT NULL,
    path        TEXT    NOT NULL,
    success     INTEGER NOT NULL,
    raw         TEXT    NOT NULL,
    mac         BLOB    NOT NULL,
    UNIQUE (node, seq)
) STRICT;
CREATE INDEX former_audit_at       ON former_audit (at);
CREATE INDEX former_audit_identity ON former_audit (identity_id, at);
CREATE INDEX former_audit_path     ON former_audit (path, at);
