-- Always nine digits of the second, so that text is in the order of time.
UPDATE event SET time =
    substr(time, 1, 19) || '.' || substr(replace(substr(time, 21), 'Z', '') || '000000000', 1, 9) || 'Z';

-- The node that an object belongs to: its own name, its VM's, or what is in the name of its disk, which is 32 digits of
-- the cluster's id, the node's name and the suffix.
ALTER TABLE event ADD COLUMN node TEXT AS (
    CASE
        WHEN substr(object, 1, 5) = 'node ' THEN substr(object, 6)
        WHEN substr(object, 1, 7) = 'domain ' THEN substr(object, 8)
        WHEN substr(object, 1, 7) = 'volume ' AND substr(object, 40, 1) = '-' AND substr(object, -6) = '.qcow2'
            THEN substr(object, 41, length(object) - 46)
    END
);

CREATE INDEX event_of_node ON event (node) WHERE node IS NOT NULL;
CREATE INDEX event_of_type ON event (type);

-- What was told once and is told again by whoever has not heard that: the last of each source.
CREATE TABLE told (
    source TEXT NOT NULL,
    mark   TEXT NOT NULL,
    UNIQUE (source, mark)
) STRICT;
