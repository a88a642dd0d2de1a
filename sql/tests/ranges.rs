//! Property: what a filter on the primary key keeps out of a scan, it would not have let through.
//!
//! The same condition once in WHERE, where it becomes key ranges, and once inside COUNTIF over
//! the whole table, where it does not.

mod double;

use double::{all, database, say};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sql::{Mutation, MutationKind, Session, Value};

const TABLES: &str = "
    CREATE TABLE p (a STRING(9), b INT64 NOT NULL) PRIMARY KEY (a, b DESC);
    CREATE TABLE t (a STRING(9), b INT64 NOT NULL, c FLOAT64, d DATE, x INT64) PRIMARY KEY (a, b DESC, c, d DESC),
      INTERLEAVE IN PARENT p;
";

async fn filled() -> Session {
    let (_, database) = database().await;
    let mut session = database.session();
    all(&mut session, TABLES).await;
    let mut rows = Vec::new();
    for a in [Value::Null, "".into(), "a".into(), "a\0".into(), "b".into()] {
        for b in [-2i64, 0, 1, i64::MAX] {
            let parent = vec![a.clone(), b.into()];
            rows.push(Mutation::new(MutationKind::Insert, "p", &["a", "b"], parent));
            for (c, d) in
                [(None, None), (Some(-0.5), Some(1)), (Some(0.0), None), (Some(7.5), Some(-3))]
            {
                let values = vec![
                    a.clone(),
                    b.into(),
                    c.into(),
                    d.map_or(Value::Null, Value::Date),
                    Value::Int64(rows.len() as i64),
                ];
                rows.push(Mutation::new(
                    MutationKind::Insert,
                    "t",
                    &["a", "b", "c", "d", "x"],
                    values,
                ));
            }
        }
    }
    database.apply(rows).await.expect("fills");
    session
}

/// A comparison of one key column, or of a column outside the key.
fn atom() -> impl Strategy<Value = String> {
    let operator = prop_oneof![Just("="), Just("<"), Just("<="), Just(">"), Just(">="), Just("!=")];
    let text = prop_oneof![Just("''"), Just("'a'"), Just("'a\\0'"), Just("'b'"), Just("'c'")];
    let int = prop_oneof![Just("-2"), Just("0"), Just("1"), Just("9223372036854775807"), Just("5")];
    let float = prop_oneof![Just("-0.5"), Just("0.0"), Just("-0.0"), Just("1"), Just("7.5")];
    let date =
        prop_oneof![Just("DATE '1970-01-02'"), Just("'1969-12-29'"), Just("DATE '1970-01-01'")];
    let columns = prop_oneof![
        4 => ("a", text).boxed_pairs(),
        4 => ("b", int).boxed_pairs(),
        2 => ("c", float).boxed_pairs(),
        2 => ("d", date).boxed_pairs(),
        1 => Just(("x", "40", "50")).boxed(),
    ];
    (columns, operator, 0u8..7).prop_map(|((column, value, other), operator, shape)| match shape {
        0 => format!("{column} IN ({value}, {other}, {value}, {other})"),
        1 => format!("{column} BETWEEN {value} AND {other}"),
        2 => format!("{column} IS NULL"),
        3 => format!("{value} {operator} {column}"),
        _ => format!("{column} {operator} {value}"),
    })
}

/// A column with two of its values.
trait Pairs {
    fn boxed_pairs(self) -> BoxedStrategy<(&'static str, &'static str, &'static str)>;
}

impl<S: Strategy<Value = &'static str> + Clone + 'static> Pairs for (&'static str, S) {
    fn boxed_pairs(self) -> BoxedStrategy<(&'static str, &'static str, &'static str)> {
        let (column, values) = self;
        (values.clone(), values).prop_map(move |(one, two)| (column, one, two)).boxed()
    }
}

fn condition() -> impl Strategy<Value = String> {
    let some = proptest::collection::vec(atom(), 1..5);
    (some, any::<u8>()).prop_map(|(atoms, joints)| {
        let mut text = String::new();
        for (place, atom) in atoms.iter().enumerate() {
            if place > 0 {
                let or = joints >> place & 3 == 3;
                text =
                    if or { format!("({text}) OR {atom}") } else { format!("({text}) AND {atom}") };
            } else {
                text = atom.clone();
            }
        }
        text
    })
}

#[test]
fn a_scan_leaves_out_only_what_the_filter_would() {
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let mut session = runtime.block_on(filled());
    let mut runner =
        TestRunner::new(Config { cases: 200, failure_persistence: None, ..Config::default() });
    let session = std::cell::RefCell::new(&mut session);
    let checked = runner.run(&condition(), |condition| {
        let session = &mut *session.borrow_mut();
        let (narrow, wide) = runtime.block_on(async {
            let narrow = say(session, &format!("SELECT COUNT(*) FROM t WHERE {condition}")).await;
            (narrow, say(session, &format!("SELECT COUNTIF({condition}) FROM t")).await)
        });
        prop_assert!(wide.parse::<u64>().is_ok(), "{}: {}", condition, wide);
        prop_assert_eq!(narrow, wide, "{}", condition);
        Ok(())
    });
    checked.expect("holds");
}
