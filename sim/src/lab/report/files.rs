//! A report as files in a folder. Each is written under another name first and then renamed, so
//! that there is never half a file, whatever happens to the process.

use super::{Report, csv, html, json};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Writes a report into `folder`, which is made when it is not there: `report.html`, `data.csv`,
/// `parameters.json`, and `tables.csv` when there are tables. Gives their paths, the page first.
///
/// # Errors
/// When the folder or a file cannot be written; the error names it.
pub fn write(report: &Report, folder: &Path) -> io::Result<Vec<PathBuf>> {
    let parameters = format!("{:#}\n", json::setup(report));
    let mut files = vec![("data.csv", csv::points(report)), ("parameters.json", parameters)];
    if !report.tables.is_empty() {
        files.push(("tables.csv", csv::cells(report)));
    }
    // Last, so that where there is a page, all is there.
    files.push(("report.html", html::page(report)));
    let written: io::Result<Vec<PathBuf>> =
        files.iter().map(|(name, text)| write_file(folder, name, text)).collect();
    let mut written = written?;
    written.rotate_right(1);
    Ok(written)
}

/// Writes the page that lists reports into the folder that has a folder for each.
///
/// # Errors
/// As [`write()`].
pub fn write_index(
    reports: &[&Report],
    failed: &[(&str, String)],
    folder: &Path,
) -> io::Result<PathBuf> {
    write_file(folder, "index.html", &html::index(reports, failed))
}

fn write_file(folder: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    let path = folder.join(name);
    let hidden = folder.join(format!(".{name}.part"));
    let whole = || {
        fs::create_dir_all(folder)?;
        let mut file = File::create(&hidden)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&hidden, &path)
    };
    whole().map_err(|error| {
        // What is left of it helps nobody; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&hidden);
        io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display()))
    })?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// A folder that is gone at the end of its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("meridian-lab-{name}-{}", std::process::id());
            Folder(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_are_there_and_no_others() {
        let folder = Folder::new("files");
        let inside = folder.0.join("deep/sample");
        for _ in 0..2 {
            let paths = write(&sample(), &inside).unwrap();
            assert_eq!(paths[0], inside.join("report.html"));
            let wanted = ["data.csv", "parameters.json", "report.html", "tables.csv"];
            assert_eq!(names(&inside), wanted);
        }
        assert_eq!(fs::read_to_string(inside.join("report.html")).unwrap(), html::page(&sample()));
        let index = write_index(&[&sample()], &[], &folder.0.join("deep")).unwrap();
        assert!(fs::read_to_string(index).unwrap().contains("sample/report.html"));
    }

    #[test]
    fn what_is_in_the_way_is_named_and_stays() {
        let folder = Folder::new("in-the-way");
        fs::create_dir_all(folder.0.join("report.html/inside")).unwrap();
        let error = write(&sample(), &folder.0).unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("report.html"), "{error}");
        assert!(names(&folder.0).iter().all(|name| !name.starts_with('.')), "half a file");
        assert_eq!(names(&folder.0.join("report.html")), ["inside"]);
        let file = folder.0.join("file");
        fs::write(&file, "x").unwrap();
        assert!(write(&sample(), &file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "x");
    }
}
