//! One HTTP exchange with the token endpoint, bounded in time and in size.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use tower_service::Service;
use zeroize::Zeroizing;

use super::transport::failed;
use crate::token::Failed;
use crate::types::{BoxError, TokenError, TokenErrorKind};

/// What the token endpoint answered, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Zeroizing<Vec<u8>>,
}

/// An HTTP service for the exchanges of one token request.
pub(crate) struct Exchanger<C> {
    client: C,
    /// `poll_ready` was answered and no call was made since.
    ready: bool,
}

impl<C> Exchanger<C> {
    pub(crate) fn new(client: C, ready: bool) -> Self {
        Self { client, ready }
    }

    /// Another handle to the HTTP service.
    pub(crate) fn client(&self) -> C
    where
        C: Clone,
    {
        self.client.clone()
    }

    /// Sends and reads. A failure says `MaybeSpent` if the request may have reached the server.
    pub(crate) async fn exchange<RB>(
        &mut self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
        max_body: usize,
    ) -> Result<Answer, Failed>
    where
        C: Service<Request<Full<Bytes>>, Response = Response<RB>>,
        C::Error: Into<BoxError>,
        RB: Body,
        RB::Error: Into<BoxError>,
    {
        let mut sent = false;
        let Self { client, ready } = self;
        let work = async {
            if !std::mem::take(ready) {
                poll_fn(|cx| client.poll_ready(cx)).await.map_err(|error| failed(error.into(), false))?;
            }
            sent = true;
            let response = client.call(request).await.map_err(|error| failed(error.into(), true))?;
            read(response, max_body).await
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => {
                let error =
                    TokenError::new(TokenErrorKind::Timeout).with_detail(format!("not complete after {timeout:?}"));
                Err(if sent { Failed::maybe_spent(error) } else { error.into() })
            }
        }
    }
}

async fn read<RB>(response: Response<RB>, max_body: usize) -> Result<Answer, Failed>
where
    RB: Body,
    RB::Error: Into<BoxError>,
{
    let (head, body) = response.into_parts();
    let mut answer = Answer { status: head.status, headers: head.headers, body: Zeroizing::new(Vec::new()) };
    if answer.status.is_redirection() {
        return Ok(answer);
    }
    match collect(body, max_body, &mut answer.body).await {
        Ok(()) => Ok(answer),
        // The status alone tells enough of a refusal.
        Err(_) if !answer.status.is_success() => Ok(answer),
        Err(failed) => Err(failed.map(|error| error.with_status(answer.status))),
    }
}

async fn collect<RB>(body: RB, max: usize, into: &mut Vec<u8>) -> Result<(), Failed>
where
    RB: Body,
    RB::Error: Into<BoxError>,
{
    let too_long = || {
        let error =
            TokenError::new(TokenErrorKind::Malformed).with_detail(format!("the body is longer than {max} bytes"));
        Failed::maybe_spent(error)
    };
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > max {
        return Err(too_long());
    }
    into.reserve_exact(expected);
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let Ok(mut data) = frame.map_err(|error| failed(error.into(), true))?.into_data() else { continue };
        if data.remaining() > max.saturating_sub(into.len()) {
            return Err(too_long());
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            into.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok(())
}
