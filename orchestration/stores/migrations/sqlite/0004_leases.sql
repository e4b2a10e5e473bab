-- Leases that outlive their flow's process, one clock for all processes, and news of leases that came free.

ALTER TABLE lease ADD COLUMN tie INTEGER NOT NULL DEFAULT 0;    -- see limits.Tie

-- What to add to the monotonic clock to get the time of heartbeats and leases; one row, of the newest boot.
CREATE TABLE clock (
    id          TEXT PRIMARY KEY,           -- which monotonic clock, see stores/clock.py
    offset_seconds REAL NOT NULL
) WITHOUT ROWID;

-- Grows whenever somebody who waits for a lease may get one.
CREATE TABLE lease_news (
    number INTEGER NOT NULL
);
INSERT INTO lease_news VALUES (0);

CREATE TRIGGER lease_gone AFTER DELETE ON lease BEGIN
    UPDATE lease_news SET number = number + 1;
END;
CREATE TRIGGER limit_changed AFTER UPDATE OF slots, per_second ON limit_ BEGIN
    UPDATE lease_news SET number = number + 1;
END;
CREATE TRIGGER limit_gone AFTER DELETE ON limit_ BEGIN
    UPDATE lease_news SET number = number + 1;
END;
