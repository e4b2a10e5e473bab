-- What a run's retries have cost, and where its engine shows itself.

ALTER TABLE run ADD COLUMN engine_url TEXT NOT NULL DEFAULT '';
ALTER TABLE run ADD COLUMN retries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE run ADD COLUMN retry_seconds REAL NOT NULL DEFAULT 0.0;
