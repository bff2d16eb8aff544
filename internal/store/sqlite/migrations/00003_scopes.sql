-- +goose Up

-- An engine's leases for lists, dead ones too, and a role's living ones for its revocation: what has
-- few leases is found among many.
CREATE INDEX leases_engine ON leases (engine_id, id);
CREATE INDEX leases_role   ON leases (engine_id, role, id) WHERE status <> 'revoked';
