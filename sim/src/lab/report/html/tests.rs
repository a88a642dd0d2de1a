//! Pages: closed in themselves, complete, and safe to put any text in.

use super::super::{Axis, sample};
use super::*;

/// Something that would do harm if it were not escaped.
const EVIL: &str = "</pre><script src=\"x\">alert('1')</script> & \u{7}";

fn evil() -> Report {
    let mut report = sample();
    report.title = EVIL.into();
    report.summary = EVIL.into();
    report.command = EVIL.into();
    report.find(EVIL, EVIL, EVIL, true);
    report.note(EVIL);
    report.tell(EVIL, vec![EVIL.into(), EVIL.into()]);
    let chart = Chart::new(EVIL, Axis::new(EVIL, EVIL), Axis::new(EVIL, EVIL)).caption(EVIL);
    report.draw(chart.series(EVIL, Style::Line, vec![(0.0, 1.0), (1.0, 2.0)]).mark(0.5, EVIL));
    let mut table = Table::new(EVIL, &[EVIL]);
    table.row(vec![EVIL.into()]);
    report.tabulate(table);
    report
}

#[test]
fn pages_are_closed_in_themselves() {
    for report in [sample(), evil()] {
        let html = page(&report);
        check::well_formed(&html).unwrap();
        // What the evil text names is text.
        check::no_reference(&html.replace("src=&quot;x", "")).unwrap();
        assert!(!html.contains("<script") && !html.contains('\u{7}'));
        let list = index(&[&report], &[("other", EVIL.into())]);
        check::well_formed(&list).unwrap();
        assert!(!list.contains("<script"));
    }
}

#[test]
fn text_is_escaped() {
    assert_eq!(escape("ε ≤ 7 ms"), "ε ≤ 7 ms");
    assert_eq!(escape("<a b='c' d=\"e\">&"), "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;");
    assert_eq!(escape("a\u{0}b\u{1b}c\nd\te"), "a\u{FFFD}b\u{FFFD}c\nd\te");
}

#[test]
fn everything_of_a_report_is_on_its_page() {
    let report = sample();
    let html = page(&report);
    let mut wanted = vec![
        report.title.clone(),
        report.question.into(),
        report.summary.clone(),
        report.command.clone(),
        "<html lang=\"en\">".into(),
        "role=\"img\"".into(),
        "✓ holds".into(),
    ];
    for chart in &report.charts {
        wanted
            .extend([format!("<strong>{}</strong>", escape(&chart.title)), chart.caption.clone()]);
        wanted.extend(chart.series.iter().map(|series| format!("{}</li>", escape(&series.name))));
    }
    for table in &report.tables {
        wanted.extend(table.columns.iter().chain(table.rows.iter().flatten()).cloned());
    }
    wanted.extend(report.notes.iter().cloned());
    wanted.extend(report.history.iter().flat_map(|history| history.lines.clone()));
    for text in wanted {
        assert!(html.contains(&text), "{text}");
    }
    assert_eq!(html.matches("<figure>").count(), report.charts.len());
    // Each chart is drawn once for a page and once for a phone.
    assert_eq!(html.matches("role=\"img\"").count(), Frame::ALL.len() * report.charts.len());
}

#[test]
fn what_does_not_hold_is_said_in_words() {
    let mut report = sample();
    let caution = "If they were, the answer would be:";
    assert!(page(&report).contains("✓ What was measured is what was expected."));
    assert!(!page(&report).contains(caution) && !index(&[&report], &[]).contains(caution));
    report.find("violations", "0", "at least 1", false);
    let html = page(&report);
    assert!(html.contains("✗ 1 of 2 findings are not as expected."));
    assert!(html.contains("✗ does not hold") && html.contains("✓ holds"));
    assert!(html.contains(caution) && index(&[&report], &[]).contains(caution));
    assert!(index(&[&report], &[]).contains("0 of 1 experiments"));
    report.findings.clear();
    assert!(page(&report).contains("✗ Nothing was measured."));
}

#[test]
fn empty_parts_have_no_heading() {
    let mut report = sample();
    for part in ["<h2>Charts", "<h2>Numbers", "<h2>How to read this"] {
        assert!(page(&report).contains(part));
    }
    report.charts.clear();
    report.tables.clear();
    report.notes.clear();
    report.history = None;
    let html = page(&report);
    for part in ["<h2>Charts", "<h2>Numbers", "<h2>How to read this"] {
        assert!(!html.contains(part));
    }
    check::well_formed(&html).unwrap();
}

#[test]
fn columns_of_numbers_are_aligned_to_the_right() {
    for number in ["7", "-1.5 ms", "≥ 3", "1,000"] {
        assert!(is_number(number), "{number}");
    }
    for word in ["", "none", "n1", "-", "10×, from the middle on"] {
        assert!(!is_number(word), "{word}");
    }
    let mut mixed = Table::new("t", &["count", "what"]);
    mixed.row(vec!["7".into(), "8 of them".into()]);
    mixed.row(vec!["–".into(), "none".into()]);
    let html = table(&mixed);
    assert!(html.contains("<th scope=\"col\" class=\"number\">count"));
    assert!(html.contains("<td class=\"number\">–") && html.contains("<td>8 of them"));
}
