//! The header is what cbindgen makes of the functions.

use std::path::Path;

#[test]
fn the_header_is_up_to_date() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = here.join("include/librpc.h");
    let mut made = Vec::new();
    cbindgen::generate(here).expect("the functions can be read").write(&mut made);
    let made = String::from_utf8(made).expect("a header is text");
    if std::env::var_os("LIBRPC_WRITE_HEADER").is_some() {
        std::fs::write(&header, &made).expect("the header can be written");
    }
    let kept = std::fs::read_to_string(&header).unwrap_or_default();
    let line = kept.lines().zip(made.lines()).position(|(kept, made)| kept != made);
    let line = line.unwrap_or_else(|| kept.lines().count().min(made.lines().count())) + 1;
    assert!(
        kept == made,
        "include/librpc.h differs from line {line} on: write it anew with LIBRPC_WRITE_HEADER=1 cargo test -p librpc-c"
    );
}
