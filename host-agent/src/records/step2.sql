-- What a person agreed to lose when the operation began, as JSON: kind and name of each object.
ALTER TABLE operation ADD COLUMN agreed TEXT NOT NULL DEFAULT '[]';
