//! Golden texts: what statements are read as, and how refusals look.

use super::*;
use crate::catalog::OnDelete;
use crate::value::Type;

/// The statement in short, or its error as a user sees it.
fn short(sql: &str) -> String {
    match parse(sql) {
        Ok(statement) => shorten(&statement),
        Err(error) => format!("{:?}: {}", error.kind, error.render(sql)),
    }
}

fn shorten(statement: &Statement) -> String {
    match statement {
        Statement::CreateTable(table) => {
            let columns: Vec<String> = table
                .columns
                .iter()
                .map(|c| format!("{} {}{}", c.name, c.data_type, if c.not_null { "!" } else { "" }))
                .collect();
            let key: Vec<String> = table
                .primary_key
                .iter()
                .flatten()
                .map(|(name, desc)| format!("{name}{}", if *desc { "↓" } else { "" }))
                .collect();
            format!(
                "create {}{} [{}] key [{}] in {:?}",
                table.name,
                if table.if_not_exists { "?" } else { "" },
                columns.join(", "),
                key.join(", "),
                table.interleave
            )
        }
        Statement::Insert(insert) => format!(
            "insert {:?} {} {:?} {}",
            insert.kind,
            insert.table.text,
            insert
                .columns
                .as_ref()
                .map(|names| names.iter().map(|n| &n.text[..]).collect::<Vec<_>>()),
            match &insert.source {
                InsertSource::Values(rows) => rows
                    .iter()
                    .map(|row| row.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
                    .collect::<Vec<_>>()
                    .join("; "),
                InsertSource::Query(query) => query.to_string(),
            }
        ),
        Statement::Update(update) => {
            let set: Vec<String> =
                update.set.iter().map(|(name, expr)| format!("{}={expr}", name.text)).collect();
            format!(
                "update {} {:?} {} if {}",
                update.table.text,
                update.alias,
                set.join(", "),
                update.filter
            )
        }
        Statement::Delete(delete) => {
            format!("delete {} {:?} if {}", delete.table.text, delete.alias, delete.filter)
        }
        Statement::Query(query) => query.to_string(),
        Statement::Explain { analyze, query } => format!("explain {analyze} {query}"),
        Statement::DropTable { name, if_exists } => format!("drop {} {if_exists}", name.text),
        Statement::Describe(name) => format!("describe {}", name.text),
        Statement::ShowCreateTable(name) => format!("show create {}", name.text),
        other => format!("{other:?}"),
    }
}

macro_rules! reads {
    ($($sql:expr => $short:expr),+ $(,)?) => {$(
        assert_eq!(short($sql), $short, "{}", $sql);
    )+};
}

#[test]
fn tables() {
    reads!(
        "CREATE TABLE t (a INT64 NOT NULL, b STRING(MAX), c BYTES(9),) PRIMARY KEY (a, b DESC)" =>
            "create t [a INT64!, b STRING(MAX), c BYTES(9)] key [a, b↓] in None",
        "create table if not exists `Big` (a bool, d date, t timestamp, f float64) primary key (a asc), interleave in parent p on delete cascade;" =>
            "create Big? [a BOOL, d DATE, t TIMESTAMP, f FLOAT64] key [a] in Some((\"p\", Cascade))",
        "CREATE TABLE t (a INT64 PRIMARY KEY, type STRING(2), day INT64, PRIMARY_ INT64)" =>
            "create t [a INT64, type STRING(2), day INT64, PRIMARY_ INT64] key [a] in None",
        "CREATE TABLE t (a INT64) PRIMARY KEY (a), INTERLEAVE IN PARENT p" =>
            "create t [a INT64] key [a] in Some((\"p\", NoAction))",
        "DROP TABLE IF EXISTS T" => "drop T true",
        "CREATE TABLE t (a INT32) PRIMARY KEY (a)" =>
            "Unsupported: there is no type INT32\n  CREATE TABLE t (a INT32) PRIMARY KEY (a)\n                    ^\nHint: types are BOOL, INT64, FLOAT64, STRING(n|MAX), BYTES(n|MAX), DATE, TIMESTAMP",
        "CREATE TABLE t (a STRING) PRIMARY KEY (a)" =>
            "Syntax: expected a length: (n) or (MAX), found `)`\n  CREATE TABLE t (a STRING) PRIMARY KEY (a)\n                          ^",
        "CREATE TABLE t (a INT64 DEFAULT (1)) PRIMARY KEY (a)" =>
            "Unsupported: DEFAULT of a column is not supported\n  CREATE TABLE t (a INT64 DEFAULT (1)) PRIMARY KEY (a)\n                          ^",
        "CREATE TABLE s.t (a INT64) PRIMARY KEY (a)" =>
            "Unsupported: named schemas are not supported\n  CREATE TABLE s.t (a INT64) PRIMARY KEY (a)\n                ^",
    );
    assert!(
        short("CREATE INDEX i ON t (a)").starts_with("Unsupported: CREATE INDEX is not supported")
    );
    let Ok(Statement::CreateTable(table)) = parse(
        "CREATE TABLE t (a STRING(7)) PRIMARY KEY (a), INTERLEAVE IN PARENT p ON DELETE NO ACTION",
    ) else {
        unreachable!()
    };
    assert_eq!(table.columns[0].data_type, Type::String(Some(7)));
    assert_eq!(table.interleave, Some(("p".into(), OnDelete::NoAction)));
}

#[test]
fn changes() {
    reads!(
        "INSERT INTO T (a, `B`) VALUES (1, 'x'), (@p, \"y\")" =>
            "insert Insert T Some([\"a\", \"b\"]) 1, 'x'; @p, 'y'",
        "INSERT t SELECT * FROM u" => "insert Insert t None SELECT * FROM u",
        "INSERT INTO t (SELECT 1)" => "insert Insert t None (SELECT 1)",
        "INSERT OR UPDATE t VALUES (1)" => "insert OrUpdate t None 1",
        "INSERT OR IGNORE INTO t VALUES (b'\\x01')" => "insert OrIgnore t None X'01'",
        "UPDATE t SET a = a + 1, t.b = NULL WHERE c = 2" => "update t None a=a + 1, b=NULL if c = 2",
        "UPDATE t AS x SET a = 1 WHERE x.b" => "update t Some(\"x\") a=1 if x.b",
        "DELETE t WHERE true" => "delete t None if true",
        "DELETE FROM t x WHERE x.a IN (1)" => "delete t Some(\"x\") if x.a IN (1)",
        "DELETE FROM t" =>
            "Syntax: expected WHERE, found the end of the statement\nHint: DELETE needs a WHERE clause; WHERE true means every row",
        "INSERT INTO t VALUES 1" =>
            "Syntax: expected `(` and a row, found `1`\n  INSERT INTO t VALUES 1\n                       ^",
        "INSERT INTO t VALUES (1) THEN RETURN a" => "Unsupported: THEN RETURN is not supported",
    );
}

#[test]
fn sessions() {
    reads!(
        "BEGIN" => "Begin(None)",
        "BEGIN TRANSACTION READ ONLY" => "Begin(Some(ReadOnly))",
        "START TRANSACTION READ WRITE" => "Begin(Some(ReadWrite))",
        "COMMIT TRANSACTION;" => "Commit",
        "ROLLBACK" => "Rollback",
        "SET TRANSACTION READ ONLY" => "SetTransaction(ReadOnly)",
        "SET READ_ONLY_STALENESS = 'STRONG'" => "SetStaleness(Strong)",
        "SET read_only_staleness = 'exact_staleness 150ms'" => "SetStaleness(ExactStaleness(150ms))",
        "SET READ_ONLY_STALENESS TO 'MAX_STALENESS 2m'" => "SetStaleness(MaxStaleness(120s))",
        "SET READ_ONLY_STALENESS = 'READ_TIMESTAMP 2014-10-02T15:01:23.045123456Z'" =>
            "SetStaleness(ReadTimestamp(s1412262083045123))",
        "SET READ_ONLY_STALENESS = 'MIN_READ_TIMESTAMP 2014-10-02T15:01:23Z'" =>
            "SetStaleness(MinReadTimestamp(s1412262083000000))",
        "SET READ_ONLY_STALENESS = 'SESSION'" => "SetStaleness(Session(SessionToken(s0)))",
        "SET READ_ONLY_STALENESS = 'session s1-50471e3ca2703'" =>
            "SetStaleness(Session(SessionToken(s1412262083045123)))",
        "SHOW VARIABLE SESSION_TOKEN" => "ShowVariable(SessionToken)",
        "SHOW VARIABLE COMMIT_TIMESTAMP" => "ShowVariable(CommitTimestamp)",
        "SHOW READ_TIMESTAMP" => "ShowVariable(ReadTimestamp)",
        "SHOW TABLES" => "ShowTables",
        "SHOW CREATE TABLE t" => "show create t",
        "DESCRIBE TABLE t" => "describe t",
        "EXPLAIN ANALYZE SELECT 1" => "explain true SELECT 1",
        "SET x = 1" =>
            "Syntax: expected READ_ONLY_STALENESS, found `x`\n  SET x = 1\n      ^\nHint: SET TRANSACTION and SET READ_ONLY_STALENESS are what can be set",
        "SET READ_ONLY_STALENESS = 'soon'" =>
            "Syntax: 'soon' is no staleness\n  SET READ_ONLY_STALENESS = 'soon'\n                            ^\nHint: 'STRONG', 'EXACT_STALENESS 10s', 'MAX_STALENESS 15s', 'READ_TIMESTAMP 2014-10-02T15:01:23.045Z', 'MIN_READ_TIMESTAMP …', 'SESSION' or 'SESSION s1-…'",
        "SET READ_ONLY_STALENESS = 'SESSION 5'" =>
            "Syntax: '5' is no session token\n  SET READ_ONLY_STALENESS = 'SESSION 5'\n                            ^\nHint: SHOW VARIABLE SESSION_TOKEN shows a session's own",
        "BEGIN WORK" => "Syntax: unexpected `WORK` after the statement\n  BEGIN WORK\n        ^",
        " ; " => "Syntax: the statement is empty",
        "SELECT 'open" =>
            "Syntax: Unterminated string literal\n  SELECT 'open\n          ^\nHint: is a quote or a comment left open?",
        "SELECT a,\n  b c d FROM t" =>
            "Syntax: unexpected `d` after the statement\n    b c d FROM t\n        ^",
    );
}

#[test]
fn staleness_reads_back() {
    use super::session::{staleness, staleness_text};
    for text in [
        "STRONG",
        "EXACT_STALENESS 10s",
        "MAX_STALENESS 1500ms",
        "MIN_READ_TIMESTAMP 2014-10-02T15:01:23.045123Z",
        "SESSION",
        "SESSION s1-50471e3ca2703",
    ] {
        assert_eq!(staleness(text).map(staleness_text), Ok(text.to_owned()));
    }
}

mod arbitrary {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_never_panics(sql in "(SELECT|INSERT|CREATE TABLE|SET|SHOW|BEGIN|UPDATE|EXPLAIN)? ?[a-z0-9@`'\"(),;=*. \\\\]{0,40}|.{0,40}") {
            let _ = super::parse(&sql);
        }
    }
}
