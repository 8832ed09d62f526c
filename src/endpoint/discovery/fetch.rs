//! Fetching an issuer's metadata.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::{Directory, Metadata};
use crate::endpoint::answer::retry_after;
use crate::endpoint::exchange::{Answer, Exchanger};
use crate::token::Failed;
use crate::types::{BoxError, TokenError, TokenErrorKind};

/// Looks at one place after the other, all of them within `timeout`.
///
/// # Errors
/// What the last place said. Nothing in it is quoted.
pub(crate) async fn fetch<C, RB>(
    mut exchanger: Exchanger<C>,
    directory: &Directory,
    timeout: Duration,
    max_body: usize,
    now: SystemTime,
) -> Result<Metadata, TokenError>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>>,
    C::Error: Into<BoxError>,
    RB: Body,
    RB::Error: Into<BoxError>,
{
    let look = async {
        let mut error = TokenError::new(TokenErrorKind::BadMetadata);
        for place in directory.places() {
            let answer = exchanger.exchange(get(&place)?, timeout, max_body).await.map_err(of_metadata)?;
            if answer.status.is_success() {
                return Metadata::read(&answer.body, directory).map_err(|error| error.with_status(answer.status));
            }
            error = refused(&answer, now);
            if answer.status != StatusCode::NOT_FOUND {
                break;
            }
        }
        Err(error)
    };
    tokio::time::timeout(timeout, look).await.unwrap_or_else(|_| {
        Err(TokenError::new(TokenErrorKind::Timeout).with_detail(format!("its metadata took more than {timeout:?}")))
    })
}

fn get(place: &str) -> Result<Request<Full<Bytes>>, TokenError> {
    let mut request = Request::get(place)
        .body(Full::default())
        .map_err(|_| TokenError::new(TokenErrorKind::BadMetadata).with_detail("the issuer cannot be requested"))?;
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
    request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(request)
}

fn refused(answer: &Answer, now: SystemTime) -> TokenError {
    let (kind, detail) = match answer.status.as_u16() {
        300..=399 => (TokenErrorKind::Redirected, "so do its metadata"),
        408 | 425 | 429 | 500..=599 => (TokenErrorKind::Unavailable, "its metadata cannot be fetched now"),
        _ => (TokenErrorKind::BadMetadata, "there are none at this issuer"),
    };
    let error = TokenError::new(kind).with_status(answer.status).with_detail(detail);
    match retry_after::read(&answer.headers, now) {
        Some(pause) => error.with_retry_after(pause),
        None => error,
    }
}

/// An exchange that failed, told as one for metadata.
fn of_metadata(failed: Failed) -> TokenError {
    let error = failed.error;
    match error.kind() {
        TokenErrorKind::Malformed => error.of_kind(TokenErrorKind::BadMetadata),
        _ => error,
    }
}
