//! What one database sees of the schema changes of another (S1, R6), step by step, in a time that
//! passes when everybody waits.

mod slow;

use slow::Groups;
use sql::catalog::store;
use sql::{Database, Options, Session, SqlError, Value, params, timestamp_text};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use txn::client::TimestampBound;

const LEASE: Duration = Duration::from_millis(600);
const LEASE_US: u64 = 600_000;

async fn open(groups: &Arc<Groups>, id: u64) -> Arc<Database> {
    let options = Options { schema_lease: Some(LEASE), ..Options::default() };
    Database::open_with(groups.client(id), options).await.expect("it opens")
}

/// Runs a test over new groups with two databases, `a` and `b`.
async fn with<F: Future<Output = ()>>(
    test: impl FnOnce(Arc<Groups>, Arc<Database>, Arc<Database>) -> F,
) {
    let groups = Groups::new(1, 500, true);
    let time = groups.time.clone();
    let work = async {
        let (a, b) = (open(&groups, 1).await, open(&groups, 2).await);
        test(groups.clone(), a, b).await;
    };
    time.drive(work).await;
}

/// The rows as lines, how many rows were changed, or the error.
async fn say(session: &mut Session, sql: &str) -> String {
    let result = match session.execute(sql).await {
        Ok(result) => result,
        Err(error) => return format!("{:?}: {error}", error.kind),
    };
    if let Some(count) = result.affected {
        return format!("({count} rows)");
    }
    let rows = result.collect().await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let line = |row: &Vec<Value>| row.iter().map(Value::to_string).collect::<Vec<_>>().join("|");
    rows.iter().map(line).collect::<Vec<_>>().join(" ")
}

async fn all(session: &mut Session, script: &str) {
    for statement in sql::split(script) {
        let said = session.execute(statement.sql).await;
        said.unwrap_or_else(|error| panic!("{}: {error}", statement.sql));
    }
}

const PARENT: &str = "CREATE TABLE p (k INT64) PRIMARY KEY (k)";
const CHILD: &str = "CREATE TABLE c (k INT64, n INT64) PRIMARY KEY (k, n),
    INTERLEAVE IN PARENT p ON DELETE NO ACTION";

#[tokio::test]
async fn what_is_acknowledged_is_seen_by_everybody() {
    with(async |_, a, b| {
        let (mut a, mut b) = (a.session(), b.session());
        all(&mut a, PARENT).await;
        assert_eq!(say(&mut b, "INSERT INTO p VALUES (1), (2)").await, "(2 rows)");
        all(&mut a, CHILD).await;
        assert_eq!(say(&mut b, "SHOW TABLES").await, "c|k, n|p|NO ACTION p|k|NULL|NULL");
        all(&mut a, "INSERT INTO c VALUES (1, 1)").await;
        let refused = say(&mut b, "DELETE FROM p WHERE k = 1").await;
        assert!(refused.starts_with("ChildrenExist"), "{refused}");
        assert_eq!(say(&mut b, "SELECT COUNT(*) FROM c").await, "1");
        all(&mut a, "DROP TABLE c").await;
        assert_eq!(say(&mut b, "SELECT n FROM c").await, "UnknownTable: there is no table `c`");
        assert_eq!(say(&mut b, "DELETE FROM p WHERE k = 1").await, "(1 rows)");
        all(&mut b, "CREATE TABLE c (word STRING(9)) PRIMARY KEY (word)").await;
        assert_eq!(say(&mut a, "INSERT INTO c VALUES ('new')").await, "(1 rows)");
        assert_eq!(say(&mut a, "DESCRIBE c").await, "word|STRING(9)|YES|1");
    })
    .await;
}

#[tokio::test]
async fn a_transaction_goes_on_while_nothing_changes_that_it_could_know() {
    with(async |groups, a, b| {
        let (mut a, mut b) = (a.session(), b.session());
        all(&mut a, PARENT).await;
        all(&mut b, "BEGIN; INSERT INTO p VALUES (1)").await;
        groups.time.sleep(5 * LEASE_US).await;
        all(&mut a, "CREATE TABLE q (k INT64) PRIMARY KEY (k)").await;
        assert_eq!(say(&mut b, "INSERT INTO q VALUES (1)").await, "(1 rows)", "and uses it");
        assert_eq!(say(&mut b, "SHOW TABLES").await, "p|k|NULL|NULL q|k|NULL|NULL");
        groups.time.sleep(5 * LEASE_US).await;
        assert_eq!(say(&mut b, "COMMIT").await, "");
        assert_eq!(say(&mut a, "SELECT p.k, q.k FROM p JOIN q ON p.k = q.k").await, "1|1");
    })
    .await;
}

#[tokio::test]
async fn a_transaction_ends_when_the_schema_changes_under_it() {
    with(async |groups, a, b| {
        let (mut one, mut two) = (b.session(), b.session());
        let mut a = a.session();
        all(&mut a, &format!("{PARENT}; CREATE TABLE q (k INT64) PRIMARY KEY (k)")).await;
        all(&mut one, "BEGIN; INSERT INTO p VALUES (1)").await;
        all(&mut two, "BEGIN; SELECT k FROM q").await;
        all(&mut a, "DROP TABLE q").await;
        let aborted = "Aborted: the schema has changed since the transaction began";
        assert_eq!(say(&mut one, "COMMIT").await, aborted);
        assert_eq!(say(&mut two, "SELECT k FROM q").await, aborted);
        assert!(two.is_failed());
        all(&mut two, "ROLLBACK").await;
        assert_eq!(say(&mut two, "SELECT COUNT(*) FROM p").await, "0", "nothing was written");

        // A closure is run again, under the schema that is there then.
        all(&mut a, "CREATE TABLE q (k INT64) PRIMARY KEY (k)").await;
        let (mut attempts, time) = (0, groups.time.clone());
        let run = b.run(|txn| {
            attempts += 1;
            let (first, time) = (attempts == 1, time.clone());
            async move {
                txn.execute("INSERT INTO q VALUES (1)", &params(&[])).await?;
                if first {
                    time.sleep(5 * LEASE_US).await;
                }
                Ok::<(), SqlError>(())
            }
        });
        let (done, ()) = futures::join!(run, all(&mut a, "DROP TABLE q"));
        let error = done.expect_err("it is gone");
        assert_eq!((attempts, error.message), (2, "there is no table `q`".into()));
    })
    .await;
}

#[tokio::test]
async fn a_read_uses_the_schema_of_its_timestamp() {
    with(async |_, a, b| {
        let (mut writer, mut reader) = (a.session(), b.session());
        all(&mut writer, PARENT).await;
        all(&mut writer, CHILD).await;
        let written = writer.last_commit().expect("it was written").timestamp;
        let from = writer.token().timestamp();
        assert!(from > written.plus_micros(LEASE_US), "S1: {written} is not announced for long");
        for (at, found) in [
            (written, "UnknownTable: there is no table `c`"),
            (from.prev(), "UnknownTable: there is no table `c`"),
            (from, "0"),
        ] {
            let bound =
                format!("SET READ_ONLY_STALENESS = 'READ_TIMESTAMP {}'", timestamp_text(at));
            all(&mut reader, &bound).await;
            assert_eq!(say(&mut reader, "SELECT COUNT(*) FROM c").await, found, "at {at}");
        }
        // Whoever goes by what this session has seen, sees what it has made.
        let bound = TimestampBound::Session(writer.token());
        let read = b.read_only(bound).await.expect("a good bound");
        assert!(read.catalog().find("c").is_some());
    })
    .await;
}

#[tokio::test]
async fn changes_at_the_same_time_are_one_after_the_other() {
    with(async |_, a, b| {
        let (mut a, mut b) = (a.session(), b.session());
        let said = futures::join!(say(&mut a, PARENT), say(&mut b, PARENT));
        let exists = "Schema: table `p` exists already".to_string();
        assert!(
            [("".into(), exists.clone()), (exists.clone(), "".into())].contains(&said),
            "{said:?}"
        );
        let said = futures::join!(say(&mut a, CHILD), say(&mut b, "DROP TABLE p"));
        let orphan = ("UnknownTable: there is no table `p`".into(), "".into());
        let parent = ("".into(), "Schema: table `p` has interleaved children: c".into());
        assert!([orphan.clone(), parent].contains(&said), "{said:?}");
        if said == orphan {
            all(&mut a, PARENT).await;
            all(&mut a, CHILD).await;
        }
        let said = futures::join!(say(&mut a, "DROP TABLE c"), say(&mut b, "DROP TABLE c"));
        let gone = "UnknownTable: there is no table `c`".to_string();
        assert!([("".into(), gone.clone()), (gone, "".into())].contains(&said), "{said:?}");
        let said = futures::join!(
            say(&mut a, CHILD),
            say(&mut b, "CREATE TABLE IF NOT EXISTS q (k INT64) PRIMARY KEY (k)")
        );
        assert_eq!(said, ("".into(), "".into()));
    })
    .await;
}

#[tokio::test]
async fn nobody_looks_the_schema_up_on_the_way() {
    with(async |groups, a, _| {
        let mut a = a.session();
        all(&mut a, PARENT).await;
        let (before, begun) = (groups.root_reads(), groups.time.tick());
        for _ in 0..2_000 {
            all(&mut a, "INSERT OR UPDATE INTO p VALUES (1); SELECT k FROM p WHERE k = 1").await;
        }
        let leases = groups.time.tick().since(begun).as_micros() as u64 / LEASE_US;
        let reads = groups.root_reads() - before;
        assert!(leases >= 2 && reads <= 3 * leases + 3, "{reads} reads in {leases} leases");
        // After a rest the first statement has to.
        let before = groups.root_reads();
        groups.time.sleep(5 * LEASE_US).await;
        all(&mut a, "SELECT k FROM p WHERE k = 1; SELECT k FROM p WHERE k = 2").await;
        assert_eq!(groups.root_reads() - before, 1);
    })
    .await;
}

#[tokio::test]
async fn rows_of_others_in_the_root_group_are_not_the_catalog() {
    with(async |groups, a, b| {
        let mut a = a.session();
        all(&mut a, PARENT).await;
        let client = groups.client(3);
        let at = || async {
            let snapshot = client.snapshot(TimestampBound::Strong).expect("a good bound");
            let written = store::written(&snapshot).await.expect("it is read");
            (written, store::load(&snapshot).await.expect("it is whole").since())
        };
        let before = at().await;
        for key in [&b"a"[..], b"mm", b"u", b"uuu", b"z"] {
            let key = [&sql::CATALOG_PREFIX[..], key].concat();
            let put = client.run(|txn| {
                txn.put(key.clone().into(), "no descriptor".into());
                async { Ok::<(), SqlError>(()) }
            });
            put.await.expect("it commits");
        }
        assert_eq!(at().await, before);
        let mut b = b.session();
        all(&mut b, CHILD).await;
        all(&mut a, "DROP TABLE c").await;
    })
    .await;
}

#[tokio::test]
async fn rows_of_a_dropped_table_are_deleted_once_nobody_uses_it_by_whoever_is_there() {
    with(async |groups, a, b| {
        let mut session = a.session();
        all(&mut session, &format!("{PARENT}; INSERT INTO p VALUES (1), (2), (3)")).await;
        // Somebody drops it and does not live to clean up. It counts for a while.
        let client = groups.client(3);
        let until = client.now().expect("exact").latest().plus_micros(2 * LEASE_US);
        let half = client.run(|txn| async move {
            let locked = store::lock(&txn).await?;
            store::start_drop(&txn, &locked, ("p", false), until)
        });
        assert!(half.await.expect("it commits").0);
        let _cleaners = (open(&groups, 4).await, open(&groups, 5).await);
        let mut b = b.session();
        assert_eq!(say(&mut b, "SELECT COUNT(*) FROM p").await, "3", "it counts");
        assert_eq!(say(&mut b, "INSERT INTO p VALUES (4)").await, "(1 rows)");
        client.passed(until).await.expect("exact");
        assert_eq!(
            say(&mut b, "SELECT COUNT(*) FROM p").await,
            "UnknownTable: there is no table `p`"
        );
        let left = || {
            let history = groups.history();
            history
                .values()
                .filter(|row| row.values().next_back().is_some_and(Option::is_some))
                .count()
        };
        while left() > 1 {
            groups.time.sleep(LEASE_US / 10).await;
        }
        let read = b.database().read_only(TimestampBound::ReadTimestamp(until.prev())).await;
        let rows = read.expect("a good bound").query("SELECT k FROM p", &params(&[])).await;
        assert_eq!(rows.expect("it was there").collect().await.expect("rows").len(), 4, "R6");
    })
    .await;
}
