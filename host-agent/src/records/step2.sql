-- What a person agreed to lose when the operation began, as JSON: action, kind and name of each object. NULL for one
-- that began before this was kept.
ALTER TABLE operation ADD COLUMN agreed TEXT;
