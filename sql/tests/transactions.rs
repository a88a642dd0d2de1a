//! Transactions, staleness, schema changes and the API for programs, over groups in memory.

mod double;

use double::{Groups, all, database, groups, say};
use proto::request::Receipt;
use sql::catalog::store;
use sql::{
    Database, ErrorKind, Mutation, MutationKind, Options, Result, Session, SqlError, Value, params,
    timestamp_text,
};
use std::sync::Arc;
use std::time::Duration;
use truetime::Timestamp;
use txn::client::{TimestampBound, TransactionOptions};

const SCHEMA: &str = "
    CREATE TABLE accounts (id INT64 NOT NULL, owner STRING(20), balance INT64 NOT NULL) PRIMARY KEY (id);
    CREATE TABLE entries (id INT64 NOT NULL, n INT64 NOT NULL, amount INT64) PRIMARY KEY (id, n),
      INTERLEAVE IN PARENT accounts ON DELETE CASCADE;
    INSERT INTO accounts VALUES (1, 'ann', 100), (2, 'bob', 50);
";

async fn bank() -> (Arc<Groups>, Arc<Database>, Session) {
    let (groups, database) = database().await;
    let mut session = database.session();
    all(&mut session, SCHEMA).await;
    groups.counts();
    (groups, database, session)
}

#[tokio::test]
async fn a_transaction_commits_all_or_nothing() {
    let (_, database, mut s) = bank().await;
    let mut other = database.session();
    assert_eq!(say(&mut s, "BEGIN").await, "OK");
    assert_eq!(
        say(&mut s, "UPDATE accounts SET balance = balance - 10 WHERE id = 1").await,
        "(1 rows)"
    );
    assert_eq!(say(&mut s, "SELECT balance FROM accounts WHERE id = 1").await, "90");
    assert_eq!(say(&mut s, "SELECT SUM(balance) FROM accounts").await, "140");
    assert_eq!(say(&mut other, "SELECT SUM(balance) FROM accounts").await, "150");
    // A statement that fails is taken back; the transaction goes on.
    let failed = say(&mut s, "INSERT INTO accounts VALUES (3, 'eve', 1), (2, 'x', 1)").await;
    assert!(failed.starts_with("AlreadyExists: row (2)"), "{failed}");
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM accounts").await, "2");
    assert_eq!(
        say(&mut s, "UPDATE accounts SET balance = balance + 10 WHERE id = 2").await,
        "(1 rows)"
    );
    assert_eq!(say(&mut s, "COMMIT TRANSACTION").await, "OK");
    assert_eq!(say(&mut other, "SELECT balance FROM accounts ORDER BY id").await, "90\n60");
    all(&mut s, "BEGIN; DELETE FROM accounts WHERE true; ROLLBACK").await;
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM accounts").await, "2");
}

#[tokio::test]
async fn the_state_of_a_transaction_is_guarded() {
    let (groups, _, mut s) = bank().await;
    let state = "TransactionState: ";
    for (sql, answer) in [
        ("COMMIT", "there is no transaction to commit\nHint: BEGIN starts one"),
        ("ROLLBACK", "there is no transaction to roll back"),
        ("SET TRANSACTION READ ONLY", "there is no transaction to set\nHint: BEGIN starts one"),
        (
            "SHOW VARIABLE READ_TIMESTAMP",
            "there is no read timestamp yet\nHint: it is known after a read without locks",
        ),
    ] {
        assert_eq!(say(&mut s, sql).await, format!("{state}{answer}"));
    }
    all(&mut s, "BEGIN; SET TRANSACTION READ ONLY; SELECT * FROM accounts").await;
    for (sql, answer) in [
        ("BEGIN", "a transaction is open already\nHint: COMMIT or ROLLBACK ends it"),
        ("DELETE FROM accounts WHERE true", "a read-only transaction cannot change anything"),
        (
            "CREATE TABLE t (a INT64) PRIMARY KEY (a)",
            "the schema cannot change inside a transaction\nHint: COMMIT or ROLLBACK first",
        ),
        (
            "SET READ_ONLY_STALENESS = 'STRONG'",
            "READ_ONLY_STALENESS cannot change inside a transaction\nHint: COMMIT or ROLLBACK first",
        ),
        (
            "SET TRANSACTION READ WRITE",
            "the transaction has read or written already\nHint: SET TRANSACTION comes right after BEGIN",
        ),
    ] {
        assert_eq!(say(&mut s, sql).await, format!("{state}{answer}"));
    }
    all(&mut s, "COMMIT; BEGIN; UPDATE accounts SET owner = 'x' WHERE id = 1").await;
    groups.abort_next(1);
    let aborted = say(&mut s, "COMMIT").await;
    assert!(
        aborted.starts_with("Aborted: transaction aborted: the test asked for it"),
        "{aborted}"
    );
    assert!(!s.in_transaction());
    assert_eq!(say(&mut s, "SELECT owner FROM accounts WHERE id = 1").await, "ann");
}

#[tokio::test]
async fn a_transaction_aborted_while_its_rows_are_read_is_over() {
    let (groups, _, mut s) = bank().await;
    all(&mut s, "INSERT INTO entries (id, n) SELECT 1, id + 10 * n FROM accounts, UNNEST([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]) AS u(n)").await;
    all(&mut s, "BEGIN; UPDATE accounts SET owner = 'x' WHERE id = 1").await;
    groups.abort_scan_after(2);
    let result = s.execute("SELECT n FROM entries WHERE id = 1").await.expect("plans");
    assert_eq!(result.collect().await.expect_err("pages end").kind, ErrorKind::Aborted);
    for sql in ["SELECT 1", "COMMIT"] {
        let over = say(&mut s, sql).await;
        assert!(over.starts_with("TransactionState: the transaction is over: "), "{over}");
    }
    assert!(s.is_failed());
    assert_eq!(say(&mut s, "ROLLBACK").await, "OK");
    assert_eq!(say(&mut s, "SELECT owner FROM accounts WHERE id = 1").await, "ann");
}

#[tokio::test]
async fn changes_outside_transactions_are_run_again_when_aborted() {
    let (groups, _, mut s) = bank().await;
    groups.abort_next(3);
    assert_eq!(
        say(&mut s, "UPDATE accounts SET balance = balance + 1 WHERE id = 1").await,
        "(1 rows)"
    );
    assert_eq!(say(&mut s, "SELECT balance FROM accounts WHERE id = 1").await, "101");
}

#[tokio::test]
async fn timestamps_go_out_and_come_back() {
    let (_, _, mut s) = bank().await;
    assert_eq!(say(&mut s, "UPDATE accounts SET owner = 'new' WHERE id = 1").await, "(1 rows)");
    let commit = say(&mut s, "SHOW VARIABLE COMMIT_TIMESTAMP").await;
    assert_eq!(commit, timestamp_text(s.last_commit().expect("committed").timestamp));
    all(&mut s, "UPDATE accounts SET owner = 'newer' WHERE id = 1").await;
    assert_eq!(
        say(&mut s, &format!("SET READ_ONLY_STALENESS = 'READ_TIMESTAMP {commit}'")).await,
        "OK"
    );
    assert_eq!(say(&mut s, "SELECT owner FROM accounts WHERE id = 1").await, "new");
    assert_eq!(say(&mut s, "SHOW VARIABLE READ_TIMESTAMP").await, commit);
    assert_eq!(
        say(&mut s, "SHOW VARIABLE READ_ONLY_STALENESS").await,
        format!("READ_TIMESTAMP {commit}")
    );
    // The same inside a read-only transaction.
    all(&mut s, "BEGIN READ ONLY").await;
    assert_eq!(say(&mut s, "SELECT owner FROM accounts ORDER BY id").await, "new\nbob");
    all(&mut s, "COMMIT; SET READ_ONLY_STALENESS = 'EXACT_STALENESS 0s'").await;
    assert_eq!(say(&mut s, "SELECT owner FROM accounts WHERE id = 1").await, "newer");
    for (bound, answer) in [
        ("READ_TIMESTAMP 2099-01-01T00:00:00Z", "FutureTimestamp: "),
        (
            "READ_TIMESTAMP 2001-01-01T00:00:00Z",
            "SnapshotTooOld: read timestamp 2001-01-01T00:00:00.000000Z is older",
        ),
    ] {
        all(&mut s, &format!("SET READ_ONLY_STALENESS = '{bound}'")).await;
        let refused = say(&mut s, "SELECT * FROM accounts").await;
        assert!(refused.starts_with(answer), "{refused}");
    }
    let wrong = say(&mut s, "SET READ_ONLY_STALENESS = 'MAX_STALENESS 10'").await;
    assert!(wrong.starts_with("Syntax: cannot read '10' as a duration\n"), "{wrong}");
}

#[tokio::test]
async fn a_session_sees_what_it_has_seen() {
    let (groups, database, mut s) = bank().await;
    groups.hold_safe_time(s.last_commit().expect("committed").timestamp);
    let owner = "SELECT owner FROM accounts WHERE id = 1";
    all(&mut s, "UPDATE accounts SET owner = 'new' WHERE id = 1").await;
    all(&mut s, "SET READ_ONLY_STALENESS = 'MAX_STALENESS 10m'").await;
    assert_eq!(say(&mut s, owner).await, "ann", "as old as can be had without waiting");
    all(&mut s, "SET READ_ONLY_STALENESS = 'SESSION'").await;
    assert_eq!(say(&mut s, owner).await, "new", "but not older than its own write");
    assert_eq!(say(&mut s, "SHOW VARIABLE READ_ONLY_STALENESS").await, "SESSION");

    let mut other = database.session();
    all(&mut other, "SET READ_ONLY_STALENESS = 'SESSION'").await;
    assert_eq!(say(&mut other, owner).await, "ann", "another session has seen nothing");
    let token = say(&mut s, "SHOW VARIABLE SESSION_TOKEN").await;
    assert_eq!(token, s.token().to_string());
    let set = format!("SET READ_ONLY_STALENESS = 'SESSION {token}'");
    assert_eq!(say(&mut other, &set).await, "OK");
    assert_eq!(say(&mut other, owner).await, "new", "unless it is told");
    assert!(other.token() >= s.token(), "and then it has");

    // What a transaction has read under locks counts, also when it changes nothing.
    let mut third = database.session();
    all(&mut third, "BEGIN; SELECT owner FROM accounts; ROLLBACK").await;
    all(&mut third, "SET READ_ONLY_STALENESS = 'SESSION'").await;
    assert_eq!(say(&mut third, owner).await, "new");
}

#[tokio::test]
async fn time_that_is_over_is_said_to_be() {
    let (groups, database, _s) = bank().await;
    groups.abort_next(u32::MAX);
    let options =
        TransactionOptions { timeout: Some(Duration::from_micros(50)), ..Default::default() };
    let run = database.run_with(options, |txn| async move {
        txn.execute("UPDATE accounts SET balance = 0 WHERE id = 1", &params(&[])).await
    });
    assert_eq!(run.await.expect_err("no time").kind, ErrorKind::DeadlineExceeded);
}

#[tokio::test]
async fn old_reads_use_the_old_schema() {
    let (_, _, mut s) = bank().await;
    let before = timestamp_text(s.last_commit().expect("committed").timestamp);
    all(&mut s, "DROP TABLE entries; DROP TABLE accounts; CREATE TABLE accounts (k STRING(5)) PRIMARY KEY (k)").await;
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM accounts").await, "0");
    all(&mut s, &format!("SET READ_ONLY_STALENESS = 'READ_TIMESTAMP {before}'")).await;
    assert_eq!(say(&mut s, "SELECT id, balance FROM accounts ORDER BY id").await, "1|100\n2|50");
    assert_eq!(say(&mut s, "SELECT owner FROM accounts WHERE id = 2").await, "bob");
    all(&mut s, "SET READ_ONLY_STALENESS = 'STRONG'").await;
    assert!(say(&mut s, "SELECT id FROM accounts").await.starts_with("UnknownColumn"));
}

#[tokio::test]
async fn the_schema_shows_and_survives() {
    let (groups, client) = groups();
    let database = Database::open(client.clone()).await.expect("opens");
    let mut s = database.session();
    all(&mut s, SCHEMA).await;
    let again = Database::open(client).await.expect("opens again");
    let mut s = again.session();
    assert_eq!(
        say(&mut s, "SHOW TABLES").await,
        "accounts|id|NULL|NULL\nentries|id, n|accounts|CASCADE"
    );
    assert_eq!(
        say(&mut s, "DESCRIBE Entries").await,
        "id|INT64|NO|1\nn|INT64|NO|2\namount|INT64|YES|NULL"
    );
    let create = say(&mut s, "SHOW CREATE TABLE entries").await;
    assert_eq!(
        create,
        "CREATE TABLE entries (\n  id INT64 NOT NULL,\n  n INT64 NOT NULL,\n  amount INT64,\n) PRIMARY KEY (id, n),\n  INTERLEAVE IN PARENT accounts ON DELETE CASCADE"
    );
    let refused = say(&mut s, "DROP TABLE accounts").await;
    assert_eq!(
        refused,
        "Schema: table `accounts` has interleaved children: entries\n  DROP TABLE accounts\n             ^\nHint: drop them first"
    );
    all(&mut s, "INSERT INTO entries VALUES (1, 1, 1), (1, 2, 2), (2, 1, 3)").await;
    let rows = groups.rows();
    all(&mut s, "DROP TABLE entries; DROP TABLE IF EXISTS entries").await;
    assert_eq!(groups.rows(), rows - 3 - 1, "the rows and the descriptor are gone");
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM accounts").await, "2");
    all(&mut s, "CREATE TABLE IF NOT EXISTS accounts (x INT64) PRIMARY KEY (x)").await;
    // Ids are not used again: the new table of the old name is empty.
    all(&mut s, &create).await;
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM entries").await, "0");
    all(&mut s, "DROP TABLE entries; DROP TABLE accounts").await;
    assert_eq!(groups.rows(), 1, "only the next id is left");
}

#[tokio::test]
async fn a_drop_that_a_crash_cut_short_is_finished_at_the_next_opening() {
    let (groups, client) = groups();
    let database = Database::open(client.clone()).await.expect("opens");
    let mut s = database.session();
    all(&mut s, SCHEMA).await;
    all(&mut s, "INSERT INTO entries VALUES (1, 1, 1), (2, 2, 2)").await;
    let half = client.run(|txn| async move {
        let locked = store::lock(&txn).await?;
        store::start_drop(&txn, &locked, ("entries", false), Timestamp::MIN)
    });
    assert!(half.await.expect("commits").0);
    let rows = groups.rows();
    let database = Database::open(client).await.expect("opens again");
    let mut s = database.session();
    assert_eq!(say(&mut s, "SHOW TABLES").await, "accounts|id|NULL|NULL");
    for _ in 0..1_000 {
        if groups.rows() == rows - 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(groups.rows(), rows - 3, "two rows and the descriptor");
    assert_eq!(say(&mut s, "DELETE FROM accounts WHERE true").await, "(2 rows)");
}

#[tokio::test]
async fn a_schema_change_waits_for_open_transactions() {
    let options = Options { schema_wait: Duration::from_millis(100), ..Options::default() };
    let database = Database::open_with(groups().1, options).await.expect("opens");
    let (mut s, mut other) = (database.session(), database.session());
    all(&mut s, SCHEMA).await;
    all(&mut s, "BEGIN; SELECT * FROM accounts").await;
    let refused = say(&mut other, "CREATE TABLE t (a INT64) PRIMARY KEY (a)").await;
    assert!(refused.starts_with("Schema: the schema cannot change now"), "{refused}");
}

#[tokio::test]
async fn a_schema_change_goes_on_when_the_transaction_ends() {
    let database = Database::open(groups().1).await.expect("opens");
    let (mut s, mut other) = (database.session(), database.session());
    all(&mut s, SCHEMA).await;
    all(&mut s, "BEGIN; SELECT * FROM accounts").await;
    let change = async move { say(&mut other, "CREATE TABLE t (a INT64) PRIMARY KEY (a)").await };
    let waits = tokio::spawn(change);
    for _ in 0..1_000 {
        tokio::task::yield_now().await; // one thread: the change runs until it has to wait
    }
    assert!(!waits.is_finished(), "the transaction is open");
    all(&mut s, "COMMIT").await;
    assert_eq!(waits.await.expect("no panic"), "OK");
}

#[tokio::test]
async fn programs_run_closures_as_transactions() {
    let (groups, database, mut s) = bank().await;
    groups.abort_next(2);
    let transfer = |from: i64, to: i64, amount: i64| {
        database.run(move |txn| async move {
            let row = txn.read("accounts", &[from.into()]).await?;
            let Some(Value::Int64(balance)) = row.map(|row| row[2].clone()) else {
                return Err(SqlError::new(ErrorKind::NotFound, "no such account"));
            };
            let change = "UPDATE accounts SET balance = balance + @by WHERE id = @id";
            txn.execute(change, &params(&[("id", from.into()), ("by", (-amount).into())])).await?;
            txn.execute(change, &params(&[("id", to.into()), ("BY", amount.into())])).await?;
            let columns = ["id", "n", "amount"];
            let entry = vec![to.into(), 1.into(), amount.into()];
            txn.buffer(Mutation::new(MutationKind::Insert, "entries", &columns, entry)).await?;
            let rows = txn
                .query("SELECT SUM(balance) FROM accounts", &params(&[]))
                .await?
                .collect()
                .await?;
            assert_eq!(rows, [vec![Value::Int64(150)]]);
            Ok(balance)
        })
    };
    let (before, receipt): (i64, Receipt) = transfer(1, 2, 30).await.expect("commits");
    assert_eq!(before, 100);
    assert_eq!(transfer(9, 2, 30).await.expect_err("no account").kind, ErrorKind::NotFound);
    assert_eq!(say(&mut s, "SELECT balance FROM accounts ORDER BY id").await, "70\n80");
    let then =
        database.read_only(TimestampBound::ReadTimestamp(receipt.timestamp)).await.expect("reads");
    let row = then.read("entries", &[2.into(), 1.into()]).await.expect("reads");
    assert_eq!(row, Some(vec![Value::Int64(2), Value::Int64(1), Value::Int64(30)]));
    let earlier = database
        .read_only(TimestampBound::ReadTimestamp(receipt.timestamp.prev()))
        .await
        .expect("reads");
    assert_eq!(earlier.read("entries", &[2.into(), 1.into()]).await, Ok(None));
}

#[tokio::test]
async fn parameters_are_bound_by_name_on_every_path() {
    let (_, _, mut s) = bank().await;
    let bound = params(&[
        ("id", 1.into()),
        ("Name", "it's".into()),
        ("low", i64::MIN.into()),
        ("f", 0.5.into()),
    ]);
    for (sql, expected) in [
        ("SELECT owner FROM accounts WHERE id = @id", vec!["ann"]),
        (
            "SELECT @name, @LOW, @f, id FROM accounts WHERE id > @id - 1 ORDER BY id LIMIT 1",
            vec!["it's", "-9223372036854775808", "0.5", "1"],
        ),
    ] {
        let rows = s.execute_with(sql, &bound).await.expect("runs").collect().await.expect("rows");
        let texts: Vec<String> = rows[0].iter().map(ToString::to_string).collect();
        assert_eq!(texts, expected, "{sql}");
    }
    for sql in [
        "SELECT owner FROM accounts WHERE id = @no",
        "SELECT COUNT(*) FROM accounts WHERE id < @no",
    ] {
        let error = s.execute_with(sql, &bound).await.expect_err("not bound");
        assert_eq!(
            (error.kind, &error.message[..]),
            (ErrorKind::Parameter, "the parameter @no has no value")
        );
    }
}

#[tokio::test]
async fn mutations_are_checked_together() {
    let (groups, database, mut s) = bank().await;
    let entry = |id: i64, n: i64| {
        let values = vec![id.into(), n.into(), Value::Null];
        Mutation::new(MutationKind::Insert, "Entries", &["id", "n", "amount"], values)
    };
    groups.counts();
    let many: Vec<Mutation> = (0..1_000).map(|n| entry(1 + n % 2, n)).collect();
    database.apply(many).await.expect("applies");
    let (reads, scans, commits) = groups.counts();
    assert!(reads <= 4 && scans == 0 && commits == 1, "{reads} {scans} {commits}");
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM entries WHERE id = 2").await, "500");
    let refuse =
        async |mutation: Mutation| -> Result<Receipt> { database.apply(vec![mutation]).await };
    assert_eq!(refuse(entry(1, 0)).await.expect_err("exists").kind, ErrorKind::AlreadyExists);
    assert_eq!(refuse(entry(9, 0)).await.expect_err("no parent").kind, ErrorKind::ParentMissing);
    let columns = ["id", "n", "amount"];
    let update = |n: i64, v: Value| {
        Mutation::new(MutationKind::Update, "entries", &columns, vec![1.into(), n.into(), v])
    };
    assert_eq!(refuse(update(5_000, 1.into())).await.expect_err("none").kind, ErrorKind::NotFound);
    assert_eq!(refuse(update(0, "x".into())).await.expect_err("type").kind, ErrorKind::Type);
    refuse(update(0, 7.into())).await.expect("updates");
    assert_eq!(say(&mut s, "SELECT amount FROM entries WHERE id = 1 AND n = 0").await, "7");
    let delete = Mutation::new(MutationKind::Delete, "accounts", &["id"], vec![2.into()]);
    refuse(delete).await.expect("deletes");
    assert_eq!(say(&mut s, "SELECT COUNT(*) FROM entries").await, "500");
}

#[tokio::test]
async fn the_fast_path_is_one_request() {
    let (groups, _, mut s) = bank().await;
    for (sql, counts) in [
        ("SELECT owner FROM accounts WHERE id = 1", (1, 0, 0)),
        ("UPDATE accounts SET balance = balance + 1 WHERE id = 1", (1, 0, 1)),
        ("INSERT INTO accounts VALUES (7, 'x', 1)", (1, 0, 1)),
        ("INSERT OR UPDATE INTO accounts VALUES (7, 'y', 1)", (0, 0, 1)),
        ("DELETE FROM entries WHERE id = 7 AND n = 1", (1, 0, 1)),
        ("SELECT COUNT(*) FROM entries WHERE id = 1", (0, 1, 0)),
        ("SELECT COUNT(*) FROM accounts WHERE id IN (1, 2)", (2, 0, 0)),
    ] {
        let answer = say(&mut s, sql).await;
        assert_eq!(groups.counts(), counts, "{sql}: {answer}");
    }
}
