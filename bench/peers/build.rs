//! Aeron's crates ask the linker for libbsd, but use nothing of it if the C library has `arc4random` itself. An empty
//! library of that name spares the user the package. If Aeron's own build has found a real one, that is still loaded.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets it"));
    std::fs::write(out.join("libbsd.a"), b"!<arch>\n").expect("the build's own folder can be written");
    println!("cargo:rustc-link-search=native={}", out.display());
}
