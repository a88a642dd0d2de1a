//! Looks whether a page is closed in itself: every tag, and no way out to another machine.

/// Whether every tag is closed in its order. Comments do not occur; style sheets are skipped.
pub fn well_formed(text: &str) -> Result<(), String> {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['<', '>']) {
        let behind = &rest[start..];
        let end = behind.find('>').filter(|_| behind.starts_with('<'));
        let end = end.ok_or_else(|| format!("a stray bracket: {:.40}", behind))?;
        let tag = &behind[1..end];
        rest = &behind[end + 1..];
        if tag.contains('<') || tag.matches('"').count() % 2 == 1 {
            return Err(format!("a broken tag: {tag:.40}"));
        }
        let name = tag.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap_or_default();
        if tag.starts_with('/') {
            match open.pop() {
                Some(last) if last == name => {}
                last => return Err(format!("</{name}> closes {last:?}")),
            }
        } else if !tag.starts_with('!') && !tag.ends_with('/') {
            open.push(name);
        }
        if name == "style" && !tag.starts_with('/') {
            rest = &rest[rest.find("</style>").ok_or("a style sheet without end")?..];
        }
    }
    if open.is_empty() { Ok(()) } else { Err(format!("never closed: {open:?}")) }
}

/// Whether nothing in it names another machine, but for the namespace of SVG.
pub fn no_reference(text: &str) -> Result<(), String> {
    let without = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for word in ["http:", "https:", "//", "@import", "url(", "<script", "src=", "ftp:"] {
        if let Some(place) = without.find(word) {
            let from = without.floor_char_boundary(place.saturating_sub(30));
            let to = without.ceil_char_boundary((place + 30).min(without.len()));
            return Err(format!("{word} in …{}…", &without[from..to]));
        }
    }
    Ok(())
}

#[test]
fn faults_are_found() {
    assert_eq!(well_formed("<!DOCTYPE html><a b=\"c\"><d/>x &lt; y</a>"), Ok(()));
    assert_eq!(well_formed("<style>a > b{}</style>"), Ok(()));
    for broken in ["<a>", "</a>", "<a><b></a></b>", "<a b=\"c>d</a>", "a > b", "<a <b></b>", "<"] {
        assert!(well_formed(broken).is_err(), "{broken}");
    }
    assert_eq!(no_reference("<svg xmlns=\"http://www.w3.org/2000/svg\"/>"), Ok(()));
    for out in ["<a href=\"https://x.org\">", "<img src=\"a.png\"/>", "url(a)", "<script>"] {
        assert!(no_reference(out).is_err(), "{out}");
    }
}
