//! The public methods of the library, from the text of its sources: so that a test of all of them misses none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The parameters and the result of each public method, by `Type::method`.
pub(crate) fn public_methods() -> BTreeMap<String, String> {
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/librpc/src");
    let mut methods = BTreeMap::new();
    for path in files(&library) {
        let text = std::fs::read_to_string(&path).expect("a source is text");
        let mut of = None;
        for (line, at) in text.lines().scan(0, |at, line| Some((line, std::mem::replace(at, *at + line.len() + 1)))) {
            if let Some(header) = line.strip_prefix("impl") {
                let generics = header.strip_prefix('<').and_then(|rest| rest.split_once("> "));
                let header = generics.map_or(header, |(_, rest)| rest).trim_start();
                of = (!header.contains(" for ")).then(|| word(header));
            } else if line == "}" {
                of = None;
            }
            let starts = ["    pub fn ", "    pub const fn ", "    pub async fn ", "    pub unsafe fn "];
            if let (Some(of), Some(method)) = (of, starts.iter().find_map(|start| line.strip_prefix(start))) {
                let signature = text[at..].split('{').next().unwrap_or_default();
                methods.insert(format!("{of}::{}", word(method)), signature.to_owned());
            }
        }
    }
    assert!(methods.contains_key("Node::open"), "the sources are not what this looks for");
    methods
}

fn word(text: &str) -> &str {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default()
}

/// The files whose methods applications call.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("the sources are there").map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let is_source = |path: &PathBuf| path.extension().is_some_and(|end| end == "rs") && !path.ends_with("fuzzing.rs");
    files.into_iter().filter(is_source).chain(directories.iter().flat_map(|path| self::files(path))).collect()
}
