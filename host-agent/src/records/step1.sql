CREATE TABLE cluster (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL CHECK (state IN ('present', 'removing')),
    generation INTEGER NOT NULL,
    spec       TEXT NOT NULL,
    image_id   TEXT NOT NULL,
    kubernetes TEXT NOT NULL,
    trial      INTEGER NOT NULL,
    node_port  INTEGER,
    created    TEXT NOT NULL
) STRICT;

CREATE TABLE node (
    id           TEXT PRIMARY KEY,
    cluster_id   TEXT NOT NULL REFERENCES cluster (id) ON DELETE CASCADE,
    name         TEXT NOT NULL,
    spec         TEXT NOT NULL,
    machine_uuid TEXT NOT NULL,
    pod_index    INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('present', 'draining', 'removing')),
    UNIQUE (cluster_id, name),
    UNIQUE (cluster_id, pod_index)
) STRICT;

CREATE TABLE operation (
    id         TEXT PRIMARY KEY,
    cluster_id TEXT NOT NULL,
    cluster    TEXT NOT NULL,
    kind       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    state      TEXT NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    started    TEXT NOT NULL,
    deadline   TEXT NOT NULL,
    finished   TEXT,
    failure    TEXT
) STRICT;

-- At most one operation of a cluster runs at a time.
CREATE UNIQUE INDEX operation_running ON operation (cluster_id) WHERE state = 'running';

-- What is changed in networks that are not ours; one record for the whole host.
CREATE TABLE adoption (
    one    INTEGER PRIMARY KEY CHECK (one = 1),
    record TEXT NOT NULL
) STRICT;
