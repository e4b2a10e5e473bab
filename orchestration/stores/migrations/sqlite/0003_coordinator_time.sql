-- CPU time of the coordinator of the run's newest process.

ALTER TABLE run ADD COLUMN coordinator_seconds REAL NOT NULL DEFAULT 0.0;
