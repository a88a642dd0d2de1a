//! A universe as a Rust program uses it, with one replica and with three.

use client::{
    Mutation, MutationKind, OpenError, SqlError, TimestampBound, Universe, Value, params,
};
use std::path::Path;

async fn rows(universe: &Universe, sql: &str) -> Vec<Vec<Value>> {
    let result = universe.database().session().execute(sql).await.expect("the statement runs");
    result.collect().await.expect("the rows come")
}

async fn use_it(path: &Path, replicas: u32) {
    let universe = Universe::builder().replicas(replicas).open(path).await.expect("it opens");
    let db = universe.database();
    let mut session = db.session();
    for sql in [
        "CREATE TABLE owner (id STRING(8) NOT NULL, name STRING(MAX)) PRIMARY KEY (id)",
        "CREATE TABLE account (id STRING(8) NOT NULL, n INT64 NOT NULL, units INT64 NOT NULL) \
         PRIMARY KEY (id, n), INTERLEAVE IN PARENT owner ON DELETE CASCADE",
        "INSERT INTO owner (id, name) VALUES ('a', 'Ada'), ('b', 'Bob'), ('c', NULL)",
        "INSERT INTO account (id, n, units) VALUES ('a', 1, 10), ('b', 1, 10), ('c', 7, 0)",
    ] {
        session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", e.render(sql)));
    }
    let ((), receipt) = db
        .run(|txn| async move {
            let none = params(&[]);
            let take = "UPDATE account SET units = units - 1 WHERE id = 'a' AND n = 1";
            txn.execute(take, &none).await?;
            let give = "UPDATE account SET units = units + 1 WHERE id = 'b' AND n = 1";
            txn.execute(give, &none).await?;
            Ok::<_, SqlError>(())
        })
        .await
        .expect("the transfer commits");
    let all = "SELECT id, units FROM account ORDER BY id";
    let int = Value::Int64;
    let text = |s: &str| Value::String(s.into());
    let now = vec![vec![text("a"), int(9)], vec![text("b"), int(11)], vec![text("c"), int(0)]];
    assert_eq!(rows(&universe, all).await, now);

    let before = TimestampBound::ReadTimestamp(receipt.timestamp.prev());
    let old = db.read_only(before).await.expect("the past is there");
    let old = old.query(all, &params(&[])).await.unwrap().collect().await.unwrap();
    assert_eq!(old[0], vec![text("a"), int(10)], "the state before the commit");

    db.apply(vec![Mutation {
        kind: MutationKind::InsertOrUpdate,
        table: "account".into(),
        columns: vec!["id".into(), "n".into(), "units".into()],
        values: vec![text("c"), int(8), int(5)],
    }])
    .await
    .expect("mutations commit");

    let again = Universe::open(path).await;
    assert!(matches!(again, Err(OpenError::InUse { .. })), "one process at a time");
    universe.close();
    drop((db, session));

    let universe = Universe::open(path).await.expect("it opens again, as it was made");
    assert_eq!(universe.stats().replicas, replicas);
    assert_eq!(rows(&universe, "SELECT SUM(units) FROM account").await, [[int(25)]]);
    let groups = universe.status().await;
    assert_eq!(groups.len(), 5 * replicas as usize);
    universe.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    use_it(dir.path(), 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    use_it(dir.path(), 3).await;
}
