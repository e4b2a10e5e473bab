-- Times are REAL, seconds since the epoch. Columns packed by stores/columns.py are BLOB. Lists and maps are JSON.

CREATE TABLE schema_version (
    version    INTEGER PRIMARY KEY,
    applied_at TEXT NOT NULL
);

CREATE TABLE run (
    run_no             INTEGER PRIMARY KEY,
    run_id             TEXT NOT NULL UNIQUE,
    name               TEXT NOT NULL,
    flow_name          TEXT NOT NULL,
    state              INTEGER NOT NULL,
    state_name         TEXT NOT NULL,
    message            TEXT NOT NULL,
    created            REAL NOT NULL,
    started            REAL,
    ended              REAL,
    heartbeat          REAL,                -- NULL once it has ended
    runner             TEXT NOT NULL,
    entrypoint         TEXT NOT NULL,
    version            TEXT NOT NULL,
    tags               TEXT NOT NULL,
    parameters         TEXT NOT NULL,
    parameters_pickle  BLOB,
    parent_run_id      TEXT,
    parent_task_run_id TEXT,
    host               TEXT NOT NULL,
    pid                INTEGER NOT NULL,
    process            TEXT NOT NULL,       -- which process the pid is, see stores/liveness.py
    epoch              INTEGER NOT NULL,
    counts             TEXT NOT NULL,       -- task runs by state: the sum over nodes that are not replaced
    error_no           INTEGER,
    next_seq           INTEGER NOT NULL DEFAULT 1,
    next_batch         INTEGER NOT NULL DEFAULT 0,
    cancel_requested   INTEGER NOT NULL DEFAULT 0,
    pause_requested    INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX run_created ON run (created);
CREATE INDEX run_name ON run (name);
CREATE INDEX run_parent ON run (parent_run_id) WHERE parent_run_id IS NOT NULL;
CREATE INDEX run_live ON run (state) WHERE state < 5;

CREATE TABLE node (
    run_no       INTEGER NOT NULL,
    node_id      INTEGER NOT NULL,
    path         TEXT NOT NULL,
    task_name    TEXT NOT NULL,
    kind         TEXT NOT NULL,
    width        INTEGER,
    created      REAL NOT NULL,
    tags         TEXT NOT NULL,
    upstream     TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    policy       TEXT NOT NULL,
    parent_node  INTEGER,
    parent_index INTEGER,
    counts       TEXT NOT NULL,
    started      REAL,
    ended        REAL,
    replaced_by  INTEGER,                   -- the node of the same path that a later process has added
    PRIMARY KEY (run_no, node_id)
) WITHOUT ROWID;
CREATE INDEX node_path ON node (run_no, path);

-- One row per journal entry about task runs, in columns: entry k is about item indices[k].
CREATE TABLE journal (
    run_no       INTEGER NOT NULL,
    node_id      INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    kind         INTEGER NOT NULL,          -- 0 Moved, 1 AttemptsEnded, 2 StartRepeated
    first_index  INTEGER NOT NULL,
    last_index   INTEGER NOT NULL,
    at           REAL NOT NULL,
    state        INTEGER,                   -- Moved: the state of all of them
    indices      BLOB NOT NULL,
    states       BLOB,                      -- AttemptsEnded: one byte each, as the columns that follow
    outcomes     BLOB,
    attempts     BLOB,
    positions    BLOB,
    started      BLOB,
    seconds      BLOB,
    details      TEXT,                      -- {k: error_no}
    names        TEXT,                      -- {k: task run name}
    batch_id     INTEGER,
    execution_id TEXT,
    worker       TEXT,
    stored_url   TEXT,
    stored_digest TEXT,
    reason       TEXT,
    name         TEXT,
    PRIMARY KEY (run_no, node_id, seq)
) WITHOUT ROWID;

-- Each distinct error once per node; node_id -1: of the flow itself.
CREATE TABLE error (
    error_no      INTEGER PRIMARY KEY,
    run_no        INTEGER NOT NULL,
    node_id       INTEGER NOT NULL,
    digest        BLOB NOT NULL,
    ended         INTEGER NOT NULL DEFAULT 0,   -- task runs that ended by it
    type_name     TEXT NOT NULL,
    message       TEXT NOT NULL,
    traceback     TEXT NOT NULL,
    exception     BLOB,
    after_seconds REAL,
    retriable     INTEGER NOT NULL,
    abandoned     INTEGER NOT NULL
);
CREATE UNIQUE INDEX error_digest ON error (run_no, node_id, digest);

CREATE TABLE run_history (
    run_no  INTEGER NOT NULL,
    seq     INTEGER NOT NULL,
    state   INTEGER NOT NULL,
    name    TEXT NOT NULL,
    at      REAL NOT NULL,
    epoch   INTEGER NOT NULL,
    message TEXT NOT NULL,
    PRIMARY KEY (run_no, seq)
) WITHOUT ROWID;

CREATE TABLE log (
    run_no     INTEGER NOT NULL,
    seq        INTEGER NOT NULL,
    node_id    INTEGER NOT NULL,
    item_index INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    at         REAL NOT NULL,
    level      INTEGER NOT NULL,
    logger     TEXT NOT NULL,
    message    TEXT NOT NULL,
    PRIMARY KEY (run_no, seq)
) WITHOUT ROWID;

CREATE TABLE limit_ (
    name       TEXT PRIMARY KEY,
    slots      INTEGER NOT NULL,
    per_second REAL,
    tokens     REAL NOT NULL,
    at         REAL NOT NULL
) WITHOUT ROWID;

-- Leases that are held, and places in the queue. Counted, never incremented.
CREATE TABLE lease (
    name    TEXT NOT NULL,
    ticket  INTEGER NOT NULL,
    holder  TEXT NOT NULL,
    run_id  TEXT NOT NULL,
    label   TEXT NOT NULL,
    slots   INTEGER NOT NULL,
    since   REAL NOT NULL,
    expires REAL NOT NULL,
    held    INTEGER NOT NULL,
    PRIMARY KEY (name, ticket, holder)
) WITHOUT ROWID;
CREATE INDEX lease_holder ON lease (holder);
CREATE INDEX lease_run ON lease (run_id);
