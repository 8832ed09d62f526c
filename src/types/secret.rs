//! `Secret`: a value that is wiped when dropped and never printed.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// A value that nobody should read by accident: wiped from memory when it is dropped, printed as `[redacted]`.
///
/// There is no `Display`, no `Deref` and no `PartialEq`: code that needs the value calls [`expose`](Secret::expose), and a
/// reviewer can search for that word. The wiping covers this value only; copies made of it (an HTTP header, a request
/// body already handed to a client) live in buffers this crate does not own.
///
/// ```
/// use tower_oauth2_client::Secret;
///
/// let secret = Secret::new(String::from("hunter2"));
/// assert_eq!(format!("{secret:?}"), "[redacted]");
/// assert_eq!(secret.expose(), "hunter2");
/// ```
#[derive(Clone)]
pub struct Secret<T: Zeroize = String>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes the value over.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> ZeroizeOnDrop for Secret<T> {}

impl From<String> for Secret<String> {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&str> for Secret<String> {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

/// Constant: not even the length is told.
impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Probe(Arc<AtomicBool>);

    impl Zeroize for Probe {
        fn zeroize(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// Behaviour 106.
    #[test]
    fn a_dropped_secret_is_wiped() {
        let wiped = Arc::new(AtomicBool::new(false));
        drop(Secret::new(Probe(wiped.clone())));
        assert!(wiped.load(Ordering::SeqCst));
    }

    /// Behaviour 103.
    #[test]
    fn debug_tells_nothing() {
        assert_eq!(format!("{:?}", Secret::from("canary")), "[redacted]");
        assert_eq!(format!("{:#?}", Some(Secret::from("canary"))), "Some(\n    [redacted],\n)");
    }
}
