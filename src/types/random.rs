//! Randomness: texts that nobody can foresee, and draws that only have to differ.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{TokenError, unavailable};

/// `N` random bytes of the operating system, as base64url without padding (RFC 4648 §5).
///
/// # Errors
/// The operating system gives no random numbers.
pub(crate) fn text<const N: usize>() -> Result<String, TokenError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| unavailable("the operating system gives no random numbers").caused_by(error.into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Draws for jitter and hashing: nothing depends on their being secret, so tests may fix them.
#[derive(Clone, Debug, Default)]
pub(crate) enum Draw {
    /// Of this thread's generator.
    #[default]
    Fresh,
    /// Always the same.
    #[cfg(test)]
    Always(f64),
    /// Different each time, and the same for the same seed.
    #[cfg(test)]
    Seeded(std::sync::Arc<std::sync::Mutex<fastrand::Rng>>),
}

impl Draw {
    #[cfg(test)]
    pub(crate) fn always(draw: f64) -> Self {
        Self::Always(draw)
    }

    #[cfg(test)]
    pub(crate) fn seeded(seed: u64) -> Self {
        Self::Seeded(std::sync::Arc::new(std::sync::Mutex::new(fastrand::Rng::with_seed(seed))))
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn uniform(&self) -> f64 {
        match self {
            Self::Fresh => fastrand::f64(),
            #[cfg(test)]
            Self::Always(draw) => *draw,
            #[cfg(test)]
            Self::Seeded(rng) => rng.lock().unwrap_or_else(std::sync::PoisonError::into_inner).f64(),
        }
    }
}
