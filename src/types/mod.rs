//! The vocabulary of the crate: errors, request markers, secrets, the clock. Imports nothing of ours.

mod clock;
mod digest;
mod error;
mod extensions;
pub(crate) mod random;
mod secret;
mod secret_source;
#[cfg(feature = "serde")]
mod secret_source_data;
mod token_error;
mod token_params;
mod transport_error;

pub use clock::{Clock, Now, SystemClock};
pub use error::{BoxError, ConfigError, Error};
pub use extensions::{AuthOutcome, RefreshFailed, Replay, Scopes, SkipAuth, TenantId};
pub use secret::Secret;
pub use secret_source::SecretSource;
pub use token_error::{ErrorCode, TokenError, TokenErrorKind};
pub use token_params::{SubjectToken, TokenParams};
pub use transport_error::TransportError;

pub(crate) use digest::Digest;
pub(crate) use extensions::{Resend, deep_clone};
pub(crate) use random::Draw;
pub(crate) use secret_source::{check_line, unavailable};
pub(crate) use token_params::is_absolute_uri;
pub(crate) use transport_error::{CertificateTrouble, Phase, Trouble};
