//! Exchanges outside of any flight: what a sign-in, a revocation or anything else that a person starts asks the server for.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::exchange::Answer;
use super::grant::{Asking, GrantParams};
use super::settings::EndpointSettings;
use super::wire::{self, Material};
use super::{Call, Credentials, TokenEndpoint, drop_refresh_token};
use crate::error::BoxError;
use crate::extensions::TenantId;
use crate::token::{Token, TokenError, TokenRequest};

pub(crate) type BoxReply<'a, T> = Pin<Box<dyn Future<Output = Result<T, TokenError>> + Send + 'a>>;

/// A token endpoint behind a pointer, so that [`AuthHandle`](crate::AuthHandle) needs no type parameter.
pub(crate) trait Direct: Send + Sync {
    fn settings(&self) -> &EndpointSettings;

    fn credentials(&self) -> &Credentials;

    /// Exchanges a grant for a token, once: what a person brought is never sent twice, whatever happens. Only for a nonce
    /// that the server wants in the proof the exchange is made again, since it has looked at nothing else (RFC 9449 §8). A
    /// refresh token of an earlier grant does not go with this token, which may be somebody else's.
    ///
    /// An error has `refresh_answer_lost` set if what was brought may be spent.
    fn exchange(&self, grant: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Token>;

    /// Posts to another endpoint of the same server, as the same client. The parameters are all that is sent; their
    /// `grant_type` may be empty.
    fn post(&self, url: Uri, params: GrantParams) -> BoxReply<'_, Answer>;
}

impl<C, RB> Direct for TokenEndpoint<C>
where
    C: Service<Request<Full<Bytes>>, Response = Response<RB>> + Clone + Send + Sync + 'static,
    C::Error: Into<BoxError>,
    C::Future: Send,
    RB: Body + Send + 'static,
    RB::Data: Send,
    RB::Error: Into<BoxError>,
{
    fn settings(&self) -> &EndpointSettings {
        &self.shared.settings
    }

    fn credentials(&self) -> &Credentials {
        &self.shared.credentials
    }

    fn exchange(&self, grant: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Token> {
        Box::pin(async move {
            let request = TokenRequest { tenant, ..TokenRequest::default() };
            let mut call = Call::new(self.client.clone(), false, self.shared.clone(), request);
            let (presented, proof) = (call.present().await?, self.shared.proof(Asking::Once, None)?);
            let mut material = Material { grant, presented, proof };
            let mut result = call.exchange(Asking::Once, &material).await;
            if let Some(nonce) = call.nonce_wanted(&result) {
                material.presented = call.present().await?;
                material.proof = self.shared.proof(Asking::Once, Some(nonce))?;
                result = call.exchange(Asking::Once, &material).await;
            }
            result.map(drop_refresh_token)
        })
    }

    fn post(&self, url: Uri, params: GrantParams) -> BoxReply<'_, Answer> {
        Box::pin(async move {
            let mut call = Call::new(self.client.clone(), false, self.shared.clone(), TokenRequest::default());
            let presented = call.present().await?;
            let settings = self.settings();
            let request = wire::post(url, settings, &Material { grant: params, presented, proof: None })?;
            call.exchanger.exchange(request, settings.timeout, settings.max_body).await
        })
    }
}
