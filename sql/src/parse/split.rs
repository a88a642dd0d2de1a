//! Scripts: where one statement ends and the next begins.

/// One statement of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementText<'s> {
    /// The statement without its semicolon and without blanks around it.
    pub sql: &'s str,
    /// Where it begins in the script, in bytes.
    pub offset: usize,
    /// The line it begins on, from 1.
    pub line: u32,
    /// Whether a semicolon ended it and no quote or comment is open. Only the last may lack it:
    /// an interactive prompt then asks for more lines.
    pub terminated: bool,
}

/// Cuts a script at the semicolons that are not inside texts, quoted names or comments.
/// Statements without any word are left out.
pub fn split(script: &str) -> Vec<StatementText<'_>> {
    let bytes = script.as_bytes();
    let mut statements = Vec::new();
    let (mut start, mut at) = (0, 0);
    let mut has_words = false;
    while at < bytes.len() {
        match bytes[at] {
            b';' => {
                if has_words {
                    statements.push(cut(script, start, at, true));
                }
                at += 1;
                (start, has_words) = (at, false);
            }
            b'\'' | b'"' | b'`' => {
                let raw = is_raw(&bytes[start..at]);
                at = quoted_end(bytes, at, raw);
                has_words = true;
            }
            b'#' => at = line_end(bytes, at),
            b'-' if bytes.get(at + 1) == Some(&b'-') => at = line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => at = comment_end(bytes, at),
            byte => {
                has_words |= !byte.is_ascii_whitespace();
                at += 1;
            }
        }
    }
    if has_words {
        statements.push(cut(script, start, script.len(), false));
    }
    statements
}

fn cut(script: &str, start: usize, end: usize, terminated: bool) -> StatementText<'_> {
    let text = &script[start..end];
    let offset = start + text.len() - text.trim_start().len();
    let line = 1 + script[..offset].bytes().filter(|byte| *byte == b'\n').count();
    let line = u32::try_from(line).unwrap_or(u32::MAX);
    StatementText { sql: text.trim(), offset, line, terminated }
}

/// Whether a quote after this text opens a raw literal (`r'…'`, `rb"…"`), which has no escapes.
fn is_raw(before: &[u8]) -> bool {
    let prefix: Vec<u8> = before
        .iter()
        .rev()
        .take_while(|b| b.is_ascii_alphanumeric())
        .map(u8::to_ascii_lowercase)
        .collect();
    matches!(&prefix[..], b"r" | b"rb" | b"br")
}

/// Behind the closing quote, or the end of the script.
fn quoted_end(bytes: &[u8], open: usize, raw: bool) -> usize {
    let quote = bytes[open];
    let triple = quote != b'`' && bytes[open..].starts_with(&[quote; 3]);
    let length = if triple { 3 } else { 1 };
    let mut at = open + length;
    while at < bytes.len() {
        if bytes[at] == b'\\' && !raw {
            at += 2;
        } else if bytes[at..].starts_with(&[quote; 3][..length]) {
            return at + length;
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn comment_end(bytes: &[u8], at: usize) -> usize {
    let body = &bytes[at + 2..];
    body.windows(2).position(|pair| pair == b"*/").map_or(bytes.len(), |length| at + length + 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(script: &str) -> Vec<&str> {
        split(script).into_iter().map(|statement| statement.sql).collect()
    }

    #[test]
    fn semicolons_in_texts_names_and_comments_do_not_count() {
        assert_eq!(texts("a; b;"), ["a", "b"]);
        assert_eq!(texts("SELECT ';', \"a;'b\"; c"), ["SELECT ';', \"a;'b\"", "c"]);
        assert_eq!(texts("`a;b`; '''x;'y''';"), ["`a;b`", "'''x;'y'''"]);
        assert_eq!(texts("'it\\';s'; r'\\'; b"), ["'it\\';s'", "r'\\'", "b"]);
        assert_eq!(texts("a -- x;y\n; # z;\n b /* ; */ c"), ["a -- x;y", "# z;\n b /* ; */ c"]);
        assert_eq!(texts(" ; -- nothing\n;"), [""; 0]);
    }

    #[test]
    fn says_where_and_whether_the_last_is_whole() {
        let statements = split("a;\n\n  b 'x;");
        assert_eq!(statements[0], StatementText { sql: "a", offset: 0, line: 1, terminated: true });
        let open = StatementText { sql: "b 'x;", offset: 6, line: 3, terminated: false };
        assert_eq!(statements[1], open);
    }

    proptest! {
        #[test]
        fn never_panics(script in "[a-z;'\"`#/*\\-\\\\ \n]{0,40}|.{0,40}") {
            for statement in split(&script) {
                prop_assert!(script[statement.offset..].starts_with(statement.sql));
            }
        }
    }
}
