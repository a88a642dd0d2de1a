//! Two databases over one universe, as two client processes would have them: what one does to the
//! schema, the other goes by (S1). With real groups, locks and clocks; what can happen in between is
//! tried in a time of its own in `sql/tests/leases.rs`.

use client::{Database, ErrorKind, Session, Universe};
use sql::Options;
use std::sync::Arc;
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(200);
const SCHEMA: &str = "
    CREATE TABLE account (id INT64 NOT NULL) PRIMARY KEY (id);
    INSERT INTO account VALUES (1), (2), (3)";
const CHILD: &str = "CREATE TABLE entry (id INT64 NOT NULL, n INT64 NOT NULL) PRIMARY KEY (id, n),
    INTERLEAVE IN PARENT account ON DELETE NO ACTION";

async fn open(universe: &Universe, lease: Duration) -> Arc<Database> {
    let options = Options { schema_lease: Some(lease), ..Options::default() };
    Database::open_with(universe.client(), options).await.expect("it opens")
}

async fn all(session: &mut Session, script: &str) {
    for statement in sql::split(script) {
        let done = session.execute(statement.sql).await;
        done.unwrap_or_else(|error| panic!("{}", error.render(statement.sql)));
    }
}

async fn refusal(session: &mut Session, sql: &str) -> (ErrorKind, String) {
    let error = session.execute(sql).await.err().unwrap_or_else(|| panic!("{sql} was done"));
    (error.kind, error.message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_changes_the_schema_and_the_other_goes_by_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let universe = Universe::open(dir.path()).await.expect("it opens");
    let (a, b) = (open(&universe, LEASE).await, open(&universe, LEASE).await);
    let (mut a, mut b) = (a.session(), b.session());
    for _ in 0..2 {
        all(&mut a, SCHEMA).await;
        all(&mut b, "SELECT * FROM account; BEGIN; DELETE FROM account WHERE id = 1").await;
        // It deletes a parent by a schema without children, and is not done when there are some.
        all(&mut a, CHILD).await;
        all(&mut a, "INSERT INTO entry VALUES (2, 1)").await;
        let (kind, message) = refusal(&mut b, "COMMIT").await;
        assert_eq!(kind, ErrorKind::Aborted);
        assert_eq!(message, "the schema has changed since the transaction began");
        let (kind, _) = refusal(&mut b, "DELETE FROM account WHERE id = 2").await;
        assert_eq!(kind, ErrorKind::ChildrenExist);
        all(&mut b, "DROP TABLE entry; DELETE FROM account WHERE id = 2").await;
        let (kind, _) = refusal(&mut a, "SELECT * FROM entry").await;
        assert_eq!(kind, ErrorKind::UnknownTable);
        all(&mut a, "DROP TABLE account").await;
    }
    universe.close();
}

/// The planted fault: one believes what it knows for longer than the other waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_nobody_waits_for_leaves_an_orphan() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let universe = Universe::open(dir.path()).await.expect("it opens");
    for (lease, orphans) in [(LEASE, false), (Duration::from_secs(3_600), true)] {
        let a = open(&universe, LEASE).await;
        let mut a = a.session();
        all(&mut a, SCHEMA).await;
        let mut b = open(&universe, lease).await.session();
        all(&mut a, CHILD).await;
        all(&mut a, "INSERT INTO entry VALUES (2, 1)").await;
        let deleted = b.execute("DELETE FROM account WHERE id = 2").await;
        assert_eq!(deleted.is_ok(), orphans, "{lease:?}: {deleted:?}");
        all(&mut a, "DROP TABLE entry; DROP TABLE account").await;
    }
    universe.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_change_the_schema_while_both_work() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let universe = Universe::builder().replicas(3).open(dir.path()).await.expect("it opens");
    let (a, b) = (open(&universe, LEASE).await, open(&universe, LEASE).await);
    all(&mut a.session(), SCHEMA).await;
    let change = async |database: &Arc<Database>, table: &str| {
        let mut session = database.session();
        for _ in 0..3 {
            let child = CHILD.replace("entry", table);
            let insert = format!("INSERT OR UPDATE INTO {table} VALUES (1, 1), (2, 1)");
            all(&mut session, &child).await;
            all(&mut session, &insert).await;
            all(&mut session, &format!("DROP TABLE {table}")).await;
        }
    };
    let changes = async { tokio::join!(change(&a, "entry"), change(&b, "note")) };
    let mut changes = std::pin::pin!(changes);
    let (mut session, mut done) = (b.session(), 0);
    loop {
        let work = session.execute("INSERT OR UPDATE INTO account VALUES (3)");
        tokio::select! {
            biased;
            result = work => {
                result.expect("an open schema change stops nobody");
                done += 1;
            }
            _ = &mut changes => break,
        }
    }
    assert!(done > 0);
    universe.close();
}
