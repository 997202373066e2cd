-- Who asked for it: 'command' or 'spec'. What is applied (revision; 0: nothing yet), what was to be applied last (target),
-- by which operation.
ALTER TABLE plugin_install ADD COLUMN origin TEXT NOT NULL DEFAULT 'command';
ALTER TABLE plugin_install ADD COLUMN package_sha256 TEXT NOT NULL DEFAULT '';
ALTER TABLE plugin_install ADD COLUMN config_version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE plugin_install ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plugin_install ADD COLUMN target INTEGER NOT NULL DEFAULT 0;
-- 'install', 'upgrade', 'configure', 'rollback', 'remove'; NULL: none runs.
ALTER TABLE plugin_install ADD COLUMN operation TEXT;
-- What asked for it, so that a failure counts once: an operation's id, or 'command UUID'.
ALTER TABLE plugin_install ADD COLUMN attempt TEXT NOT NULL DEFAULT '';
ALTER TABLE plugin_install ADD COLUMN deadline_ms INTEGER;
ALTER TABLE plugin_install ADD COLUMN purge INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plugin_install ADD COLUMN adopt INTEGER NOT NULL DEFAULT 0;
-- Consent to delete many objects at once.
ALTER TABLE plugin_install ADD COLUMN prune_many INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plugin_install ADD COLUMN outputs_json TEXT NOT NULL DEFAULT '{}';
-- Failure as JSON; NULL: the last operation did not fail.
ALTER TABLE plugin_install ADD COLUMN failure_json TEXT;

ALTER TABLE plugin_object ADD COLUMN applied_sha256 TEXT NOT NULL DEFAULT '';
-- resourceVersion that was seen last with nothing of ours changed.
ALTER TABLE plugin_object ADD COLUMN seen_version TEXT NOT NULL DEFAULT '';
-- metadata.generation that our last write returned.
ALTER TABLE plugin_object ADD COLUMN generation INTEGER;
ALTER TABLE plugin_object ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE plugin_object ADD COLUMN keep INTEGER NOT NULL DEFAULT 0;

CREATE TABLE plugin_revision (
    cluster_id     TEXT NOT NULL,
    plugin         TEXT NOT NULL,
    revision       INTEGER NOT NULL,
    version        TEXT NOT NULL,
    package_sha256 TEXT NOT NULL,
    config_version INTEGER NOT NULL,
    config_json    TEXT NOT NULL,
    -- Of what the plugin said, manifests by their digests.
    plan_sha256    TEXT NOT NULL,
    -- Of config, facts, dependencies and names of secrets: what was asked. The same again needs no process.
    ask_sha256     TEXT NOT NULL,
    -- CheckedPlan as JSON, zstd; secrets by handle only.
    plan           BLOB NOT NULL,
    -- Node requirements of the plan as JSON, read more often than the plan.
    node_json      TEXT NOT NULL DEFAULT '[]',
    created_ms     INTEGER NOT NULL,
    applied_ms     INTEGER,
    PRIMARY KEY (cluster_id, plugin, revision)
) STRICT;

CREATE TABLE plugin_approval (
    cluster_id  TEXT NOT NULL,
    plugin      TEXT NOT NULL,
    lines_json  TEXT NOT NULL,
    approved_by INTEGER NOT NULL,
    approved_ms INTEGER NOT NULL,
    PRIMARY KEY (cluster_id, plugin)
) STRICT;

CREATE TABLE plugin_crash (
    package_sha256 TEXT NOT NULL,
    at_ms          INTEGER NOT NULL,
    what           TEXT NOT NULL
) STRICT;
CREATE INDEX plugin_crash_of ON plugin_crash (package_sha256, at_ms);

CREATE TABLE plugin_quarantine (
    package_sha256 TEXT PRIMARY KEY,
    plugin         TEXT NOT NULL,
    reason         TEXT NOT NULL,
    since_ms       INTEGER NOT NULL
) STRICT;

-- The last 20 of each plugin.
CREATE TABLE plugin_run (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin         TEXT NOT NULL,
    cluster_id     TEXT NOT NULL,
    package_sha256 TEXT NOT NULL,
    purpose        TEXT NOT NULL,
    at_ms          INTEGER NOT NULL,
    took_ms        INTEGER NOT NULL,
    outcome        TEXT NOT NULL,
    stderr         TEXT NOT NULL
) STRICT;

-- Corrections of drift, for those who fight over a field; older than ten minutes are forgotten.
CREATE TABLE plugin_drift (
    cluster_id TEXT NOT NULL,
    plugin     TEXT NOT NULL,
    api_group  TEXT NOT NULL,
    kind       TEXT NOT NULL,
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    manager    TEXT NOT NULL,
    at_ms      INTEGER NOT NULL
) STRICT;
