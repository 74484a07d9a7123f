//! The pages of the manual.

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use common::{Place, place};

/// The pages that `librpc man --dir` writes, by name.
fn pages(place: &Place) -> BTreeMap<String, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("man/man1");
    let made = place.run(&["man", "--dir", path.to_str().expect("text")], b"");
    assert_eq!((made.code, made.stdout(), &*made.stderr), (0, "", ""));
    let entries = std::fs::read_dir(&path).expect("it was made").map(|entry| entry.expect("an entry"));
    let name = |entry: &std::fs::DirEntry| entry.file_name().into_string().expect("text");
    let text = |entry: &std::fs::DirEntry| std::fs::read_to_string(entry.path()).expect("a page");
    entries.map(|entry| (name(&entry), text(&entry))).collect()
}

/// The text of a page without its markup.
fn plain(page: &str) -> String {
    page.replace("\\-", "-").replace("\\*(Aq", "'").replace("\\fB", "").replace("\\fR", "").replace("\\fI", "")
}

#[test]
fn every_command_has_a_page_with_all_sections() {
    let place = place("manual_sections");
    let pages = pages(&place);
    for command in ["librpc", "librpc-send", "librpc-chat", "librpc-man", "librpc-bench", "librpc-bench-latency"] {
        assert!(pages.contains_key(&format!("{command}.1")), "{command}");
    }
    assert!(!pages.keys().any(|name| name.contains("names") || name.contains("part")), "hidden commands have none");
    for (name, page) in &pages {
        let title = format!(".TH {} 1", name.strip_suffix(".1").expect("of section 1"));
        assert!(page.lines().any(|line| line.starts_with(&title)), "{name}: {page}");
        let sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "ENVIRONMENT", "EXAMPLES", "SEE ALSO"];
        for section in sections {
            let is_it = |line: &str| line.strip_prefix(".SH ").is_some_and(|title| title.trim_matches('"') == section);
            assert_eq!(page.lines().filter(|line| is_it(line)).count(), 1, "{section} of {name}: {page}");
        }
        assert!(!page.contains(".SH EXTRA") && page.contains("LIBRPC_DOMAIN") && page.contains("124"), "{name}");
    }
    // The same as one page after the other.
    assert_eq!(place.run(&["man"], b"").stdout(), pages["librpc.1"]);
    assert_eq!(place.run(&["man", "send"], b"").stdout(), pages["librpc-send.1"]);
    assert_eq!(place.run(&["man", "bench", "latency"], b"").stdout(), pages["librpc-bench-latency.1"]);
    for unknown in [&["man", "nothing"][..], &["man", "names"], &["man", "send", "send"]] {
        assert_eq!(place.run(unknown, b"").code, 2, "{unknown:?}");
    }
    // A closed stdout is no failure.
    assert_eq!(place.start_in_shell("\"$@\" | true; exec true", &["man"]).ends().code, 0);
}

#[test]
fn pages_have_the_examples_of_the_help_and_lead_to_pages_that_exist() {
    let place = place("manual_links");
    let pages = pages(&place);
    for (name, page) in &pages {
        let page = plain(page);
        let command: Vec<&str> = name.strip_suffix(".1").expect("of section 1").split('-').skip(1).collect();
        let help = place.run(&[&command[..], &["--help"]].concat(), b"");
        let help = help.stdout().split_once("\nExamples:\n").expect("examples").1;
        let examples = help.lines().take_while(|line| line.starts_with("  "));
        examples.for_each(|example| assert!(page.contains(example.trim()), "{name}: {example}\n{page}"));
        let also = page.split_once("SEE ALSO\"\n").expect("a section").1.trim();
        assert!(!also.is_empty(), "{name}");
        for link in also.split(", ") {
            let target = link.strip_suffix("(1)").unwrap_or_else(|| panic!("{name}: {link}"));
            assert!(pages.contains_key(&format!("{target}.1")) && *name != format!("{target}.1"), "{name}: {link}");
        }
    }
}

#[test]
fn pages_are_set_without_a_warning() {
    let place = place("manual_set");
    for (name, page) in pages(&place) {
        let groff = ["-man", "-Tutf8", "-ww"];
        let mut command = Command::new("groff");
        command.args(groff).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let Ok(mut groff) = command.spawn() else { return println!("SKIPPED: there is no groff") };
        std::io::Write::write_all(&mut groff.stdin.take().expect("a pipe"), page.as_bytes()).expect("it reads");
        let set = groff.wait_with_output().expect("it ends");
        assert!(set.status.success(), "{name}");
        assert_eq!(String::from_utf8_lossy(&set.stderr), "", "{name}");
        assert!(String::from_utf8_lossy(&set.stdout).contains("stderr says why"), "{name}");
    }
}
