-- +goose Up

-- A secret's rotation: by which policy, until when the present value is to be replaced, and when the
-- scheduler must look at it next. NULL: nobody must. The previous release neither reads nor writes
-- these columns.
ALTER TABLE secrets ADD COLUMN rotation_policy text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE secrets ADD COLUMN rotate_at       bigint;
ALTER TABLE secrets ADD COLUMN rotate_due_at   bigint;
CREATE INDEX secrets_rotation_policy ON secrets (tenant, rotation_policy, path) WHERE rotation_policy <> '';
CREATE INDEX secrets_rotate_at       ON secrets (rotate_at)                     WHERE rotate_at IS NOT NULL;
CREATE INDEX secrets_rotate_due      ON secrets (rotate_due_at)                 WHERE rotate_due_at IS NOT NULL;
