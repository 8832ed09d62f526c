//! Tenancy: whose token goes where.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tower::{Service, ServiceExt};
use tower_oauth2_client::Scopes;
use tower_oauth2_client::test_util::Fault;

use crate::cases;
use crate::subject::{
    Offered, Setting, Settings, Subject, Tenancy, World, for_tenant, get, send, send_all, start, succeed, with_scopes,
};

cases! {
    /// Behaviour 90.
    90, "two tenants at once: each has its own token and its own header", two_tenants_at_once;
    /// Behaviour 91.
    91, "a token request for each tenant and set of scopes, and no more", one_token_for_each_key;
    /// Behaviour 91.
    91, "two clients of different configurations share nothing", two_clients_share_nothing;
    /// Behaviour 92.
    92, "keys that look alike when glued are different", no_glued_keys;
    /// Behaviour 93.
    93, "thousands of tenants keep to the bound, and the busy one keeps its token", many_tenants;
    /// Behaviour 94.
    94, "a crowd of tenants does not fork the refresh of one", no_eviction_in_flight;
    /// Behaviour 95.
    95, "a tenant is not remembered for the next request", tenants_do_not_stick;
    /// Behaviour 96.
    96, "a request without a tenant is an error and is not sent", missing_tenant;
    /// Behaviour 97.
    97, "a token had with the old secret is not used after the rotation", rotated_secret;
    /// Behaviour 98.
    98, "scopes that are refused, or hang, do not hold up others", trouble_stays_in_its_partition;
}

const TENANT: &str = "x-tenant";

fn world() -> World {
    World::with(|auth| auth.tenant_header(TENANT)).api(|api| api.tenant_header(TENANT))
}

fn token_per_tenant(more: Vec<Setting>) -> Settings {
    Settings { tenant: Tenancy::TokenPerTenant(TENANT), more, ..Settings::default() }
}

fn token_requests_for(world: &World, tenant: &str) -> usize {
    world.auth.requests().iter().filter(|request| request.header(TENANT) == Some(tenant)).count()
}

async fn two_tenants_at_once(subject: Arc<dyn Subject>) -> Offered {
    let world = world();
    let client = world.subject(&subject, token_per_tenant(vec![]))?.client;
    for revoked in [false, true] {
        if revoked {
            world.auth.revoke_all();
        }
        let requests = (0..100).map(|n| for_tenant(get("/"), if n % 2 == 0 { "blue" } else { "red" }));
        for response in send_all(&client, requests).await {
            assert_eq!(response.unwrap().status(), 200);
        }
    }
    assert_eq!((world.auth.token_requests(), world.api.tenant_mismatches()), (4, 0));
    for request in world.api.requests() {
        assert_eq!(world.auth.tenant_of(request.bearer().unwrap()).as_deref(), request.header(TENANT));
    }
    Ok(())
}

async fn one_token_for_each_key(subject: Arc<dyn Subject>) -> Offered {
    let world = world();
    let client = world.subject(&subject, token_per_tenant(vec![Setting::ScopesPerRequest]))?.client;
    let mut random = fastrand::Rng::with_seed(91);
    let mut tokens: HashMap<(&str, Vec<&str>), String> = HashMap::new();
    for _ in 0..500 {
        let tenant = random.choice(["a", "b", "c"]).unwrap();
        let mut scopes = random.choose_multiple(["read", "write", "admin", "read-all"], 2);
        random.shuffle(&mut scopes);
        let mut request = for_tenant(get("/"), tenant);
        request.extensions_mut().insert(Scopes::new(&scopes).unwrap());
        succeed(&client, request).await;
        scopes.sort_unstable();
        let shown = world.shown_tokens().pop().unwrap();
        let token = tokens.entry((tenant, scopes.clone())).or_insert_with(|| {
            let asked = world.auth.requests().pop().unwrap();
            let mut granted: Vec<_> = asked.param("scope").unwrap().split(' ').map(str::to_owned).collect();
            granted.sort_unstable();
            assert_eq!((asked.header(TENANT), granted), (Some(tenant), scopes.iter().map(|s| s.to_string()).collect()));
            shown.clone()
        });
        assert_eq!(*token, shown);
    }
    assert_eq!(world.auth.token_requests(), tokens.len());
    assert_eq!(tokens.values().collect::<HashSet<_>>().len(), tokens.len());
    Ok(())
}

async fn two_clients_share_nothing(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let (one, other) = (world.client(&subject)?, world.client(&subject)?);
    for client in [&one, &other, &one, &other] {
        succeed(client, get("/")).await;
    }
    let shown = world.shown_tokens();
    assert!(shown[0] == shown[2] && shown[1] == shown[3] && shown[0] != shown[1]);
    Ok(())
}

async fn no_glued_keys(subject: Arc<dyn Subject>) -> Offered {
    let world = world();
    let client = world.subject(&subject, token_per_tenant(vec![Setting::ScopesPerRequest]))?.client;
    let keys: [(&str, &[&str]); 9] = [
        ("a", &["b", "c"]),
        ("a b", &["c"]),
        ("a b c", &["d"]),
        ("a", &["b::c"]),
        ("a::b", &["c"]),
        ("a", &["b|c"]),
        ("a|b", &["c"]),
        ("a", &["b,c"]),
        ("a,b", &["c"]),
    ];
    for _ in 0..2 {
        for (tenant, scopes) in keys {
            let mut request = for_tenant(get("/"), tenant);
            request.extensions_mut().insert(Scopes::new(scopes).unwrap());
            succeed(&client, request).await;
        }
    }
    let shown = world.shown_tokens();
    assert_eq!(shown[..keys.len()], shown[keys.len()..]);
    assert_eq!(shown.into_iter().collect::<HashSet<_>>().len(), keys.len());
    Ok(())
}

async fn many_tenants(subject: Arc<dyn Subject>) -> Offered {
    let world = world();
    let setup = world.subject(&subject, token_per_tenant(vec![Setting::MaxPartitions(64)]))?;
    for n in 0..3_000 {
        succeed(&setup.client, for_tenant(get("/"), "busy")).await;
        succeed(&setup.client, for_tenant(get("/"), &n.to_string())).await;
    }
    assert!(setup.control.partitions()? <= 65, "{}", setup.control.partitions()?);
    assert_eq!(token_requests_for(&world, "busy"), 1);
    assert_eq!(world.api.tenant_mismatches(), 0);
    Ok(())
}

async fn no_eviction_in_flight(subject: Arc<dyn Subject>) -> Offered {
    let world = World::with(|auth| auth.tenant_header(TENANT).latency(Duration::from_secs(2)))
        .api(|api| api.tenant_header(TENANT));
    let client = world.subject(&subject, token_per_tenant(vec![Setting::MaxPartitions(1)]))?.client;
    // Gives up at once: nobody holds on to the refresh any more, only the client itself.
    let one = start(&client, for_tenant(get("/"), "one"));
    world.pass(Duration::from_millis(1)).await;
    one.abort();
    let mut tasks: Vec<_> = (0..200).map(|n| start(&client, for_tenant(get("/"), &n.to_string()))).collect();
    world.pass(Duration::from_secs(1)).await;
    tasks.push(start(&client, for_tenant(get("/"), "one")));
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!(token_requests_for(&world, "one"), 1);
    Ok(())
}

async fn tenants_do_not_stick(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new().api(|api| api.tenant_header(TENANT));
    let settings = Settings { tenant: Tenancy::SharedToken(TENANT), ..Settings::default() };
    let mut client = world.subject(&subject, settings)?.client;
    let tenants = ["blue", "red", "red", "blue", "green"];
    for tenant in tenants {
        // The very same service each time, not a clone.
        let response = client.ready().await.unwrap().call(for_tenant(get("/"), tenant)).await.unwrap();
        assert_eq!(response.status(), 200);
    }
    world.auth.revoke_all();
    for tenant in tenants {
        succeed(&client, for_tenant(get("/"), tenant)).await;
    }
    let seen: Vec<_> = world.api.requests().iter().map(|request| request.header(TENANT).unwrap().to_owned()).collect();
    let expected = ["blue", "red", "red", "blue", "green", "blue", "blue", "red", "red", "blue", "green"];
    assert_eq!(seen, expected, "the sixth was sent twice");
    Ok(())
}

async fn missing_tenant(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings = Settings { tenant: Tenancy::SharedToken(TENANT), ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    assert!(send(&client, get("/")).await.is_err());
    succeed(&client, for_tenant(get("/"), "blue")).await;
    assert!(send(&client, get("/")).await.is_err(), "also after a request that named one");
    assert_eq!(world.api.hits(), 1);
    Ok(())
}

async fn rotated_secret(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let setup = world.subject(&subject, Settings::default())?;
    succeed(&setup.client, get("/")).await;
    let old = world.auth.last_token().unwrap();
    setup.control.replace_secret("n3w")?;
    let _ = world.auth.clone().client(crate::subject::CLIENT_ID, "n3w");
    succeed(&setup.client, get("/")).await;
    assert!(world.auth.is_live(&old), "only the secret was rotated");
    assert_ne!(world.shown_tokens().last(), Some(&old));
    Ok(())
}

async fn trouble_stays_in_its_partition(subject: Arc<dyn Subject>) -> Offered {
    let world = World::new();
    let settings = Settings { more: vec![Setting::ScopesPerRequest], ..Settings::default() };
    let client = world.subject(&subject, settings)?.client;
    world.auth.script([Fault::error("invalid_scope")]);
    assert!(send(&client, with_scopes(get("/"), ["refused"])).await.is_err());
    succeed(&client, with_scopes(get("/"), ["fine"])).await;
    world.auth.script([Fault::Hang]);
    let hanging = start(&client, with_scopes(get("/"), ["hangs"]));
    world.pass(Duration::from_millis(1)).await;
    let sent = tokio::time::Instant::now();
    succeed(&client, with_scopes(get("/"), ["fine-too"])).await;
    succeed(&client, get("/")).await;
    assert_eq!(sent.elapsed(), Duration::ZERO);
    assert!(send(&client, with_scopes(get("/"), ["refused"])).await.is_err(), "its own pause goes on");
    hanging.abort();
    assert_eq!(world.auth.token_requests(), 5);
    Ok(())
}
