-- Processes that write by way of a server, with the number of the newest transaction of each and what it was answered:
-- one whose answer was lost is sent again, and must not be done again.
CREATE TABLE remote_writer (
    writer_id TEXT PRIMARY KEY,
    number    BIGINT NOT NULL,
    at        DOUBLE PRECISION NOT NULL,
    answer    BYTEA
) WITH (fillfactor = 50);

ALTER TABLE run ADD COLUMN reaped BIGINT;       -- the epoch whose process was given up for dead, if nobody has claimed since
