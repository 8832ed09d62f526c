//! The client credentials grant (RFC 6749 §4.4.2).

use super::GrantParams;

pub(super) fn params() -> GrantParams {
    GrantParams::new("client_credentials")
}
