//! Typed reading of TOML tables with positions: unknown keys, missing keys, wrong types.

use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue};

use super::keys::{self, HIGH_AVAILABILITY, MULTI_HOST};
use super::report::{Located, Place, Report};
use super::values::{Faults, quoted};

/// The tables of a key that may stand many times, as far as they could be read.
pub(super) struct Tables<'a> {
    pub(super) tables: Vec<Table<'a>>,
    /// Whether something of it could not be read, which has been reported.
    pub(super) partly: bool,
}

/// One table of the file, with its keys checked against the key table.
pub(super) struct Table<'a> {
    section: &'static str,
    table: Option<&'a DeTable<'a>>,
    /// Whether a key that it lacks is left out; else it may stand where it could not be read.
    has_defaults: bool,
    /// Whether a misspelt key is read as the one that is probably meant.
    guesses: bool,
    /// Where the table begins.
    pub(super) at: Place,
}

impl<'a> Table<'a> {
    /// The table under this path; reports keys that it may not have.
    pub(super) fn new(
        section: &'static str,
        table: &'a DeTable<'a>,
        at: Place,
        report: &mut Report<'_>,
    ) -> Self {
        let this = Self { guesses: true, ..Self::unchecked(section, table, at) };
        for key in table.keys() {
            this.check_key(key, report);
        }
        this
    }

    /// The same, whatever keys it has: none is taken for another.
    pub(super) fn unchecked(section: &'static str, table: &'a DeTable<'a>, at: Place) -> Self {
        Self { section, table: Some(table), has_defaults: true, guesses: false, at }
    }

    /// A table that cannot be read, or that the file does not have: everything in it is a default then.
    fn without(section: &'static str, has_defaults: bool) -> Self {
        Self { section, table: None, has_defaults, guesses: false, at: Place::file(section) }
    }

    /// What stands under unknown keys that are probably this one, by the key as it is written.
    fn misspelt<'k>(
        &self,
        key: &'k str,
        report: &Report<'_>,
    ) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'a>>)> + use<'a, 'k> {
        // What was meant costs a look at every key.
        let table = self.table.filter(|_| self.guesses && !report.is_full());
        let section = self.section;
        let entries = table.into_iter().flatten().map(|(name, value)| (name.get_ref().as_ref(), value));
        entries.filter(move |(name, _)| {
            let is_known = keys::keys_of(section).any(|known| known.name == *name);
            let is_refused = MULTI_HOST.contains(name) || HIGH_AVAILABILITY.contains(name);
            !is_known && !is_refused && keys::did_you_mean(section, name) == Some(key)
        })
    }

    fn check_key(&self, key: &Spanned<DeString<'_>>, report: &mut Report<'_>) {
        let name = key.get_ref().as_ref();
        if report.is_again() || keys::keys_of(self.section).any(|known| known.name == name) {
            return;
        }
        let at = Place { field: self.path(name), offset: Some(key.span().start) };
        if report.is_full() {
            // What was meant costs a look at every key, and nobody reads it.
            report.error("SPEC-UNKNOWN-KEY", &at, "", "");
        } else if MULTI_HOST.contains(&name) {
            report.error(
                "SPEC-MULTI-HOST-UNSUPPORTED",
                &at,
                format!("{} is a key of clusters over several hosts, which are not supported", quoted(name)),
                "remove it: all nodes run on the host of the host agent",
            );
        } else if HIGH_AVAILABILITY.contains(&name) {
            report.error(
                "SPEC-HA-UNSUPPORTED",
                &at,
                format!("{} is a key of highly available control planes, not supported yet", quoted(name)),
                "remove it and keep one control plane",
            );
        } else {
            let hint = match (keys::did_you_mean(self.section, name), keys::elsewhere(name)) {
                (Some(meant), _) => match keys::shape(meant).filter(|_| self.section.is_empty()) {
                    Some(shape) => format!("did you mean {}?", shape.header(meant)),
                    None => format!("did you mean {meant:?}?"),
                },
                (None, Some(path)) => format!("this key exists as {path}"),
                (None, None) => {
                    let known: Vec<_> = keys::keys_of(self.section).map(|key| key.name).collect();
                    format!("known here: {}", known.join(", "))
                }
            };
            report.error("SPEC-UNKNOWN-KEY", &at, format!("unknown key {}", quoted(name)), hint);
        }
    }

    /// The key path of one of its keys, `node[1].ip`.
    pub(super) fn path(&self, key: &str) -> String {
        self.at.path(key)
    }

    /// The value of a key; reports a required key that is missing.
    pub(super) fn get(&self, key: &str, report: &mut Report<'_>) -> Option<(Place, &'a DeValue<'a>)> {
        if let Some(value) = self.table.and_then(|table| table.get(key)) {
            let at = Place { field: self.path(key), offset: Some(value.span().start) };
            return Some((at, value.get_ref()));
        }
        let is_required = keys::keys_of(self.section).any(|known| known.name == key && known.required());
        if is_required && self.lacks(key, report) && !report.is_again() {
            let at = Place { field: self.path(key), offset: self.at.offset };
            report.error(
                "SPEC-MISSING",
                &at,
                format!("{key} is missing"),
                format!("write {key} = {}", example(key)),
            );
        }
        None
    }

    /// Whether a key that is not there is left out; else it may stand where nothing could be read.
    fn lacks(&self, key: &str, report: &Report<'_>) -> bool {
        self.has_defaults && !report.may_hold(&self.at, key) && self.misspelt(key, report).next().is_none()
    }

    /// A string that a parser turns into a value. `None`: left out, or reported.
    pub(super) fn parse<T>(
        &self,
        key: &str,
        parser: impl FnOnce(&str, &mut Faults) -> Option<T>,
        report: &mut Report<'_>,
    ) -> Option<Located<T>> {
        if let Some((at, value)) = self.near(key, report) {
            return value.as_str().and_then(|text| parse_at(text, at, parser, report));
        }
        let (at, value) = self.get(key, report)?;
        let Some(text) = value.as_str() else {
            wrong_type(&at, value, "a string", example(key), report);
            return None;
        };
        parse_at(text, at, parser, report)
    }

    /// What stands under a key that is probably this one, which is not there itself.
    fn near(&self, key: &str, report: &Report<'_>) -> Option<(Place, &'a DeValue<'a>)> {
        let (name, value) = (!self.has(key)).then(|| self.misspelt(key, report).next())??;
        Some((Place { field: self.path(name), offset: Some(value.span().start) }, value.get_ref()))
    }

    /// The same with a default for a key that is left out; a value that was refused stays `None`.
    pub(super) fn parse_or<T>(
        &self,
        key: &str,
        default: Option<T>,
        parser: impl FnOnce(&str, &mut Faults) -> Option<T>,
        report: &mut Report<'_>,
    ) -> Option<Located<T>> {
        let parsed = self.parse(key, parser, report);
        if parsed.is_some() || self.has(key) { parsed } else { self.default(key, default?, report) }
    }

    /// A whole number. `None`: left out, or reported.
    pub(super) fn integer(&self, key: &str, report: &mut Report<'_>) -> Option<Located<i64>> {
        let near = self.near(key, report);
        let is_near = near.is_some();
        let (at, value) = near.or_else(|| self.get(key, report))?;
        let number = value
            .as_integer()
            .map(|integer| i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(i64::MAX));
        if number.is_none() && !is_near {
            wrong_type(&at, value, "a whole number", example(key), report);
        }
        number.map(|value| Located { value, at, written: true })
    }

    /// The same with a default for a key that is left out.
    pub(super) fn integer_or(
        &self,
        key: &str,
        default: Option<i64>,
        report: &mut Report<'_>,
    ) -> Option<Located<i64>> {
        let number = self.integer(key, report);
        if number.is_some() || self.has(key) { number } else { self.default(key, default?, report) }
    }

    /// A default in the place of a key that is left out.
    fn default<T>(&self, key: &str, value: T, report: &Report<'_>) -> Option<Located<T>> {
        let at = Place { field: self.path(key), offset: self.at.offset };
        self.lacks(key, report).then_some(Located { value, at, written: false })
    }

    /// Whether the key is there, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The tables of a key that may stand many times, `[[node]]`; of more than `most` the first ones. What stands
    /// below `[[nodes]]` is read, too, so that the mistakes in there are told.
    pub(super) fn tables(&self, key: &'static str, most: usize, report: &mut Report<'_>) -> Tables<'a> {
        let mut found = Tables { tables: Vec::new(), partly: false };
        match self.get(key, report) {
            Some((at, DeValue::Array(items))) => found.read(key, &at.field, items, most, report),
            Some((at, value)) => {
                wrong_type(&at, value, "an array of tables", format!("[[{key}]]"), report);
                match value {
                    DeValue::Table(table) => found.tables.push(Table::new(key, table, at, report)),
                    _ => found.partly = true,
                }
            }
            None => {}
        }
        let misspelt: Vec<_> = self.misspelt(key, report).collect();
        for (name, value) in misspelt {
            match value.get_ref() {
                DeValue::Array(items) => found.read(key, &self.path(name), items, most, report),
                _ => found.partly = true,
            }
        }
        found
    }

    /// Where the table behind the first `most` of a key begins, where there is one.
    pub(super) fn table_behind(&self, key: &str, most: usize) -> Option<Place> {
        let DeValue::Array(items) = self.table?.get(key)?.get_ref() else { return None };
        let offset = items.get(most)?.span().start;
        Some(Place { field: format!("{}[{most}]", self.path(key)), offset: Some(offset) })
    }

    /// The one table of a key, `[network]`; absent when the file has none.
    pub(super) fn table(&self, key: &'static str, report: &mut Report<'_>) -> Table<'a> {
        match self.get(key, report) {
            Some((at, DeValue::Table(table))) => Table::new(key, table, at, report),
            Some((at, other)) => {
                wrong_type(&at, other, "a table", format!("[{key}]"), report);
                Table::without(key, false)
            }
            None => match self.near(key, report) {
                Some((at, DeValue::Table(table))) => Table::new(key, table, at, report),
                Some(_) => Table::without(key, false),
                None => Table::without(key, !report.is_incomplete() && !report.may_hold(&self.at, key)),
            },
        }
    }
}

impl<'a> Tables<'a> {
    /// Adds the tables of an array, up to `most` in all.
    fn read(
        &mut self,
        key: &'static str,
        field: &str,
        items: &'a DeArray<'a>,
        most: usize,
        report: &mut Report<'_>,
    ) {
        let room = most.saturating_sub(self.tables.len());
        for (index, item) in items.iter().take(room).enumerate() {
            let at = Place { field: format!("{field}[{index}]"), offset: Some(item.span().start) };
            match item.get_ref() {
                DeValue::Table(table) => self.tables.push(Table::new(key, table, at, report)),
                other => {
                    wrong_type(&at, other, "a table", format!("[[{key}]]"), report);
                    self.partly = true;
                }
            }
        }
    }
}

/// Runs a parser on text at a place and reports its faults there.
pub(super) fn parse_at<T>(
    text: &str,
    at: Place,
    parser: impl FnOnce(&str, &mut Faults) -> Option<T>,
    report: &mut Report<'_>,
) -> Option<Located<T>> {
    let mut faults = Faults::default();
    let value = parser(text, &mut faults);
    for fault in faults.into_inner() {
        report.push(fault.id, &at, fault.message, fault.hint, fault.warning);
    }
    value.map(|value| Located { value, at, written: true })
}

/// Reports a value of the wrong type.
pub(super) fn wrong_type(
    at: &Place,
    got: &DeValue<'_>,
    expected: &str,
    example: impl AsRef<str>,
    report: &mut Report<'_>,
) {
    let got = match got {
        DeValue::String(text) => format!("the string {}", quoted(text)),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the number {}", number.as_str()),
        DeValue::Boolean(value) => format!("the boolean {value}"),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    };
    let hint = format!("write it like {}", example.as_ref());
    report.error("SPEC-TYPE", at, format!("got {got}, expected {expected}"), hint);
}

/// A key as it stands in a key path.
pub(super) fn bare_or_quoted(key: &str) -> String {
    // A path is made for each value below it: a long key must not be copied so often.
    const LONGEST: usize = 64;
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=LONGEST).contains(&key.len()) && key.chars().all(bare) { key.to_owned() } else { quoted(key) }
}

/// A value as one writes it for this key.
pub(super) fn example(key: &str) -> &'static str {
    match key {
        "kubernetes" => "\"v1.29.0\"",
        "cidr" => "\"192.168.122.0/24\"",
        "pods" => "\"10.244.0.0/16\"",
        "services" => "\"10.96.0.0/12\"",
        "load_balancer" | "dhcp" => "\"192.168.122.100-192.168.122.150\"",
        "role" => "\"worker\"",
        "vcpus" | "count" => "2",
        "memory" => "\"4GiB\"",
        "disk" => "\"30GiB\"",
        "ip" | "first_ip" => "\"192.168.122.11\"",
        "mac" => "\"52:54:00:12:34:56\"",
        "labels" => "{ zone = \"a\" }",
        "taints" => "[\"key=value:NoSchedule\"]",
        "suite" => "\"bookworm\"",
        _ => "\"home\"",
    }
}
