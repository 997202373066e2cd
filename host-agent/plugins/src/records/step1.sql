
        CREATE TABLE plugin_install (
            cluster_id    TEXT NOT NULL,
            plugin        TEXT NOT NULL,
            version       TEXT NOT NULL,
            binary_sha256 TEXT NOT NULL,
            config_json   TEXT NOT NULL,
            state         TEXT NOT NULL,
            message       TEXT NOT NULL,
            installed_ms  INTEGER,
            PRIMARY KEY (cluster_id, plugin)
        ) STRICT;
        CREATE TABLE plugin_object (
            cluster_id TEXT NOT NULL,
            plugin     TEXT NOT NULL,
            api_group  TEXT NOT NULL,
            version    TEXT NOT NULL,
            kind       TEXT NOT NULL,
            namespace  TEXT NOT NULL,
            name       TEXT NOT NULL,
            position   INTEGER NOT NULL,
            uid        TEXT,
            PRIMARY KEY (cluster_id, plugin, api_group, kind, namespace, name)
        ) STRICT;
