-- Who may use a server. Of a token's secret only the SHA-256 is kept.

CREATE TABLE token (
    token_id  TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    role      INTEGER NOT NULL,
    digest    TEXT NOT NULL,
    created   REAL NOT NULL,
    expires   REAL,
    last_used REAL
) WITHOUT ROWID;
