-- +goose Up

-- Until when a credential that nobody can kill stands in a list of what is revoked, once it is. NULL: in
-- none. The previous release neither reads nor writes this column. Other nodes' writes wait meanwhile,
-- about a second per million leases.
ALTER TABLE leases ADD COLUMN listed_until bigint;
CREATE INDEX leases_listed ON leases (engine_id, listed_until) WHERE listed_until IS NOT NULL AND status IN ('revoking', 'revoked');
