//! Reads without locks in a universe with three replicas (R3, R4), deadlines, and transactions whose
//! futures are dropped.

use client::{
    CommitReceipt, Database, ErrorKind, SessionToken, SqlError, TimestampBound, Transaction,
    TransactionOptions, Universe, Value, params,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const READ: &str = "SELECT SUM(units) FROM account";

async fn open(path: &Path) -> (Universe, Arc<Database>) {
    let universe = Universe::builder().replicas(3).open(path).await.expect("it opens");
    let db = universe.database();
    let mut session = db.session();
    for sql in [
        "CREATE TABLE account (id STRING(8) NOT NULL, units INT64 NOT NULL) PRIMARY KEY (id)",
        "INSERT INTO account (id, units) VALUES ('a', 0), ('b', 0), ('c', 0), ('d', 0), ('e', 0)",
    ] {
        session.execute(sql).await.unwrap_or_else(|e| panic!("{sql}: {}", e.render(sql)));
    }
    (universe, db)
}

/// Adds one unit to every account.
async fn add(txn: Transaction) -> Result<u64, SqlError> {
    txn.execute("UPDATE account SET units = units + 1 WHERE true", &params(&[])).await
}

async fn sum(db: &Database, bound: TimestampBound) -> i64 {
    let read = db.read_only(bound).await.expect("a good bound");
    let rows = read.query(READ, &params(&[])).await.expect("it runs").collect().await;
    match rows.expect("it is read")[..] {
        [ref row] => match row[..] {
            [Value::Int64(sum)] => sum,
            _ => panic!("{row:?}"),
        },
        ref rows => panic!("{rows:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bound_sees_whole_transactions() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (universe, db) = open(dir.path()).await;
    let before = universe.now().expect("a clock");
    let mut session = SessionToken::default();
    for round in 1..=20 {
        let (_, receipt): (u64, CommitReceipt) = db.run(add).await.expect("it commits");
        session.observe(receipt.timestamp);
        assert_eq!(sum(&db, TimestampBound::Strong).await, 5 * round, "R3");
        let token = session.to_string().parse().expect("its own text");
        assert_eq!(sum(&db, TimestampBound::Session(token)).await, 5 * round, "R4");
        let at = receipt.timestamp;
        assert_eq!(sum(&db, TimestampBound::ReadTimestamp(at)).await, 5 * round);
        assert_eq!(sum(&db, TimestampBound::ReadTimestamp(at.prev())).await, 5 * (round - 1));
        let newest = sum(&db, TimestampBound::MinReadTimestamp(at)).await;
        assert_eq!(newest, 5 * round);
        // Nothing is opened by a bound that is wide, and half of nothing is shown.
        let some = sum(&db, TimestampBound::MinReadTimestamp(before)).await;
        assert!(some % 5 == 0 && some <= 5 * round, "{some} of {}", 5 * round);
    }
    universe.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_with_their_deadlines_and_their_futures() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (universe, db) = open(dir.path()).await;
    // Somebody holds all locks and is older than who comes after.
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let mut locked = Some(locked);
    let holder = {
        let db = db.clone();
        tokio::spawn(async move {
            db.run(|txn| {
                let locked = locked.take();
                async move {
                    add(txn).await?;
                    if let Some(locked) = locked {
                        let _ = locked.send(());
                    }
                    std::future::pending::<Result<(), SqlError>>().await
                }
            })
            .await
        })
    };
    is_locked.await.expect("it has its locks");
    let options =
        TransactionOptions { timeout: Some(Duration::from_millis(100)), ..Default::default() };
    let late = db.run_with(options, add).await.expect_err("the locks are not free");
    assert_eq!(late.kind, ErrorKind::DeadlineExceeded, "{late}");
    // Its future is dropped, and the locks are free at once: well before ten seconds of silence.
    holder.abort();
    assert!(holder.await.expect_err("it was dropped").is_cancelled());
    let options =
        TransactionOptions { timeout: Some(Duration::from_secs(8)), ..Default::default() };
    db.run_with(options, add).await.expect("the locks are free");
    assert_eq!(sum(&db, TimestampBound::Strong).await, 5, "only one has committed");
    // Groups that only read hear of the end last.
    let free = async {
        while universe.status().await.iter().any(|group| group.lock_holders > 0) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(8), free).await.expect("no locks are left");
    universe.close();
}
