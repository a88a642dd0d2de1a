//! What is written is read, and what is wrong is named with its line.

use super::*;

fn op(seq: u64) -> Operation {
    let txn = TxnId { client: 0x1f, seq };
    Operation {
        client: 3,
        txn,
        kind: Kind::ReadWrite,
        began_ns: 5,
        ended_ns: 10,
        ending: Ending::At(Timestamp::from_micros(7)),
        reads: BTreeMap::new(),
        writes: [("k".into(), Cell::number(txn, -3))].into(),
    }
}

fn written(ops: &[Operation]) -> String {
    let mut out = Vec::new();
    write_header(&mut out, &Header { universe: "u".into(), total: 10, ..Header::default() })
        .unwrap();
    ops.iter().for_each(|op| write_operation(&mut out, op).unwrap());
    String::from_utf8(out).unwrap()
}

fn read(text: &[u8]) -> Result<(Header, Vec<Operation>), Malformed> {
    let mut lines = Lines::open(text)?;
    let ops = lines.by_ref().collect::<Result<_, _>>()?;
    assert_eq!(lines.bytes(), text.len() as u64);
    Ok((lines.header().clone(), ops))
}

#[test]
fn what_is_written_is_read() {
    let (first, second) = (op(1), op(2).txn);
    let list = Cell::append(second, Some(&Cell::append(first.txn, None)));
    let read_only = |kind| Operation {
        kind,
        reads: [
            ("k".into(), first.writes.values().next().cloned()),
            ("missing".into(), None),
            (Bytes::from_static(b"100%\xff\x00\n"), Some(list.clone())),
        ]
        .into(),
        writes: BTreeMap::new(),
        ..op(9)
    };
    let all = vec![
        first.clone(),
        Operation { writes: [("l".into(), list.clone())].into(), ..op(2) },
        read_only(Kind::ReadWrite),
        read_only(Kind::Strong),
        read_only(Kind::Stale),
        read_only(Kind::Session),
        Operation { ending: Ending::Unknown, ended_ns: u64::MAX, ..op(4) },
        Operation { ending: Ending::Nothing, ..op(5) },
    ];
    let (header, ops) = read(written(&all).as_bytes()).unwrap();
    assert_eq!((header.universe.as_str(), header.total, header.version), ("u", 10, VERSION));
    assert_eq!(ops, all);
}

#[test]
fn little_is_needed() {
    let text = "{\"format\":\"meridian-history\",\"version\":2}\n\
        {\"client\":1,\"txn\":\"t1.1\",\"kind\":\"stale\",\"began_ns\":1,\"ended_ns\":null,\
        \"ending\":\"unknown\"}\n";
    let (_, ops) = read(text.as_bytes()).unwrap();
    assert_eq!((ops.len(), ops[0].ended_ns, ops[0].ending), (1, u64::MAX, Ending::Unknown));
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let head = written(&[]);
    let line = written(&[op(1)]).replace(&head, "");
    let with = |from: &str, to: &str| {
        assert!(line.contains(from), "{line}");
        format!("{head}{line}{}", line.replace(from, to))
    };
    let cases = [
        (String::new(), 1, "empty"),
        ("carrier,balance\n".into(), 1, "no recorded history"),
        (head.replace("\"version\":2", "\"version\":1"), 1, "record the history again"),
        (head.replace("\"version\":2", "\"version\":3"), 1, "version 3 of the format"),
        (head.replace(FORMAT, "other"), 1, "the format is other"),
        (format!("{head}{line}{{\"client\":3"), 3, "EOF"),
        (with("\"t1f.1\",\"kind", "\"x\",\"kind"), 3, "`x` is no transaction"),
        (with("\"began_ns\":5", "\"began_ns\":50"), 3, "before it began"),
        (with("\"at_us\":7", "\"at_us\":null"), 3, "null"),
        (with("{\"at_us\":7}", "\"later\""), 3, "later"),
        (with("\"read_write\"", "\"strong\""), 3, "only a transaction of the kind"),
        (with("\"read_write\"", "\"weak\""), 3, "weak"),
        (with("\"client\":3", "\"client\":3,\"x\":1"), 3, "unknown field"),
        (with("\"number\":-3", "\"list\":[],\"number\":1"), 3, "`number` or a `list`"),
        (
            with("\"number\":-3,\"writer\":\"t1f.1\"", "\"number\":1,\"writer\":\"t1f.2\""),
            3,
            "name of",
        ),
        (with("\"k\"", "\"k%4\""), 3, "is no key"),
        (format!("{head}{}", "x".repeat(lines::LINE_BYTES_MAX + 1)), 2, "too long"),
    ];
    for (text, number, words) in cases {
        let Malformed { line, what } = read(text.as_bytes()).expect_err(words);
        assert_eq!(line, number, "{what}");
        assert!(what.contains(words), "no '{words}' in: {what}");
    }
    let no_text = [head.as_bytes(), b"\xff\xfe\n"].concat();
    assert_eq!(read(&no_text).unwrap_err().line, 2);
}
