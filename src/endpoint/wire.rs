//! The token request as it goes over the wire.

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use super::answer::Redactor;
use super::client_auth::WireCredentials;
use super::encode::{BodyEncoding, Params};
use super::endpoints::{AuxiliaryEndpoint, Endpoints};
use super::grant::{self, GrantKind, GrantParams};
use super::settings::EndpointSettings;
use crate::token::TokenRequest;
use crate::types::{Secret, TokenError, TokenErrorKind};

/// What one exchange needs besides the settings, read for it alone.
pub(crate) struct Material {
    pub(crate) endpoints: Endpoints,
    pub(crate) grant: GrantParams,
    pub(crate) presented: WireCredentials,
    /// That we have the key which the token is to be bound to (RFC 9449 §5).
    pub(crate) proof: Option<HeaderValue>,
}

/// One token request, and what of it must not be found in an error.
pub(crate) struct Outgoing<'a> {
    pub(crate) request: Request<Full<Bytes>>,
    pub(crate) sent: Redactor<'a>,
}

impl<'a> Outgoing<'a> {
    pub(crate) fn new(
        asking: GrantKind,
        settings: &'a EndpointSettings,
        material: &'a Material,
        request: &'a TokenRequest,
    ) -> Result<Self, TokenError> {
        let Material { endpoints, grant, presented, proof } = material;
        let url = endpoints.token_url(asking);
        let body = settings.encoding.encode(&grant::params(asking, grant, settings, presented, request));
        let mut outgoing = post_to(url.clone(), body)?;
        set_headers(outgoing.headers_mut(), settings, presented.authorization.as_ref(), request);
        if let Some(proof) = proof {
            outgoing.headers_mut().insert(HeaderName::from_static("dpop"), proof.clone());
        }

        let mut sent = sent_with(url, settings, material, request);
        // In an exchange before this one, perhaps.
        sent.push(request.refresh_token.as_ref().map(|token| token.expose().as_str()));
        settings.params.iter().for_each(|param| sent.push_words(Some(param.value.expose())));
        sent.push(proof.as_ref().and_then(|proof| proof.to_str().ok()));
        Ok(Self { request: outgoing, sent })
    }
}

/// A request to another endpoint of the same server: the parameters given, and who asks.
pub(crate) fn post<'a>(
    to: AuxiliaryEndpoint,
    settings: &'a EndpointSettings,
    material: &'a Material,
    request: &'a TokenRequest,
) -> Result<Outgoing<'a>, TokenError> {
    let Material { endpoints, grant, presented, proof: _ } = material;
    let mut params = Params::default();
    grant.push_params(&mut params);
    presented.push_params(&mut params);
    // RFC 7009 and RFC 8628 know forms only.
    let url = endpoints.other(to)?;
    let mut outgoing = post_to(url.clone(), BodyEncoding::Form.encode(&params))?;
    set_headers(outgoing.headers_mut(), settings, presented.authorization.as_ref(), request);
    outgoing.headers_mut().insert(CONTENT_TYPE, BodyEncoding::Form.content_type());
    Ok(Outgoing { request: outgoing, sent: sent_with(url, settings, material, request) })
}

/// The secrets that go with every request to the server.
fn sent_with<'a>(
    url: &Uri,
    settings: &'a EndpointSettings,
    Material { grant, presented, .. }: &'a Material,
    request: &'a TokenRequest,
) -> Redactor<'a> {
    let mut sent = Redactor::default();
    presented.secrets().chain(grant.secrets()).for_each(|secret| sent.push(Some(secret)));
    sent.push_query(url);
    sent.push_words(request.tenant.as_ref().map(|tenant| tenant.as_str()));
    settings.headers.iter().for_each(|(_, value)| sent.push(value.to_str().ok()));
    sent.push_owned(presented.authorization.as_ref().and_then(basic_value));
    sent
}

fn post_to(url: Uri, body: Bytes) -> Result<Request<Full<Bytes>>, TokenError> {
    Request::builder()
        .method(Method::POST)
        .uri(url)
        .body(Full::new(body))
        .map_err(|_| TokenError::new(TokenErrorKind::Refused).with_detail("the token URL cannot be requested"))
}

fn set_headers(
    headers: &mut HeaderMap,
    settings: &EndpointSettings,
    authorization: Option<&HeaderValue>,
    request: &TokenRequest,
) {
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &settings.headers {
        let mut value = value.clone();
        // Often a key; HTTP/2 must not index it.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(CONTENT_TYPE, settings.encoding.content_type());
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    if let (Some(name), Some(tenant)) = (&settings.tenant_header, &request.tenant) {
        headers.insert(name, tenant.header_value().clone());
    }
}

fn basic_value(authorization: &HeaderValue) -> Option<Secret<String>> {
    authorization.to_str().ok()?.strip_prefix("Basic ").map(Secret::from)
}
