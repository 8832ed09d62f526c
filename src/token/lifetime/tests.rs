//! Lifetimes of tokens from all their sources, and what a JWT says of its end.

use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;
use crate::types::{Clock, SystemClock};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn start() -> Now {
    let wall = SystemTime::UNIX_EPOCH + secs(1_800_000_000);
    Now { wall, ..SystemClock.now() }
}

fn opaque() -> Token {
    Token::bearer("opaque").unwrap()
}

fn jwt(claims: &str) -> String {
    format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

/// A JWT that ends so many seconds after `now`, before it if negative.
fn jwt_ending(now: Now, after: i64) -> Token {
    let now = now.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    Token::bearer(&jwt(&format!(r#"{{"exp":{}}}"#, now.checked_add_signed(after).unwrap()))).unwrap()
}

fn vip() -> LifetimePolicy {
    LifetimePolicy { sources: vec![ExpirySource::JwtExp], renew: Renew::AtExpiry, ..LifetimePolicy::default() }
}

fn graphnet() -> LifetimePolicy {
    LifetimePolicy {
        sources: vec![ExpirySource::JwtExp],
        unknown: UnknownExpiry::Assume(secs(300)),
        strict: true,
        ..LifetimePolicy::default()
    }
}

/// The lifetime of a token that is not the first and of which no jitter is taken.
fn plain(token: &Token, policy: &LifetimePolicy, asked: Now, arrived: Now) -> Result<Lifetime, NoLifetime> {
    lifetime_of(token, policy, asked, arrived, Spread::Narrow, 0.0)
}

/// Refresh point, margin and expiry, in seconds after `start`.
fn points(lifetime: &Lifetime, start: Now) -> [Option<f64>; 3] {
    [lifetime.refresh, lifetime.margin, lifetime.expiry].map(|span| {
        let moment = span.after(&lifetime.arrived)?;
        let wall = moment.wall.duration_since(start.wall).unwrap();
        assert_eq!(moment.monotonic - start.monotonic, wall, "both clocks say the same");
        Some(wall.as_secs_f64())
    })
}

/// Behaviour 182.
#[test]
fn no_token_outlives_what_it_was_had_for() {
    let now = start();
    let capped = |mut token: Token, seconds: u64| {
        token.not_after = Some(now.wall + secs(seconds));
        token
    };
    let until_rejected = LifetimePolicy { unknown: UnknownExpiry::UntilRejected, ..LifetimePolicy::default() };
    let cases = [
        (capped(opaque().with_expires_in(HOUR), 600), LifetimePolicy::default(), 600.0),
        (capped(opaque().with_expires_in(HOUR), 7200), LifetimePolicy::default(), 3600.0),
        (capped(opaque(), 600), LifetimePolicy::default(), 600.0),
        (capped(opaque(), 600), until_rejected, 600.0),
        (capped(jwt_ending(now, 3600), 600), vip(), 600.0),
        (capped(jwt_ending(now, -3600), 600), vip(), 600.0),
    ];
    for (at, (token, policy, expected)) in cases.into_iter().enumerate() {
        let [_, _, expiry] = points(&plain(&token, &policy, now, now).unwrap(), now);
        assert_eq!(expiry, Some(expected), "{at}");
    }
}

#[test]
fn a_token_from_elsewhere_is_of_use_until_its_margin() {
    let (now, policy) = (start(), LifetimePolicy::default());
    let aged = |mut token: Token, age: u64| {
        token.asked_at = Some(now.wall - secs(age));
        useful_for(&token, &policy, &now)
    };
    for (age, left) in [(0, 3570), (3000, 570), (3569, 1), (3570, 0), (3601, 0), (1_000_000, 0)] {
        assert_eq!(aged(opaque().with_expires_in(HOUR), age), Some(secs(left)), "{age} s old");
    }
    assert_eq!(aged(opaque(), 3000), Some(secs(570)), "an hour is assumed");
    assert_eq!(aged(jwt_ending(now, 600), 3000), Some(secs(570)));
    assert_eq!(aged(jwt_ending(now, -1), 3600), Some(Duration::ZERO));
    let mut from_a_clock_ahead = opaque().with_expires_in(HOUR);
    from_a_clock_ahead.asked_at = Some(now.wall + HOUR);
    assert_eq!(useful_for(&from_a_clock_ahead, &policy, &now), Some(secs(3570)));
    let until_rejected = LifetimePolicy { unknown: UnknownExpiry::UntilRejected, ..policy.clone() };
    assert_eq!(useful_for(&opaque(), &until_rejected, &now), None);
}

/// Behaviour 70.
#[test]
fn what_is_told_of_a_token_gives_its_lifetime() {
    let (asked, default) = (start(), LifetimePolicy::default());
    let arrived = asked.after(secs(2));
    let until_rejected = LifetimePolicy { unknown: UnknownExpiry::UntilRejected, ..default.clone() };
    let error = LifetimePolicy { unknown: UnknownExpiry::Error, ..default.clone() };
    let fixed = LifetimePolicy { sources: vec![ExpirySource::Fixed(secs(100))], ..default.clone() };
    let year = YEAR.as_secs_f64();
    let rows = [
        ("an hour", opaque().with_expires_in(HOUR), &default, [2880.0, 3570.0, 3600.0]),
        ("missing: an hour is assumed", opaque(), &default, [2880.0, 3570.0, 3600.0]),
        ("zero is not told", opaque().with_expires_in(Duration::ZERO), &default, [2880.0, 3570.0, 3600.0]),
        ("the margin is at most a tenth", opaque().with_expires_in(secs(100)), &default, [80.0, 90.0, 100.0]),
        ("fractions count", opaque().with_expires_in(secs(10) / 4), &default, [3.0, 3.0, 3.0]),
        ("absurd: a year", opaque().with_expires_in(Duration::MAX), &default, [0.8 * year, year - 30.0, year]),
        ("shorter than its way here", opaque().with_expires_in(secs(1)), &default, [3.0, 3.0, 3.0]),
        ("absolute", opaque().with_expires_at(asked.wall + secs(100)), &default, [80.0, 90.0, 100.0]),
        (
            "absolute, a millennium",
            opaque().with_expires_at(asked.wall + YEAR * 1000),
            &default,
            [0.8 * year, year - 30.0, year],
        ),
        ("absolute, nearly over", opaque().with_expires_at(arrived.wall + SECOND / 10), &default, [3.0, 3.0, 3.0]),
        ("a JWT", jwt_ending(asked, 1000), &default, [800.0, 970.0, 1000.0]),
        (
            "a refresh point of the server's",
            opaque().with_expires_in(HOUR).with_refresh_in(secs(600)),
            &default,
            [600.0, 3570.0, 3600.0],
        ),
        (
            "one later than ours",
            opaque().with_expires_in(HOUR).with_refresh_in(secs(3500)),
            &default,
            [2880.0, 3570.0, 3600.0],
        ),
        (
            "one at once",
            opaque().with_expires_in(HOUR).with_refresh_in(Duration::ZERO),
            &default,
            [3.0, 3570.0, 3600.0],
        ),
        ("fixed", opaque().with_expires_in(HOUR), &fixed, [80.0, 90.0, 100.0]),
        ("told, though guessing is forbidden", opaque().with_expires_in(secs(100)), &error, [80.0, 90.0, 100.0]),
        ("renewed at its end", jwt_ending(asked, 1000), &vip(), [1000.0, 1000.0, 1000.0]),
        (
            "the answer lies, the JWT does not",
            jwt_ending(asked, 1000).with_expires_in(secs(86400)),
            &vip(),
            [1000.0, 1000.0, 1000.0],
        ),
        ("strict, unreadable", opaque(), &graphnet(), [240.0, 270.0, 300.0]),
    ];
    for (name, token, policy, expected) in rows {
        let lifetime = plain(&token, policy, asked, arrived).unwrap();
        for (point, expected) in points(&lifetime, asked).into_iter().zip(expected) {
            assert!((point.unwrap() - expected).abs() < 1e-3, "{name}: {point:?}, not {expected}");
        }
        assert_eq!(lifetime.freshness(&arrived), Freshness::Fresh, "{name}");
    }
    assert_eq!(plain(&opaque(), &error, asked, arrived), Err(NoLifetime::Unknown));
    let lifetime = plain(&opaque(), &until_rejected, asked, arrived).unwrap();
    assert_eq!(points(&lifetime, asked), [None; 3]);
    assert_eq!(lifetime.freshness(&arrived.after(YEAR)), Freshness::Fresh);
    assert_eq!((lifetime.next_boundary(&arrived), lifetime.expires_at()), (None, None));
    let hinted = plain(&opaque().with_refresh_in(secs(60)), &until_rejected, asked, arrived).unwrap();
    assert_eq!(points(&hinted, asked), [Some(60.0), None, None]);
    assert_eq!(hinted.freshness(&arrived.after(YEAR)), Freshness::Stale);
}

/// Behaviour 76.
#[test]
fn the_first_usable_source_wins() {
    use ExpirySource::*;
    let asked = start();
    let token = jwt_ending(asked, 300).with_expires_in(secs(100)).with_expires_at(asked.wall + secs(200));
    let rows = [
        (vec![ExpiresIn, ExpiresAt, JwtExp], token.clone(), 100),
        (vec![ExpiresAt, ExpiresIn, JwtExp], token.clone(), 200),
        (vec![JwtExp, ExpiresIn, ExpiresAt], token.clone(), 300),
        (vec![Fixed(secs(400)), JwtExp], token, 400),
        (vec![Fixed(Duration::ZERO), JwtExp], jwt_ending(asked, 300), 300),
        (vec![JwtExp, ExpiresIn], opaque().with_expires_in(secs(100)), 100),
        (vec![ExpiresIn, JwtExp], jwt_ending(asked, 300).with_expires_in(Duration::ZERO), 300),
        (vec![ExpiresAt, JwtExp], opaque().with_expires_in(secs(100)), 3600),
        (vec![], opaque().with_expires_in(secs(100)), 3600),
    ];
    for (sources, token, expected) in rows {
        let policy = LifetimePolicy { sources, ..LifetimePolicy::default() };
        let lifetime = plain(&token, &policy, asked, asked).unwrap();
        assert_eq!(lifetime.expires_at(), Some(asked.wall + secs(expected)), "{:?}", policy.sources);
    }
}

#[test]
fn freshness_goes_down_and_each_boundary_is_told() {
    let now = start();
    let lifetime = plain(&opaque().with_expires_in(secs(1000)), &LifetimePolicy::default(), now, now).unwrap();
    let rows = [
        (0, Freshness::Fresh, Some(800)),
        (799, Freshness::Fresh, Some(1)),
        (800, Freshness::Stale, Some(170)),
        (970, Freshness::NearExpiry, Some(30)),
        (1000, Freshness::Expired, None),
    ];
    for (at, freshness, next) in rows {
        let at = now.after(secs(at));
        assert_eq!((lifetime.freshness(&at), lifetime.next_boundary(&at)), (freshness, next.map(secs)));
        assert_eq!(lifetime.is_alive(&at), freshness != Freshness::Expired);
    }
    let kept = lifetime.kept_until_expiry();
    assert_eq!(points(&kept, now), [Some(1000.0); 3]);
    assert_eq!(kept.freshness(&now.after(secs(999))), Freshness::Fresh);
    assert_eq!(kept.next_boundary(&now), Some(secs(1000)));
}

/// Behaviour 74.
#[test]
fn a_token_is_expired_when_either_clock_says_so() {
    let now = start();
    for token in [opaque().with_expires_in(HOUR), opaque().with_expires_at(now.wall + HOUR), jwt_ending(now, 3600)] {
        let lifetime = plain(&token, &LifetimePolicy::default(), now, now).unwrap();
        let suspended = Now { wall: now.wall + 2 * HOUR, ..now };
        assert_eq!(lifetime.freshness(&suspended), Freshness::Expired);
        let set_back = Now { wall: now.wall - HOUR, ..now.after(HOUR) };
        assert_eq!(lifetime.freshness(&set_back), Freshness::Expired);
        let set_back = Now { wall: now.wall - HOUR, ..now };
        assert_eq!(lifetime.next_boundary(&set_back), Some(secs(2880)), "the clock that gets there first counts");
    }
}

#[test]
fn an_answer_that_took_long_is_counted_by_either_clock() {
    let (asked, policy) = (start(), LifetimePolicy::default());
    let slept = Now { wall: asked.wall + HOUR, ..asked };
    let set_back = Now { wall: asked.wall - HOUR, ..asked.after(secs(10)) };
    let left = |token, arrived: Now| {
        let expiry = plain(&token, &policy, asked, arrived).unwrap().expires_at().unwrap();
        expiry.duration_since(arrived.wall).unwrap()
    };
    assert_eq!(left(opaque().with_expires_in(2 * HOUR), slept), HOUR);
    assert_eq!(left(opaque().with_expires_in(2 * HOUR), set_back), 2 * HOUR - secs(10));
    assert_eq!(left(opaque().with_expires_at(slept.wall + HOUR), slept), HOUR);
}

/// Behaviour 73.
#[test]
fn jitter_spreads_first_tokens_widely_and_later_ones_a_little() {
    let (now, default) = (start(), LifetimePolicy::default());
    let token = opaque().with_expires_in(secs(1000));
    let refresh = |policy: &LifetimePolicy, token: &Token, spread, draw| {
        points(&lifetime_of(token, policy, now, now, spread, draw).unwrap(), now)[0].unwrap()
    };
    let half = LifetimePolicy { renew: Renew::Fraction(0.5), ..default.clone() };
    let rows = [
        (&default, Spread::Wide, [350.0, 575.0, 800.0]),
        (&default, Spread::Shared, [800.0, 725.0, 650.0]),
        (&default, Spread::Narrow, [800.0, 775.0, 750.0]),
        (&half, Spread::Narrow, [500.0, 475.0, 450.0]),
        (&vip(), Spread::Wide, [3600.0, 3600.0, 3600.0]),
    ];
    for (policy, spread, expected) in rows {
        for (draw, expected) in [0.0, 0.5, 0.999_999_9].into_iter().zip(expected) {
            let refresh = refresh(policy, &token, spread, draw);
            assert!((refresh - expected).abs() < 0.01, "{spread:?} {draw}: {refresh}, not {expected}");
        }
    }
    let hinted = token.clone().with_refresh_in(secs(100));
    assert!((refresh(&default, &hinted, Spread::Wide, 0.0) - 43.75).abs() < 0.01, "a fleet gets the same hint");

    let mut rng = fastrand::Rng::with_seed(7);
    let fleet: Vec<f64> = (0..1_000).map(|_| refresh(&default, &token, Spread::Wide, rng.f64())).collect();
    for tenth in 0..9 {
        let from = 350.0 + 50.0 * f64::from(tenth);
        let within = fleet.iter().filter(|at| (from..from + 50.0).contains(*at)).count();
        assert!((70..160).contains(&within), "{within} of 1000 processes in the 50 s from {from}");
    }

    let lifetime = lifetime_of(&token, &default, now, now, Spread::Wide, 0.3).unwrap();
    let boundary = now.after(lifetime.next_boundary(&now).unwrap());
    let changes = (0..10_000u32)
        .map(|tick| now.after(SECOND * tick / 20))
        .filter(|at| (lifetime.freshness(at) == Freshness::Fresh) == at.reached(&boundary));
    assert_eq!(changes.count(), 0, "drawn once, the point does not move");
}

/// How often a token is asked for in ten minutes by a client that asks whenever it is not fresh, checked each 10
/// ms. `issue` makes the token the server hands out at the given time by our clocks.
fn requests_in_ten_minutes(policy: &LifetimePolicy, issue: impl Fn(Now) -> Token) -> usize {
    let begin = start();
    let mut requests = 0;
    let mut held: Option<Lifetime> = None;
    for tick in 0..60_000 {
        let now = begin.after(Duration::from_millis(10) * tick);
        if held.is_none_or(|lifetime| lifetime.freshness(&now) != Freshness::Fresh) {
            held = plain(&issue(now), policy, now, now).ok();
            requests += 1;
        }
    }
    requests
}

/// Behaviour 71.
#[test]
fn a_lifetime_shorter_than_the_margin_is_no_reason_to_ask_each_time() {
    for (lifetime, most) in [(30, 25), (60, 13), (10, 75)] {
        let requests =
            requests_in_ten_minutes(&LifetimePolicy::default(), |_| opaque().with_expires_in(secs(lifetime)));
        assert!(requests <= most, "{lifetime} s: {requests} in ten minutes");
    }
}

/// Behaviour 72.
#[test]
fn the_shortest_lifetimes_make_no_loop() {
    for lifetime in [Duration::from_nanos(1), SECOND / 1000, SECOND, secs(2)] {
        for token in [opaque().with_expires_in(lifetime), opaque().with_expires_in(HOUR).with_refresh_in(lifetime)] {
            let requests = requests_in_ten_minutes(&LifetimePolicy::default(), |_| token.clone());
            assert!(requests <= 600, "{lifetime:?}: {requests} in ten minutes");
        }
    }
}

/// Behaviour 77.
#[test]
fn clocks_that_differ_by_five_minutes_make_no_loop() {
    for (ahead, life, most) in [(300, 600, 2), (-300, 600, 3), (-300, 300, 20), (-300, 60, 20)] {
        let policy = LifetimePolicy { sources: vec![ExpirySource::JwtExp], ..LifetimePolicy::default() };
        let requests = requests_in_ten_minutes(&policy, |now| jwt_ending(now, ahead + life));
        assert!(requests <= most, "{ahead} s ahead, {life} s of life: {requests} in ten minutes");
    }
}

#[test]
fn a_token_that_arrives_expired_is_used_and_renewed_unless_the_policy_is_strict() {
    let now = start();
    for token in [jwt_ending(now, -1), jwt_ending(now, 0), opaque().with_expires_at(now.wall - YEAR)] {
        let lenient = LifetimePolicy::default();
        let lifetime = plain(&token, &lenient, now, now).unwrap();
        assert_eq!(points(&lifetime, now), [Some(30.0), None, None]);
        assert_eq!(lifetime.freshness(&now), Freshness::Fresh);
        assert_eq!(lifetime.freshness(&now.after(YEAR)), Freshness::Stale, "usable until rejected");
        assert_eq!(lifetime.kept_until_expiry(), lifetime);
        let strict = LifetimePolicy { strict: true, ..lenient };
        assert_eq!(plain(&token, &strict, now, now), Err(NoLifetime::Expired));
    }
    assert_eq!(plain(&jwt_ending(now, -1), &graphnet(), now, now), Err(NoLifetime::Expired));
}

#[test]
fn a_policy_that_makes_no_sense_is_refused() {
    assert!(LifetimePolicy::default().validate().is_ok());
    for fraction in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert!(
            LifetimePolicy { renew: Renew::Fraction(fraction), ..LifetimePolicy::default() }.validate().is_err(),
            "{fraction}"
        );
    }
    let sources = vec![ExpirySource::JwtExp, ExpirySource::Fixed(Duration::ZERO)];
    assert!(LifetimePolicy { sources, ..LifetimePolicy::default() }.validate().is_err());
    let unknown = UnknownExpiry::Assume(Duration::ZERO);
    assert!(LifetimePolicy { unknown, ..LifetimePolicy::default() }.validate().is_err());
}

/// Behaviour 76.
#[test]
fn exp_is_read_from_a_jwt_and_from_nothing_else() {
    let claims = |exp: &str| jwt(&format!(r#"{{"iss":"a","exp":{exp},"aud":["b"]}}"#));
    let padded = |claims: &str| format!("e30.{}.c2ln", URL_SAFE.encode(claims));
    let rows = [
        ("number", claims("1800000000"), Some(1_800_000_000.0)),
        ("float", claims("1800000000.5"), Some(1_800_000_000.5)),
        ("exponent", claims("1.8e9"), Some(1_800_000_000.0)),
        ("string", claims(r#""1800000000""#), Some(1_800_000_000.0)),
        ("string with blanks", claims(r#"" 1800000000 ""#), Some(1_800_000_000.0)),
        ("milliseconds", claims("1800000000000"), Some(1_800_000_000.0)),
        ("the last second of 9999", claims("253402300799"), Some(253_402_300_799.0)),
        ("long ago", claims("1000"), Some(1_000.0)),
        ("2^53", claims("9007199254740992"), Some(9_007_199_254_740.992)),
        ("padded", padded(r#"{"exp":1800000000}"#), Some(1_800_000_000.0)),
        ("no signature", claims("1800000000").replace("c2ln", ""), Some(1_800_000_000.0)),
        ("a header nobody can read", format!("?{}", claims("1800000000")), Some(1_800_000_000.0)),
        ("zero", claims("0"), None),
        ("negative", claims("-1"), None),
        ("1e300", claims("1e300"), None),
        ("1e400", claims("1e400"), None),
        ("NaN", claims(r#""NaN""#), None),
        ("infinity", claims(r#""inf""#), None),
        ("text", claims(r#""tomorrow""#), None),
        ("empty text", claims(r#""""#), None),
        ("null", claims("null"), None),
        ("bool", claims("true"), None),
        ("array", claims("[1800000000]"), None),
        ("object", claims("{}"), None),
        ("missing", jwt("{}"), None),
        ("twice", jwt(r#"{"exp":1800000000,"exp":1900000000}"#), None),
        ("claims that are no object", jwt("1800000000"), None),
        ("claims that are no JSON", jwt("exp"), None),
        ("claims that are no text", format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode([0xff, 0xfe])), None),
        ("claims that are no base64", "e30.!.c2ln".to_owned(), None),
        ("one part", "opaque".to_owned(), None),
        ("two parts", "e30.e30".to_owned(), None),
        ("four parts", format!("{}.c2ln", claims("1800000000")), None),
        ("an encrypted JWT", format!("e30.a2V5.{}.dGFn", claims("1800000000")), None),
        ("dots", ".".repeat(60_000), None),
        ("two dots", "..".to_owned(), None),
        ("nothing", String::new(), None),
        ("too long", jwt(&format!(r#"{{"exp":1800000000,"x":"{}"}}"#, "x".repeat(32 * 1024))), None),
    ];
    for (name, token, expected) in rows {
        let exp = jwt_exp(&token).map(|exp| exp.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64());
        match (exp, expected) {
            (Some(exp), Some(expected)) => assert!((exp - expected).abs() < 0.01, "{name}: {exp}"),
            _ => assert_eq!(exp, expected, "{name}"),
        }
    }
}

#[cfg(feature = "jwt-rust-crypto")]
#[test]
fn exp_is_read_from_a_jwt_that_a_library_made() {
    use jsonwebtoken::{EncodingKey, Header, encode};

    // With both backends on, it needs to be told which one to use.
    let _ = jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER.install_default();
    let claims = serde_json::json!({ "sub": "synthetic", "exp": 1_800_000_000, "roles": ["ä", "ö"] });
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(b"synthetic")).unwrap();
    assert_eq!(jwt_exp(&token), Some(SystemTime::UNIX_EPOCH + secs(1_800_000_000)));
}

proptest! {
    #[test]
    fn no_token_makes_the_reader_panic(token in "\\PC*", claims in "\\PC*", exp in any::<f64>()) {
        jwt_exp(&token);
        jwt_exp(&format!("a.{token}.b"));
        jwt_exp(&jwt(&claims));
        jwt_exp(&jwt(&format!(r#"{{"exp":{exp:e}}}"#)));
    }

    #[test]
    fn every_lifetime_is_in_order_and_within_its_limits(
        expires_in in any::<Option<Duration>>(),
        expires_at in proptest::option::of(-1_000_000_000i64..4_000_000_000),
        refresh_in in any::<Option<Duration>>(),
        latency in 0u64..60_000,
        fraction in 0.001f64..=1.0,
        margin in any::<Duration>(),
        at_expiry: bool,
        spread in prop_oneof![Just(Spread::Wide), Just(Spread::Shared), Just(Spread::Narrow)],
        draw in 0.0f64..1.0,
    ) {
        let asked = start();
        let arrived = asked.after(Duration::from_millis(latency));
        let mut token = match expires_at {
            Some(after) => jwt_ending(arrived, after),
            None => opaque(),
        };
        token.expires_in = expires_in;
        token.refresh_in = refresh_in;
        let renew = if at_expiry { Renew::AtExpiry } else { Renew::Fraction(fraction) };
        let policy = LifetimePolicy { renew, margin: Some(margin), ..LifetimePolicy::default() };
        let lifetime = lifetime_of(&token, &policy, asked, arrived, spread, draw).unwrap();
        prop_assert_eq!(lifetime.freshness(&arrived.after(SECOND - Duration::from_nanos(1))), Freshness::Fresh);
        let [refresh, margin, expiry] = points(&lifetime, arrived);
        if let (Some(margin), Some(expiry)) = (margin, expiry) {
            prop_assert!(1.0 <= refresh.unwrap() && refresh.unwrap() <= margin);
            prop_assert!(margin <= expiry && expiry <= YEAR.as_secs_f64());
        } else {
            prop_assert_eq!((refresh, margin, expiry), (Some(30.0), None, None));
        }
    }
}
