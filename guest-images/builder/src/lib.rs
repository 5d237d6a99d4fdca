//! guest-images/builder
