-- What a temporary key was made as: the role that was assumed and the session's name.

ALTER TABLE access_keys ADD COLUMN role TEXT;
ALTER TABLE access_keys ADD COLUMN session TEXT;
CREATE INDEX access_keys_expires ON access_keys(expires_at) WHERE expires_at IS NOT NULL;
