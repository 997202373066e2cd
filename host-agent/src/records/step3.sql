-- The plugins that were agreed to with the spec, as JSON: package, permissions, node requirements of each.
ALTER TABLE cluster ADD COLUMN plugins TEXT NOT NULL DEFAULT '[]';
-- The plugin whose pod network the node's pods are on; empty: the built-in one.
ALTER TABLE node ADD COLUMN pod_network TEXT NOT NULL DEFAULT '';
