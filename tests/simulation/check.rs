//! The promises that are checked when a run is over.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::server::World;

/// Every request that was not cancelled was answered, once.
pub(crate) fn nobody_waits(world: &World) {
    let mut books = world.books.lock().unwrap();
    let mut broken = None;
    for (number, request) in books.requests.iter().enumerate() {
        let wrong = match request.answers {
            0 => !request.cancelled,
            1 => false,
            _ => true,
        };
        if wrong {
            let kind = if request.runtime == 1 { "of the other runtime " } else { "" };
            broken = Some(format!("request {number} {kind}since {:?}: {} answers", request.began, request.answers));
            break;
        }
    }
    if let Some(how) = broken {
        books.broken("every request is answered once", how);
    }
}

/// Nor on a runtime that alone was driven for long, whatever the other one does.
pub(crate) fn nobody_waits_on(world: &World, runtime: usize) {
    let mut books = world.books.lock().unwrap();
    let waits = books
        .requests
        .iter()
        .position(|request| request.runtime == runtime && request.answers == 0 && !request.cancelled);
    if let Some(number) = waits {
        books.broken("nobody waits for a runtime that stands still", format!("request {number}"));
    }
}

/// Tenants that never had a token make no more token requests in a minute than there is room for partitions (or for token
/// requests at a time), and as many again that were there at its beginning.
pub(crate) fn first_requests_are_bounded(world: &World) {
    if world.plan.store {
        // Who has had a token from there is no stranger, which cannot be seen from outside.
        return;
    }
    let mut books = world.books.lock().unwrap();
    let bound = 2 * world.plan.max_partitions.max(64) + 10;
    let most = |times: &Vec<Duration>| {
        let within =
            |at: &Duration| times.iter().filter(|time| **time >= *at && **time < *at + Duration::from_secs(60)).count();
        times.iter().map(within).max().unwrap_or(0)
    };
    let broken =
        books.first_failed.iter().map(|(process, times)| (*process, most(times))).find(|(_, most)| *most > bound);
    if let Some((process, most)) = broken {
        books
            .broken("invented tenants are bounded", format!("process {process}: {most} in a minute, room for {bound}"));
    }
}

/// The last request of each process and tenant was served.
pub(crate) fn all_recovered(world: &World, last: &BTreeMap<(usize, usize), usize>) {
    let mut books = world.books.lock().unwrap();
    for ((process, tenant), number) in last {
        let answer = books.requests[*number].answer.clone();
        if answer != Some(Ok(200)) {
            books.broken("what is healed recovers", format!("process {process}, tenant {tenant}: {answer:?}"));
        }
    }
}

/// In no minute more token requests than the rejection limiter, lifetimes, failures and what was done to it explain.
pub(crate) fn token_requests_are_bounded(world: &World) {
    const MINUTE: Duration = Duration::from_secs(60);
    let mut books = world.books.lock().unwrap();
    let by_lifetime = 60 * 3 / world.plan.lifetime.as_secs() + 1;
    let mut broken = None;
    for ((process, tenant), view) in &books.views {
        for (at, asked) in view.asked.iter().enumerate() {
            let count = view.asked[at..].iter().take_while(|other| **other < *asked + MINUTE).count() as u64;
            let near = |moment: &&Duration| **moment + Duration::from_secs(5) >= *asked && **moment < *asked + MINUTE;
            let excuses = view.excuses.iter().filter(near).count() as u64;
            let bound = 13 + 12 + by_lifetime + 3 * excuses;
            if count > bound {
                broken = Some(format!(
                    "process {process}, tenant {tenant}: {count} from {asked:?} on, {bound} expected at most"
                ));
            }
        }
    }
    if let Some(how) = broken {
        books.broken("token requests are bounded", how);
    }
}
