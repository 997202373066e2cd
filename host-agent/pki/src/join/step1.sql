-- The newest join token of each node. The secret itself is never stored.
CREATE TABLE join_token (
    node_id      TEXT PRIMARY KEY,
    cluster_id   TEXT NOT NULL,
    machine_uuid TEXT NOT NULL,
    secret_hash  BLOB NOT NULL,
    expires      INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('unused', 'burned', 'closed')),
    -- Set when burned: which request, and what its one certificate says.
    csr_hash     BLOB,
    serial       BLOB,
    issued       INTEGER,
    certificate  BLOB
) STRICT;

-- The certificates that a node may show: the one in use, and its successor until it is first used.
CREATE TABLE node_serial (
    node_id TEXT PRIMARY KEY,
    current TEXT,
    next    TEXT
) STRICT;

-- Removed nodes. Their certificates are refused for ever.
CREATE TABLE revoked_node (
    node_id TEXT PRIMARY KEY,
    since   INTEGER NOT NULL
) STRICT;
