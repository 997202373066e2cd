CREATE TABLE event (
    number  INTEGER PRIMARY KEY AUTOINCREMENT,
    time    TEXT NOT NULL,
    cluster TEXT NOT NULL,
    object  TEXT NOT NULL,
    type    TEXT NOT NULL,
    message TEXT NOT NULL,
    warning INTEGER NOT NULL
) STRICT
