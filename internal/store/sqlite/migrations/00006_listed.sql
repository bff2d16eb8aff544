-- +goose Up

-- Until when a credential that nobody can kill stands in a list of what is revoked, once it is. NULL: in
-- none.
ALTER TABLE leases ADD COLUMN listed_until INTEGER;
CREATE INDEX leases_listed ON leases (engine_id, listed_until) WHERE listed_until IS NOT NULL AND status IN ('revoking', 'revoked');
