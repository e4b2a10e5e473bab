-- Whose failure kept items from running, and failures counted by kind. `error.ended` is no longer kept.

ALTER TABLE journal ADD COLUMN root_node INTEGER;   -- Moved to UpstreamFailed: the node whose items had failed
ALTER TABLE journal ADD COLUMN roots BLOB;          -- which ones: one for each of indices, or one for all

CREATE TABLE failure (
    run_no      INTEGER NOT NULL,
    node_id     INTEGER NOT NULL,
    kind        BLOB NOT NULL,              -- what those that are alike have in common, see stores/failures.py
    state       INTEGER NOT NULL,
    failures    INTEGER NOT NULL,
    error_no    INTEGER,                    -- of the first; NULL: it raised nothing
    reason      TEXT NOT NULL,
    root_node   INTEGER,
    root_index  INTEGER,
    first_index INTEGER,                    -- NULL where it was not known yet when the run was recorded
    first_at    REAL,
    first_name  TEXT,
    last_index  INTEGER,
    last_at     REAL,
    last_name   TEXT,
    PRIMARY KEY (run_no, node_id, kind)
) WITHOUT ROWID;

INSERT INTO failure (run_no, node_id, kind, state, failures, error_no, reason)
    SELECT run_no, node_id, digest, 9, ended, error_no, '' FROM error
    WHERE ended > 0 AND node_id >= 0 AND type_name NOT IN ('Skip', 'runners.errors.Skip');
