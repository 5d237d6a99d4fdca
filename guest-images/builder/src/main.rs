//! guest-images/builder
fn main() {}
