//! From filters to keys: equalities on the first parts of a primary key, then a range on the next.
//!
//! ```text
//! PRIMARY KEY (a, b, c)
//! a = 1 AND b IN (2, 3) AND c = 4      points (1,2,4), (1,3,4)
//! a = 1 AND b > 2                      one range inside prefix (1)
//! b = 2                                the whole table
//! ```
//!
//! The result may hold more rows than the filters let through, never fewer: DataFusion applies
//! the filters again. So everything not understood here is simply passed over.

use super::convert;
use crate::catalog::Table;
use crate::keys::encode_part;
use crate::value::{Type, Value};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};
use proto::keys::prefix_end;
use proto::{Key, KeyRange};
use std::collections::BTreeSet;

/// More keys than this are read as one range.
const POINTS_MAX: usize = 4_096;

/// The keys a scan reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySet {
    /// Exactly these, ascending.
    Points(Vec<Key>),
    /// These ranges, ascending and disjoint.
    Ranges(Vec<KeyRange>),
}

/// What the filters say about one column.
#[derive(Debug, Default)]
struct Constraint {
    /// One of these values.
    among: Option<Vec<Value>>,
    /// At least this (`true`: or equal).
    lower: Option<(Value, bool)>,
    /// At most this (`true`: or equal).
    upper: Option<(Value, bool)>,
}

/// Whether a filter says something that [`key_set`] can use.
pub fn is_useful(table: &Table, filter: &Expr) -> bool {
    let mut constraints = no_constraints(table);
    learn(table, filter, &mut constraints);
    constraints
        .iter()
        .any(|known| known.among.is_some() || known.lower.is_some() || known.upper.is_some())
}

/// The keys that may satisfy all filters.
pub fn key_set(table: &Table, filters: &[Expr]) -> KeySet {
    let mut constraints = no_constraints(table);
    for filter in filters {
        learn(table, filter, &mut constraints);
    }
    let mut prefixes: Vec<Vec<Value>> = vec![Vec::new()];
    for (place, known) in constraints.iter().enumerate() {
        match &known.among {
            Some(values) if prefixes.len().saturating_mul(values.len()) <= POINTS_MAX => {
                prefixes = prefixes
                    .iter()
                    .flat_map(|prefix| {
                        values.iter().map(|value| {
                            let mut longer = prefix.clone();
                            longer.push(value.clone());
                            longer
                        })
                    })
                    .collect();
            }
            Some(_) => return ranges(table, &prefixes, None),
            None => return ranges(table, &prefixes, Some((place, known))),
        }
    }
    let points: BTreeSet<Key> =
        prefixes.iter().filter_map(|prefix| table.layout().encode(prefix).ok()).collect();
    KeySet::Points(points.into_iter().collect())
}

fn no_constraints(table: &Table) -> Vec<Constraint> {
    table.key().iter().map(|_| Constraint::default()).collect()
}

fn ranges(table: &Table, prefixes: &[Vec<Value>], next: Option<(usize, &Constraint)>) -> KeySet {
    let mut ranges = BTreeSet::new();
    for prefix in prefixes {
        let bytes = table.layout().encode_prefix(prefix);
        let range = match next {
            Some((place, known)) => narrowed(&bytes, table.layout().is_desc(place), known),
            None => KeyRange::prefix(&bytes),
        };
        if !range.is_empty() {
            ranges.insert(range);
        }
    }
    KeySet::Ranges(ranges.into_iter().collect())
}

/// The part of a prefix whose next key part satisfies the bounds.
fn narrowed(prefix: &[u8], desc: bool, known: &Constraint) -> KeyRange {
    let mut range = KeyRange::prefix(prefix);
    // In a DESC part the largest values come first.
    let (first, last) =
        if desc { (&known.upper, &known.lower) } else { (&known.lower, &known.upper) };
    let key_of = |value: &Value| {
        let mut key = prefix.to_vec();
        encode_part(&mut key, value, desc);
        key
    };
    if let Some((value, inclusive)) = first {
        let key = key_of(value);
        range.start = if *inclusive { Key::from(key) } else { prefix_end(&key) };
    }
    if let Some((value, inclusive)) = last {
        let key = key_of(value);
        range.end = if *inclusive { prefix_end(&key) } else { Key::from(key) };
    }
    range
}

/// Adds what one filter says.
fn learn(table: &Table, filter: &Expr, constraints: &mut [Constraint]) {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            learn(table, left, constraints);
            learn(table, right, constraints);
        }
        Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) | Expr::InList(_) => {
            if let Some((place, values)) = alternatives(table, filter) {
                constraints[place].narrow(values);
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            if let Some((place, value)) = column_and_value(table, left, right) {
                constraints[place].compare(*op, value);
            } else if let Some((place, value)) = column_and_value(table, right, left)
                && let Some(op) = op.swap()
            {
                constraints[place].compare(op, value);
            }
        }
        Expr::Between(Between { expr, negated: false, low, high }) => {
            if let Some((place, value)) = column_and_value(table, expr, low) {
                constraints[place].compare(Operator::GtEq, value);
            }
            if let Some((place, value)) = column_and_value(table, expr, high) {
                constraints[place].compare(Operator::LtEq, value);
            }
        }
        Expr::IsNull(column) => {
            if let Some(place) = key_place(table, column) {
                constraints[place].narrow(vec![Value::Null]);
            }
        }
        _ => {}
    }
}

/// `a = 1 OR a = 2`, `a IN (1, 2)`: a column and what it may be.
fn alternatives(table: &Table, filter: &Expr) -> Option<(usize, Vec<Value>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (place, mut values) = alternatives(table, left)?;
            let (other, more) = alternatives(table, right)?;
            values.extend(more);
            (place == other).then_some((place, values))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (place, value) = column_and_value(table, left, right)
                .or_else(|| column_and_value(table, right, left))?;
            Some((place, vec![value]))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let place = key_place(table, expr)?;
            let values = list
                .iter()
                .map(|item| column_and_value(table, expr, item).map(|(_, value)| value))
                .collect::<Option<Vec<Value>>>()?;
            Some((place, values))
        }
        _ => None,
    }
}

/// The place in the key of the column an expression is.
fn key_place(table: &Table, expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Column(column) => table.key_places()[table.column(&column.name).ok()?],
        Expr::Alias(alias) => key_place(table, &alias.expr),
        _ => None,
    }
}

fn column_and_value(table: &Table, column: &Expr, value: &Expr) -> Option<(usize, Value)> {
    let place = key_place(table, column)?;
    let Expr::Literal(literal, _) = value else { return None };
    let data_type = &table.columns()[table.key()[place].column].data_type;
    Some((place, literal_value(literal, data_type)?))
}

/// A literal that compares with the column without any conversion of the column.
fn literal_value(literal: &ScalarValue, data_type: &Type) -> Option<Value> {
    let value = convert::scalar(literal)?;
    value.type_of()?.same_kind(data_type).then_some(value)
}

impl Constraint {
    fn narrow(&mut self, values: Vec<Value>) {
        self.among = Some(match self.among.take() {
            Some(known) => known.into_iter().filter(|value| values.contains(value)).collect(),
            None => values,
        });
    }

    fn compare(&mut self, op: Operator, value: Value) {
        let bound = |inclusive| Some((value.clone(), inclusive));
        match op {
            Operator::Eq => self.narrow(vec![value]),
            // Several bounds on one side: the first is kept, the filter does the rest.
            Operator::Gt if self.lower.is_none() => self.lower = bound(false),
            Operator::GtEq if self.lower.is_none() => self.lower = bound(true),
            Operator::Lt if self.upper.is_none() => self.upper = bound(false),
            Operator::LtEq if self.upper.is_none() => self.upper = bound(true),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Catalog;
    use crate::catalog::create::describe;
    use crate::parse::{Statement, parse};
    use datafusion::logical_expr::{col, lit};
    use std::sync::Arc;
    use truetime::Timestamp;

    fn table() -> Arc<Table> {
        let sql =
            "CREATE TABLE t (a STRING(MAX), b INT64, c INT64, x INT64) PRIMARY KEY (a, b DESC, c)";
        let Ok(Statement::CreateTable(statement)) = parse(sql) else { unreachable!() };
        let described =
            describe(&statement, 1, Timestamp::MIN, &Catalog::default()).expect("valid");
        let catalog = Catalog::new(Timestamp::MIN, &[described]).expect("valid");
        catalog.table("t").expect("there").clone()
    }

    fn key(a: &str, b: i64, c: i64) -> Key {
        let values = [Value::from(a), Value::from(b), Value::from(c)];
        table().layout().encode(&values).expect("short")
    }

    fn ranges_of(filters: &[Expr]) -> Vec<KeyRange> {
        match key_set(&table(), filters) {
            KeySet::Ranges(ranges) => ranges,
            KeySet::Points(points) => unreachable!("{points:?}"),
        }
    }

    #[test]
    fn equalities_and_lists_give_points() {
        let filters = [
            col("a").eq(lit("x")).and(lit(4i64).eq(col("c"))),
            col("b").eq(lit(3i64)).or(col("b").eq(lit(2i64))),
        ];
        let points = vec![key("x", 3, 4), key("x", 2, 4)];
        assert_eq!(key_set(&table(), &filters), KeySet::Points(points));
        let filters = [
            col("a").eq(lit("x")),
            col("b").in_list(vec![lit(2i64)], false),
            col("c").eq(lit(1i64)),
        ];
        assert_eq!(key_set(&table(), &filters), KeySet::Points(vec![key("x", 2, 1)]));
    }

    #[test]
    fn bounds_narrow_the_prefix_in_either_order() {
        let [range] = &ranges_of(&[col("a").eq(lit("x")), col("b").gt(lit(2i64))])[..] else {
            unreachable!()
        };
        assert!(range.contains(&key("x", 3, -1)) && range.contains(&key("x", i64::MAX, 0)));
        assert!(!range.contains(&key("x", 2, 9)) && !range.contains(&key("y", 3, 0)));
        let [range] = &ranges_of(&[col("a").between(lit("b"), lit("c"))])[..] else {
            unreachable!()
        };
        assert!(range.contains(&key("b", 0, 0)) && range.contains(&key("c", 9, 9)));
        assert!(!range.contains(&key("a", 0, 0)) && !range.contains(&key("ca", 0, 0)));
    }

    #[test]
    fn what_is_not_understood_reads_the_whole_table() {
        for filter in [col("b").eq(lit(1i64)), col("x").gt(lit(1i64)), col("a").eq(lit(1i64))] {
            assert_eq!(ranges_of(&[filter]), [table().range()]);
        }
        assert!(is_useful(&table(), &col("b").lt(lit(1i64))));
        assert!(!is_useful(&table(), &col("x").lt(lit(1i64))));
    }
}
