//! The catalog: which tables there are at one timestamp.
//!
//! A [`Table`] is its [`Descriptor`], as stored, plus what is derived from it and its ancestors.
//! Names are case-insensitive and printed as they were declared; ids are never used twice.
//! Creating tables and the rules they must obey are in [`create`], their rows in [`store`], what
//! the rows say of the time to come in [`timeline`].

pub mod create;
pub mod store;
pub mod timeline;

use crate::error::{ErrorKind, Result, SqlError, nearest};
use crate::keys::{KeyLayout, Level};
use crate::row::{self, Cells};
use crate::value::{Row, Type, Value};
use proto::{Key, KeyRange};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use truetime::Timestamp;

/// A column as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Unique in the table, never used twice.
    pub id: u32,
    /// As declared.
    pub name: String,
    /// Its type.
    pub data_type: Type,
    /// Whether NULL is refused.
    pub not_null: bool,
}

/// One part of a primary key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPart {
    /// The place of the column in [`Descriptor::columns`].
    pub column: usize,
    /// Whether the order is descending.
    pub desc: bool,
}

/// What becomes of a row when its parent row is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDelete {
    /// It is deleted too.
    Cascade,
    /// The deletion is refused.
    NoAction,
}

/// `INTERLEAVE IN PARENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interleave {
    /// The parent table's id.
    pub parent: u32,
    /// What a parent row's deletion does.
    pub on_delete: OnDelete,
}

/// Where a table stands in its life. The timestamp is that of the descriptor's row or a later one,
/// so that a change can be known to everybody before it counts (S1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TableState {
    /// In use by whatever has this timestamp or a later one.
    Live {
        /// [`Timestamp::MIN`]: since this descriptor was written.
        from: Timestamp,
    },
    /// In use by whatever has an earlier timestamp than this; nothing later sees it, and then its
    /// rows are deleted.
    Dropping {
        /// [`Timestamp::MIN`]: until this descriptor was written.
        until: Timestamp,
    },
}

impl TableState {
    /// Whether the table is there at a timestamp, which is not below that of the descriptor's row.
    pub fn counts_at(self, at: Timestamp) -> bool {
        match self {
            TableState::Live { from } => at >= from,
            TableState::Dropping { until } => at < until,
        }
    }

    /// When that changes.
    fn turn(self) -> Timestamp {
        match self {
            TableState::Live { from } => from,
            TableState::Dropping { until } => until,
        }
    }
}

/// A table as the catalog stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// Never used twice; the first is 1.
    pub id: u32,
    /// As declared.
    pub name: String,
    /// In declared order.
    pub columns: Vec<Column>,
    /// In key order; the parent's parts come first.
    pub key: Vec<KeyPart>,
    /// `None`: a root table.
    pub interleave: Option<Interleave>,
    /// When it is in use.
    pub state: TableState,
}

/// A table, ready for use.
#[derive(Debug)]
pub struct Table {
    descriptor: Descriptor,
    layout: KeyLayout,
    /// For each column: its place in the key.
    key_places: Vec<Option<usize>>,
    /// The columns outside the key, in ascending order of their ids.
    packed: Vec<usize>,
    /// The same names, lower case, with the columns' places.
    names: BTreeMap<String, usize>,
    /// How many ancestors there are.
    depth: usize,
}

impl Table {
    fn new(descriptor: Descriptor, ancestors: &[&Descriptor]) -> Table {
        let mut levels = Vec::new();
        let mut placed = 0;
        for level in ancestors.iter().copied().chain([&descriptor]) {
            let parts = level.key[placed..].iter().map(|part| part.desc).collect();
            placed = level.key.len();
            levels.push(Level { table: level.id, parts });
        }
        let mut key_places = vec![None; descriptor.columns.len()];
        for (place, part) in descriptor.key.iter().enumerate() {
            key_places[part.column] = Some(place);
        }
        let mut packed: Vec<usize> =
            (0..descriptor.columns.len()).filter(|column| key_places[*column].is_none()).collect();
        packed.sort_by_key(|column| descriptor.columns[*column].id);
        let names = descriptor.columns.iter().enumerate();
        let names = names.map(|(place, column)| (column.name.to_lowercase(), place)).collect();
        let depth = ancestors.len();
        Table { descriptor, layout: KeyLayout::new(levels), key_places, packed, names, depth }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.descriptor.id
    }

    /// Its name as declared.
    pub fn name(&self) -> &str {
        &self.descriptor.name
    }

    /// When it is in use.
    pub fn state(&self) -> TableState {
        self.descriptor.state
    }

    /// Its columns in declared order.
    pub fn columns(&self) -> &[Column] {
        &self.descriptor.columns
    }

    /// Its primary key in key order.
    pub fn key(&self) -> &[KeyPart] {
        &self.descriptor.key
    }

    /// Its parent, if it has one.
    pub fn interleave(&self) -> Option<Interleave> {
        self.descriptor.interleave
    }

    /// How its keys are built.
    pub fn layout(&self) -> &KeyLayout {
        &self.layout
    }

    /// For each column, its place in the primary key.
    pub fn key_places(&self) -> &[Option<usize>] {
        &self.key_places
    }

    /// The place of a column in [`columns`](Self::columns).
    ///
    /// # Errors
    /// `UnknownColumn`, with the nearest name as a hint.
    pub fn column(&self, name: &str) -> Result<usize> {
        if let Some(place) = self.names.get(name) {
            return Ok(*place);
        }
        self.names.get(&name.to_lowercase()).copied().ok_or_else(|| {
            let error = SqlError::new(
                ErrorKind::UnknownColumn,
                format!("table `{}` has no column `{name}`", self.name()),
            );
            match nearest(name, self.columns().iter().map(|column| &column.name[..])) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None => error,
            }
        })
    }

    /// All keys of the table lie in here, among those of its relatives.
    pub fn range(&self) -> KeyRange {
        KeyRange::prefix(&self.layout.encode_prefix(&[]))
    }

    /// The primary key of a row, in key order.
    pub fn key_values(&self, row: &[Value]) -> Row {
        self.descriptor.key.iter().map(|part| row[part.column].clone()).collect()
    }

    /// The key of a row.
    ///
    /// # Errors
    /// `Limit` when it is too long.
    pub fn encode_key(&self, row: &[Value]) -> Result<Key> {
        self.layout.encode(&self.key_values(row))
    }

    /// The packed columns of a row.
    ///
    /// # Errors
    /// `Limit` when a value is too large.
    pub fn encode_row(&self, row: &[Value]) -> Result<proto::Value> {
        let columns = self.packed.iter().map(|place| (self.columns()[*place].id, &row[*place]));
        row::encode(columns).map(proto::Value::from)
    }

    /// A whole row. `None`: the key belongs to another table.
    ///
    /// # Errors
    /// `Internal` when it is damaged.
    pub fn decode(&self, key: &[u8], value: &[u8]) -> Result<Option<Row>> {
        let Some(key) = self.layout.decode(key) else { return Ok(None) };
        let mut row = vec![Value::Null; self.columns().len()];
        for (part, value) in self.descriptor.key.iter().zip(key) {
            row[part.column] = value;
        }
        let mut packed = self.packed.iter().copied().peekable();
        for cell in Cells::new(value)? {
            let (id, cell) = cell?;
            while packed.next_if(|place| self.columns()[*place].id < id).is_some() {}
            if let Some(place) = packed.next_if(|place| self.columns()[*place].id == id) {
                row[place] = cell.to_value();
            }
        }
        Ok(Some(row))
    }

    /// Checks a row against the columns: types by the implicit rules, lengths, NOT NULL.
    ///
    /// # Errors
    /// `Type`, `OutOfRange`, `NotNull`; each names the column.
    pub fn check_row(&self, row: &mut Row) -> Result<()> {
        for (column, value) in self.columns().iter().zip(row) {
            self.check_value(column, value)?;
        }
        Ok(())
    }

    /// As [`check_row`](Self::check_row), for one column.
    ///
    /// # Errors
    /// `Type`, `OutOfRange`, `NotNull`.
    pub fn check_value(&self, column: &Column, value: &mut Value) -> Result<()> {
        if value.is_null() {
            if column.not_null {
                return Err(SqlError::new(
                    ErrorKind::NotNull,
                    format!("column `{}` of table `{}` is NOT NULL", column.name, self.name()),
                ));
            }
            return Ok(());
        }
        let taken = std::mem::replace(value, Value::Null);
        *value = taken.coerce(&column.data_type).map_err(|mut error| {
            error.message =
                format!("column `{}` of table `{}`: {}", column.name, self.name(), error.message);
            error
        })?;
        Ok(())
    }

    /// The key as a person reads it: `(UA, 1545)`.
    pub fn key_text(&self, key: &[Value]) -> String {
        let parts: Vec<String> = key.iter().map(Value::to_string).collect();
        format!("({})", parts.join(", "))
    }

    /// The statement that would create the table; `parent` is its parent's name.
    pub fn create_statement(&self, parent: Option<&str>) -> String {
        let mut text = format!("CREATE TABLE {} (\n", self.name());
        for column in self.columns() {
            let not_null = if column.not_null { " NOT NULL" } else { "" };
            text.push_str(&format!("  {} {}{not_null},\n", column.name, column.data_type));
        }
        let key: Vec<String> = self
            .key()
            .iter()
            .map(|part| {
                let desc = if part.desc { " DESC" } else { "" };
                format!("{}{desc}", self.columns()[part.column].name)
            })
            .collect();
        text.push_str(&format!(") PRIMARY KEY ({})", key.join(", ")));
        if let (Some(interleave), Some(parent)) = (self.interleave(), parent) {
            let action = match interleave.on_delete {
                OnDelete::Cascade => "CASCADE",
                OnDelete::NoAction => "NO ACTION",
            };
            text.push_str(&format!(",\n  INTERLEAVE IN PARENT {parent} ON DELETE {action}"));
        }
        text
    }
}

/// All tables at one timestamp.
#[derive(Debug, Default)]
pub struct Catalog {
    /// From this timestamp on, until the next change, the tables are these. No two catalogs of a
    /// database share it.
    pub since: Timestamp,
    by_name: BTreeMap<String, Arc<Table>>,
    by_id: BTreeMap<u32, Arc<Table>>,
    /// Tables whose rows are being deleted.
    dropping: Vec<Arc<Table>>,
}

impl Catalog {
    /// What these descriptors say of a timestamp.
    ///
    /// # Errors
    /// `Internal` when a table's parent is missing: the catalog is damaged.
    pub fn new(since: Timestamp, descriptors: &[Descriptor]) -> Result<Catalog> {
        let by_id: BTreeMap<u32, &Descriptor> = descriptors.iter().map(|d| (d.id, d)).collect();
        let mut catalog = Catalog { since, ..Catalog::default() };
        for descriptor in descriptors {
            let mut ancestors = Vec::new();
            let mut at = descriptor;
            while let Some(interleave) = at.interleave {
                at = by_id.get(&interleave.parent).copied().ok_or_else(|| {
                    SqlError::internal(format!("the parent of table `{}` is missing", at.name))
                })?;
                ancestors.insert(0, at);
            }
            let table = Arc::new(Table::new(descriptor.clone(), &ancestors));
            match (descriptor.state.counts_at(since), descriptor.state) {
                (true, _) => {
                    catalog.by_name.insert(table.name().to_lowercase(), table.clone());
                    catalog.by_id.insert(table.id(), table);
                }
                (false, TableState::Dropping { .. }) => catalog.dropping.push(table),
                (false, TableState::Live { .. }) => {} // still to come
            }
        }
        Ok(catalog)
    }

    /// Whether whoever goes by the other, earlier catalog does nothing wrong under this one: all its
    /// tables are here as they were, and nothing else is interleaved in them.
    pub fn extends(&self, earlier: &Catalog) -> bool {
        let kept = |(id, table): (&u32, &Arc<Table>)| {
            self.by_id.get(id).is_some_and(|here| here.descriptor == table.descriptor)
        };
        let fits = |table: &Arc<Table>| {
            let parent = table.interleave().map(|interleave| interleave.parent);
            earlier.by_id.contains_key(&table.id())
                || !parent.is_some_and(|parent| earlier.by_id.contains_key(&parent))
        };
        earlier.by_id.iter().all(kept) && self.by_id.values().all(fits)
    }

    /// The tables in use, by name.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<Table>> {
        self.by_name.values()
    }

    /// Tables whose rows are being deleted, children before parents.
    pub fn dropping(&self) -> Vec<Arc<Table>> {
        let mut tables = self.dropping.clone();
        tables.sort_by_key(|table| std::cmp::Reverse(table.depth));
        tables
    }

    /// A table by name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Arc<Table>> {
        self.by_name.get(name).or_else(|| self.by_name.get(&name.to_lowercase()))
    }

    /// A table by name.
    ///
    /// # Errors
    /// `UnknownTable`, with the nearest name as a hint.
    pub fn table(&self, name: &str) -> Result<&Arc<Table>> {
        self.find(name).ok_or_else(|| {
            let error =
                SqlError::new(ErrorKind::UnknownTable, format!("there is no table `{name}`"));
            match nearest(name, self.tables().map(|table| table.name())) {
                Some(meant) => error.with_hint(format!("did you mean `{meant}`?")),
                None if self.by_name.is_empty() => error.with_hint("there are no tables yet"),
                None => error.with_hint("SHOW TABLES lists what there is"),
            }
        })
    }

    /// A table by id.
    pub fn by_id(&self, id: u32) -> Option<&Arc<Table>> {
        self.by_id.get(&id)
    }

    /// The parent of a table.
    pub fn parent(&self, table: &Table) -> Option<&Arc<Table>> {
        self.by_id.get(&table.interleave()?.parent)
    }

    /// The tables interleaved directly in a table.
    pub fn children(&self, table: u32) -> impl Iterator<Item = &Arc<Table>> {
        self.by_id
            .values()
            .filter(move |child| child.interleave().is_some_and(|i| i.parent == table))
    }

    /// All tables below a table.
    pub fn descendants(&self, table: u32) -> Vec<Arc<Table>> {
        let mut found: Vec<Arc<Table>> = self.children(table).cloned().collect();
        let mut next = 0;
        while let Some(child) = found.get(next).cloned() {
            found.extend(self.children(child.id()).cloned());
            next += 1;
        }
        found
    }
}
