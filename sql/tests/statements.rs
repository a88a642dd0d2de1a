//! Statements over groups in memory: what they answer, and what they refuse.

mod double;

use double::{all, database, say, sorted};
use sql::Session;

const SCHEMA: &str = "
    CREATE TABLE Airlines (Carrier STRING(2) NOT NULL, Name STRING(MAX)) PRIMARY KEY (Carrier);
    CREATE TABLE Flights (
      Carrier STRING(2) NOT NULL, Flight INT64 NOT NULL, Day DATE NOT NULL, Delay INT64, Miles FLOAT64,
    ) PRIMARY KEY (Carrier, Flight, Day DESC), INTERLEAVE IN PARENT Airlines ON DELETE CASCADE;
    CREATE TABLE Notes (Carrier STRING(2) NOT NULL, Flight INT64 NOT NULL, Day DATE NOT NULL, N INT64, T STRING(5))
      PRIMARY KEY (Carrier, Flight, Day DESC, N), INTERLEAVE IN PARENT Flights;
    CREATE TABLE Types (Id INT64, B BOOL, F FLOAT64, S STRING(MAX), Y BYTES(3), D DATE, T TIMESTAMP) PRIMARY KEY (Id);
    INSERT INTO Airlines VALUES ('AA', 'American'), ('UA', 'United'), ('WN', NULL);
    INSERT INTO Flights (Carrier, Flight, Day, Delay, Miles) VALUES
      ('AA', 1, '2013-01-01', 5, 100), ('AA', 1, '2013-01-02', -3, 100.5), ('AA', 2, '2013-01-01', NULL, 7),
      ('UA', 1, '2013-01-01', 60, 2000);
";

async fn flights() -> Session {
    let (_, database) = database().await;
    let mut session = database.session();
    all(&mut session, SCHEMA).await;
    session
}

macro_rules! answers {
    ($session:expr, $($sql:expr => $answer:expr),+ $(,)?) => {$(
        assert_eq!(say(&mut $session, $sql).await, $answer, "{}", $sql);
    )+};
}

#[tokio::test]
async fn queries() {
    let mut s = flights().await;
    answers!(s,
        "SELECT * FROM airlines WHERE carrier = 'UA'" => "UA|United",
        "SELECT name AS N, `carrier` FROM Airlines a WHERE 'AA' = a.Carrier LIMIT 1" => "American|AA",
        "SELECT name FROM airlines WHERE carrier = 'ZZ'" => "",
        "SELECT * FROM flights ORDER BY carrier, flight, day" =>
            "AA|1|2013-01-01|5|100\nAA|1|2013-01-02|-3|100.5\nAA|2|2013-01-01|NULL|7\nUA|1|2013-01-01|60|2000",
        "SELECT day FROM flights WHERE carrier = 'AA' AND flight = 1" => "2013-01-02\n2013-01-01",
        "SELECT flight FROM flights WHERE carrier = 'AA' AND day >= DATE '2013-01-02'" => "1",
        "SELECT COUNT(*), SUM(delay), AVG(delay), MIN(day), MAX(miles) FROM flights" =>
            "4|62|20.666666666666668|2013-01-01|2000",
        "SELECT a.name, COUNT(f.flight) AS n FROM airlines a LEFT JOIN flights f ON a.carrier = f.carrier
           GROUP BY a.name ORDER BY n DESC, a.name" => "American|3\nUnited|1\nNULL|0",
        "SELECT delay FROM flights ORDER BY delay" => "NULL\n-3\n5\n60",
        "SELECT delay FROM flights ORDER BY delay DESC LIMIT 2" => "60\n5",
        "WITH late AS (SELECT * FROM flights WHERE delay > 0) SELECT COUNT(*) FROM late" => "2",
        "SELECT COUNT(*) FROM flights WHERE carrier IN ('AA', 'WN') AND flight IN (1, 2, 3)" => "3",
        "SELECT COUNT(*) FROM flights WHERE carrier = 'AA' AND flight BETWEEN 2 AND 9" => "1",
        "SELECT EXTRACT(YEAR FROM day), COUNTIF(delay > 0) FROM flights GROUP BY 1" => "2013|2",
        "SELECT carrier FROM flights GROUP BY carrier HAVING COUNT(*) > 1" => "AA",
    );
}

#[tokio::test]
async fn expressions_are_those_of_googlesql() {
    let mut s = flights().await;
    answers!(s,
        "SELECT 7 / 2, DIV(7, 2), MOD(7, 2), 2 * 3 - 1" => "3.5|3|1|5",
        "SELECT 1 / 0" => "OutOfRange: division by zero",
        "SELECT SAFE_DIVIDE(1, 0), SAFE_DIVIDE(1, 2)" => "NULL|0.5",
        "SELECT 9223372036854775807 + 1" => "OutOfRange: INT64 overflow",
        "SELECT -9223372036854775808" => "-9223372036854775808",
        "SELECT IF(true, 'a', \"b\"), IFNULL(NULL, 2), COALESCE(NULL, NULL, 3)" => "a|2|3",
        "SELECT CAST('12' AS INT64), CAST(1 AS STRING), CAST('1.5' AS FLOAT64), CAST(2 AS FLOAT64)" => "12|1|1.5|2",
        "SELECT CAST('x' AS INT64) IS NULL" => "Type: Cannot cast string 'x' to value of Int64 type",
        "SELECT SAFE_CAST('x' AS INT64)" => "NULL",
        "SELECT TIMESTAMP '2013-01-01T10:00:00Z', DATE '2013-01-31'" => "2013-01-01T10:00:00.000000Z|2013-01-31",
        "SELECT TIMESTAMP_TRUNC(TIMESTAMP '2013-01-01T10:59:00Z', HOUR)" => "2013-01-01T10:00:00.000000Z",
        "SELECT TIMESTAMP_ADD(TIMESTAMP '2013-01-01T10:00:00Z', INTERVAL 90 MINUTE)" => "2013-01-01T11:30:00.000000Z",
        "SELECT EXTRACT(DAYOFWEEK FROM DATE '2013-01-06'), EXTRACT(HOUR FROM TIMESTAMP '2013-01-01 07:30:00')" => "1|7",
        "SELECT UPPER('a'), LENGTH('héé'), SUBSTR('hello', 2, 3), CONCAT('a', 'b'), STARTS_WITH('ab', 'a')" => "A|3|ell|ab|true",
        "SELECT REGEXP_CONTAINS('abc', r'b.'), REGEXP_REPLACE('aa', 'a', 'b')" => "true|bb",
        "SELECT b'a\\x00', '''it's'''" => "b'a\\x00'|it's",
        "SELECT 'a' || 'b' # comment" => "ab",
        "SELECT CAST(1.5 AS INT64), CAST(-2.5 AS INT64), CAST(true AS INT64), CAST(1e300 AS STRING)" => "2|-3|1|1e300",
        "SELECT CAST(1e19 AS INT64)" => "OutOfRange: 1e19 is out of the range of INT64",
        "SELECT CAST(TIMESTAMP '2013-01-01T10:00:00.5Z' AS STRING), CAST(DATE '2013-01-01' AS STRING)" => "2013-01-01 10:00:00.5+00|2013-01-01",
        "SELECT DATE_DIFF(DATE '2013-03-01', DATE '2013-01-01', DAY), SIGN(-2.5)" => "59|-1",
        "SELECT TIMESTAMP_DIFF(TIMESTAMP '2013-01-02', TIMESTAMP '2013-01-01', HOUR)" => "24",
        "SELECT 1, 1, 1 + 0, 1 + 0" => "1|1|1|1",
        "SELECT name, name, a.* FROM airlines a WHERE carrier = 'AA'" => "American|American|AA|American",
        "SELECT * FROM flights FOR SYSTEM_TIME AS OF TIMESTAMP '2013-01-01'" =>
            "Unsupported: FOR SYSTEM_TIME is not supported\nHint: SET READ_ONLY_STALENESS = 'READ_TIMESTAMP …' reads the past",
        "SELECT SUM(x), SUM(DISTINCT x), SUM(x * 0.5) FROM (SELECT 3 AS x UNION ALL SELECT 3)" => "6|3|3",
        "SELECT SUM(x) FROM (SELECT 9223372036854775807 AS x UNION ALL SELECT 1)" => "OutOfRange: INT64 overflow in SUM",
        "SELECT SUM(x), SUM(NULL) FROM (SELECT 1 AS x) WHERE x > 1" => "NULL|NULL",
        "SELECT x, SUM(y) AS total FROM (SELECT 1 AS x, 2 AS y UNION ALL SELECT 1, 3 UNION ALL SELECT 2, 4)
           GROUP BY x HAVING SUM(y) > 1 ORDER BY SUM(y) DESC" => "1|5\n2|4",
        "SELECT SUM(x) OVER () FROM (SELECT 1 AS x)" => "1",
        "SELECT NULL" => "NULL",
        "SELECT nope(1)" => "UnknownFunction: there is no function `nope`\n  SELECT nope(1)\n         ^",
    );
}

#[tokio::test]
async fn columns_are_named_as_written_or_as_declared() {
    let mut s = flights().await;
    for (sql, names) in [
        ("SELECT * FROM airlines WHERE carrier = 'AA'", "Carrier Name"),
        ("SELECT * FROM airlines", "Carrier Name"),
        ("SELECT NAME AS Full, carrier FROM airlines WHERE carrier = 'AA'", "Full carrier"),
        (
            "SELECT a.NAME AS Full_, a.carrier, COUNT(*), COUNT(*) FROM airlines a GROUP BY 1, 2",
            "Full_ carrier COUNT(*) COUNT(*)",
        ),
        ("SELECT *, Name FROM airlines", "Carrier Name Name"),
    ] {
        let result = s.execute(sql).await.expect("runs");
        let found: Vec<&str> = result.columns.iter().map(|column| &column.name[..]).collect();
        assert_eq!(found.join(" "), names, "{sql}");
    }
}

#[tokio::test]
async fn errors_say_where_and_what_instead() {
    let mut s = flights().await;
    answers!(s,
        "SELECT *\n FROM flihgts" =>
            "UnknownTable: there is no table `flihgts`\n   FROM flihgts\n        ^\nHint: did you mean `Flights`?",
        "SELECT dely FROM flights" =>
            "UnknownColumn: there is no column `dely`\n  SELECT dely FROM flights\n         ^\nHint: did you mean `delay`?",
        "SELECT carrier FROM airlines a JOIN flights f ON true" =>
            "UnknownColumn: `carrier` could be a column of several tables\n  SELECT carrier FROM airlines a JOIN flights f ON true\n         ^\nHint: write the table's name before it",
        "INSERT INTO airlines (carrier, nam) VALUES ('BA', 'x')" =>
            "UnknownColumn: table `Airlines` has no column `nam`\n  INSERT INTO airlines (carrier, nam) VALUES ('BA', 'x')\n                                 ^\nHint: did you mean `Name`?",
        "UPDATE airlines SET name = 'x'" =>
            "Syntax: expected WHERE, found the end of the statement\nHint: UPDATE needs a WHERE clause; WHERE true means every row",
        "SELECT FROM" =>
            "Syntax: expected an expression, found FROM",
        "GRANT x TO y" =>
            "Unsupported: `GRANT` begins no statement\n  GRANT x TO y\n  ^\nHint: statements are SELECT, WITH, INSERT, UPDATE, DELETE, CREATE TABLE, DROP TABLE, BEGIN, COMMIT, ROLLBACK, SET TRANSACTION, SET READ_ONLY_STALENESS, SHOW VARIABLE, SHOW TABLES, SHOW CREATE TABLE, DESCRIBE and EXPLAIN",
        "SELECT 1; SELECT 2" =>
            "Syntax: only one statement at a time\n  SELECT 1; SELECT 2\n          ^\nHint: send the statements one after the other",
    );
}

#[tokio::test]
async fn inserts() {
    let mut s = flights().await;
    answers!(s,
        "INSERT INTO airlines (carrier) VALUES ('AA')" =>
            "AlreadyExists: row (AA) already exists in table `Airlines`",
        "INSERT INTO airlines VALUES ('BA', 'x'), ('BA', 'y')" =>
            "AlreadyExists: row (BA) already exists in table `Airlines`\nHint: the statement inserts this key twice",
        "INSERT INTO airlines (name) VALUES ('x')" => "NotNull: column `Carrier` of table `Airlines` is NOT NULL",
        "INSERT INTO airlines VALUES ('LONG', 'x')" =>
            "OutOfRange: column `Carrier` of table `Airlines`: 4 characters do not fit into STRING(2)",
        "INSERT INTO airlines VALUES (1, 'x')" =>
            "Type: column `Carrier` of table `Airlines`: a value of type INT64 cannot be stored as STRING",
        "INSERT INTO airlines VALUES ('BA')" =>
            "Type: 2 columns, but 1 values\n  INSERT INTO airlines VALUES ('BA')\n              ^",
        "INSERT INTO flights (carrier, flight, day) VALUES ('ZZ', 1, '2013-01-01')" =>
            "ParentMissing: row (ZZ, 1, 2013-01-01) of table `Flights` needs its parent row (ZZ) in table `Airlines`",
        "INSERT INTO flights (carrier, flight, day) VALUES ('AA', 1, 'soon')" =>
            "Type: column `Day` of table `Flights`: cannot read 'soon' as DATE",
        "INSERT OR UPDATE INTO airlines VALUES ('WN', 'Southwest'), ('BA', 'British')" => "(2 rows)",
        "INSERT OR UPDATE airlines (name, carrier) VALUES ('British Airways', 'BA')" => "(1 rows)",
        "INSERT OR UPDATE flights (carrier, flight, day, delay) VALUES ('AA', 1, '2013-01-01', 6)" => "(1 rows)",
        "SELECT delay, miles FROM flights WHERE carrier = 'AA' AND flight = 1 AND day = '2013-01-01'" => "6|100",
        "INSERT OR IGNORE INTO airlines VALUES ('BA', 'x'), ('LH', 'Lufthansa')" => "(1 rows)",
        "SELECT * FROM airlines ORDER BY carrier" => "AA|American\nBA|British Airways\nLH|Lufthansa\nUA|United\nWN|Southwest",
        "INSERT INTO flights (carrier, flight, day, miles) SELECT 'LH', flight + 100, day, miles FROM flights WHERE carrier = 'AA'" => "(3 rows)",
        "SELECT COUNT(*) FROM flights WHERE carrier = 'LH' AND flight > 100" => "3",
        "INSERT INTO types (id, t, f) VALUES (1, TIMESTAMP '2013-01-01T00:00:00+01:00', 2), (DIV(9, 4), CURRENT_TIMESTAMP(), 1 / 4)" => "(2 rows)",
        "SELECT id, f, t < CURRENT_TIMESTAMP() FROM types ORDER BY id" => "1|2|true\n2|0.25|true",
        "INSERT INTO types VALUES (NULL, true, 'NaN', '', b'abc', '1969-12-31', '1969-12-31T23:59:59.999999Z')" =>
            "Type: column `F` of table `Types`: a value of type STRING cannot be stored as FLOAT64",
        "INSERT INTO types VALUES (NULL, true, -0.5, '', b'abc', '1969-12-31', '1969-12-31T23:59:59.999999Z')" => "(1 rows)",
        "SELECT * FROM types WHERE id IS NULL" => "NULL|true|-0.5||b'abc'|1969-12-31|1969-12-31T23:59:59.999999Z",
        "INSERT INTO types (id, y) VALUES (3, b'abcd')" =>
            "OutOfRange: column `Y` of table `Types`: 4 bytes do not fit into BYTES(3)",
    );
}

#[tokio::test]
async fn updates_and_deletes() {
    let mut s = flights().await;
    answers!(s,
        "UPDATE flights SET delay = delay + 1, miles = 3 WHERE carrier = 'AA' AND flight = 1 AND day = DATE '2013-01-01'" => "(1 rows)",
        "SELECT delay, miles FROM flights WHERE carrier = 'AA' AND flight = 1 AND day = DATE '2013-01-01'" => "6|3",
        "UPDATE flights SET delay = 0 WHERE carrier = 'ZZ' AND flight = 1 AND day = DATE '2013-01-01'" => "(0 rows)",
        "UPDATE flights f SET f.delay = IFNULL(f.delay, 0) * 2 WHERE f.carrier = 'AA'" => "(3 rows)",
        "SELECT delay FROM flights WHERE carrier = 'AA' ORDER BY flight, day" => "12\n-6\n0",
        "UPDATE flights SET flight = 9 WHERE true" =>
            "Schema: `flight` is part of the primary key and cannot be updated\n  UPDATE flights SET flight = 9 WHERE true\n                     ^\nHint: delete the row and insert it with its new key",
        "UPDATE flights SET delay = 9223372036854775807 + delay WHERE carrier = 'UA' AND flight = 1 AND day = '2013-01-01'" =>
            "OutOfRange: INT64 overflow",
        "UPDATE flights SET delay = 9223372036854775807 + delay WHERE carrier = 'UA'" => "OutOfRange: INT64 overflow",
        "UPDATE flights SET delay = 'x' WHERE true" =>
            "Type: column `Delay` of table `Flights`: a value of type STRING cannot be stored as INT64",
        "INSERT INTO notes VALUES ('AA', 1, '2013-01-01', NULL, 'note')" => "(1 rows)",
        "DELETE FROM flights WHERE carrier = 'AA' AND flight = 1 AND day = '2013-01-01'" =>
            "ChildrenExist: row (AA, 1, 2013-01-01) of table `Flights` has rows in table `Notes`\nHint: delete those first, or declare the table ON DELETE CASCADE",
        "DELETE FROM airlines WHERE carrier = 'AA'" =>
            "ChildrenExist: row (AA) of table `Airlines` has rows in table `Notes`\nHint: delete those first, or declare the table ON DELETE CASCADE",
        "DELETE FROM notes WHERE t LIKE 'no%'" => "(1 rows)",
        "DELETE FROM airlines WHERE carrier = 'AA'" => "(1 rows)",
        "SELECT COUNT(*) FROM flights" => "1",
        "DELETE flights WHERE true" => "(1 rows)",
        "DELETE FROM airlines WHERE name IS NULL" => "(1 rows)",
        "DELETE FROM airlines WHERE carrier = 'XX'" => "(0 rows)",
        "SELECT carrier FROM airlines" => "UA",
    );
}

#[tokio::test]
async fn relatives_do_not_mix() {
    let mut s = flights().await;
    all(&mut s, "INSERT INTO notes VALUES ('AA', 1, '2013-01-01', 1, 'a'), ('AA', 1, '2013-01-02', 2, 'b'), ('UA', 1, '2013-01-01', 3, 'c')").await;
    answers!(s,
        "SELECT COUNT(*) FROM airlines" => "3",
        "SELECT COUNT(*) FROM flights" => "4",
        "SELECT COUNT(*) FROM notes" => "3",
        "SELECT t FROM notes WHERE carrier = 'AA' ORDER BY n" => "a\nb",
        "SELECT t FROM notes WHERE carrier = 'AA' AND flight = 1 AND day = '2013-01-02'" => "b",
        "SELECT t FROM notes WHERE carrier = 'AA' AND flight = 1 AND day > '2013-01-01'" => "b",
        "SELECT name FROM airlines WHERE carrier >= 'B' ORDER BY 1" => "NULL\nUnited",
        "SELECT f.flight, n.t FROM flights f JOIN notes n USING (carrier, flight, day) ORDER BY n.t" => "1|a\n1|b\n1|c",
    );
    let all_notes = say(&mut s, "SELECT n FROM notes").await;
    assert_eq!(sorted(&all_notes), "1\n2\n3");
}

#[tokio::test]
async fn plans_show_keys_and_groups() {
    let mut s = flights().await;
    let plan = say(&mut s, "EXPLAIN SELECT * FROM airlines WHERE carrier = 'AA'").await;
    assert!(plan.starts_with("PointRead: table=Airlines, key=(AA), groups=[g"), "{plan}");
    let plan =
        say(&mut s, "EXPLAIN SELECT day FROM flights WHERE carrier = 'AA' AND flight > 1").await;
    assert!(plan.contains("TabletScan: table=Flights, columns=["), "{plan}");
    assert!(plan.contains("keys=[(AA") && plan.matches("groups=[g").count() == 1, "{plan}");
    let plan = say(&mut s, "EXPLAIN SELECT * FROM flights").await;
    assert!(plan.contains("whole table") && plan.contains("groups=[g1, g2, g3, g4]"), "{plan}");
    let plan = say(&mut s, "EXPLAIN ANALYZE SELECT COUNT(*) FROM flights").await;
    assert!(plan.contains("output_rows=4"), "{plan}");
    let plan = say(&mut s, "EXPLAIN SELECT carrier FROM airlines ORDER BY carrier LIMIT 2").await;
    assert!(plan.contains("SortPreservingMerge") && !plan.contains("SortExec"), "{plan}");
}
