//! Redirects that are believed and those that are not.

use super::*;

const STATE: &str = "canary-state-1";
const CODE: &str = "canary-code-2";
const ISSUER: &str = "https://auth.example.com";
const CLIENT_SECRET: &str = "canary_of_the_client";

fn secrets() -> Secrets {
    Secrets { state: Secret::from(STATE), verifier: Secret::from("canary-verifier-3") }
}

fn code_of(redirect: &str, issuer: &Issuer) -> Result<String, SignInError> {
    let client_secret = ClientSecret::Known(Secret::from(CLIENT_SECRET));
    let code = Redirect::parse(redirect).and_then(|redirect| redirect.into_code(&secrets(), issuer, &client_secret));
    code.map(|code| code.expose().clone())
}

fn refused(redirect: &str, issuer: &Issuer) -> SignInError {
    let error = code_of(redirect, issuer).expect_err(redirect);
    let said = format!("{error} {error:?} {:?}", error.error_description());
    assert!(!said.contains("canary"), "{said}");
    error
}

#[test]
fn a_redirect_is_read_in_every_form_in_which_servers_have_it() {
    let query = format!("code=a%2Bb+c&x=%FF&state={STATE}&y");
    let forms = [
        query.clone(),
        format!("?{query}"),
        format!("/back?{query}"),
        format!("http://127.0.0.1:8976/back?app=1&{query}"),
        format!("com.example.app:/back?{query}#_=_"),
    ];
    for redirect in forms {
        assert_eq!(code_of(&redirect, &Issuer::Unknown).unwrap(), "a+b c", "{redirect}");
    }
    assert_eq!(code_of(&format!("code=a?b&state={STATE}"), &Issuer::Unknown).unwrap(), "a?b");
}

/// Behaviour 152.
#[test]
fn a_redirect_uri_may_have_parameters_of_its_own_in_its_path() {
    let query = format!("code=a%3Fb&state={STATE}");
    for place in [
        "https://app.example.com/back;tenant=x",
        "/back=1",
        "/a=b/c",
        "com.example.app:/back;v=1",
        "http://[::1]:80/x=y",
    ] {
        assert_eq!(code_of(&format!("{place}?{query}"), &Issuer::Unknown).unwrap(), "a?b", "{place}");
    }
    let alone = format!("iss=https://a.example/?x&code=a?b&state={STATE}");
    assert_eq!(code_of(&alone, &Issuer::Unknown).unwrap(), "a?b", "a query alone");
}

#[test]
fn a_state_that_is_not_ours_says_nothing_else() {
    let others = [
        "".into(),
        format!("code={CODE}"),
        format!("code={CODE}&state="),
        format!("code={CODE}&state={STATE}x"),
        format!("code={CODE}&state=canary-state-2"),
        format!("code={CODE}&state={}", &STATE[1..]),
        "error=access_denied&error_description=canary&state=canary".into(),
    ];
    for redirect in others {
        let error = refused(&redirect, &Issuer::Known(ISSUER.into()));
        assert_eq!(error.kind(), SignInErrorKind::WrongState, "{redirect}");
        assert_eq!((error.code(), error.error_description()), (None, None));
    }
}

#[test]
fn the_issuer_is_compared_as_it_is_written() {
    let known = Issuer::Known(ISSUER.into());
    let required = Issuer::Required(ISSUER.into());
    let from = |issuer: &str| format!("code={CODE}&state={STATE}&iss={issuer}");
    let named = from("https%3A%2F%2Fauth.example.com");
    for (issuer, silent_is_good) in [(&known, true), (&required, false)] {
        assert!(code_of(&named, issuer).is_ok());
        for other in ["https://auth.example.com/", "https://AUTH.example.com", "https://canary.example"] {
            assert_eq!(refused(&from(other), issuer).kind(), SignInErrorKind::WrongIssuer);
            let error = format!("error=access_denied&state={STATE}&iss={other}");
            assert_eq!(refused(&error, issuer).kind(), SignInErrorKind::WrongIssuer, "not the server's word either");
        }
        assert_eq!(code_of(&from(""), issuer).is_ok(), silent_is_good);
    }
    assert_eq!(refused(&from(""), &required).kind(), SignInErrorKind::WrongIssuer);
    assert!(code_of(&from("https://other.example"), &Issuer::Unknown).is_ok());
}

#[test]
fn what_the_server_refuses_has_its_class_and_its_code() {
    use SignInErrorKind::*;
    let codes = [
        ("access_denied", Denied),
        ("invalid_scope", Refused),
        ("login_required", Refused),
        ("server_error", Unavailable),
        ("temporarily_unavailable", Unavailable),
    ];
    for (code, kind) in codes {
        let error = refused(&format!("error={code}&state={STATE}&code={CODE}"), &Issuer::Unknown);
        assert_eq!((error.kind(), error.code().unwrap().as_str()), (kind, code));
        assert!(error.to_string().contains(code));
    }
    let latin1 =
        refused(&format!("error=access_denied&error_description=abgelehnt%21+%FC&state={STATE}"), &Issuer::Unknown);
    assert_eq!((latin1.kind(), latin1.error_description()), (Denied, Some("abgelehnt! \u{fffd}")));
}

/// Behaviours 103 and 104.
#[test]
fn a_secret_that_the_server_repeats_is_masked() {
    let echo =
        format!("error={CODE}&error_description=no%0A{CODE}+{STATE}+canary-verifier-3&state={STATE}&code={CODE}");
    let error = refused(&echo, &Issuer::Unknown);
    assert_eq!((error.kind(), error.code()), (SignInErrorKind::Refused, None));
    assert_eq!(error.error_description(), Some("no[redacted] [redacted] [redacted]"));
    let long = format!("error=x&error_description={}&state={STATE}", "a".repeat(1000));
    assert_eq!(refused(&long, &Issuer::Unknown).error_description().map(str::len), Some(256));
}

/// Behaviour 150 (a browser's redirect).
#[test]
fn a_code_that_is_like_the_clients_secret_is_not_told() {
    for code in [CLIENT_SECRET, &CLIENT_SECRET[1..], &CLIENT_SECRET[..12], "tneilc_eht_fo_yranac"] {
        let echo = format!("error={code}&error_description=it+is+{CLIENT_SECRET}&state={STATE}");
        let error = refused(&echo, &Issuer::Unknown);
        assert_eq!((error.kind(), error.code()), (SignInErrorKind::Refused, None), "{code}");
        assert_eq!(error.error_description(), Some("it is [redacted]"));
    }
}

/// Behaviour 150 (a browser's redirect, while the secret cannot be read).
#[test]
fn what_cannot_be_compared_is_not_told() {
    let told = |error: &str| {
        let redirect = format!("error={error}&error_description=it+is+{CLIENT_SECRET}&state={STATE}");
        let redirect = Redirect::parse(&redirect).unwrap();
        let error = redirect.into_code(&secrets(), &Issuer::Unknown, &ClientSecret::Unknown).unwrap_err();
        assert_eq!(error.error_description(), None);
        error.code().map(ToString::to_string)
    };
    assert_eq!(told(CLIENT_SECRET), None);
    assert_eq!(told("access_denied"), Some("access_denied".to_owned()));
}

#[test]
fn what_is_no_answer_is_malformed() {
    let malformed = [
        format!("state={STATE}"),
        format!("state={STATE}&code="),
        format!("state={STATE}&state={STATE}&code={CODE}"),
        format!("state={STATE}&code={CODE}&code={CODE}"),
        format!("state={STATE}&iss=canary&iss=canary&code={CODE}"),
        format!("state={STATE}&error=canary&error=canary"),
    ];
    for redirect in malformed {
        assert_eq!(refused(&redirect, &Issuer::Unknown).kind(), SignInErrorKind::Malformed, "{redirect}");
    }
}
