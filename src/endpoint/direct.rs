//! Exchanges outside of any refresh: what a sign-in, a revocation or anything else that a person starts asks the server for.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower_service::Service;

use super::endpoints::{AuxiliaryEndpoint, Endpoints};
use super::exchange::Answer;
use super::grant::{GrantKind, GrantParams};
use super::settings::EndpointSettings;
use super::{Call, Credentials, TokenEndpoint, drop_refresh_token, wire};
use crate::telemetry::Telemetry;
use crate::token::{Failed, Token, TokenRequest};
use crate::types::{BoxError, TenantId};

pub(crate) type BoxReply<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failed>> + Send + 'a>>;

/// A token endpoint behind a pointer, so that [`AuthHandle`](crate::AuthHandle) needs no type parameter.
pub(crate) trait Direct: Send + Sync {
    fn settings(&self) -> &EndpointSettings;

    fn credentials(&self) -> &Credentials;

    fn telemetry(&self) -> &Telemetry;

    /// Exchanges a grant for a token, once: what a person brought is never sent twice, whatever happens. Only for a nonce
    /// that the server wants in the proof the exchange is made again, since it has looked at nothing else (RFC 9449 §8). A
    /// refresh token of an earlier grant does not go with this token, which may be somebody else's.
    ///
    /// A failure says `MaybeSpent` if what was brought may be.
    fn exchange(&self, grant: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Token>;

    /// The endpoints, found first if they are to be.
    fn endpoints(&self) -> BoxReply<'_, Endpoints>;

    /// Posts to another endpoint of the same server, as the same client, once. The parameters are all that is sent; their
    /// `grant_type` may be empty.
    ///
    /// # Errors
    /// No such endpoint; an answer that says no.
    fn post(&self, to: AuxiliaryEndpoint, params: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Answer>;
}

impl<C> TokenEndpoint<C> {
    /// The same, with errors that name the layer.
    fn named<'a, T: 'a>(&'a self, work: impl Future<Output = Result<T, Failed>> + Send + 'a) -> BoxReply<'a, T> {
        let telemetry = &self.shared.telemetry;
        Box::pin(async move { work.await.map_err(|failed| failed.map(|error| telemetry.named(error))) })
    }
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

    fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    fn exchange(&self, grant: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Token> {
        self.named(async move {
            let request = TokenRequest { tenant, ..TokenRequest::default() };
            let mut call = Call::new(self.client.clone(), false, self.shared.clone(), request);
            let auth = self.credentials().load();
            let endpoints = call.locate(&auth).await?;
            let material = call.present(endpoints, grant, &auth).await?;
            let mut material = call.prove(material, GrantKind::Once, None)?;
            let mut result = call.exchange(GrantKind::Once, &material).await;
            if let Some(nonce) = call.nonce_wanted(&result) {
                let again = call.present(material.endpoints, material.grant, &auth).await?;
                material = call.prove(again, GrantKind::Once, Some(nonce))?;
                result = call.exchange(GrantKind::Once, &material).await;
            }
            result.map(drop_refresh_token)
        })
    }

    fn endpoints(&self) -> BoxReply<'_, Endpoints> {
        self.named(async move {
            let call = Call::new(self.client.clone(), false, self.shared.clone(), TokenRequest::default());
            Ok(call.locate(&self.credentials().load()).await?)
        })
    }

    fn post(&self, to: AuxiliaryEndpoint, params: GrantParams, tenant: Option<TenantId>) -> BoxReply<'_, Answer> {
        self.named(async move {
            let request = TokenRequest { tenant, ..TokenRequest::default() };
            let mut call = Call::new(self.client.clone(), false, self.shared.clone(), request);
            let settings = self.settings();
            let auth = self.credentials().load();
            let endpoints = call.locate(&auth).await?;
            // Before a secret is read.
            let url = endpoints.other(to)?.clone();
            let material = call.present(endpoints, params, &auth).await?;
            let outgoing = wire::post(to, settings, &material, &call.request)?;
            let answer = call.exchanger.exchange(outgoing.request, settings.timeout, settings.max_body).await?;
            call.reader(GrantKind::Once, &url, outgoing.sent).acknowledge(&answer)?;
            Ok(answer)
        })
    }
}
