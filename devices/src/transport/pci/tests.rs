//! The function, with a driver written by hand and a device that only remembers.
