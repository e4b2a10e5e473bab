-- Who may use a server. Of a token's secret only the SHA-256 is kept.

CREATE TABLE token (
    token_id  TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    role      BIGINT NOT NULL,
    digest    TEXT NOT NULL,
    created   DOUBLE PRECISION NOT NULL,
    expires   DOUBLE PRECISION,
    last_used DOUBLE PRECISION
);
