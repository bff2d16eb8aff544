-- +goose Up

-- The leases of a status for lists: the living are found among many that are dead, the dead among many
-- that live, and the few that are being issued or revoked among all.
CREATE INDEX leases_status ON leases (status, id);
