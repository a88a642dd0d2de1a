//! Lines of a script or of a prompt, cut into statements and commands of the shell.

use sql::split;

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The statement without its semicolon, or the command with its backslash.
    pub text: String,
    /// The line of the script it begins on, from 1.
    pub line: u64,
}

impl Piece {
    /// Whether it is a command of the shell (`\d`), not a statement.
    pub fn is_command(&self) -> bool {
        self.text.starts_with('\\')
    }
}

/// Collects lines until statements are whole.
///
/// A line that begins with a backslash where a statement could begin is a command; a statement
/// ends at a semicolon outside of texts, quoted names and comments, and may span lines.
#[derive(Debug, Default)]
pub struct Cutter {
    /// What has no semicolon yet.
    pending: String,
    /// The line on which `pending` begins.
    pending_line: u64,
    lines: u64,
}

impl Cutter {
    /// The pieces that this line (without its end) completes.
    pub fn line(&mut self, line: &str) -> Vec<Piece> {
        self.lines += 1;
        if !self.is_pending() {
            self.pending.clear();
            self.pending_line = self.lines;
            if line.trim_start().starts_with('\\') {
                return vec![Piece { text: line.trim().into(), line: self.lines }];
            }
        }
        self.pending.push_str(line);
        self.pending.push('\n');
        // Only a semicolon ends a statement, and only the end of a comment may leave nothing.
        if line.contains(';') { self.cut() } else { Vec::new() }
    }

    /// What is left at the end: the last statement may lack its semicolon.
    pub fn end(&mut self) -> Vec<Piece> {
        let mut pieces = self.cut();
        if self.is_pending() {
            let at = self.pending_line;
            pieces.extend(split(&self.pending).first().map(|last| piece(at, last.line, last.sql)));
        }
        self.forget();
        pieces
    }

    /// Whether a statement or a comment has begun and not ended.
    pub fn is_pending(&self) -> bool {
        if self.pending.trim().is_empty() {
            return false;
        }
        // A word behind an open quote or comment is swallowed by it; behind a statement without
        // its semicolon it becomes a part of that.
        let probe = format!("{}x;", self.pending);
        match split(&probe).as_slice() {
            [only] => !(only.terminated && is_comment(&only.sql[..only.sql.len() - 1])),
            _ => true,
        }
    }

    /// Drops what is pending.
    pub fn forget(&mut self) {
        self.pending.clear();
    }

    fn cut(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut end = 0;
        for statement in split(&self.pending) {
            if statement.terminated {
                pieces.push(piece(self.pending_line, statement.line, statement.sql));
                // Blanks may stand before the semicolon.
                let behind = statement.offset + statement.sql.len();
                end = behind + self.pending[behind..].find(';').map_or(0, |at| at + 1);
            }
        }
        self.pending_line += self.pending[..end].matches('\n').count() as u64;
        self.pending.drain(..end);
        pieces
    }
}

/// A statement without the comments before it, so that its line is that of its first word.
fn piece(first_line: u64, line_in_text: u32, sql: &str) -> Piece {
    let bare = after_comments(sql);
    let skipped = sql[..sql.len() - bare.len()].matches('\n').count() as u64;
    Piece { text: bare.into(), line: first_line + u64::from(line_in_text) - 1 + skipped }
}

/// The text behind the comments and blanks it begins with.
fn after_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    loop {
        let end = if rest.starts_with("--") || rest.starts_with('#') {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else {
            return rest;
        };
        rest = rest[end..].trim_start();
    }
}

fn is_comment(text: &str) -> bool {
    after_comments(text).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(script: &str) -> Vec<(u64, String)> {
        let mut cutter = Cutter::default();
        let mut found: Vec<Piece> = script.lines().flat_map(|line| cutter.line(line)).collect();
        found.extend(cutter.end());
        found.into_iter().map(|piece| (piece.line, piece.text)).collect()
    }

    fn expect(script: &str, wanted: &[(u64, &str)]) {
        let wanted: Vec<(u64, String)> = wanted.iter().map(|(n, s)| (*n, (*s).into())).collect();
        assert_eq!(pieces(script), wanted, "{script}");
    }

    #[test]
    fn statements_end_at_semicolons_and_commands_at_line_ends() {
        expect("SELECT 1;", &[(1, "SELECT 1")]);
        expect("SELECT 1 ; SELECT\n2", &[(1, "SELECT 1"), (1, "SELECT\n2")]);
        expect(
            "SELECT 1;\n\\set one\n  \\d t  \n",
            &[(1, "SELECT 1"), (2, "\\set one"), (3, "\\d t")],
        );
        expect("SELECT ';\n\\d';", &[(1, "SELECT ';\n\\d'")]);
        expect("", &[]);
        expect(";;\n;", &[]);
    }

    #[test]
    fn comments_belong_to_no_statement() {
        expect("-- one; two\n\nSELECT 1;\n-- end", &[(3, "SELECT 1")]);
        expect("-- one\n\\set a\nSELECT 1", &[(2, "\\set a"), (3, "SELECT 1")]);
        expect("/* a;\n\\b\n*/ SELECT 1; # c;\nSELECT 2;", &[(3, "SELECT 1"), (4, "SELECT 2")]);
        expect("SELECT 1 -- why;\n;", &[(1, "SELECT 1 -- why;")]);
    }

    #[test]
    fn knows_whether_more_is_wanted() {
        let mut cutter = Cutter::default();
        for (line, pending) in [
            ("-- comment", false),
            ("SELECT", true),
            ("1; /* open", true),
            ("still;", true),
            ("*/", false),
            ("'a;", true),
            ("';", false),
        ] {
            cutter.line(line);
            assert_eq!(cutter.is_pending(), pending, "{line}");
        }
    }

    #[test]
    fn lines_are_counted_across_cuts() {
        expect("a;b;\nc\n;\n\nd", &[(1, "a"), (1, "b"), (2, "c"), (5, "d")]);
    }
}
