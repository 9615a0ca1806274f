-- Delivery to a target is a job, which has the lease and the attempts.
ALTER TABLE event_targets DROP COLUMN node_id;
ALTER TABLE event_targets DROP COLUMN lease_until;
ALTER TABLE event_targets DROP COLUMN attempt;
ALTER TABLE event_targets DROP COLUMN next_run;
