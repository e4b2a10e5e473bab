-- Whose failure kept items from running, and failures counted by kind. `error.ended` is no longer kept.

ALTER TABLE journal ADD COLUMN root_node BIGINT;    -- Moved to UpstreamFailed: the node whose items had failed
ALTER TABLE journal ADD COLUMN roots BYTEA;         -- which ones: one for each of indices, or one for all

CREATE TABLE failure (
    run_no      BIGINT NOT NULL,
    node_id     BIGINT NOT NULL,
    kind        BYTEA NOT NULL,             -- what those that are alike have in common, see stores/failures.py
    state       BIGINT NOT NULL,
    failures    BIGINT NOT NULL,
    error_no    BIGINT,                     -- of the first; NULL: it raised nothing
    reason      TEXT NOT NULL,
    root_node   BIGINT,
    root_index  BIGINT,
    first_index BIGINT,                     -- NULL where it was not known yet when the run was recorded
    first_at    DOUBLE PRECISION,
    first_name  TEXT,
    last_index  BIGINT,
    last_at     DOUBLE PRECISION,
    last_name   TEXT,
    PRIMARY KEY (run_no, node_id, kind)
);

INSERT INTO failure (run_no, node_id, kind, state, failures, error_no, reason)
    SELECT run_no, node_id, digest, 9, ended, error_no, '' FROM error
    WHERE ended > 0 AND node_id >= 0 AND type_name NOT IN ('Skip', 'runners.errors.Skip');
