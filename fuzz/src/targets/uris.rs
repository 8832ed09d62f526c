//! URIs: wherever a token goes, every reader of that URI must agree that it is an allowed origin over TLS.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;
use tower::{Layer, ServiceExt, service_fn};
use tower_oauth2_client::{AuthConfig, AuthLayer, StaticToken};

use super::choices::Choices;
use super::run;

const ALLOWED: [(&str, u16); 3] = [("api.example.com", 443), ("api.example.com", 8443), ("[2001:db8::1]", 443)];

fn made(choices: &mut Choices<'_>) -> Option<Uri> {
    let scheme = choices.pick(&["https", "https", "https", "http", "HTTPS", "HttpS", "Http", "wss", "https "]);
    let host = choices.pick(&[
        "api.example.com",
        "api.example.com",
        "API.Example.COM",
        "api.example.com.",
        "api.example.com.evil.example",
        "evil.example",
        "[2001:db8::1]",
        "[2001:DB8:0:0::1]",
        "api.example.com%2eevil.example",
        "api%2eexample.com",
    ]);
    let port = choices.pick(&["", "", ":443", ":80", ":8443", ":0443", ":65979", ":", ":4 43"]);
    let user = choices.pick(&["", "", "", "", "user@", "evil.example#@", "api.example.com@", "a:b@"]);
    let path = match choices.below(4) {
        0 => "/".to_owned(),
        1 => choices
            .pick(&["/items?x=1", ".evil.example/items", "@evil.example/", ":8443/", "\\evil.example/", "*", ""])
            .to_owned(),
        _ => "/".to_owned() + &choices.text("ab/.@:?#%\\[]", 12),
    };
    let authority = format!("{user}{host}{port}");
    match choices.below(4) {
        0 => Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok(),
        1 => authority.parse().ok(),
        2 => path.parse().ok(),
        _ => format!("{scheme}://{authority}{path}").parse().ok(),
    }
}

/// The request either goes where it may, or without credentials, or not at all.
pub fn uri(data: &[u8]) {
    let mut choices = Choices::new(data);
    let method = choices.pick(&[Method::GET.as_str(), "POST", "CONNECT", "OPTIONS"]);
    let host_header = match choices.below(6) {
        0 => Some(
            choices
                .pick(&[
                    "api.example.com",
                    "evil.example",
                    "API.example.com:443",
                    "api.example.com:80",
                    "user@api.example.com",
                    "api.example.com,evil.example",
                    "",
                ])
                .to_owned(),
        ),
        1 => Some(choices.text("api.exmlco:84 3", 20)),
        _ => None,
    };
    let raw = choices.one_in(8);
    let uri = if raw {
        let Ok(uri) = Uri::try_from(choices.rest()) else { return };
        uri
    } else {
        let Some(uri) = made(&mut choices) else { return };
        uri
    };
    let mut request = Request::builder().method(method).uri(uri);
    if let Some(host) = host_header {
        let Ok(host) = HeaderValue::from_str(&host) else { return };
        request = request.header("host", host);
    }
    let Ok(request) = request.body(Full::<Bytes>::default()) else { return };
    run(async move {
        let sent = Arc::new(Mutex::new(None));
        let inner = {
            let sent = sent.clone();
            service_fn(move |request: Request<Full<Bytes>>| {
                *sent.lock().unwrap() = Some(request.into_parts().0);
                async move { Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default())) }
            })
        };
        let mut cfg = AuthConfig::external();
        for (host, port) in ALLOWED {
            cfg = cfg.origin(format!("https://{host}:{port}"));
        }
        let source = StaticToken::new("canary");
        let _ = AuthLayer::with_source(cfg.build().unwrap(), source).layer(inner).oneshot(request).await;
        let Some(head) = sent.lock().unwrap().take() else { return };
        if head.headers.contains_key("authorization") {
            check(&head.method, &head.uri, head.headers.get("host"));
        }
    });
}

fn is_allowed(host: &str, port: u16) -> bool {
    ALLOWED.iter().any(|(allowed, of)| allowed.eq_ignore_ascii_case(host) && *of == port)
}

/// How a URI is read by those who will connect: they must all come to one place, and to that over TLS.
fn check(method: &Method, uri: &Uri, host: Option<&HeaderValue>) {
    assert_ne!(method, Method::CONNECT, "a proxy gets the token: {uri}");
    let Some(authority) = uri.authority() else {
        // It goes where the inner service is connected; the header says at most the same.
        assert!(uri.scheme().is_none());
        if let Some(host) = host {
            let host = host.to_str().expect("a readable host");
            let origin: crate::Url = format!("https://{host}/").parse().expect("a host");
            assert!(is_allowed(origin.host_str().unwrap(), origin.port_or_known_default().unwrap()), "{host}");
        }
        return;
    };
    // hyper-tls dials TLS for exactly this scheme and plain TCP for any other; hyper-rustls compares the same way.
    assert!(uri.scheme().is_none() || uri.scheme() == Some(&http::uri::Scheme::HTTPS), "in the clear: {uri:?}");
    // hyper-util: host and port as `Uri` has them, 443 for https.
    let port = uri.port_u16().unwrap_or(443);
    let host = uri.host().unwrap();
    let canonical: crate::Url = format!("https://{host}:{port}/").parse().expect("a host that others read too");
    assert!(is_allowed(canonical.host_str().unwrap(), port), "hyper-util goes to {host}:{port}");
    assert!(!authority.as_str().contains('@'), "user information: {uri}");
    // Whoever prints it and reads it again, as `reqwest` and proxies do.
    if uri.scheme().is_some() {
        let again: crate::Url = uri.to_string().parse().expect("a URI that others read too");
        let at = (again.host_str().unwrap(), again.port_or_known_default().unwrap());
        assert!(again.scheme() == "https" && is_allowed(at.0, at.1), "printed it leads to {at:?}: {uri}");
    }
}
