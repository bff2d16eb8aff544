-- +goose Up

-- The leases of a status for lists, but for the dead, which may be many: those of the others are
-- found among them, and the few that are being issued or revoked among all that live.
CREATE INDEX leases_status ON leases (status, id) WHERE status <> 'revoked';
