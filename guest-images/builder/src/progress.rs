//! How the library tells that something takes time.

/// Gets one line per step that may take over a second.
pub trait Progress {
    /// `verb` is what is done now ("fetching", "unpacking"), `object` to what.
    fn step(&mut self, verb: &str, object: &str);

    /// How far a long step is. Called often: who shows it shows some of them, and who need not know hears nothing.
    fn advance(&mut self, verb: &str, object: &str) {
        let _ = (verb, object);
    }
}

impl<F: FnMut(&str, &str)> Progress for F {
    fn step(&mut self, verb: &str, object: &str) {
        self(verb, object);
    }
}

/// Tells nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn step(&mut self, _verb: &str, _object: &str) {}
}
