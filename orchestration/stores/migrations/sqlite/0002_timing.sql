-- What `millrace runs show --timing` needs. Runs recorded before have none of it.

ALTER TABLE journal ADD COLUMN submitted_at REAL;   -- AttemptsEnded: of the batch
ALTER TABLE journal ADD COLUMN cpu_seconds REAL;    -- AttemptsEnded: of the batch
-- Seconds that items have spent Ready, AwaitingLimit and AwaitingRetry, summed over items.
ALTER TABLE node ADD COLUMN waited TEXT NOT NULL DEFAULT '[0.0, 0.0, 0.0]';
