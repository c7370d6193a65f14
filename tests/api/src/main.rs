//! Prints the public API of a rustdoc JSON file, one item a line.

/// Auto traits that are left out. Send, Sync and Unpin are promises and stay.
const NOISE: [&str; 4] = ["Freeze", "UnsafeUnpin", "RefUnwindSafe", "UnwindSafe"];

fn main() -> Result<(), public_api::Error> {
    let path = std::env::args_os().nth(1).expect("a rustdoc JSON file");
    // Without the impls that every type has, and without derived impls.
    let api = public_api::Builder::from_rustdoc_json(path)
        .omit_blanket_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    for line in api.items().map(ToString::to_string) {
        let implemented = line.split(" for ").next().and_then(|line| line.rsplit("::").next());
        if !line.starts_with("impl ") || !implemented.is_some_and(|name| NOISE.contains(&name)) {
            println!("{line}");
        }
    }
    Ok(())
}
