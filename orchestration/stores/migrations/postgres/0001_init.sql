-- As migrations/sqlite, in PostgreSQL's types. Times are seconds since the epoch; columns packed by
-- stores/columns.py are BYTEA; lists and maps are JSON in TEXT, because nothing in the database reads them.

CREATE TABLE schema_version (
    version    INTEGER PRIMARY KEY,
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE TABLE run (
    run_no             BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id             TEXT NOT NULL UNIQUE,
    name               TEXT NOT NULL,
    flow_name          TEXT NOT NULL,
    state              BIGINT NOT NULL,
    state_name         TEXT NOT NULL,
    message            TEXT NOT NULL,
    created            DOUBLE PRECISION NOT NULL,
    started            DOUBLE PRECISION,
    ended              DOUBLE PRECISION,
    heartbeat          DOUBLE PRECISION,                -- NULL once it has ended
    runner             TEXT NOT NULL,
    entrypoint         TEXT NOT NULL,
    version            TEXT NOT NULL,
    tags               TEXT NOT NULL,
    parameters         TEXT NOT NULL,
    parameters_pickle  BYTEA,
    parent_run_id      TEXT,
    parent_task_run_id TEXT,
    host               TEXT NOT NULL,
    pid                BIGINT NOT NULL,
    process            TEXT NOT NULL,       -- which process the pid is, see stores/liveness.py
    epoch              BIGINT NOT NULL,
    counts             TEXT NOT NULL,       -- task runs by state: the sum over nodes that are not replaced
    error_no           BIGINT,
    next_seq           BIGINT NOT NULL DEFAULT 1,
    next_batch         BIGINT NOT NULL DEFAULT 0,
    cancel_requested   BOOLEAN NOT NULL DEFAULT FALSE,
    pause_requested    BOOLEAN NOT NULL DEFAULT FALSE,
    coordinator_seconds DOUBLE PRECISION NOT NULL DEFAULT 0.0
) WITH (fillfactor = 50); -- updated with each append: room for the new row beside the old one
CREATE INDEX run_created ON run (created);
CREATE INDEX run_name ON run (name);
CREATE INDEX run_parent ON run (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX run_live ON run (state) WHERE state < 5;

CREATE TABLE node (
    run_no       BIGINT NOT NULL,
    node_id      BIGINT NOT NULL,
    path         TEXT NOT NULL,
    task_name    TEXT NOT NULL,
    kind         TEXT NOT NULL,
    width        BIGINT,
    created      DOUBLE PRECISION NOT NULL,
    tags         TEXT NOT NULL,
    upstream     TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    policy       TEXT NOT NULL,
    parent_node  BIGINT,
    parent_index BIGINT,
    counts       TEXT NOT NULL,
    started      DOUBLE PRECISION,
    ended        DOUBLE PRECISION,
    replaced_by  BIGINT,                   -- the node of the same path that a later process has added
    waited       TEXT NOT NULL DEFAULT '[0.0, 0.0, 0.0]', -- item-seconds Ready, AwaitingLimit, AwaitingRetry
    PRIMARY KEY (run_no, node_id)
) WITH (fillfactor = 50);
CREATE INDEX node_path ON node (run_no, path);

-- One row per journal entry about task runs, in columns: entry k is about item indices[k].
CREATE TABLE journal (
    run_no       BIGINT NOT NULL,
    node_id      BIGINT NOT NULL,
    seq          BIGINT NOT NULL,
    kind         BIGINT NOT NULL,          -- 0 Moved, 1 AttemptsEnded, 2 StartRepeated
    first_index  BIGINT NOT NULL,
    last_index   BIGINT NOT NULL,
    at           DOUBLE PRECISION NOT NULL,
    state        BIGINT,                   -- Moved: the state of all of them
    indices      BYTEA NOT NULL,
    states       BYTEA,                      -- AttemptsEnded: one byte each, as the columns that follow
    outcomes     BYTEA,
    attempts     BYTEA,
    positions    BYTEA,
    started      BYTEA,
    seconds      BYTEA,
    details      TEXT,                      -- {k: error_no}
    names        TEXT,                      -- {k: task run name}
    batch_id     BIGINT,
    execution_id TEXT,
    worker       TEXT,
    stored_url   TEXT,
    stored_digest TEXT,
    reason       TEXT,
    name         TEXT,
    submitted_at DOUBLE PRECISION,          -- AttemptsEnded: of the batch
    cpu_seconds  DOUBLE PRECISION,          -- AttemptsEnded: of the batch
    PRIMARY KEY (run_no, node_id, seq)
);

-- Each distinct error once per node; node_id -1: of the flow itself.
CREATE TABLE error (
    error_no      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_no        BIGINT NOT NULL,
    node_id       BIGINT NOT NULL,
    digest        BYTEA NOT NULL,
    ended         BIGINT NOT NULL DEFAULT 0,   -- task runs that ended by it
    type_name     TEXT NOT NULL,
    message       TEXT NOT NULL,
    traceback     TEXT NOT NULL,
    exception     BYTEA,
    after_seconds DOUBLE PRECISION,
    retriable     BOOLEAN NOT NULL,
    abandoned     BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX error_digest ON error (run_no, node_id, digest);

CREATE TABLE run_history (
    run_no  BIGINT NOT NULL,
    seq     BIGINT NOT NULL,
    state   BIGINT NOT NULL,
    name    TEXT NOT NULL,
    at      DOUBLE PRECISION NOT NULL,
    epoch   BIGINT NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (run_no, seq)
);

CREATE TABLE log (
    run_no     BIGINT NOT NULL,
    seq        BIGINT NOT NULL,
    node_id    BIGINT NOT NULL,
    item_index BIGINT NOT NULL,
    attempt    BIGINT NOT NULL,
    at         DOUBLE PRECISION NOT NULL,
    level      BIGINT NOT NULL,
    logger     TEXT NOT NULL,
    message    TEXT NOT NULL,
    PRIMARY KEY (run_no, seq)
);

CREATE TABLE limit_ (
    name       TEXT PRIMARY KEY,
    slots      BIGINT NOT NULL,
    per_second DOUBLE PRECISION,
    tokens     DOUBLE PRECISION NOT NULL,
    at         DOUBLE PRECISION NOT NULL
);

-- Leases that are held, and places in the queue. Counted, never incremented.
CREATE TABLE lease (
    name    TEXT NOT NULL,
    ticket  BIGINT NOT NULL,
    holder  TEXT NOT NULL,
    run_id  TEXT NOT NULL,
    label   TEXT NOT NULL,
    slots   BIGINT NOT NULL,
    since   DOUBLE PRECISION NOT NULL,
    expires DOUBLE PRECISION NOT NULL,
    held    BOOLEAN NOT NULL,
    tie     BIGINT NOT NULL,                -- see limits.Tie
    PRIMARY KEY (name, ticket, holder)
);
CREATE INDEX lease_holder ON lease (holder);
CREATE INDEX lease_run ON lease (run_id);

-- Whoever waits for a lease is told when one may be had. Always: a waiter whose row is not committed yet cannot be
-- seen from here. Of equal notifications in one transaction the server sends one.
CREATE FUNCTION tell_leases() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('millrace', '');
    RETURN NULL;
END
$$;
CREATE TRIGGER lease_gone AFTER DELETE ON lease FOR EACH ROW EXECUTE FUNCTION tell_leases();
CREATE TRIGGER limit_changed AFTER UPDATE OF slots, per_second ON limit_ FOR EACH ROW EXECUTE FUNCTION tell_leases();
CREATE TRIGGER limit_gone AFTER DELETE ON limit_ FOR EACH ROW EXECUTE FUNCTION tell_leases();

-- A run hears of what is asked of it, and that it was taken over.
CREATE FUNCTION tell_run() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('millrace', NEW.run_id);
    RETURN NULL;
END
$$;
CREATE TRIGGER run_asked AFTER UPDATE OF cancel_requested, pause_requested, epoch ON run
    FOR EACH ROW EXECUTE FUNCTION tell_run();

-- Who writes, and the number of its newest transaction: after a connection was lost in COMMIT this tells whether the
-- transaction is there.
CREATE TABLE writer (
    writer_id TEXT PRIMARY KEY,
    number    BIGINT NOT NULL,
    at        DOUBLE PRECISION NOT NULL
) WITH (fillfactor = 50);
